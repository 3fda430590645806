"""What every other room shares: requests, events, errors, settings and facts about models."""
