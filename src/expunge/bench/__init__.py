"""Recipes × methods × forget sets × seeds: a table of methods that stands, because everything in it can be run again."""
