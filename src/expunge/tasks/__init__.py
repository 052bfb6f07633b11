"""How each kind of model is run."""
