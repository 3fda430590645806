"""Messages to native prompt to tokens. Knows no HTTP and no engine."""
