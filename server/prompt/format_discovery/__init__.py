"""Finding the format of a model's replies from its chat template."""
