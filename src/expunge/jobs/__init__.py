"""A deletion job from its YAML file to its evidence folder."""
