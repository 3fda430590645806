"""Tokenising prompts so that text of a request never becomes a control token."""
