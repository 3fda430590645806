"""JSON Schemas, regular expressions and grammars, converted to llguidance's own format."""
