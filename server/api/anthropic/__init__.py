"""The API family of Anthropic: messages, the count of their tokens, and models."""
