"""The prefix cache: a radix tree over KV cells, and a store in host memory."""
