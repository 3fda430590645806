"""What the next step computes, how large it may be, and with how many threads."""
