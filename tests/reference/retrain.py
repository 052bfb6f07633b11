"""Training again without the rows, from the same start: the answer by which every other method is measured.

The definition: Ginart, Guan, Valiant and Zou, "Making AI Forget You", arXiv 1907.05012, Definition 3.1.
"""

from tests.reference.gradient_descent import descend


def unlearn(start, x, y, retained, *, l2, lr, steps):
    """Iterates on the retained rows, the start first."""
    return descend(start, x[retained], y[retained], l2=l2, lr=lr, steps=steps)
