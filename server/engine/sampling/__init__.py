"""Choosing the next token: penalties, samplers, grammars and log-probabilities."""
