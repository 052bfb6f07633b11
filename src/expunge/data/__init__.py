"""Readers of real data, offline first; every data set knows how to lose a part of itself."""
