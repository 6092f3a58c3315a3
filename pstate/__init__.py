"""A transactional store for small state: one YAML file that a person can edit, mapped to Python objects."""
