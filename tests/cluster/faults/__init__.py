"""A cluster that is asked while its parts fail: what clients hear, and what is stored."""
