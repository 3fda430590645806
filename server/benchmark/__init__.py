"""A load generator for any OpenAI endpoint: workloads, the client that times them, a report."""
