"""Wire types only (pydantic): the bodies that Anthropic's clients send and expect."""
