"""What recipes of single image unlearning are tested with: a model that sees, one that was never shown a concept, and rows.

A row says a method, its settings and how its items are made; ``Pair.found(row, number)`` has what the model scores after it,
from the picture ``number`` of the concept. Rows are run once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np
from torch import Tensor

from expunge import planning
from expunge.bench.recipe import load_recipe
from expunge.core.cache import Cache
from expunge.core.data import Deletion, Ids
from expunge.core.request import Request, Target
from expunge.data.digits_world import digits_world
from expunge.data.picture_world import CONCEPT, WORDS, World
from expunge.data.pictures import IMAGE
from expunge.data.texts import Texts
from expunge.methods import registry
from expunge.metrics.recognition import c_dis
from expunge.modalities.vision_language import concept
from expunge.modalities.vision_language.config import ConceptSettings
from expunge.modalities.vision_language.make_weights import without_concept
from expunge.modalities.vision_language.mmubench import further
from expunge.modalities.vision_language.questions import both_modalities
from expunge.modalities.vision_language.recipes import VisionLanguageRecipe
from expunge.modalities.vision_language.workload import VisionLanguageWorkload
from expunge.modalities.vision_language.world_scores import P_NAME, Scene, world_scores
from expunge.tasks.generation import generate
from expunge.tasks.micro_vision_language import micro_vision_language
from expunge.training.pictures import PictureTraining
from expunge.training.retrainings import retrain_all
from expunge.training.shipped import name_of, shipped

LORA = {"lora": {"r": 8, "lora_alpha": 16}}
PLAIN = {"batch_size": 4, "anneal": "constant", "warmup": 0.0, "weight_decay": 0.0, "clip": None, **LORA}
RECOGNITION = {"material": "recognition"}
LEAST = 1e-30  # probability below which a name counts as having that one
RELEARNING = 3e-4  # a rate at which the digits' models take some steps, as in examples/jobs/digit_concept.yaml
Row = tuple[str, Mapping[str, Any], Mapping[str, Any]]  # a method, its settings, how items are made


def siu(lr: float, steps: int, **more: Any) -> Row:
    """SIU with the paper's items."""
    return "siu", {"lr": lr, "steps": steps, **LORA, **more}, {}


def made(row: Row, **items: Any) -> Row:
    """``row`` with other items."""
    return row[0], row[1], {**row[2], **items}


def po(lr: float, steps: int) -> Row:
    """Refusals, as the paper's PO."""
    return "idk", {"lr": lr, "steps": steps, "alpha": 0.0, "refusals": ("i do not know it .",), **PLAIN}, RECOGNITION


def ga(lr: float, steps: int) -> Row:
    """Ascent on the right name."""
    return "ga", {"lr": lr, "steps": steps, **PLAIN}, RECOGNITION


def ga_kl(lr: float, steps: int) -> Row:
    """The same, with the divergence to the original on retained records, which are facts in words here."""
    return "grad_diff", {"lr": lr, "steps": steps, "retain": "kl", **PLAIN}, RECOGNITION


@dataclass(frozen=True, eq=False)
class Pair:
    """The original model of a world, and the one that was never shown pictures of ``names``.

    Attributes:
        gold: ``None``: nothing is compared with a retrained model.
        rows: name → what is run.
        each: held-out pictures of each other concept that are asked about.
    """

    world: World
    task: Any
    names: tuple[str, ...]
    original: Mapping[str, Tensor] = field(repr=False)
    gold: Mapping[str, Tensor] | None = field(repr=False)
    rows: Mapping[str, Row] = field(repr=False)
    each: int = 8
    _after: dict[tuple[str, int], Any] = field(default_factory=dict, repr=False)
    _shares: dict[tuple[str, int], Any] = field(default_factory=dict, repr=False)
    _found: dict[tuple[str, int], Any] = field(default_factory=dict, repr=False)

    @property
    def train(self) -> Texts:
        """The training records."""
        return self.world.train

    @cached_property
    def concepts(self) -> list[concept.Concept]:
        """What is to be forgotten."""
        shows = self.train.columns[CONCEPT]
        return [concept.Concept((name,), Ids.rows(self.train.ids[shows == name])) for name in self.names]

    @cached_property
    def pictures(self) -> list[Texts]:
        """Training pictures of each concept, asked for their names."""
        return [concept.named_pictures(self.train, each.absent, each.names) for each in self.concepts]

    def after(self, row: str, number: int = 0) -> Mapping[str, Tensor]:
        """The weights that ``row`` leaves, shown the picture ``number``."""
        if (row, number) not in self._after:
            name, settings, items = self.rows[row]
            said = ConceptSettings(kind="world", picture=number, **items)  # type: ignore[call-arg]
            material = Texts.of(concept.items_of(said, self.train, self.concepts, 0, self.world))
            words = self.train.at(np.flatnonzero(self.train.columns[CONCEPT] == WORDS))
            request = Request("a rights holder", (Target("concept", {CONCEPT: list(self.names)}),))
            plan = planning.plan(
                planning.adopt(self.task, self.original, words), request, registry.make(name, settings),
                material=material, deletion=Deletion.authored(words, material), key=b"k",
            )  # fmt: skip
            self._after[row, number] = plan.run().releases[0].artifact.tensors
        return self._after[row, number]

    def of(self, row: str, number: int = 0) -> Mapping[str, Tensor]:
        """The weights of ``original`` or ``gold``, or those that a row leaves."""
        own = {"original": self.original, "gold": self.gold}
        return own[row] if row in own else self.after(row, number)  # type: ignore[return-value]

    def shares(self, row: str, number: int = 0) -> Mapping[str, float]:
        """What the model scores after ``row``, or ``original`` or ``gold`` does: ``world_scores`` and C-Dis."""
        if (row, number) not in self._shares:
            found, margins = world_scores(self.task, self.of(row, number), self.scene(number), self.gold)
            self._shares[row, number] = {**found, "c_dis": c_dis(self._likely, clipped(margins[P_NAME]))}
        return self._shares[row, number]

    def found(self, row: str, number: int = 0) -> Mapping[str, float]:
        """:meth:`shares` with ``looks`` (of other concepts, asked about their pictures), ``spec`` (mean of ``others``,
        ``looks`` and ``facts_others``) and ``fluency`` (perplexity of right answers, the name aside).
        """
        if (row, number) not in self._found:
            tensors, found = self.of(row, number), {**self.shares(row, number)}
            pairs = both_modalities(self.world, self.names)["pairs_others"]
            looks: list[Any] = [record for record in pairs if IMAGE in record]
            said = generate(self.task, self.task.build(tensors, share=True), looks, max_new_tokens=14, batch_size=256)
            found["looks"] = float(
                np.mean([text == record["answer"] for text, record in zip(said, looks, strict=True)])
            )
            found["spec"] = float(np.mean([found[name] for name in ("others", "looks", "facts_others")]))
            found["fluency"] = self.more(tensors)["fluency"]
            self._found[row, number] = found
        return self._found[row, number]

    def scene(self, number: int = 0, each: int | None = None) -> Scene:
        """Questions, where the picture ``number`` was shown."""
        shown = [pictures.records[number] for pictures in self.pictures]
        return Scene.of(self.world, self.names, shown, each=self.each if each is None else each)

    def more(self, tensors: Mapping[str, Tensor], relearning: int = 0) -> dict[str, float]:
        """Further numbers of MMUBench; with ``relearning`` the steps (of at most so many) that leave the name improbable."""
        asked: Sequence[Any] = self.world.named(*self.names)
        return further(self.task, tensors, {"unseen": asked}, [[name] for name in self.names], relearning, RELEARNING)[
            0
        ]

    @cached_property
    def _likely(self) -> np.ndarray:
        return clipped(world_scores(self.task, self.original, self.scene(0, each=1))[1][P_NAME])


