"""Chat templates, run in a sandbox within limits."""
