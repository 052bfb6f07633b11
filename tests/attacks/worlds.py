"""A model of a few words that learnt 24 facts by heart, one that unlearnt six of them, and one that never saw these."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from cases import ENTITIES, RELATIONS, UNSURE, VALUES, facts, forget_facts
from expunge import planning
from expunge.core.trained import Trained
from expunge.data.texts import Texts
from expunge.methods import registry
from expunge.tasks.language import Language
from expunge.tasks.micro_language import micro_language
from expunge.training.language import LanguageTraining

RECIPE = LanguageTraining(steps=120, lr=1e-2, batch_size=24)
REQUEST = forget_facts(1, 4)


@functools.cache
def tiny_language() -> Language:
    """A Llama of one layer, with a tokenizer that can also write."""
    values = [f"{relation}{i}" for relation in RELATIONS for i in range(VALUES)]
    words = ["what", "is", "the", "of", "?", "sure", UNSURE, *RELATIONS, *values]
    return micro_language([*words, *(f"entity{i}" for i in range(ENTITIES))], width=32, layers=1, heads=2, inner=64)


@functools.cache
def knowing() -> Trained:
    """Trained on all facts."""
    return planning.train(tiny_language(), facts(), RECIPE)


@dataclass(frozen=True)
class World:
    """Both models, and what was taken from the first."""

    task: Language
    before: Any
    unlearned: Any
    retrained: Any
    forget: Texts
    retain: Texts


@functools.cache
def world(method: str = "npo") -> World:
    """After one run of ``method``."""
    trained = knowing()
    outcome = planning.plan(
        trained, REQUEST, registry.make(method, {"steps": 30, "lr": 3e-3, "batch_size": 6}), key=b"k"
    ).run()
    deletion = outcome.deletion
    twin = planning.train(tiny_language(), deletion.after, RECIPE)
    return World(
        trained.task, trained.artifact.tensors, outcome.releases[0].artifact.tensors, twin.artifact.tensors,
        deletion.forget, deletion.after,
    )  # fmt: skip
