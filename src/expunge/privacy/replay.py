"""Audits that replay a deterministic procedure: one retraining, or one replayed release, can refute a certificate.

Full-batch training and unlearning are deterministic up to the noise. So the distance that a sensitivity bound bounds
can be measured, and a release minus its replay must be exactly the noise that the certificate speaks of. What is
measured here depends on the forgotten records: keep it private (realised ε), publish only the verdict.

Derived here: these tests are ours and come from no paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from expunge.core.errors import InputError
from expunge.privacy.domain import count, non_negative, positive
from expunge.privacy.gaussian import epsilon_of


@dataclass(frozen=True)
class RetrainCheck:
    """``refuted`` if the measured ``distance`` exceeds ``sensitivity`` (weights); ``ratio`` = distance/sensitivity."""

    refuted: bool
    distance: float
    sensitivity: float
    ratio: float


def retrain_check(distance: float, sensitivity: float, *, rounding: float = 0.0) -> RetrainCheck:
    """Compare the distance of the un-noised unlearned from the un-noised retrained weights with its proven bound.

    ``rounding`` (weights) is what floating-point training may add to the distance; 1e-9 of the bound is always granted.

    Raises: InputError if an argument is negative; an infinite or NaN distance is refused too.
    Formal guarantee: "refuted" is final for deterministic training; "not refuted" speaks of this forgotten set only.
    Source: derived here.

    >>> retrain_check(1.0, 2.0).refuted, retrain_check(2.1, 2.0).refuted, retrain_check(2.1, 2.0).ratio
    (False, True, 1.05)
    """
    non_negative("distance", distance)
    non_negative("sensitivity", sensitivity, allow_inf=True)
    refuted = distance > sensitivity * (1 + 1e-9) + non_negative("rounding", rounding)
    ratio = distance / sensitivity if sensitivity > 0 else (0.0 if distance == 0 else math.inf)
    return RetrainCheck(refuted, distance, sensitivity, ratio)


def realised_epsilon(distance: float, sigma: float, delta: float) -> float:
    """Return the exact ε at δ of noise σ (weights) for the measured ``distance`` (weights): at most the certified one.

    Raises: InputError if an argument is outside its domain.
    Formal guarantee: exact for this forgotten set; it depends on the data, so it is a secret, not a certificate.
    Source: Balle and Wang 2018 (arXiv 1805.06530), Theorem 8, at the measured distance.

    >>> round(realised_epsilon(0.5, 1.0, 1e-5), 4), realised_epsilon(0.0, 0.0, 1e-5), realised_epsilon(0.1, 0.0, 1e-5)
    (1.9931, 0.0, inf)
    """
    non_negative("distance", distance, allow_inf=True)
    non_negative("sigma", sigma)
    if distance == 0:
        return 0.0
    return epsilon_of(distance / sigma if sigma > 0 else math.inf, delta)


@dataclass(frozen=True)
class NoiseCheck:
    """``p_value`` of the noise hypothesis; ``statistic``: what was compared (see the function that returned it)."""

    p_value: float
    statistic: float

    def refutes(self, alpha: float = 1e-6) -> bool:
        """Whether the hypothesis is rejected; the default is strict because every release is checked."""
        return self.p_value <= alpha


def replay_check(
    residual: Sequence[float] | np.ndarray | None = None,
    *,
    squared_norm: float | None = None,
    sigma: float,
    dimension: int | None = None,
) -> NoiseCheck:
    """Test whether a release minus its un-noised replay can be N(0, σ²I): two-sided χ² on the squared norm.

    Pass the ``residual`` vector, or its ``squared_norm`` (weights²) with the ``dimension`` d. The statistic is the
    implied standard deviation ‖residual‖/√d (weights).

    Raises: InputError if neither or both are given, or a value is outside its domain.
    Formal guarantee: under the claimed noise, P[p-value <= α] <= α.
    Source: derived here.

    >>> check = replay_check(squared_norm=100.0, sigma=1.0, dimension=100)
    >>> check.refutes(), check.statistic, replay_check(squared_norm=1.0, sigma=1.0, dimension=100).refutes()
    (False, 1.0, True)
    """
    from scipy.special import chdtr, chdtrc

    if (residual is None) == (squared_norm is None):
        raise InputError(
            "replay_check needs either the residual vector or its squared_norm; got both or none. Pass one."
        )
    if residual is not None:
        vector = np.asarray(residual, dtype=float).ravel()
        squared_norm, dimension = float(vector @ vector), vector.size
    if squared_norm is None or dimension is None:
        raise InputError("squared_norm needs the dimension of the residual; got None. Pass dimension.")
    count("dimension", dimension, at_least=1)
    non_negative("squared_norm", squared_norm)
    ratio = squared_norm / positive("sigma", sigma) ** 2
    p_value = min(1.0, 2 * min(float(chdtr(dimension, ratio)), float(chdtrc(dimension, ratio))))
    return NoiseCheck(p_value, math.sqrt(squared_norm / dimension))


def noise_reuse_check(residual_a: Sequence[float] | np.ndarray, residual_b: Sequence[float] | np.ndarray) -> NoiseCheck:
    """Test whether two releases' noise vectors are independent: exact test of their correlation, any two σ.

    Two releases that share a vector, even rescaled, reveal the exact difference of their weights. The statistic is the
    cosine c; under independence c² is Beta(1/2, (d−1)/2).

    Raises: InputError if the shapes differ, d < 2, or a vector is zero or not finite.
    Formal guarantee: for independent isotropic noise P[p-value <= α] = α.
    Source: derived here. R2D's released code scales one noise vector for all releases of a sweep.

    >>> noise = np.random.default_rng(0).standard_normal((2, 1000))
    >>> noise_reuse_check(noise[0], noise[1]).refutes(), noise_reuse_check(noise[0], 3 * noise[0]).refutes()
    (False, True)
    """
    from scipy.special import betaincc

    a, b = (np.asarray(vector, dtype=float).ravel() for vector in (residual_a, residual_b))
    if a.size != b.size or a.size < 2:
        raise InputError(
            f"both residuals must have the same dimension of at least 2; got {a.size} and {b.size}. "
            "Compare releases of one architecture."
        )
    lengths = [float(np.linalg.norm(vector)) for vector in (a, b)]
    if not all(0 < length < math.inf for length in lengths):
        raise InputError(f"both residuals must be finite and not zero; got norms {lengths}. Was noise added at all?")
    cosine = float((a / lengths[0]) @ (b / lengths[1]))
    return NoiseCheck(float(betaincc(0.5, (a.size - 1) / 2, min(1.0, cosine**2))), cosine)
