"""More than one machine: a front that requests arrive at, and replicas placed by Ray Serve."""
