"""dragoman's own endpoints: models, health, metrics, templates and the playground."""
