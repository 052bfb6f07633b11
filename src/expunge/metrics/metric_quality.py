"""How good a metric of unlearning is: does it see knowledge, and does what it says last? (OpenUnlearning's meta-evaluation.)

Formal guarantee: none.
"""

from __future__ import annotations

from typing import Any

from expunge.core.errors import InputError
from expunge.metrics.intervals import Interval, auc_interval
from expunge.metrics.language import harmonic_mean


def faithfulness(knowing: Any, ignorant: Any, level: float = 0.95) -> Interval:
    """AUC of a metric between models that were trained on the facts and models that were not; larger: knows more.

    Shapes:
        (m,), (n,): 30 and 30 in the paper.

    Source: OpenUnlearning (arXiv 2506.12618).
    """
    return auc_interval(knowing, ignorant, level)


def relearning_robustness(unlearned: tuple[float, float], retrained: tuple[float, float]) -> float:
    """R = min(1, rise of the retrained model / rise of the unlearned one), from (before, after) learning it anew.

    Raises:
        InputError: if the unlearned model's value does not rise, or the retrained one's falls: R is not defined.

    Source: OpenUnlearning (arXiv 2506.12618).
    """
    rises = [after - before for before, after in (retrained, unlearned)]
    if not (rises[0] >= 0 and rises[1] > 0):
        raise InputError(f"Expected values that rise when the facts are learnt again; got rises {rises}.")
    return min(1.0, rises[0] / rises[1])


def quantisation_robustness(before: float, after: float) -> float:
    """Q = min(1, value before / value after) rounding an unlearned model's weights to 4 bits.

    Raises:
        InputError: if a value is negative, or the one after is 0: Q is not defined.

    Source: OpenUnlearning (arXiv 2506.12618).
    """
    if not (before >= 0 and after > 0):
        raise InputError(f"Expected values of at least 0, the one after rounding above it; got {before} and {after}.")
    return min(1.0, before / after)


def overall(faithful: float, quantisation: float, relearning: float) -> tuple[float, float]:
    """(robust, overall): harmonic means of Q and R, and of that and faithfulness.

    Source: OpenUnlearning (arXiv 2506.12618).
    """
    robust = harmonic_mean([quantisation, relearning])
    return robust, harmonic_mean([faithful, robust])
