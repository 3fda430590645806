"""The API family of OpenAI: chat completions, completions and embeddings."""
