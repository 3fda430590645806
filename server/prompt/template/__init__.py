"""Running chat templates: compiled and rendered in a sandbox, within limits."""
