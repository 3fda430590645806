"""Raw reply text to reasoning, content and tool calls, as it streams."""
