"""The nouns every other room speaks in: small, frozen, free of heavy imports."""
