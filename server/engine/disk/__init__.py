"""The prefix cache's tier on disk."""
