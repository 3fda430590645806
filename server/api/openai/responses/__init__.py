"""OpenAI's Responses: made, counted, shortened, and kept to be fetched and gone on from."""
