"""What is known about families of models, and what kind a model is."""
