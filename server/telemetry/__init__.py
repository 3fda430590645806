"""Metrics for Prometheus, what each request used, and the log."""
