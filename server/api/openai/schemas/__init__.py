"""Wire types only (pydantic): the bodies that OpenAI clients send and expect."""
