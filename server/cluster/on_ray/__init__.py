"""Ray: the only modules that import it."""
