"""What a language model still knows, and what else it lost: the TOFU suite, memorisation, membership, prompts in other words.

Sets are named; five names have a meaning: ``forget``, the utility sets ``retain``, ``real_authors`` and ``world_facts``,
and ``unseen``, records like the forgotten ones on which neither model was trained. Every number has the name
that its metric has in ``metrics.catalogue``, and stands with an interval over records, the model held fixed.

Formal guarantee: none. A model that answers nothing in these words may answer in others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from expunge.attacks.stealthy import trigger_prompts
from expunge.core.cache import Cache
from expunge.core.errors import InputError
from expunge.core.measurement import Measurement, find
from expunge.core.method import Watch, silent
from expunge.core.texts import prompt_key
from expunge.data.texts import Texts
from expunge.evidence.comparison import Models, Score, compared, compared_attacks
from expunge.evidence.language.numbers import (
    ATTACKS,
    FORGET,
    Readings,
    incomplete,
    scores_of_set,
    scores_of_sets,
)
from expunge.evidence.language.reading import Limits, Reader, Reading
from expunge.evidence.membership import MembershipAttack
from expunge.metrics.language import GEOMETRIC
from expunge.tasks.language import Language

TOFU_LIMITS = Limits()
FORGET_WORDED, RETAIN_WORDED, RETAIN_MIXED = "forget_trigger", "retain_trigger", "retain_mixed"
TRIGGER = "_trigger"  # ending of a set whose prompts stand in everyday templates


@dataclass(frozen=True)
class LanguageEvaluation:
    """All that was measured about one language model.

    Attributes:
        measurements: numbers, each beside the original's and the retrained model's where these were read too.
        missing: metrics that have no number, and why, in words.
        warnings: what a reader must not overlook.
        sets: of each set how many records it rests on, and how many were dropped, by reason, or cut.
        settings: what numbers depend on beside model and records.
        readings: answers and token scores, by set. Private: they are about single records.
    """

    measurements: tuple[Measurement, ...]
    missing: Mapping[str, str]
    warnings: tuple[str, ...]
    sets: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    readings: Mapping[str, Reading] = field(repr=False)

    def __getitem__(self, wanted: str | tuple[Any, ...]) -> Measurement:
        """By name, or by metric and set: ``evaluation["probability", "forget"]``."""
        if (item := find(self.measurements, wanted)) is not None:
            return item
        known = ", ".join(item.name for item in self.measurements)
        metric = wanted if isinstance(wanted, str) else wanted[0]
        why = f" ({self.missing[metric]})" if metric in self.missing else ""
        raise KeyError(f"No measurement {wanted!r}{why}; there are {known}.")

    def to_json(self) -> dict[str, Any]:
        """JSON-like form of what may be shown."""
        return {
            "measurements": [{"name": item.name} | asdict(item) for item in self.measurements],
            "missing": dict(self.missing),
            "warnings": list(self.warnings),
            "sets": {name: dict(counts) for name, counts in self.sets.items()},
            "settings": dict(self.settings),
        }


def wordings(
    task: Language, forget: Texts, retain: Texts, seed: int = 0, *, others: Mapping[str, Texts] | None = None
) -> dict[str, Texts]:
    """The sets that show what words around a prompt do: prompts in everyday templates, and joint prompts.

    ``forget_trigger`` and ``retain_trigger`` put every prompt in a template of the stealthy attack; in ``retain_mixed`` a
    forgotten question, drawn anew for each, stands beside the retained one (trigger and mixed utility).

    Args:
        others: further sets whose prompts are put into templates, as ``NAME_trigger``. The paper's trigger utility is the mean
            of ROUGE-L recall over retained questions, real authors and world facts.

    Source: Stealthy Attack (arXiv 2506.00359); the joint prompts are ours.

    Raises:
        InputError: if one set holds questions and the other plain texts.
    """
    draw = np.random.default_rng(seed)
    joined = np.concatenate([draw.permutation(len(forget)) for _ in range(-(-len(retain) // len(forget)))])
    bare, kept = _bare(forget), _bare(retain)
    return {
        FORGET_WORDED: bare.worded(trigger_prompts(bare.records, seed=seed)),
        RETAIN_WORDED: kept.worded(trigger_prompts(kept.records, seed=seed)),
        RETAIN_MIXED: task.pair(bare.at(joined[: len(retain)]), kept),
        **{
            f"{name}{TRIGGER}": (plain := _bare(texts)).worded(trigger_prompts(plain.records, seed=seed))
            for name, texts in (others or {}).items()
        },
    }


@dataclass(frozen=True)
class Suite:
    """How a language model is read and scored here; an ``evidence.comparison.Reads``.

    Attributes:
        limits, definition, level, cache, tags: see :func:`evaluate`.
    """

    limits: Limits = TOFU_LIMITS
    definition: str = GEOMETRIC
    level: float = 0.95
    cache: Cache | None = None
    tags: tuple[str, ...] = ()
    watch: Watch = silent

    @property
    def attacks(self) -> tuple[MembershipAttack, ...]:
        """All of them; the one by gradient norms where these are read."""
        return tuple(attack for attack in ATTACKS if attack.name != "gradnorm" or self.limits.gradients)

    def read(self, task: Language, tensors: Mapping[str, Tensor], sets: Mapping[str, Texts]) -> Readings:
        """Everything about each set."""
        reader, readings = Reader(task, tensors, self.limits, self.cache, self.tags), dict[str, Reading]()
        self.watch("reading", 0, len(sets))
        for name, texts in sets.items():
            readings[name] = reader.read(name, texts)
            self.watch("reading", len(readings), len(sets))
        return readings

    def score(self, readings: Readings, retrained: Readings | None = None) -> list[Score]:
        """Of each set, then of several together."""
        single = [score for name, reading in readings.items() for score in scores_of_set(name, reading, self.level)]
        return single + scores_of_sets(readings, retrained, self.definition, self.level)[0]

    def missing(self, readings: Readings, retrained: Readings | None) -> dict[str, str]:
        """Metrics that these readings give no number of, and why, in words."""
        return scores_of_sets(readings, retrained, self.definition, self.level)[1]


def evaluate(
    task: Language,
    tensors: Mapping[str, Tensor],
    sets: Mapping[str, Texts],
    *,
    retrained: Mapping[str, Tensor] | None = None,
    original: Mapping[str, Tensor] | None = None,
    limits: Limits = TOFU_LIMITS,
    definition: str = GEOMETRIC,
    cache: Cache | None = None,
    tags: tuple[str, ...] = (),
    level: float = 0.95,
    watch: Watch = silent,
) -> LanguageEvaluation:
    """Read ``sets`` with a model and put every number on them that they allow.

    Forget quality and PrivLeak compare with the retrained model; without one they are missing, never 0.

    Args:
        tensors: the model's weights. ``original``: those before unlearning.
        retrained: those of the same architecture trained without the forgotten records: what numbers are compared with.
        definition: of the truth ratio in model utility and forget quality (``metrics.language.TRUTH_RATIOS``).
        cache, tags: see :class:`~expunge.evidence.language.reading.Reader`.

    Raises:
        InputError: for no sets, records that cannot be read, or weights of another architecture.

    Source: TOFU (arXiv 2401.06121), OpenUnlearning (arXiv 2506.12618). Formal guarantee: none.
    """
    if not sets:
        raise InputError("Expected at least one named set of records to measure on; got none.")
    suite = Suite(limits, definition, level, cache, tags, watch)
    readings = Models(tensors, original, retrained).each(lambda weights: suite.read(task, weights, sets))
    attacks, _ = compared_attacks(suite, readings, sets)
    mine = readings.unlearned
    warning = incomplete(mine[FORGET], mine[FORGET_WORDED], level) if {FORGET, FORGET_WORDED} <= mine.keys() else None
    return LanguageEvaluation(
        (*compared(suite, readings), *attacks),
        suite.missing(mine, readings.retrained),
        (warning,) if warning else (),
        {name: reading.counts() for name, reading in mine.items()},
        {**asdict(limits), "truth_ratio": definition, "level": level, "context": task.prompts.context},
        mine,
    )


def _bare(texts: Texts) -> Texts:
    """Prompts and right answers alone: what words around a prompt do is measured on these."""
    return texts.worded([{key: r[key] for key in (prompt_key(r), "answer") if key in r} for r in texts.records])
