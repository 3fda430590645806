"""The raw text of a reply: parsed while it streams, written, and held to a grammar."""
