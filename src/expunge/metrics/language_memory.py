"""How much of its training text a language model still has: memorised tokens, membership scores, PrivLeak.

Formal guarantee of all of them: none. An attack that finds nothing does not show that nothing is left.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.core.errors import InputError
from expunge.metrics.intervals import Interval, auc_interval, checked_scores
from expunge.metrics.language import harmonic_mean

IGNORED = -100  # label of prompt and padding tokens
LOWEST = 0.4  # share of tokens that Min-K looks at; OpenUnlearning and MUSE
LEAST_VARIANCE = 1e-6  # OpenUnlearning


@dataclass(frozen=True)
class TokenScores:
    """A score for each answer that has tokens.

    Attributes:
        values: (n,), in the order of the answers that were kept.
        kept: (n,), their positions.
        dropped: how many answers had no token besides the end token.
    """

    values: np.ndarray
    kept: np.ndarray
    dropped: int


def exact_memorization(predicted: Sequence[Any], labels: Sequence[Any], end: int | None = None) -> TokenScores:
    """EM: the share of an answer's tokens that are the likeliest ones when the true beginning is given.

    Args:
        predicted: the likeliest token at each place. labels: the true ones, :data:`IGNORED` outside the answer.
        end: the end token, which does not count where it is the last label.

    Shapes:
        one vector an answer, of its own length; padding on either side changes nothing.

    Raises:
        InputError: for vectors that do not pair up, or if no answer is left.

    Source: Tirumala et al. 2022 (arXiv 2205.10770), as OpenUnlearning (arXiv 2506.12618) computes it.
    """
    return _by_answer(predicted, labels, end, lambda same: float(same.mean()))


def extraction_strength(predicted: Sequence[Any], labels: Sequence[Any], end: int | None = None) -> TokenScores:
    """ES = 1 - k / L, with k the smallest offset from which on all likeliest tokens are the true ones.

    An answer whose last token is wrong has k = L and scores 0. OpenUnlearning's loop leaves k = L - 1 there, so that a
    wrong answer of one token scores 1.

    Args, Shapes, Raises: as :func:`exact_memorization`.

    Source: Carlini et al. 2021 (arXiv 2012.07805), after OpenUnlearning (arXiv 2506.12618).
    """
    return _by_answer(predicted, labels, end, lambda same: 1 - _last_wrong(same) / len(same))


def before_end(values: Sequence[Any], labels: Sequence[Any], end: int) -> list[np.ndarray]:
    """Token scores of each answer without that of the end token, where an answer has one: what Min-K and Min-K++ take.

    Shapes:
        one vector an answer, of its own length, alike in both.

    Source: OpenUnlearning (arXiv 2506.12618), whose membership attacks leave the end token out.
    """
    rows = zip(map(np.asarray, values), map(np.asarray, labels), strict=True)
    return [row[:-1] if len(truth) and truth[-1] == end else row for row, truth in rows]


def min_k(log_probs: Sequence[Any], lowest: float = LOWEST) -> TokenScores:
    """Minus the mean of the lowest max(1, floor(lowest × length)) token log-probabilities: low for members.

    The end token is no token of the answer: :func:`before_end` takes it off.

    Shapes:
        one vector an answer, of its own length.

    Raises:
        InputError: for a share outside (0, 1], NaN, or if no answer has tokens.

    Source: Min-K (Shi et al. 2024, arXiv 2310.16789), as OpenUnlearning (arXiv 2506.12618) computes it.
    """
    return _of_lowest([np.asarray(row, np.float64) for row in log_probs], lowest)


def min_k_plus_plus(
    log_probs: Sequence[Any], means: Sequence[Any], variances: Sequence[Any], lowest: float = LOWEST
) -> TokenScores:
    """Min-K of (log p - mu) / sigma, with mu and sigma² of log p under the model's own next-token distribution.

    Shapes:
        one vector an answer, of its own length, alike in all three; sigma² below 1e-6 counts as that.

    Raises:
        InputError: as :func:`min_k`, or if lengths differ.

    Source: Min-K++ (Zhang et al. 2024, arXiv 2404.02936), as OpenUnlearning (arXiv 2506.12618) computes it.
    """
    rows = []
    for i, three in enumerate(zip(log_probs, means, variances, strict=True)):
        p, mu, variance = (np.asarray(values, np.float64) for values in three)
        if not p.shape == mu.shape == variance.shape:
            raise InputError(f"Expected as many means and variances as tokens; answer {i}: {p.shape}, {mu.shape}.")
        rows.append((p - mu) / np.sqrt(np.maximum(variance, LEAST_VARIANCE)))
    return _of_lowest(rows, lowest)


def zlib_ratio(nll: Any, texts: Sequence[str]) -> np.ndarray:
    """N over the length of the compressed text: the loss beside how much there is to say. Low for members.

    Shapes:
        (n,), n texts → (n,).

    Raises:
        InputError: for different numbers or missing values.

    Source: Carlini et al. 2021 (arXiv 2012.07805).
    """
    array = checked_scores(nll, "nll")
    if len(array) != len(texts):
        raise InputError(f"Expected a text for each of {len(array)} losses; got {len(texts)}.")
    return array / np.array([len(zlib.compress(text.encode())) for text in texts])


def membership_auc(forget: Any, unseen: Any, level: float = 0.95) -> Interval:
    """AUC of an attack by scores that are *low* for members; 1 where the forget set is plainly still known.

    Shapes:
        forget (m,), unseen (n,): never trained on, and like the forget set.

    Raises:
        InputError: on empty or NaN scores.

    Source: OpenUnlearning (arXiv 2506.12618). The AUC of MUSE (arXiv 2407.06460) is one minus this.
    """
    return auc_interval(unseen, forget, level)


@dataclass(frozen=True)
class PrivLeak:
    """PrivLeak, and whether it stands beside a retrained model.

    Attributes:
        value: in percent. 0: as the retrained model; near -100: still memorised; far above 0: forgotten so thoroughly
            that it shows.
        assumed: the retrained model's AUC was taken as 0.5.
    """

    value: float
    assumed: bool


def privleak(auc: float, auc_retrained: float | None = None) -> PrivLeak:
    """100 ((1 - AUC) - (1 - AUC_r)) / (1 - AUC_r) of a Min-40 % attack, AUC as :func:`membership_auc` has it.

    MUSE writes (A - A_r) / A_r with A = 1 - AUC: the same number.

    Args:
        auc_retrained: without one 0.5 is assumed, and the result says so.

    Raises:
        InputError: for areas outside [0, 1], or a retrained AUC of 1, for which it is not defined.

    Source: MUSE (Shi et al. 2024, arXiv 2407.06460).
    """
    reference = 0.5 if auc_retrained is None else auc_retrained
    if not (0 <= auc <= 1 and 0 <= reference < 1):
        raise InputError(
            f"Expected AUCs from 0 to 1, the retrained model's below 1; got {auc} and {reference}. Is it that of scores "
            "which are low for members?"
        )
    return PrivLeak(100 * ((1 - auc) - (1 - reference)) / (1 - reference), auc_retrained is None)


def forgotten(extraction: float, exact: float, paraphrase_probability: float, knowledge_left: float) -> float:
    """OpenUnlearning's aggregate of memorisation: harmonic mean of 1 - ES, 1 - EM, 1 - probability of a paraphrase, 1 - TR.

    The truth ratio is the definition ``knowledge_left``. 1 is nothing left, on these four.

    Raises:
        InputError: for values outside [0, 1].

    Source: OpenUnlearning (arXiv 2506.12618).
    """
    four = (extraction, exact, paraphrase_probability, knowledge_left)
    if not all(0 <= value <= 1 for value in four):
        raise InputError(f"Expected four values from 0 to 1; got {four}.")
    return harmonic_mean([1 - value for value in four])


def _by_answer(
    predicted: Sequence[Any], labels: Sequence[Any], end: int | None, score: Callable[[np.ndarray], float]
) -> TokenScores:
    if len(predicted) != len(labels):
        raise InputError(f"Expected predictions for each answer; got {len(predicted)} and {len(labels)} labels.")
    values, kept = [], []
    for i, (guess, truth) in enumerate(zip(predicted, labels, strict=True)):
        guess, truth = np.asarray(guess), np.asarray(truth)
        if guess.shape != truth.shape or truth.ndim != 1:
            raise InputError(f"Expected a prediction for each label; answer {i} has {guess.shape} and {truth.shape}.")
        inside = truth != IGNORED
        same, truth = (guess == truth)[inside], truth[inside]
        if end is not None and len(truth) and truth[-1] == end:
            same = same[:-1]
        if len(same):
            values.append(score(same))
            kept.append(i)
    return _scores(values, kept, len(labels))


def _last_wrong(same: np.ndarray) -> int:
    """How many tokens up to and with the last wrong one."""
    wrong = np.flatnonzero(~same)
    return int(wrong[-1]) + 1 if len(wrong) else 0


def _of_lowest(rows: Sequence[np.ndarray], lowest: float) -> TokenScores:
    if not 0 < lowest <= 1:
        raise InputError(f"Expected a share of tokens above 0 and up to 1; got {lowest}.")
    values, kept = [], []
    for i, row in enumerate(rows):
        if row.ndim != 1 or np.isnan(row).any():
            raise InputError(f"Expected a vector of token scores without NaN; answer {i} is not: shape {row.shape}.")
        if len(row):
            values.append(-float(np.sort(row)[: max(1, int(lowest * len(row) + 1e-9))].mean()))
            kept.append(i)
    return _scores(values, kept, len(rows))


def _scores(values: list[float], kept: list[int], total: int) -> TokenScores:
    if not values:
        raise InputError(f"Expected at least one answer with tokens; all of {total} are empty.")
    return TokenScores(np.array(values), np.array(kept), total - len(kept))
