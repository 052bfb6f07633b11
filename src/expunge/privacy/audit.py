"""Two worlds: can runs of the unlearned and of the retrained model be told apart better than (ε, δ) allows?

An audit never proves a guarantee. It refutes one, or it says "not refuted at this level, with this power".

Symbols: tp of n_pos unlearned runs and fp of n_neg retrained runs were called "unlearned"; (ε, δ) implies, for every
rule that was fixed before seeing these runs, TPR <= e^ε FPR + δ and 1 − FPR <= e^ε (1 − TPR) + δ.

Derived here from the definition of (ε, δ), with Clopper and Pearson's exact binomial intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from expunge.core.errors import InputError
from expunge.privacy.domain import count, failure_probability, non_negative, probability
from expunge.privacy.gaussian import check_target


def clopper_pearson_epsilon(tp: int, n_pos: int, fp: int, n_neg: int, delta: float, confidence: float = 0.95) -> float:
    """Return a lower bound on ε: the largest that the counts exclude, 0 if none.

    TPR is bounded from below and FPR from above, each with error (1 − confidence)/2; both inequalities of (ε, δ) use
    the same two bounds, so taking the better one costs nothing.

    Raises: InputError if a count is outside its range, or δ or the confidence outside its domain.
    Formal guarantee: with probability at least ``confidence`` the mechanism is not (ε', δ) for any ε' below the value,
    if the rule that called the runs was fixed without them.
    Derived here, with Clopper and Pearson's intervals.

    >>> [round(clopper_pearson_epsilon(n, n, 0, n, 0.0), 2) for n in (100, 1000, 10_000)]
    [3.28, 5.6, 7.9]
    """
    count("n_pos", n_pos, at_least=1)
    count("n_neg", n_neg, at_least=1)
    count("tp", tp, at_most=n_pos)
    count("fp", fp, at_most=n_neg)
    failure_probability("delta", delta)
    probability("confidence", confidence)
    return float(_epsilon_lower(np.array([tp]), n_pos, np.array([fp]), n_neg, delta, confidence)[0])


@dataclass(frozen=True)
class TwoWorldResult:
    """What a two-world test found; ``statement`` says it in words.

    ``epsilon_lower`` holds at ``confidence``; ``refuted`` means that it exceeds the certified ε; ``ceiling`` is what a
    perfect rule would have shown with as many test runs, so a certified ε above it cannot be refuted at all.
    """

    epsilon_lower: float
    refuted: bool
    ceiling: float
    threshold: float
    unlearned_scores_higher: bool
    tp: int
    n_pos: int
    fp: int
    n_neg: int
    confidence: float
    statement: str


def two_world(
    scores_unlearned: Sequence[float],
    scores_retrained: Sequence[float],
    epsilon: float,
    delta: float,
    confidence: float = 0.95,
) -> TwoWorldResult:
    """Test a certificate (ε, δ) on one score per independent run of each world.

    Threshold and direction are chosen on the even-numbered runs and tested on the odd-numbered ones. The score itself
    (a projection on the mean difference, a log-likelihood ratio) must not have been fitted on these runs either.

    Raises: InputError for fewer than 4 runs a world, a score that is NaN, or a target outside its domain.
    Formal guarantee: a true (ε, δ) certificate is refuted with probability at most 1 − confidence.
    Derived here.

    >>> result = two_world([0.0] * 200, [1.0] * 200, epsilon=1.0, delta=1e-5)
    >>> result.refuted, round(result.epsilon_lower, 2), result.unlearned_scores_higher
    (True, 3.28, False)
    """
    check_target(epsilon, delta)
    probability("confidence", confidence)
    worlds = [np.asarray(scores, dtype=float).ravel() for scores in (scores_unlearned, scores_retrained)]
    for name, scores in zip(("unlearned", "retrained"), worlds, strict=True):
        if scores.size < 4 or np.isnan(scores).any():
            raise InputError(
                f"{name} scores must be at least 4 numbers without NaN; got {scores.size} with "
                f"{int(np.isnan(scores).sum())} NaN. Run more models, or repair the score."
            )
    threshold, sign = _choose(worlds[0][::2], worlds[1][::2], delta, confidence)
    tested = [sign * scores[1::2] for scores in worlds]
    tp, fp = (int((scores >= threshold).sum()) for scores in tested)
    n_pos, n_neg = tested[0].size, tested[1].size
    lower = clopper_pearson_epsilon(tp, n_pos, fp, n_neg, delta, confidence)
    ceiling = clopper_pearson_epsilon(n_pos, n_pos, 0, n_neg, delta, confidence)
    refuted = lower > epsilon
    level = f"at confidence {confidence:g}, delta {delta:g}, with {n_pos} + {n_neg} test runs"
    if refuted:
        statement = f"refuted {level}: epsilon is at least {lower:.3f}, stated was {epsilon:g}"
    elif ceiling <= epsilon:
        statement = f"cannot be refuted {level}: even a perfect test shows no more than {ceiling:.3f} < {epsilon:g}"
    else:
        statement = f"not refuted {level}: shown is epsilon >= {lower:.3f}; up to {ceiling:.3f} could have been shown"
    return TwoWorldResult(
        lower, refuted, ceiling, sign * threshold, sign > 0, tp, n_pos, fp, n_neg, confidence, statement
    )


def gaussian_two_world_power(mu: float, trials: int, epsilon: float, delta: float, confidence: float = 0.95) -> float:
    """Return the probability that ``trials`` *test* runs a world refute (ε, δ) when the worlds really are N(0,1),
    N(μ,1).

    The threshold is the best fixed one, so the value is what a test that must also find it can reach at most.

    Raises: InputError if an argument is outside its domain.
    Formal guarantee: none; it says how much "not refuted" is worth.
    Derived here.

    >>> [round(gaussian_two_world_power(mu, 100, 1.0, 1e-5), 3) for mu in (0.268, 2.68)]
    [0.0, 1.0]
    """
    from scipy.special import bdtr, bdtrc, ndtr

    non_negative("mu", mu)
    check_target(epsilon, delta)
    count("trials", trials, at_least=1)
    tail = (1 - probability("confidence", confidence)) / 2
    counts = np.arange(trials + 1)
    tpr_low, fpr_high = _lower_limit(counts, trials, tail), _upper_limit(counts, trials, tail)
    # refuted if and only if TPR_low exceeds what either inequality allows at this number of false positives
    allowed = np.minimum(np.exp(epsilon) * fpr_high + delta, 1 - (1 - fpr_high - delta) * math.exp(-epsilon))
    needed = np.searchsorted(tpr_low, allowed, side="right")  # (trials + 1,) least tp that refutes, trials + 1 if none
    best = 0.0
    for threshold in np.linspace(-3.0, mu + 3.0, 61):
        tpr, fpr = float(ndtr(mu - threshold)), float(ndtr(-threshold))
        mass = np.diff(bdtr(counts, trials, fpr), prepend=0.0)
        reached = np.where(needed == 0, 1.0, bdtrc(np.maximum(needed - 1, 0), trials, tpr))
        best = max(best, float(mass @ np.where(needed > trials, 0.0, reached)))
    return min(1.0, best)


def largest_balanced_accuracy(epsilon: float, delta: float) -> float:
    """Return (e^ε + δ)/(e^ε + 1): no test of the two worlds, each with probability 1/2, is right more often.

    Raises: InputError if the target is outside its domain.
    Formal guarantee: follows from (ε, δ) for every test.
    Derived here: it is the sum of both inequalities of (ε, δ).

    >>> round(largest_balanced_accuracy(1.0, 1e-5), 3), round(largest_balanced_accuracy(2.0, 1e-5), 3)
    (0.731, 0.881)
    """
    check_target(epsilon, delta)
    return (1 + delta * math.exp(-epsilon)) / (1 + math.exp(-epsilon))


def largest_total_variation(epsilon: float, delta: float) -> float:
    """Return (e^ε − 1 + 2δ)/(e^ε + 1): the largest TPR − FPR that (ε, δ) allows.

    Raises: InputError if the target is outside its domain.
    Formal guarantee: follows from (ε, δ) for every test.
    Derived here: it is the sum of both inequalities of (ε, δ).

    >>> round(largest_total_variation(1.0, 1e-5), 4)
    0.4621
    """
    return 2 * largest_balanced_accuracy(epsilon, delta) - 1


def gaussian_auc(mu: float) -> float:
    """Return Φ(μ/√2): area under the ROC curve of the best test between N(0, 1) and N(μ, 1).

    Raises: InputError if μ < 0.
    Formal guarantee: exact for a Gaussian shift.
    Source: the area under the ROC curve of two normal distributions.

    >>> round(gaussian_auc(0.268), 3)
    0.575
    """
    return 0.5 * math.erfc(-non_negative("mu", mu, allow_inf=True) / 2)


def _lower_limit(hits: np.ndarray, n: int, tail: float) -> np.ndarray:
    """One-sided Clopper-Pearson lower limit of a rate. Shape of ``hits``."""
    from scipy.special import betaincinv

    return np.where(hits == 0, 0.0, betaincinv(np.maximum(hits, 1), n - np.maximum(hits, 1) + 1, tail))


def _upper_limit(hits: np.ndarray, n: int, tail: float) -> np.ndarray:
    """One-sided Clopper-Pearson upper limit of a rate. Shape of ``hits``."""
    return 1 - _lower_limit(n - hits, n, tail)


def _epsilon_lower(tp, n_pos: int, fp, n_neg: int, delta: float, confidence: float) -> np.ndarray:
    tail = (1 - confidence) / 2
    tpr_low, fpr_high = _lower_limit(tp, n_pos, tail), _upper_limit(fp, n_neg, tail)
    # fpr_high > 0 and tpr_low < 1 always; a ratio at or below 1 shows nothing
    ratio = np.maximum((tpr_low - delta) / fpr_high, (1 - fpr_high - delta) / (1 - tpr_low))
    return np.log(np.maximum(ratio, 1.0))


def _choose(unlearned: np.ndarray, retrained: np.ndarray, delta: float, confidence: float) -> tuple[float, float]:
    """Threshold and sign with the largest lower bound on the tuning runs; ties go to the larger TPR − FPR."""
    choices = []
    for sign in (1.0, -1.0):
        positive, negative = np.sort(sign * unlearned), np.sort(sign * retrained)
        values = np.unique(np.concatenate([positive, negative]))
        thresholds = (values[1:] + values[:-1]) / 2 if values.size > 1 else values
        tp = positive.size - np.searchsorted(positive, thresholds, side="left")
        fp = negative.size - np.searchsorted(negative, thresholds, side="left")
        lower = _epsilon_lower(tp, positive.size, fp, negative.size, delta, confidence)
        gain = tp / positive.size - fp / negative.size
        best = np.lexsort((gain, lower))[-1]
        choices.append((float(lower[best]), float(gain[best]), float(thresholds[best]), sign))
    _, _, threshold, sign = max(choices)
    return threshold, sign
