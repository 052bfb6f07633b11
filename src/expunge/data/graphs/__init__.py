"""Graphs whose nodes have features and labels: data, requests, and readers of public and of your own graphs."""
