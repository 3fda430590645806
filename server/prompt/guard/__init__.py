"""Tokenising rendered prompts: no text of a request becomes a control token."""
