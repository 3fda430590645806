"""Finding the reply format of a chat template; a round trip judges every candidate."""
