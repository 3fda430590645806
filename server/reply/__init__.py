"""Raw reply text -> reasoning, content and tool calls, as it streams."""
