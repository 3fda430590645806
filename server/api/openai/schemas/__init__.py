"""Wire types only (pydantic): what OpenAI clients send and expect."""
