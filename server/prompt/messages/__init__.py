"""Conversations, shaped to what a chat template can express."""