def clipped(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities of which a logarithm can be taken."""
    return np.clip(probabilities.astype(float), LEAST, 1)


@dataclass(frozen=True)
class Trials:
    """The same rows from three pictures, or of three models: pairs, each with the picture that is shown."""

    pairs: Sequence[tuple[Pair, int]]

    def each(self, row: str, metric: str) -> np.ndarray:
        """A metric of :meth:`Pair.found` of each, (3,)."""
        return np.array([pair.found(row, number)[metric] for pair, number in self.pairs])

    def mean(self, row: str, metric: str) -> float:
        """Its mean."""
        return float(self.each(row, metric).mean())

    def relearnt(self, row: str, most: int = 30) -> np.ndarray:
        """Steps on one new picture that leave the name improbable, of each, (3,)."""
        return np.array([pair.more(pair.of(row, number), most)["relearning_steps"] for pair, number in self.pairs])


@cache
def digits() -> tuple[World, Any]:
    """The world of digits, and the task of its models."""
    return digits_world(), micro_vision_language(digits_world().vocabulary)


def shipped_digits(which: str) -> Mapping[str, Tensor]:
    """The weights that come with the package: ``original``, or ``gold``, which was never shown a seven."""
    world, task = digits()
    tensors = shipped(
        name_of(task, world.train if which == "original" else without_concept(world.train), PictureTraining(), 0)
    )
    assert tensors is not None, "the weights that come with the package are of another world or recipe: make them again"
    return tensors


def sevens(rows: Mapping[str, Row], each: int = 8) -> Pair:
    """The digits' models, and sevens that are to be forgotten."""
    return Pair(*digits(), ("seven",), shipped_digits("original"), shipped_digits("gold"), rows, each)


def joint_digits(names: tuple[str, ...], rows: Mapping[str, Row], each: int = 8) -> Pair:
    """The digits' original, and several concepts that are to be forgotten together; no retrained model."""
    return Pair(*digits(), names, shipped_digits("original"), None, rows, each)


@cache
def letters() -> tuple[World, Any, PictureTraining]:
    """The world of the recipe ``characters_siu``, the task of its models, and how they are trained."""
    recipe = load_recipe("characters_siu")
    assert isinstance(recipe, VisionLanguageRecipe)
    opened = VisionLanguageWorkload.of(recipe).opened
    return recipe.data.world(), opened.task, opened.recipe  # type: ignore[union-attr, return-value]


def psi(seed: int, rows: Mapping[str, Row], each: int = 8) -> Pair:
    """Models of letters from ``seed``, trained or from the cache, and psi that is to be forgotten."""
    world, task, training = letters()
    jobs = [(world.train, seed), (without_concept(world.train, "psi"), seed)]
    original, gold = retrain_all(task, jobs, training, cache=Cache())
    return Pair(world, task, ("psi",), original.tensors, gold.tensors, rows, each)


def joint_letters(seed: int, names: tuple[str, ...], rows: Mapping[str, Row], each: int = 8) -> Pair:
    """The original of letters from ``seed``, and several concepts that are to be forgotten together."""
    world, task, training = letters()
    (original,) = retrain_all(task, [(world.train, seed)], training, cache=Cache())
    return Pair(world, task, names, original.tensors, None, rows, each)
