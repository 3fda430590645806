"""Measures this server and its peers side by side: `make bench`."""
