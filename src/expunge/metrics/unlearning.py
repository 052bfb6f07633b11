"""The numbers of the classification benchmark: accuracies, gaps to retraining, ToW and ZRF.

Accuracies and gaps are in percent, as the papers print them; ToW takes fractions. A *gap* is an average over metrics of
differences to retraining. It can be small although nothing was forgotten: in the SVHN table of DualOptim (arXiv 2504.15827,
appendix) SalUn with two optimizers has the third-best gap and forgets less than plain fine-tuning. So a gap never stands
without the accuracy on the forgotten rows, and ``metrics.outcomes`` says in words what that one shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from expunge.core.errors import InputError
from expunge.metrics.intervals import Interval, checked_scores, mean_interval

MIA_CONVENTIONS = ("mia_svc_nonmember", "mia_entropy_member")


def _table(method: Mapping[str, Any], retrained: Mapping[str, Any]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Values by metric and seed of both, in one order; refuses what may not be averaged together."""
    names = list(method)
    if not names or set(names) != set(retrained):
        raise InputError(
            f"Expected the same metrics of the method and of retraining; got {names} and {list(retrained)}."
        )
    if vague := [name for name in names if name.lower() in ("mia", "mia_efficacy", "membership")]:
        raise InputError(
            f"Expected a membership number by the name of its convention, {' or '.join(MIA_CONVENTIONS)}; got "
            f"{vague[0]!r}. One counts non-members, the other members."
        )
    if set(MIA_CONVENTIONS) <= set(names):
        raise InputError("Expected one convention of membership in a gap; got both. Average them in two gaps.")
    if {"UA", "FA"} <= set(names):
        raise InputError("Expected UA or FA in a gap; got both, which are one number.")
    rows = [[np.atleast_1d(np.asarray(table[name], np.float64)) for name in names] for table in (method, retrained)]
    for row, word in zip(rows, ("the method", "retraining"), strict=True):
        for name, values in zip(names, row, strict=True):
            if len(checked_scores(values, name)) != len(row[0]) or not np.isfinite(values).all():
                raise InputError(
                    f"Expected finite values, one a seed and as many for each metric; {name} of {word} has "
                    f"{len(values)}, {names[0]} has {len(row[0])}."
                )
    return rows[0], rows[1]


@dataclass(frozen=True)
class Gap:
    """The average gap as SalUn and DualOptim print it, and the std beside it.

    Attributes:
        value: mean over metrics of |mean over seeds - mean of retraining over seeds|, with an interval.
        std: mean over metrics of the standard deviation over seeds, ddof 0 as the papers do.
        differences: by metric, method minus retraining, with sign.
        null: mean gap of retrained models against these retrained ones (independent seeds, normal values): what remains
            for perfect unlearning.
    """

    value: Interval
    std: float
    differences: Mapping[str, float]
    null: float


def average_gap(method: Mapping[str, Any], retrained: Mapping[str, Any], level: float = 0.95) -> Gap:
    """Mean over metrics of |mean over seeds - mean of retraining over seeds|.

    Averaging over seeds comes before the absolute value, so a method that misses on both sides in turn looks perfect:
    show :func:`gap_per_seed` beside it.

    The interval is Welch's for the difference of means, with the signs of the differences taken as they came out, and
    cut at 0. It keeps the correlation of metrics over seeds. Without bounds for a single seed.

    Args:
        method, retrained: by metric (``UA`` or ``FA``, ``RA``, ``TA``, and one of ``mia_svc_nonmember`` and
            ``mia_entropy_member``) one value a seed, in percent.

    Shapes:
        values (S,) and (R,), or numbers.

    Formal guarantee: none; where a difference is within chance of 0 its absolute value is biased upwards.

    Raises:
        InputError: if metrics differ, conventions are mixed, or seeds are missing.

    Source: SalUn (Fan et al. 2024, arXiv 2310.12508), DualOptim (Zhong et al. 2025, arXiv 2504.15827).
    """
    rows, references = _table(method, retrained)
    names = list(method)
    differences = np.array([a.mean() - b.mean() for a, b in zip(rows, references, strict=True)])
    sign = np.sign(differences)
    value = float(np.abs(differences).mean())
    first, second = ((sign[:, None] * np.stack(side)).mean(0) for side in (rows, references))  # (S,) and (R,)
    return Gap(
        _welch(value, first, second, level),
        average_std(method),
        dict(zip(names, differences.tolist(), strict=True)),
        float(
            np.mean([b.std(ddof=1) if len(b) > 1 else np.nan for b in references])
            * np.sqrt(2 / np.pi * (1 / len(rows[0]) + 1 / len(references[0])))
        ),
    )


