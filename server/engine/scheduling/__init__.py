"""Planning of steps: their contents, their size, and the number of threads."""
