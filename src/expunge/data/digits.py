"""scikit-learn's digits: 1,797 real images of 8 × 8 pixels, no network needed."""

from __future__ import annotations

import numpy as np
import torch

from expunge.data.rows import Rows, by_reader

PIXEL_MAX = 16.0  # scikit-learn's documented range; data-independent, so deleting a row cannot change it
GROUP_SIZE = 10  # consecutive images that stand for one person: synthetic, and said so wherever it is shown


def digits(test: int = 360) -> tuple[Rows, Rows]:
    """Training and test rows; column ``person`` groups ten consecutive training images (synthetic people).

    Pixels are divided by 16, a constant, so that no row's preparation depends on another's. The test rows are the last
    ``test`` images, so no group straddles the split.

    Shapes:
        x: (n, 64) float32.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(np.asarray(pixels)).float() / PIXEL_MAX
    y = torch.from_numpy(np.asarray(labels))
    fixed = by_reader("fixed", "pixels divided by constants")
    cut = len(x) - test
    people = np.arange(cut) // GROUP_SIZE
    return (
        Rows.of(x[:cut], y[:cut], {"person": people}, preprocessing=fixed),
        Rows.of(x[cut:], y[cut:], preprocessing=fixed),
    )
