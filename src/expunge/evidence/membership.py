"""Can forgotten examples still be told from examples the model never saw? The same attack on original, unlearned and retrained.

Positives are forgotten examples, negatives held-out ones; an area of 0.5 is what chance gives *only* if both come from one
distribution. A retrained model can score far from 0.5 where they do not, so an attack on the unlearned model is read
beside the same attack on the retrained one, and the difference is tested. An attack that finds
nothing proves nothing: forgetting was not refuted by this attack on these examples.

Attacks see what a model was read as (see ``evidence.comparison``) and run no model themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from expunge.core.errors import InputError
from expunge.metrics.intervals import Interval, auc_interval, null_error
from expunge.metrics.membership import lira_scores

FORGET, HELD_OUT = "forget", "test"


@dataclass(frozen=True)
class MembershipAttack:
    """An attack on one kind of model.

    Attributes:
        name: which; the metric is ``membership_NAME``.
        statistic: what it looks at in a model's readings of a set: one number for each example, (n,).
        shadows: whether a statistic is compared with that of shadow models that were trained with and without each example
            (the likelihood ratio), or is larger for members by itself.
        heldout: the set of examples that no model was trained on.
    """

    name: str
    statistic: Callable[[Any, str], np.ndarray]
    shadows: bool = False
    heldout: str = HELD_OUT


@dataclass(frozen=True, eq=False)
class Shadows:
    """What shadow models were read as, and which examples each was trained on.

    Attributes:
        readings: of each shadow model, of the forgotten examples and of a pool of held-out ones under their set's name.
        members: (R, N) bool, forgotten examples first, then the pool.
        pool: (N - forgotten,), positions of the pool in the held-out set.
    """

    readings: tuple[Any, ...]
    members: np.ndarray
    pool: np.ndarray


@dataclass(frozen=True, eq=False)
class AttackResult:
    """One attack on one model.

    Attributes:
        name: which attack.
        auc: area under the curve; above 0.5 forgotten examples look more like members than held-out ones do. Its
            interval is about which examples were drawn, with the model held fixed.
        null_error: standard error of the area if forgotten and held-out examples were alike.
        forgotten, heldout: score of each example, larger is more like a member. Private: they are about single people.
    """

    name: str
    auc: Interval
    null_error: float
    forgotten: np.ndarray = field(repr=False)
    heldout: np.ndarray = field(repr=False)

    @property
    def n(self) -> tuple[int, int]:
        """How many forgotten and how many held-out examples."""
        return len(self.forgotten), len(self.heldout)


def attacked(
    attack: MembershipAttack,
    readings: Any,
    shadows: Shadows | None = None,
    *,
    online: bool = True,
    variance: str | None = None,
    level: float = 0.95,
) -> AttackResult:
    """``attack`` on a model that was read as ``readings``.

    Args:
        shadows: for an attack that compares with shadow models. online, variance: see ``metrics.membership.lira_scores``.

    Formal guarantee: none; the likelihood ratio is the strongest here, and still a lower bound on what an adversary can do.

    Raises:
        InputError: without the shadow models that the attack needs, or with some of other examples; see also
            ``metrics.membership.lira_scores``.

    Source: loss, Yeom et al. 2018 (arXiv 1709.01604); likelihood ratio, Carlini et al. 2022 (arXiv 2112.03570).
    """
    forgotten, heldout = (attack.statistic(readings, name) for name in (FORGET, attack.heldout))
    if attack.shadows:
        if shadows is None:
            raise InputError(
                f"Expected shadow models for the attack {attack.name}, which compares with them; got none."
            )
        target = np.concatenate([forgotten, heldout[shadows.pool]])
        rows = [np.concatenate([attack.statistic(each, name) for name in (FORGET, attack.heldout)])
                for each in shadows.readings]  # fmt: skip
        scores = lira_scores(target, np.stack(rows), shadows.members, online=online, variance=variance)
        forgotten, heldout = scores[: len(forgotten)], scores[len(forgotten) :]
    auc, error = auc_interval(forgotten, heldout, level), null_error(forgotten, heldout)
    return AttackResult(attack.name, auc, error, forgotten, heldout)


def shadow_members(n_fixed: int, n_pool: int, models: int, generator: np.random.Generator) -> np.ndarray:
    """Which shadow model trains on which examples: fixed ones always, each of the pool in exactly half of the models.

    The pool is the forgotten examples and as many or more held-out ones; the fixed ones are the rest of what is retained.
    Each example of the pool draws its half on its own, so that a model holds about half of the pool (Carlini et al. 2022).

    Shapes:
        → (models, n_fixed + n_pool) bool, fixed examples first.

    Raises:
        InputError: if ``models`` is odd or below 2, or there is no pool.
    """
    if models < 2 or models % 2 or n_pool < 1 or n_fixed < 0:
        raise InputError(
            f"Expected an even number of shadow models, 2 or more, and a pool of at least one example; got {models} models, "
            f"n_pool={n_pool}, n_fixed={n_fixed}."
        )
    half = np.repeat([True, False], models // 2)[:, None]
    pool = generator.permuted(np.tile(half, (1, n_pool)), axis=0)
    return np.concatenate([np.ones((models, n_fixed), dtype=bool), pool], axis=1)


def possible(attack: MembershipAttack, sets: Mapping[str, Any]) -> bool:
    """Whether ``sets`` hold what the attack tells apart."""
    return {FORGET, attack.heldout} <= sets.keys()
