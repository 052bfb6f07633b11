"""Graphs whose nodes have features and labels: the data, requests on them, and readers of public and of the user's own graphs."""
