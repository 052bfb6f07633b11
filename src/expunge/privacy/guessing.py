"""Audits by guessing: canaries that were forgotten or never there, batches that were or were not forgotten.

The guarantee compares an unlearned model with a retrained one. Two *unlearned* models whose forgotten sets differ are
each (ε, δ)-close to the same retrained model, hence only (2ε, (1+e^ε)δ)-close to each other: both levels are returned,
and the one to compare with a certificate is called ``certificate_epsilon``. This needs canaries (batches) that are
either in the training data and then forgotten, or not in the data at all: then all runs share one retrained model, and
the certificate must cover the whole group. One that stays in the data when it is not forgotten says nothing about the
certificate.

Source: Steinke, Nasr, Jagielski 2023 (arXiv 2305.08846). Guessing halves follows the public code "Auditing of Unlearning
Algorithms" (Sahasrajit123/audit-unlearning-code); its paper is not known to us.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from expunge.core.errors import InputError
from expunge.privacy.domain import count, failure_probability, non_negative, probability


@dataclass(frozen=True)
class GuessingAudit:
    """Lower bounds on ε at confidence 1 − ``alpha``.

    ``mechanism_epsilon``: between two unlearned models (what the published audit reports);
    ``certificate_epsilon``: of the certificate, i.e. the largest ε for which (2ε, (1+e^ε)δ) is rejected; about half.
    """

    mechanism_epsilon: float
    certificate_epsilon: float
    alpha: float

    def refutes(self, epsilon: float) -> bool:
        """Whether a certificate (ε, δ) with the audited δ is rejected."""
        return self.certificate_epsilon > epsilon


def one_run_audit_pvalue(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Return the p-value of v ``correct`` out of r ``guesses`` about m ``canaries`` under (ε, δ), at most 1.

    P[Bin(r, q) >= v] + 2mδ max_{1<=i<=v} P[v > Bin(r, q) >= v−i]/i, q = 1/(1 + e^−ε).

    Raises: InputError if a count or a level is outside its domain.
    Formal guarantee: under (ε, δ) for every canary's inclusion, P[p-value <= α] <= α.
    Source: Steinke et al. 2023 (arXiv 2305.08846), Theorem 5.2.

    >>> round(one_run_audit_pvalue(100, 100, 75, math.log(3), 0.0), 4)
    0.5535
    """
    from scipy.special import bdtr

    count("canaries (m)", canaries, at_least=1)
    count("guesses (r)", guesses, at_most=canaries)
    count("correct (v)", correct, at_most=guesses)
    non_negative("epsilon", epsilon)
    failure_probability("delta", delta)
    if correct == 0:
        return 1.0
    miss = math.exp(-epsilon) / (1 + math.exp(-epsilon))
    # P[Bin(r, q) >= k] = P[Bin(r, 1−q) <= r−k], accurate in the tail; k = v, v−1, ..., 0
    at_least = bdtr(guesses - np.arange(correct, -1, -1.0), guesses, miss)
    slack = float(np.max((at_least[1:] - at_least[0]) / np.arange(1, correct + 1)))
    return min(1.0, float(at_least[0]) + 2 * canaries * delta * slack)


def one_run_audit_epsilon(
    canaries: int, guesses: int, correct: int, delta: float, alpha: float = 0.05
) -> GuessingAudit:
    """Return both lower bounds on ε (see ``GuessingAudit``) at significance ``alpha``.

    Raises: InputError if a count or a level is outside its domain.
    Formal guarantee: each bound is below the true ε with probability at least 1 − α.
    Source: Steinke et al. 2023 (arXiv 2305.08846); that two unlearned models may differ by 2ε is derived here.

    >>> audit = one_run_audit_epsilon(1000, 100, 75, 1e-4)
    >>> round(audit.mechanism_epsilon, 4), round(audit.certificate_epsilon, 3), audit.refutes(0.5)
    (0.673, 0.312, False)
    """
    probability("alpha", alpha)
    failure_probability("delta", delta)

    def rejects(epsilon: float, failure: float) -> bool:
        return failure < 1 and one_run_audit_pvalue(canaries, guesses, correct, epsilon, failure) <= alpha

    return _invert(rejects, delta, alpha)


