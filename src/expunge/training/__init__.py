"""Fitting on record, and ensembles of retrainings."""
