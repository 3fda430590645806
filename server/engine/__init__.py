"""Scheduling, prefix sharing, sampling and decoding over llama.h; no HTTP and no chat."""
