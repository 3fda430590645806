"""Families: chat templates with their data, which model gets which, and the model's kind."""
