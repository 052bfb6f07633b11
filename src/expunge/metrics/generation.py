"""How good and how varied drawn images are, from the features that a classifier has of them and of real ones."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from expunge.core.errors import InputError
from expunge.metrics.intervals import checked_scores

NEIGHBOURS = 3  # of the recall: k of Kynkäänniemi et al. (arXiv 1904.06991, section 3)
DRAWS = 10  # pairs of halves of real images; our choice


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """``|m - m'|² + tr(S + S' - 2 (S S')^(1/2))`` of means and covariances of two sets of features (arXiv 1706.08500).

    Small samples make it too large, by about the same for every model on as many images: read it beside
    :func:`frechet_between_real`. On other features than those of the Inception network it is no FID.

    Shapes:
        first (n, d), second (m, d).

    Raises:
        InputError: for fewer than two examples of either, or features that differ in number.

    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((500, 3))
    >>> round(frechet_distance(x, x + 2), 6)
    12.0
    """
    first, second = _features(first), _features(second)
    if first.shape[1] != second.shape[1]:
        raise InputError(f"Expected as many features of both sets; got {first.shape[1]} and {second.shape[1]}.")
    apart = first.mean(0) - second.mean(0)
    one, other = (np.atleast_2d(np.cov(each, rowvar=False)) for each in (first, second))
    # the trace of (S S')^(1/2) is the sum of the roots of the eigenvalues of S S', which are those of S^(1/2) S' S^(1/2)
    root = _root(one)
    crossed = np.sqrt(np.clip(linalg.eigvalsh(root @ other @ root), 0, None)).sum()
    return float(max(apart @ apart + np.trace(one) + np.trace(other) - 2 * crossed, 0.0))


def frechet_between_real(real: np.ndarray, size: int, seed: int = 0) -> float:
    """What perfect images would score: the mean distance of ``size`` real images from all the other real ones.

    Both come from one distribution, so that this is the bias at this number of images and nothing else.

    Shapes:
        real (n, d), with ``size`` < n - 1.

    Raises:
        InputError: where fewer than two others are left.
    """
    real = _features(real)
    if not 2 <= size <= len(real) - 2:
        raise InputError(f"Expected between 2 and {len(real) - 2} of {len(real)} real images; got {size}.")
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(DRAWS):
        order = draw.permutation(len(real))
        found.append(frechet_distance(real[order[:size]], real[order[size:]]))
    return float(np.mean(found))


def recall(real: np.ndarray, drawn: np.ndarray, neighbours: int = NEIGHBOURS) -> float:
    """Share of real images that lie within the distance from some drawn image to its ``neighbours``-th nearest drawn one.

    How much of what is real the model can draw: improved recall (Kynkäänniemi et al., arXiv 1904.06991).

    Shapes:
        real (n, d), drawn (m, d) with m > ``neighbours``.

    Raises:
        InputError: for fewer drawn images than that.
    """
    real, drawn = _features(real), _features(drawn)
    if len(drawn) <= neighbours:
        raise InputError(f"Expected more than {neighbours} drawn images; got {len(drawn)}.")
    among = _distances(drawn, drawn)
    radius = np.sort(among, 1)[:, neighbours]  # the nearest is the image itself
    return float((_distances(real, drawn) <= radius[None]).any(1).mean())


def _features(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2:
        raise InputError(f"Expected features of at least two images, (n, d); got shape {values.shape}.")
    checked_scores(values.ravel(), "features")
    return values


def _root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric square root of a covariance."""
    values, vectors = linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1)[None] - 2 * first @ second.T
    return np.sqrt(np.clip(squares, 0, None))
