"""The mathematics of forgetting: sensitivity, Gaussian noise, composition, audits; numpy and scipy only, usable alone.

Import what you need from its module, for example ``from expunge.privacy.gaussian import sigma_of``; this package imports
nothing by itself, so that a command that prints a help text does not pay for scipy.
"""
