"""Messages to native prompt to tokens, and raw text back to a message. Knows no HTTP."""
