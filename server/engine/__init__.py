"""Scheduling, prefix sharing, sampling and decoding over llama.h. Knows no HTTP and no chat."""
