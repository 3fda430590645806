"""OpenAI's Conversations: lists of items that are stored, which responses go on from and add to."""
