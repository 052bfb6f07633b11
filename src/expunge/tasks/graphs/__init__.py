"""How graph networks are run: sparse products, layers, networks, and the task that classifies nodes."""
