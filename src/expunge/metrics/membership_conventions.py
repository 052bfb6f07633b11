"""The two membership numbers of the classification papers, under names that keep them apart, and their ingredients.

``svc_nonmember_percent`` (SalUn, Unlearn-Sparse: "MIA", "MIA-efficacy") is the percent of forgotten rows that a support
vector machine on the true label's confidence calls *non*-members; a retrained ResNet-18 has about 13 on CIFAR-10.
``entropy_member_percent`` (SFRon, DualOptim: also "MIA") is the percent that a logistic regression on entropy calls
members; the same model has about 76 (DualOptim, arXiv 2504.15827, Table 1a). They move in opposite directions, so a table
holds one of them.
Neither has a good value of its own: both are read beside a retrained model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from expunge.core.errors import InputError
from expunge.metrics.intervals import Interval, checked_scores, wilson

PENALTY = 3.0  # "C=3", released code of Unlearn-Sparse and SalUn
BOUNDARY = 1e-6  # decision values this small are rounding
_ITERATIONS = 100  # some 10 to 35 are needed
_TERMS = 14  # of exp(2xy) for |x|, |y| <= 1/2: what is left out is below 1e-15


@dataclass(frozen=True)
class MembershipPercent:
    """Percent of forgotten rows called one thing by one convention.

    Attributes:
        convention: ``mia_svc_nonmember`` or ``mia_entropy_member``, the name in the catalogue and in gaps.
        value: in percent, with Wilson's interval over forgotten rows, the attack taken as fixed.
        members, nonmembers: rows that the attack was fitted on.
    """

    convention: str
    value: Interval
    members: int
    nonmembers: int


def svc_nonmember_percent(retain_confidence: Any, test_confidence: Any, forget_confidence: Any) -> MembershipPercent:
    """Percent of forgotten rows called NON-members by an SVC on the true label's confidence ("MIA-efficacy").

    ``SVC(C=3, gamma="auto", kernel="rbf")``; members are the *first* ``len(test)`` retained rows in the order given,
    non-members all test rows. With fewer retained than test rows the first ``len(retain)`` test rows are taken, so that
    both sides stay equal (released code would fit on unequal sides, and then calls nearly everything the larger one).

    The classifier is the optimum of the same problem, found in another way: with one feature and gamma = 1 the kernel
    on [0, 1] is a sum of 14 products to machine precision, so an interior-point method needs some 20 linear systems of
    15 unknowns where libsvm needs thousands of steps with rows of the full kernel. libsvm stops at a tolerance of 1e-3
    and may call single rows near the boundary differently. Rows on the boundary to within 1e-6, as where members and
    non-members have the same confidences, count one half.

    Shapes:
        retain (R,), test (T,), forget (F,): softmax probabilities of each row's true label, with test transforms.

    Formal guarantee: none; one weak attack. The ideal is the retrained model's value, not 100.

    Raises:
        InputError: on empty vectors, NaN, or values outside [0, 1], such as losses or entropies.

    Source: released code of Unlearn-Sparse (Jia et al. 2023, arXiv 2304.04934) and SalUn (Fan et al. 2024, arXiv 2310.12508).
    """
    retain, test, forget = (
        _confidences(values, name)
        for values, name in (
            (retain_confidence, "retain_confidence"),
            (test_confidence, "test_confidence"),
            (forget_confidence, "forget_confidence"),
        )
    )
    count = min(len(retain), len(test))
    decision = _support_vectors(retain[:count], test[:count], forget)
    called = float((decision < -BOUNDARY).sum() + (np.abs(decision) <= BOUNDARY).sum() / 2)
    return MembershipPercent("mia_svc_nonmember", _percent(called, len(forget)), count, count)


def entropy_member_percent(retain_entropy: Any, test_entropy: Any, forget_entropy: Any) -> MembershipPercent:
    """Percent of forgotten rows called MEMBERS by a logistic regression on the entropy of the softmax output.

    ``LogisticRegression(class_weight="balanced", solver="lbfgs")`` with scikit-learn's other defaults; members are all
    retained rows, non-members all test rows.

    Shapes:
        retain (R,), test (T,), forget (F,): :func:`entropy` of each row.

    Formal guarantee: none; one weak attack. The ideal is the retrained model's value, neither 0 nor 50.

    Raises:
        InputError: on empty vectors, or entropies that are negative or not finite.

    Source: released code of SFRon (Huang et al. 2024, arXiv 2409.19732) and DualOptim (Zhong et al. 2025, arXiv 2504.15827).
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, and not every reader of numbers attacks

    retain, test, forget = (
        _losses(values, name)
        for values, name in (
            (retain_entropy, "retain_entropy"),
            (test_entropy, "test_entropy"),
            (forget_entropy, "forget_entropy"),
        )
    )
    attack = LogisticRegression(class_weight="balanced", solver="lbfgs")
    attack.fit(np.concatenate([retain, test])[:, None], np.repeat([1, 0], [len(retain), len(test)]))
    called = float(np.sum(attack.predict(forget[:, None])))
    return MembershipPercent("mia_entropy_member", _percent(called, len(forget)), len(retain), len(test))


