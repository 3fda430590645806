"""The HTTP side: one module per resource, wire types in `schemas`, server-sent events in `sse`."""
