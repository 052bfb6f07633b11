"""Can forgotten rows still be told from rows the model never saw? The same attack on original, unlearned and retrained.

Positives are forgotten rows, negatives held-out rows; an area of 0.5 is what chance gives *only* if both come from one
distribution. A retrained model can score far from 0.5 where they do not, so an attack on the unlearned model is read
beside the same attack on the retrained one, and the difference is tested. An attack that finds
nothing proves nothing: forgetting was not refuted by this attack on these rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.evidence.utility import RowOutputs, _run, row_outputs
from expunge.metrics.intervals import Difference, Interval, auc_difference, auc_interval, null_error
from expunge.metrics.membership import lira_scores, log_odds


@dataclass(frozen=True, eq=False)
class Attack:
    """One attack on one model.

    Attributes:
        name: which attack.
        auc: area under the curve; above 0.5 forgotten rows look more like members than held-out rows do. Its interval
            is about which rows were drawn, with the model held fixed.
        null_error: standard error of the area if forgotten and held-out rows were alike.
        forgotten, heldout: score of each row, larger is more like a member. Private: they are about single people.
    """

    name: str
    auc: Interval
    null_error: float
    forgotten: np.ndarray = field(repr=False)
    heldout: np.ndarray = field(repr=False)

    @property
    def n(self) -> tuple[int, int]:
        """How many forgotten and how many held-out rows."""
        return len(self.forgotten), len(self.heldout)


def _attack(name: str, forgotten: np.ndarray, heldout: np.ndarray, level: float) -> Attack:
    return Attack(name, auc_interval(forgotten, heldout, level), null_error(forgotten, heldout), forgotten, heldout)


def loss_attack(task: Task, tensors: Mapping[str, Tensor], forget: Any, holdout: Any, level: float = 0.95) -> Attack:
    """Rows with a small loss are taken for members (Yeom et al. 2018).

    Formal guarantee: none.

    Raises:
        InputError: as ``evidence.utility.row_outputs``.
    """
    scores = [-row_outputs(task, tensors, rows).losses for rows in (forget, holdout)]
    return _attack("loss", scores[0], scores[1], level)


def confidence_attack(
    task: Task, tensors: Mapping[str, Tensor], forget: Any, holdout: Any, level: float = 0.95
) -> Attack:
    """Rows on which the model is sure of *some* class are taken for members; labels are not needed (Salem et al. 2019).

    The score is the log-odds of the most probable class: it orders rows as the largest probability does, without
    saturating at 1.

    Formal guarantee: none.

    Raises:
        InputError: as ``evidence.utility.row_outputs``.
    """
    outputs = [row_outputs(task, tensors, rows) for rows in (forget, holdout)]
    scores = [log_odds(each.logits, each.logits.argmax(-1)) for each in outputs]
    return _attack("confidence", scores[0], scores[1], level)


def reference_membership(n_fixed: int, n_pool: int, references: int, generator: np.random.Generator) -> np.ndarray:
    """Which reference trains on which rows: fixed rows always, each pool row in exactly half of the references.

    The pool is the forgotten rows and as many or more held-out ones; the fixed rows are the rest of what is retained.
    Each pool row draws its half on its own, so that a reference holds about half of the pool (Carlini et al. 2022).

    Shapes:
        → (references, n_fixed + n_pool) bool, fixed rows first.

    Raises:
        InputError: if ``references`` is odd or below 2, or there is no pool.
    """
    if references < 2 or references % 2 or n_pool < 1 or n_fixed < 0:
        raise InputError(
            f"Expected an even number of references, 2 or more, and a pool of at least one row; got references="
            f"{references}, n_pool={n_pool}, n_fixed={n_fixed}."
        )
    half = np.repeat([True, False], references // 2)[:, None]
    pool = generator.permuted(np.tile(half, (1, n_pool)), axis=0)
    return np.concatenate([np.ones((references, n_fixed), dtype=bool), pool], axis=1)


@dataclass(frozen=True, eq=False)
class ReferenceScores:
    """What every reference says about every pool row; computed once, used for each attacked model.

    Shapes:
        scores, members: (R, N), forgotten rows first, then held-out ones.
    """

    scores: np.ndarray
    members: np.ndarray


def reference_scores(
    task: Task, references: Mapping[str, Tensor], membership: np.ndarray, forget: Any, holdout: Any
) -> ReferenceScores:
    """Log-odds of the true class of every pool row under every reference.

    Args:
        references: stacked tensors, name → (R, ...), from ``training.shadow_models``.
        membership: (R, n) as the references were trained; its *last* columns are the pool: the rows of ``forget``, then
            those of ``holdout``.

    Raises:
        InputError: if references, membership and rows disagree.
    """
    count = len(next(iter(references.values())))
    pool = len(forget) + len(holdout)
    if membership.ndim != 2 or len(membership) != count or membership.shape[1] < pool:
        raise InputError(
            f"Expected a membership matrix of {count} references by at least {pool} rows, the last of them the pool; "
            f"got shape {membership.shape}."
        )
    first = {name: tensor[0] for name, tensor in references.items()}
    model = task.build(first).eval()
    scores = [
        np.concatenate([_true_log_odds(_run(task, model, tensors, rows)) for rows in (forget, holdout)])
        for tensors in ({name: tensor[r] for name, tensor in references.items()} for r in range(count))
    ]
    return ReferenceScores(np.stack(scores), membership[:, membership.shape[1] - pool :])


def _true_log_odds(outputs: RowOutputs) -> np.ndarray:
    return log_odds(outputs.logits, outputs.labels)


def lira_attack(
    task: Task,
    tensors: Mapping[str, Tensor],
    forget: Any,
    holdout: Any,
    references: ReferenceScores,
    *,
    online: bool = True,
    variance: str | None = None,
    level: float = 0.95,
) -> Attack:
    """The likelihood-ratio attack (Carlini et al. 2022), each row against references trained with and without it.

    Args:
        references: from :func:`reference_scores` on the same ``forget`` and ``holdout``.
        online, variance: see ``metrics.membership.lira_scores``.

    Formal guarantee: none; the strongest of the three here, and still a lower bound on what an adversary can do.

    Raises:
        InputError: as ``evidence.utility.row_outputs`` and ``metrics.membership.lira_scores``.
    """
    target = np.concatenate([_true_log_odds(row_outputs(task, tensors, rows)) for rows in (forget, holdout)])
    scores = lira_scores(target, references.scores, references.members, online=online, variance=variance)
    name = "lira" if online else "lira-offline"
    return _attack(name, scores[: len(forget)], scores[len(forget) :], level)


def difference_test(unlearned: Attack, retrained: Attack, level: float = 0.95) -> Difference:
    """Whether the attack does differently on the unlearned than on the retrained model: DeLong's paired test.

    Both attacks must have scored the same rows in the same order. The test holds both models fixed: it does not know
    how much two retrainings differ, which several retrained models show.

    Formal guarantee: none; a small p refutes "like retraining" for these two models, a large one confirms nothing.

    Raises:
        InputError: if the attacks differ in kind or in rows.
    """
    if unlearned.name != retrained.name:
        raise InputError(f"Expected the same attack on both models; got {unlearned.name} and {retrained.name}.")
    return auc_difference(
        (unlearned.forgotten, unlearned.heldout), (retrained.forgotten, retrained.heldout), level=level
    )