def true_label_confidence(probabilities: Any, labels: Any) -> np.ndarray:
    """The probability of each row's own label.

    Shapes:
        probabilities (n, classes), labels (n,) whole numbers → (n,).

    Raises:
        InputError: if rows are not distributions, or a label has no column.
    """
    p, y = _distributions(probabilities), _labels(labels, np.shape(probabilities))
    return p[np.arange(len(p)), y]


def entropy(probabilities: Any) -> np.ndarray:
    """-sum_c p_c ln p_c of each row, in nats, with 0 ln 0 = 0.

    Shapes:
        (n, classes) → (n,).

    Raises:
        InputError: if rows are not distributions.
    """
    return special.entr(_distributions(probabilities)).sum(1)


def _percent(called: float, rows: int) -> Interval:
    """``called`` of ``rows``, in percent; Wilson's interval is taken around the whole number of rows nearest to it."""
    share = wilson(round(called), rows)
    return Interval(100 * called / rows, 100 * share.low, 100 * share.high, 100 * (share.error or 0.0))


def _confidences(values: Any, name: str) -> np.ndarray:
    array = checked_scores(values, name)
    if array.min() < 0 or array.max() > 1 + 1e-5:
        raise InputError(
            f"Expected {name} as probabilities of the true label, from 0 to 1; they reach from {array.min():.3g} to "
            f"{array.max():.3g}. This attack takes neither entropies nor losses."
        )
    return np.minimum(array, 1.0)


def _losses(values: Any, name: str) -> np.ndarray:
    array = checked_scores(values, name)
    if array.min() < -1e-5 or not np.isfinite(array).all():
        raise InputError(
            f"Expected {name} finite and not negative; they reach from {array.min():.3g} to {array.max():.3g}."
        )
    return array


def _distributions(probabilities: Any) -> np.ndarray:
    p = np.asarray(probabilities, np.float64)
    if p.ndim != 2 or not p.size or not ((p >= 0).all() and np.allclose(p.sum(1), 1, atol=1e-3)):
        raise InputError(
            f"Expected rows of probabilities (n, classes) that sum to 1; got shape {p.shape}. Apply softmax to logits."
        )
    return p


def _labels(labels: Any, shape: tuple[int, ...]) -> np.ndarray:
    y = np.asarray(labels)
    if y.shape != shape[:1] or y.dtype.kind not in "iu" or not 0 <= y.min() <= y.max() < shape[1]:
        raise InputError(f"Expected a whole-number label from 0 to {shape[-1] - 1} for each of {shape[0]} rows.")
    return y


def _features(x: np.ndarray) -> np.ndarray:
    """exp(-(x - y)²) = phi(x) · phi(y) on [0, 1], from the series of exp(2 x y) around the middle: (n,) → (n, 14)."""
    k = np.arange(_TERMS)
    centred = x[:, None] - 0.5
    return np.exp(-(centred**2)) * np.sqrt(2.0**k / special.factorial(k)) * centred**k


