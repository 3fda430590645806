"""The front: one address for all replicas. It needs no Ray."""
