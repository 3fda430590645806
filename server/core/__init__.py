"""Shared by all other packages: requests, events, errors, settings and facts about models."""