def _support_vectors(members: np.ndarray, nonmembers: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Decision value at ``rows`` of the soft-margin machine, above 0 for members.

    The dual, min 1/2 a'Qa - 1'a with 0 <= a <= C and y'a = 0, by Mehrotra's predictor and corrector. Q has rank 14, so
    that each step is a system in (w, b). Equal rows are merged: their bounds add up, the optimum stays the same.

    Shapes:
        (m,), (n,), (k,) → (k,).
    """
    value, count, label = [], [], []
    for side, sign in ((members, 1.0), (nonmembers, -1.0)):
        distinct, times = np.unique(side, return_counts=True)
        value, count, label = [*value, distinct], [*count, times], [*label, np.full(len(distinct), sign)]
    x, bound, y = np.concatenate(value), PENALTY * np.concatenate(count), np.concatenate(label)
    phi = np.concatenate([_features(x), np.ones((len(x), 1))], axis=1)  # the last column carries the intercept
    ridge = np.append(np.ones(_TERMS), 0.0)
    a, low, high = bound / 2, np.ones(len(x)), np.ones(len(x))  # low and high: multipliers of a >= 0 and a <= bound
    weight = np.append((a * y) @ phi[:, :-1], 0.0)  # (w, b)
    for _ in range(_ITERATIONS):
        slack = bound - a
        tilt = y * (phi @ weight) - 1 - low + high  # 0 at the optimum
        off = (a * y) @ phi
        primal = np.append(off[:-1] - weight[:-1], off[-1])  # w = sum a y phi and sum a y = 0, as both should be
        mu = (a @ low + slack @ high) / (2 * len(x))
        if mu * 2 * len(x) < 1e-9 * (1 + a.sum()) and np.abs(tilt).max() < 1e-8 and abs(off[-1]) < 1e-8 * bound.sum():
            break
        scale = 1 / (low / a + high / slack)
        system = (phi * scale[:, None]).T @ phi + np.diag(ridge)
        target_low, target_high = -a * low, -slack * high
        for centring in (True, False):
            pull = -tilt + target_low / a - target_high / slack
            step = np.linalg.solve(system, (pull * y * scale) @ phi + primal)
            da = scale * (pull - y * (phi @ step))
            dlow, dhigh = (target_low - low * da) / a, (target_high + high * da) / slack
            reach = 1.0 if centring else 0.995
            along = min(1.0, reach * _room(a, da), reach * _room(slack, -da))
            across = min(1.0, reach * _room(low, dlow), reach * _room(high, dhigh))
            if centring:
                ahead = (a + along * da) @ (low + across * dlow) + (slack - along * da) @ (high + across * dhigh)
                sigma = (ahead / (2 * len(x)) / mu) ** 3
                target_low = sigma * mu - a * low - da * dlow
                target_high = sigma * mu - slack * high + da * dhigh
        pace = min(along, across)  # one length for both keeps the residuals shrinking together
        a, low, high, weight = a + pace * da, low + pace * dlow, high + pace * dhigh, weight + pace * step
    else:  # never seen; slow and certain
        from sklearn.svm import SVC

        machine = SVC(C=PENALTY, gamma="auto", kernel="rbf")
        machine.fit(np.concatenate([members, nonmembers])[:, None], np.repeat([1, 0], [len(members), len(nonmembers)]))
        return machine.decision_function(rows[:, None])
    w = weight[:-1]
    return _features(rows) @ w + _intercept(phi[:, :-1] @ w, y, np.concatenate(count))


def _intercept(score: np.ndarray, y: np.ndarray, count: np.ndarray) -> float:
    """The middle of all b that minimise the hinge loss given w, as libsvm takes it; often there is just one.

    The loss is piecewise linear in b with a corner at y - score of each row, where its slope rises by the row's count.
    """
    corner = y - score
    order = np.argsort(corner)
    slope = np.cumsum(count[order]) - count[y > 0].sum()  # after each corner
    first = int(np.searchsorted(slope, 0))
    last = min(first + int(slope[first] == 0), len(slope) - 1)
    return float(corner[order[first]] + corner[order[last]]) / 2


def _room(at: np.ndarray, step: np.ndarray) -> float:
    """The largest multiple of ``step`` that keeps ``at`` from going below 0."""
    shrinking = step < 0
    return float((at[shrinking] / -step[shrinking]).min()) if shrinking.any() else np.inf
