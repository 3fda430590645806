"""Probing what a chat template can express, and shaping conversations to that."""
