"""One spawned process per loaded model, and what the API process needs to talk to it."""