def halves_log_count(batches: int, trials: int, hits: int) -> float:
    """Return a Chernoff bound on ln of the number of outcomes with at least ``hits`` batches right in all ``trials``.

    Each trial guesses which k/2 of k ``batches`` were forgotten; of all guesses C(k/2, j)² have j batches right.

    Raises: InputError if k is odd or a count outside its range.
    Formal guarantee: upper bound min_t ln((Σ_j C(k/2, j)² e^{tj})^T e^{−t·hits}), t >= 0.
    Source: the public code named above bounds such a count by Chernoff's method; this way of counting is ours.

    >>> round(halves_log_count(8, 10, 40), 4), round(halves_log_count(8, 10, 0) / math.log(70), 4)
    (0.0, 10.0)
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import gammaln, logsumexp

    half = _half(batches)
    count("trials", trials, at_least=1)
    count("hits", hits, at_most=half * trials)
    right = np.arange(half + 1)
    log_ways = 2 * (gammaln(half + 1) - gammaln(right + 1) - gammaln(half - right + 1))

    def exponent(tilt: float) -> float:
        return trials * float(np.asarray(logsumexp(log_ways + tilt * right))) - tilt * hits

    found = minimize_scalar(exponent, bounds=(0.0, 60.0), method="bounded", options={"xatol": 1e-9})
    return max(0.0, min(exponent(0.0), float(found.fun)))


def forget_batch_log_pvalue(log_count: float, batches: int, trials: int, epsilon: float, delta: float) -> float:
    """Return ln M + T ln((e^ε + (Z−1)δ)/(e^ε + Z−1)), at most 0, for Z = C(k, k/2) equally likely forgotten halves.

    ``log_count`` ln M = number of outcomes at least as good as the one seen (``halves_log_count``).

    Raises: InputError if k is odd or a level is outside its domain.
    Formal guarantee: ln of an upper bound on the probability of so good an outcome in T independent runs, under (ε, δ).
    Source: the public code named above, with (Z−1)δ for its (Z−1)δ/Z: summing P[z|z] <= e^ε P[z|z'] + δ over all pairs
    gives the former, and Z = 2 must give ``audit.largest_balanced_accuracy``, (e^ε + δ)/(e^ε + 1).

    >>> round(forget_batch_log_pvalue(0.0, 2, 1, 1.0, 0.0), 4)  # ln of the balanced accuracy 0.7311
    -0.3133
    """
    half = _half(batches)
    count("trials", trials, at_least=1)
    non_negative("log_count", log_count)
    non_negative("epsilon", epsilon)
    failure_probability("delta", delta)
    others = math.comb(2 * half, half) - 1  # Z − 1
    right = (1 + others * delta * math.exp(-epsilon)) / (1 + others * math.exp(-epsilon))
    return min(0.0, log_count + trials * math.log(min(1.0, right)))


def forget_batch_audit(batches: int, trials: int, hits: int, delta: float, alpha: float = 0.05) -> GuessingAudit:
    """Return lower bounds on ε from guessing, in each of T runs, which half of k batches had been forgotten.

    Raises: InputError if a count or a level is outside its domain.
    Formal guarantee: each bound is below the true ε with probability at least 1 − α.
    Source: the public code named above, with the corrected bound of ``forget_batch_log_pvalue``.

    >>> audit = forget_batch_audit(8, 10, 40, 0.0)  # all right
    >>> round(audit.mechanism_epsilon, 3), audit.refutes(2.0)
    (5.286, True)
    """
    log_alpha = math.log(probability("alpha", alpha))
    failure_probability("delta", delta)
    log_count = halves_log_count(batches, trials, hits)

    def rejects(epsilon: float, failure: float) -> bool:
        return failure < 1 and forget_batch_log_pvalue(log_count, batches, trials, epsilon, failure) <= log_alpha

    return _invert(rejects, delta, alpha)


def _half(batches: int) -> int:
    if count("batches (k)", batches, at_least=2, at_most=1000) % 2:
        raise InputError(f"batches (k) must be even, half of them are forgotten; got {batches!r}. Merge or split one.")
    return batches // 2


def _invert(rejects: Callable[[float, float], bool], delta: float, alpha: float) -> GuessingAudit:
    """Largest rejected ε between unlearned models, and of the certificate by way of the retrained one they share."""
    direct = _largest_rejected(lambda epsilon: rejects(epsilon, delta))
    # 40 is beyond any audit, and keeps e^ε finite
    shared = _largest_rejected(lambda epsilon: rejects(2 * epsilon, (1 + math.exp(min(epsilon, 40.0))) * delta))
    return GuessingAudit(direct, shared, alpha)


def _largest_rejected(rejected: Callable[[float], bool]) -> float:
    """Bisect to the last rejected ε; 0 if none is; the safe (rejected) side is returned."""
    if not rejected(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while rejected(high) and high < 700:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rejected(middle) else (low, middle)
    return low