def _welch(value: float, first: np.ndarray, second: np.ndarray, level: float) -> Interval:
    if min(len(first), len(second)) < 2:
        return Interval(value, 0.0, np.inf, None, level)
    parts = np.array([side.var(ddof=1) / len(side) for side in (first, second)])
    error = float(np.sqrt(parts.sum()))
    if error == 0:
        return Interval(value, value, value, 0.0, level)
    freedom = parts.sum() ** 2 / (parts**2 / np.array([len(first) - 1, len(second) - 1])).sum()
    half = float(special.stdtrit(freedom, (1 + level) / 2)) * error
    return Interval(value, max(0.0, value - half), value + half, error, level)


def average_std(method: Mapping[str, Any]) -> float:
    """The mean over metrics of the standard deviation over seeds, ddof 0: "Std" of the papers.

    Raises:
        InputError: without metrics.
    """
    if not method:
        raise InputError("Expected values of at least one metric; got none.")
    return float(np.mean([np.std(np.atleast_1d(np.asarray(values, np.float64))) for values in method.values()]))


@dataclass(frozen=True)
class GapPerSeed:
    """G1, the gap that a single deployment sees.

    Attributes:
        value: mean over seeds, with Student's interval over seeds.
        seeds: of each seed, (S,).
        paired: whether seeds were compared one to one, or each with the retrained mean.
    """

    value: Interval
    seeds: np.ndarray
    paired: bool


def gap_per_seed(
    method: Mapping[str, Any], retrained: Mapping[str, Any], *, paired: bool = False, level: float = 0.95
) -> GapPerSeed:
    """G1: for each seed the mean over metrics of |method - retraining|, then the mean over seeds.

    Against the retrained *mean* (default), or ``paired`` with the retrained model of the same seed. The interval treats
    the retrained values as fixed.

    Shapes:
        values (S,) and (R,); R = S if paired.

    Formal guarantee: G1 >= :func:`average_gap` of the same values, up to rounding. For metric k let d_ks be the
    difference of seed s. Unpaired d_ks = m_ks - mean(r_k), paired d_ks = m_ks - r_ks with all R = S retrained models
    used once; either way the mean of d_ks over s is mean(m_k) - mean(r_k). The absolute value is convex, so by Jensen's
    inequality mean_s |d_ks| >= |mean_s d_ks| for every k, and averaging over k keeps the inequality. The two are equal
    where no metric's differences change sign over seeds.

    Raises:
        InputError: as :func:`average_gap`, or paired with different numbers of seeds.
    """
    rows, references = (np.stack(side) for side in _table(method, retrained))  # (K, S) and (K, R)
    if paired and rows.shape != references.shape:
        raise InputError(
            f"Expected a retrained model for each seed to pair with; got {rows.shape[1]} seeds and "
            f"{references.shape[1]} retrained models. Use paired=False to compare with their mean."
        )
    seeds = np.abs(rows - (references if paired else references.mean(1, keepdims=True))).mean(0)
    return GapPerSeed(mean_interval(seeds, level), seeds, paired)


