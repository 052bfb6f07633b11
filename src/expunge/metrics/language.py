"""Scores of a language model's answers: probability, truth ratio, forget quality, model utility (TOFU and after it).

Everything takes N, the *mean* negative log-likelihood of an answer's tokens, end token included, computed in single
precision: in half precision all truth ratios come out as 1.

Formal guarantee of all of them: none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from expunge.core.errors import InputError
from expunge.metrics.intervals import Interval, checked_scores, mean_interval

GEOMETRIC, ARITHMETIC, LEFT = "geometric", "arithmetic", "knowledge_left"
TRUTH_RATIOS = (GEOMETRIC, ARITHMETIC, LEFT)
GUARD = 1e-10  # added to the paraphrase's probability; as OpenUnlearning does
UTILITY_SETS = ("retain", "real_authors", "world_facts")


def answer_probability(nll: Any) -> np.ndarray:
    """exp(-N): the geometric mean probability of an answer's tokens.

    Shapes:
        nll (n,) → (n,).

    Raises:
        InputError: if a value is missing or negative.

    Source: TOFU (Maini et al. 2024, arXiv 2401.06121).
    """
    return np.exp(-_nll(nll, "nll"))


def choice_probability(nll: Any, wrong_nll: Any) -> np.ndarray:
    """exp(-N) over the sum of it and of the wrong options' exp(-N): for questions with options (real authors, world facts).

    Shapes:
        nll (n,), wrong_nll (n, options) → (n,).

    Raises:
        InputError: if a value is missing or negative, or shapes differ.

    Source: TOFU (Maini et al. 2024, arXiv 2401.06121).
    """
    right, wrong = _with_rows(nll, wrong_nll, "nll", "wrong_nll")
    return np.exp(-right - special.logsumexp(-np.column_stack([right, wrong]), axis=1))


@dataclass(frozen=True)
class TruthRatios:
    """A truth ratio for each item, and by which definition: numbers by different ones do not compare.

    Attributes:
        definition: one of :data:`TRUTH_RATIOS`.
        values: (n,).
    """

    definition: str
    values: np.ndarray

    def closeness(self, level: float = 0.95) -> Interval:
        """mean of min(TR, 1 / TR): the aggregate on the forget set, near 1 where neither answer is preferred.

        Raises:
            InputError: for ``knowledge_left``, which has a plain :meth:`mean`.
        """
        return mean_interval(np.minimum(self._ratio(), _inverse(self.values)), level)

    def utility(self) -> np.ndarray:
        """max(0, 1 - TR) of each item: the aggregate on the other sets is its mean.

        Raises:
            InputError: for ``knowledge_left``, which has a plain :meth:`mean`.
        """
        return np.maximum(0.0, 1 - self._ratio())

    def mean(self, level: float = 0.95) -> Interval:
        """The plain mean: the aggregate of ``knowledge_left``; of the others, hardly ever what is wanted."""
        return mean_interval(self.values, level)

    def _ratio(self) -> np.ndarray:
        if self.definition == LEFT:
            raise InputError(
                f"Expected a truth ratio by {GEOMETRIC} or {ARITHMETIC} mean; got {LEFT}, a share from 0 to 1 that is "
                "averaged as it is."
            )
        return self.values


def truth_ratio(
    paraphrase_nll: Any, perturbed_nll: Any, definition: str = GEOMETRIC, guard: float = GUARD
) -> TruthRatios:
    """How likely wrong answers are beside a right one in other words. Three definitions are in use:

    * ``geometric``: exp(-mean_k N_k) / (exp(-N) + guard); TOFU's published numbers, OpenUnlearning;
    * ``arithmetic``: mean_k exp(-N_k) / (exp(-N) + guard); a helper in TOFU's code. Model utility comes out 0.02 to 0.04
      lower;
    * ``knowledge_left``: exp(-N) / (exp(-N) + exp(-mean_k N_k) + guard), a share; the OpenUnlearning paper and code.

    Above 1 the wrong answers are likelier (of a share, below one half). A model that answers nothing has 0 / 0: with the
    guard its ratio goes to 0, with ``guard=0`` it stays what the logarithms say. Computed from logarithms throughout.

    Args:
        paraphrase_nll: N of the paraphrased answer; of the true one where a set has no paraphrases.
        perturbed_nll: N of the wrong ones.

    Shapes:
        (n,), (n, k) → values (n,).

    Raises:
        InputError: if a value is missing or negative, shapes differ, or the definition is unknown.

    Source: TOFU (Maini et al. 2024, arXiv 2401.06121) and its released code, OpenUnlearning (arXiv 2506.12618).
    """
    if definition not in TRUTH_RATIOS or not guard >= 0:
        raise InputError(
            f"Expected a definition among {', '.join(TRUTH_RATIOS)} and a guard of at least 0; got {definition!r}, {guard}."
        )
    right, wrong = _with_rows(paraphrase_nll, perturbed_nll, "paraphrase_nll", "perturbed_nll")
    geometric = -wrong.mean(1)
    below = np.logaddexp(-right, np.log(guard)) if guard > 0 else -right
    if definition == LEFT:
        return TruthRatios(definition, np.exp(-right - np.logaddexp(below, geometric)))
    above = geometric if definition == GEOMETRIC else special.logsumexp(-wrong, axis=1) - np.log(wrong.shape[1])
    with np.errstate(over="ignore"):
        return TruthRatios(definition, np.exp(above - below))


@dataclass(frozen=True)
class ForgetQuality:
    """A two-sample Kolmogorov–Smirnov test, with what it could at most have said.

    Attributes:
        p: the p-value, called forget quality.
        log10_p: finite also where ``p`` underflows.
        statistic: largest distance of the two distribution functions.
        n, m: items of the unlearned and of the retrained model. TOFU takes 300 of forget10, OpenUnlearning all 400.
        floor: the smallest p that n and m allow, 2 / C(n + m, n).
    """

    p: float
    log10_p: float
    statistic: float
    n: int
    m: int
    floor: float

    @property
    def separated(self) -> bool:
        """Whether the samples do not overlap at all. Then p is the floor: it counts items, and tells nothing finer."""
        return self.statistic == 1.0


def forget_quality(unlearned: TruthRatios, retrained: TruthRatios | None) -> ForgetQuality | None:
    """The p-value of "both models' truth ratios on the forget set have one distribution"; ``None`` without a retrained one.

    Taking 1 / TR for TR changes nothing. The floor is what every totally separated pair scores, however far apart:
    1.06e-239 for 400 on each side, 1.94e-119 for 200, 1.86e-23 for 40. A model that is on its way to ruin passes
    through the retrained model's distribution, so one high value shows little: look at all checkpoints.

    Raises:
        InputError: if definitions differ.

    Source: TOFU (Maini et al. 2024, arXiv 2401.06121). The floor is derived here: of C(n + m, n) equally likely orders of the
    values, two separate both models entirely.
    """
    if retrained is None:
        return None
    if unlearned.definition != retrained.definition:
        raise InputError(
            f"Expected truth ratios by one definition; got {unlearned.definition} and {retrained.definition}."
        )
    first, second = (checked_scores(side.values, "truth ratios") for side in (unlearned, retrained))
    n, m = len(first), len(second)
    from scipy import stats  # slow to import, and nothing else here needs it

    test: Any = stats.ks_2samp(first, second)
    statistic, p = float(test.statistic), float(test.pvalue)
    log_floor = float(np.log(2) - (special.gammaln(n + m + 1) - special.gammaln(n + 1) - special.gammaln(m + 1)))
    if statistic == 1.0:
        log_p, p = log_floor, float(np.exp(log_floor))
    elif p > 0:
        log_p = float(np.log(p))
    else:  # below the smallest number: the leading term of the limit law
        log_p = float(np.log(2) - 2 * n * m / (n + m) * statistic**2)
    return ForgetQuality(p, log_p / float(np.log(10)), statistic, n, m, float(np.exp(log_floor)))


def harmonic_mean(values: Sequence[float]) -> float:
    """k / sum 1 / v; 0 if any value is 0.

    Raises:
        InputError: for no values, NaN or a negative one: they would vanish in the mean.
    """
    array = checked_scores(values, "values")
    if (array < 0).any() or not np.isfinite(array).all():
        raise InputError(f"Expected finite values of at least 0 for a harmonic mean; got {array.tolist()}.")
    return 0.0 if (array == 0).any() else float(len(array) / (1 / array).sum())


@dataclass(frozen=True)
class SetScores:
    """Scores of each item of one set, in one order.

    Attributes:
        probability: :func:`answer_probability` on the retain set, :func:`choice_probability` on the two others.
        rouge: ROUGE-L recall.
        truth_ratio: by one definition on all sets.

    Shapes:
        (n,) each.
    """

    probability: Any
    rouge: Any
    truth_ratio: TruthRatios


@dataclass(frozen=True)
class ModelUtility:
    """Model utility and the nine means it is made of.

    Attributes:
        value: with a delta-method interval over items, cut at 0 and 1; scores of one item go together.
        parts: by set, (probability, rouge, truth ratio aggregate).
        definition: of the truth ratio.
    """

    value: Interval
    parts: Mapping[str, tuple[float, float, float]]
    definition: str


def model_utility(sets: Mapping[str, SetScores], level: float = 0.95) -> ModelUtility:
    """The harmonic mean of nine: {retain, real authors, world facts} × {probability, ROUGE-L recall, truth ratio aggregate}.

    Any 0 makes it 0.

    Args:
        sets: exactly the three of :data:`UTILITY_SETS`.

    Raises:
        InputError: for other sets, values that are missing or outside [0, 1], or two definitions of the truth ratio.

    Source: TOFU (Maini et al. 2024, arXiv 2401.06121).
    """
    if set(sets) != set(UTILITY_SETS):
        raise InputError(f"Expected scores of {', '.join(UTILITY_SETS)}; got {', '.join(sets) or 'none'}.")
    definitions = {scores.truth_ratio.definition for scores in sets.values()}
    if len(definitions) != 1:
        raise InputError(f"Expected truth ratios by one definition on all sets; got {', '.join(sorted(definitions))}.")
    columns = {name: _columns(name, scores) for name, scores in sets.items()}  # (n, 3) each
    parts = {name: tuple(table.mean(0).tolist()) for name, table in columns.items()}
    nine = np.array([value for three in parts.values() for value in three])
    value = harmonic_mean(nine.tolist())
    if value == 0 or min(len(table) for table in columns.values()) < 2:
        return ModelUtility(Interval(value, 0.0, 1.0, None, level), parts, *definitions)
    variance = 0.0
    for name, table in columns.items():
        slope = value**2 / (len(nine) * np.array(parts[name]) ** 2)
        variance += float((table @ slope).var(ddof=1)) / len(table)
    half = float(special.ndtri((1 + level) / 2)) * np.sqrt(variance)
    found = Interval(value, max(0.0, value - half), min(1.0, value + half), float(np.sqrt(variance)), level)
    return ModelUtility(found, parts, *definitions)


def _columns(name: str, scores: SetScores) -> np.ndarray:
    three = (scores.probability, scores.rouge, scores.truth_ratio.utility())
    table = [checked_scores(values, f"scores of {name}") for values in three]
    if len({len(column) for column in table}) != 1:
        raise InputError(f"Expected as many scores of each kind on {name}; got {[len(column) for column in table]}.")
    array = np.column_stack(table)
    if not ((array >= 0) & (array <= 1 + 1e-9)).all():
        raise InputError(
            f"Expected scores of {name} from 0 to 1; they reach from {array.min():.3g} to {array.max():.3g}."
        )
    return array


def _nll(values: Any, name: str) -> np.ndarray:
    array = checked_scores(values, name)
    if (array < 0).any():
        raise InputError(
            f"Expected {name} as mean negative log-likelihoods, 0 or above; got {array.min():.3g}. Change the sign of "
            "log-probabilities."
        )
    return array


def _with_rows(values: Any, rows: Any, name: str, rows_name: str) -> tuple[np.ndarray, np.ndarray]:
    first = _nll(values, name)
    table = np.asarray(rows, np.float64)
    if table.ndim != 2 or table.shape[0] != len(first) or not table.shape[1]:
        raise InputError(f"Expected {rows_name} as ({len(first)}, k), a row for each of {name}; got {table.shape}.")
    return first, _nll(table.ravel(), rows_name).reshape(table.shape)


def _inverse(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return 1 / values
