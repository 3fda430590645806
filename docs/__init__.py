"""Generators of the generated documentation: `make docs`."""