def tow(method: tuple[Any, Any, Any], retrained: tuple[Any, Any, Any], level: float = 0.95) -> Interval:
    """Tug of war, (1 - |FA - FA_r|) (1 - |RA - RA_r|) (1 - |TA - TA_r|): 1 where all three equal retraining.

    Each seed is compared with the retrained mean; the interval is Student's over seeds (none for one seed), with the
    retrained mean taken as fixed. What DualOptim's script calls ``tow`` is another thing, a mean absolute gap.

    Args:
        method, retrained: (FA, RA, TA) as fractions, numbers or one a seed.

    Raises:
        InputError: on values outside [0, 1], such as percents.

    Source: RUM (Zhao et al. 2024, arXiv 2406.01257).
    """
    return _product(method, retrained, ("FA", "RA", "TA"), level)


def tow_mia(method: tuple[Any, Any, Any], retrained: tuple[Any, Any, Any], level: float = 0.95) -> Interval:
    """ToW with the share of forgotten rows called non-members in the place of FA (convention ``svc_nonmember``).

    Args:
        method, retrained: (share of non-members, RA, TA) as fractions, numbers or one a seed.

    Raises:
        InputError: on values outside [0, 1], such as percents.

    Source: RUM (Zhao et al. 2024, arXiv 2406.01257).
    """
    return _product(method, retrained, ("non-members", "RA", "TA"), level)


def _product(method: Any, retrained: Any, names: tuple[str, ...], level: float) -> Interval:
    if len(method) != 3 or len(retrained) != 3:
        raise InputError(f"Expected {', '.join(names)}; got {len(method)} and {len(retrained)} values.")
    sides = [[np.atleast_1d(np.asarray(values, np.float64)) for values in side] for side in (method, retrained)]
    for name, values in zip(names * 2, sides[0] + sides[1], strict=True):
        if not len(values) or not ((values >= 0) & (values <= 1)).all():
            raise InputError(f"Expected {name} as a fraction from 0 to 1; got {values}. Divide percents by 100.")
    if len({len(values) for values in sides[0]}) != 1:
        raise InputError(f"Expected as many seeds of {', '.join(names)}; got {[len(v) for v in sides[0]]}.")
    seeds = np.prod([1 - np.abs(a - b.mean()) for a, b in zip(*sides, strict=True)], axis=0)
    return mean_interval(seeds, level)


def zrf(unlearned: Any, untrained: Any, base: float = 2.0, level: float = 0.95, *, released: bool = False) -> Interval:
    """ZRF: 1 - mean Jensen–Shannon divergence between the outputs of the unlearned and of an untrained network.

    With logarithms to base 2 (default) a row's divergence, and so the score, is from 0 to 1; with base e the score is
    from 1 - ln 2 = 0.307 to 1. 1 means "as random as the untrained network", which is *not* what retraining does: the
    ideal is the retrained model's value. The interval is Student's over rows.

    The released code has another number, which published tables show: the divergences *from* the middle *to* either side
    (reverse KL) instead of from either side to the middle, in nats, and averaged over rows *and classes*. It lies much
    nearer to 1. The two do not compare.

    Args:
        base: of the logarithms; the released form has nats whatever it is.
        released: the number of the released code instead of the definition in the paper.

    Shapes:
        unlearned, untrained (n, classes): probabilities on the forgotten rows.

    Formal guarantee: none.

    Raises:
        InputError: if rows are not distributions, or shapes differ.

    Source: Chundawat et al. 2023 ("Can bad teaching induce forgetting?").
    """
    p, q = np.asarray(unlearned, np.float64), np.asarray(untrained, np.float64)
    if p.ndim != 2 or p.shape != q.shape or not p.size or not base > 1:
        raise InputError(
            f"Expected two probability matrices of one shape (rows, classes) and a base above 1; got {p.shape}, "
            f"{q.shape} and base {base}."
        )
    for side in (p, q):
        if not ((side >= 0).all() and np.allclose(side.sum(1), 1, atol=1e-3)):
            raise InputError("Expected rows of probabilities that sum to 1; apply softmax to logits first.")
    middle = (p + q) / 2
    if released:
        divergence = (special.rel_entr(middle, p) + special.rel_entr(middle, q)).mean(1) / 2
    else:
        divergence = (special.rel_entr(p, middle) + special.rel_entr(q, middle)).sum(1) / 2 / np.log(base)
    return mean_interval(1 - divergence, level)
