"""Pure functions: scores in, numbers with intervals out."""
