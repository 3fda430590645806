"""``/v1/files``: files that clients upload, and results of batches."""
