"""Schemas, regular expressions and grammars in llguidance's own format."""
