"""In the worker process: loading a model, preparing requests, and serving them."""
