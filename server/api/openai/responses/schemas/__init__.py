"""Bodies and answers of the Responses endpoints."""
