"""Connections, bodies, middleware and server-sent events; knows no API family."""
