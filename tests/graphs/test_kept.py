"""What a model keeps of what training on deleted edges does to the answers on them."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.evidence.explanations.kept import shares_kept
from expunge.metrics.prediction_band import Band

EDGES = 60


def made(seed: int, count: int, pattern: float, sure: float = 1.0) -> np.ndarray:
    """Scores of models that are more or less sure of all edges, and of each by chance; ``pattern`` is what training adds."""
    draw = np.random.default_rng(seed)
    taught = np.random.default_rng(99).exponential(1.0, EDGES)
    return 3 + sure * draw.standard_normal((count, 1)) + draw.standard_normal((count, EDGES)) + pattern * taught


def placed_by_the_formula(known, retrained, score):
    covariance = np.cov(retrained.T)
    k = len(covariance)
    covariance = 0.5 * covariance + 0.5 * np.trace(covariance) / k * np.eye(k)
    way = known - retrained.mean(0)
    weights = np.linalg.inv(covariance) @ way
    return weights @ (score - retrained.mean(0)) / (weights @ way)


def test_places_are_those_of_the_formula():
    known, retrained, others = made(0, 12, 1.5)[:, :7].mean(0), made(1, 5, 0.0)[:, :7], made(2, 3, 0.3)[:, :7]
    placed = shares_kept(known, retrained, np.concatenate([others, known[None], retrained.mean(0)[None]]))
    assert placed is not None
    assert placed[1][:3] == pytest.approx([placed_by_the_formula(known, retrained, each) for each in others])
    assert placed[1][3:] == pytest.approx([1, 0], abs=1e-12)
    assert placed[0] == pytest.approx(
        [placed_by_the_formula(known, np.delete(retrained, i, 0), retrained[i]) for i in range(5)]
    )


@pytest.mark.parametrize("seed", range(8))
def test_it_sees_what_the_mean_does_not_and_accuses_no_retrained_model(seed):
    """Models differ by how sure they are of all edges, and training on an edge adds to that edge alone."""
    known = made(3 * seed, 12, 1.5).mean(0)
    retrained, more = made(3 * seed + 1, 20, 0.0), made(3 * seed + 2, 10, 0.0)
    kept = made(1000 + seed, 10, 1.5)
    placed = shares_kept(known, retrained, np.concatenate([more, kept]))
    assert placed is not None
    band, coarse = Band.of(placed[0].tolist()), Band.of(retrained.mean(1).tolist())
    assert all(band.holds(each) for each in placed[1][:10]) and not any(band.holds(each) for each in placed[1][10:])
    assert sum(coarse.holds(each.mean()) for each in kept) >= 6
    assert abs(placed[1][10:].mean() - 1) < 0.25


def test_a_model_that_forgot_and_kept_its_own_noise_is_not_accused():
    """The original's scores without the pattern: what it owes to its seed alone is no memory of the edges."""
    known, retrained = made(0, 12, 1.5).mean(0), made(1, 20, 0.0)
    original = made(2, 1, 1.5)
    cleaned = original - 1.5 * np.random.default_rng(99).exponential(1.0, EDGES)
    placed = shares_kept(known, retrained, np.concatenate([original, cleaned]))
    assert placed is not None
    band = Band.of(placed[0].tolist())
    assert [band.holds(each) for each in placed[1]] == [False, True]


def test_where_nothing_can_be_told_there_is_no_number():
    known, retrained = made(0, 12, 1.5).mean(0), made(1, 4, 0.0)
    assert shares_kept(known, retrained[:2], retrained) is None
    none = np.empty((4, 0))
    assert shares_kept(none[0], none, none) is None
    same = np.ones((4, 3))
    assert shares_kept(same[0], same, same) is None  # a minimum: training on the edges changed nothing
