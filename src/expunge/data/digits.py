"""scikit-learn's digits: 1,797 real images of 8 × 8 pixels, no network needed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

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
    pixels, labels = _read()
    x = torch.from_numpy(pixels).float() / PIXEL_MAX
    y = torch.from_numpy(labels)
    fixed = by_reader("fixed", "pixels divided by constants")
    cut = len(x) - test
    people = np.arange(cut) // GROUP_SIZE
    return (
        Rows.of(x[:cut], y[:cut], {"person": people}, preprocessing=fixed),
        Rows.of(x[cut:], y[cut:], preprocessing=fixed),
    )


def _read(name: str = "digits.csv.gz") -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 64) float64 and labels (n,) int64, from the file in scikit-learn: importing it takes two seconds more."""
    package = find_spec("sklearn")
    path = Path("" if package is None else package.origin or "").parent / "datasets" / "data" / name
    if path.is_file():
        table = np.loadtxt(path, delimiter=",")
        return table[:, :-1], table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits  # a version that keeps its data elsewhere

    pixels, labels = load_digits(return_X_y=True)
    return np.asarray(pixels), np.asarray(labels)
