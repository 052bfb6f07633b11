"""A first look at a request before anything is forgotten for it: rows are counted, the wording of texts is compared.

What it finds is recorded beside the decision; a person may overrule it.
"""

from expunge.screening.rows import BROAD, Screening, screen

__all__ = ["BROAD", "Screening", "screen"]
