"""What a benchmark must know of a kind of model; running cells, tables and pages are the same for every kind (``bench``)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from expunge.core.cache import Cache
from expunge.core.data import Deletion
from expunge.core.request import Request
from expunge.metrics.intervals import Interval
from expunge.metrics.outcomes import Judgement
from expunge.modalities.knowledge import Knowledge
from expunge.modalities.layout import Layout
from expunge.modalities.modality import Opened
from expunge.modalities.recipes import BenchmarkRecipe

TUNING_SET = 10_000  # number of the forget set that settings are tuned on: none that a table is made of
REFERENCE_SEEDS = 1_000  # retrained model r of forget set i trains from seed REFERENCE_SEEDS (i + 1) + r
Tensors = Mapping[str, Tensor]
Cells = Sequence[Mapping[str, Any]]  # finished cells, as the results file has them
Margins = Mapping[str, np.ndarray]  # set → one number for each example, (n,) float32


@dataclass(frozen=True, eq=False)
class Scores:
    """What is measured on one model.

    Attributes:
        metrics: name → number. A name is one of ``metrics.catalogue``, or ``metric/set`` with a metric of the catalogue.
        margins: what comparisons of many models take of each example; empty where there are none.
        knowledge: of the original model, what it knows; ``None`` for others, and where that is not judged.
    """

    metrics: Mapping[str, float]
    margins: Margins = field(default_factory=dict)
    knowledge: Knowledge | None = None


@dataclass(frozen=True)
class Presented:
    """How a request presents what is to be forgotten; with neither attribute, as it was learnt.

    Attributes:
        wording: the forgotten examples in other words, by the same ids.
        material: authored examples to forget through, where those that were learnt are not shown to the method.
    """

    wording: Any = None
    material: Any = None


@dataclass(frozen=True)
class Turn:
    """One of the requests that a forget set is forgotten through.

    Attributes:
        request: what is asked.
        deletion: what that comes to on what the model stands for then.
        presented: how it presents that.
    """

    request: Request
    deletion: Deletion
    presented: Presented


@dataclass(frozen=True)
class Workload(ABC):
    """What a recipe comes to: what the model learns, which requests there are, how they are worded, what is measured.

    Attributes:
        recipe: what it was made from.
        opened: task, data, named sets to measure on, and how the model is trained; files are read, nothing is trained.
    """

    recipe: BenchmarkRecipe
    opened: Opened[Any, Any]

    @property
    def threads(self) -> int:
        """Of one process: small tensors want one."""
        return 1

    @property
    def sets(self) -> float:
        """How many forget sets there are before they repeat."""
        return math.inf

    @property
    def content(self) -> Sequence[Any]:
        """Digests of everything that cells in one folder must agree in besides the recipe's settings."""
        return [self.opened.data.digest, {name: data.digest for name, data in self.opened.probes.items()}]

    @abstractmethod
    def request(self, number: int) -> Request:
        """What forget set ``number`` asks for."""

    def seed_of_retraining(self, number: int, r: int) -> int:
        """The seed of retrained model ``r`` of forget set ``number``: another than the original's."""
        return REFERENCE_SEEDS * (number + 1) + r

    def unfit(self, number: int, deletion: Deletion) -> str:
        """Why a table of this forget set would mean nothing, as a message; empty where it would mean something."""
        return ""

    def presented(self, row: str, deletion: Deletion, seed: int) -> Presented:
        """How the request of ``row`` presents what ``deletion`` takes; ``seed`` is that of the cell.

        Whatever else it depends on must be in the recipe's ``digest`` or ``identity``: cells are known by these.
        """
        return Presented()

    def turns(self, row: str, number: int, deletion: Deletion, seed: int) -> Sequence[Turn]:
        """The requests of ``row`` for forget set ``number``, which comes to ``deletion``: one for everything. Each next one
        starts from the model that the one before left, and comes to a deletion on the data that this model stands for.
        """
        return (Turn(self.request(number), deletion, self.presented(row, deletion, seed)),)

    @abstractmethod
    def score(self, deletion: Deletion, tensors: Tensors, retrained: Tensors | None) -> Scores:
        """What is measured on one model; ``retrained`` is the first model trained without what is forgotten.

        Raises FailedError if outputs are not finite.
        """

    def among_peers(
        self, deletion: Deletion, held: Mapping[str, Tensors], retrained: Mapping[str, Tensors],
        scored: Mapping[str, Scores],
    ) -> Mapping[str, float]:  # fmt: skip
        """Of a network: numbers of all peers' models together.

        Args:
            held, retrained: what each peer holds after unlearning, and after retraining.
            scored: what was measured on each peer's model.
        """
        return {}

    def knowledge(self, scores: Scores, deletion: Deletion) -> Knowledge | None:
        """What the original model knows, from its scores; ``None``: it is not judged."""
        return None


@dataclass(frozen=True)
class Number:
    """A number of a table that is no plain mean over cells.

    Attributes:
        ideal, null: where they do not follow from the metric's record.
        more: further keys of its JSON, for example how many ``models`` it rests on.
    """

    value: Interval
    ideal: float | None = None
    null: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


def exact(value: float) -> Interval:
    """A number without an interval."""
    return Interval(float(value), -math.inf, math.inf)


def mean(cells: Cells, name: str) -> float:
    """Of one number over cells."""
    return float(np.mean([cell["metrics"][name] for cell in cells]))


@dataclass(frozen=True)
class Finished:
    """The finished cells of a row, and those that they are compared with.

    Attributes:
        row: its name; ``retrain`` for the retrained models themselves.
        cells: by seed.
        sources, retrained: of all forget sets.
        others: row → its finished cells; none where one of them was refused or failed.
        margins: key of a cell → margins.
    """

    row: str
    cells: Cells
    sources: Cells
    retrained: Cells
    others: Mapping[str, Cells] = field(default_factory=dict)
    margins: Callable[[str], Margins] = field(default=lambda key: {}, repr=False)

    def same_sets(self, models: Cells) -> Cells:
        """Those of ``models`` that stand on a forget set of this row."""
        sets = {cell["forget_set"] for cell in self.cells}
        return [model for model in models if model["forget_set"] in sets]


class Benchmark(Protocol):
    """What benchmarks ask of a kind of model."""

    @property
    def recipe(self) -> type[BenchmarkRecipe]:
        """What its recipe files may say."""
        ...

    @property
    def layout(self) -> Layout:
        """Columns, words and figures of its tables."""
        ...

    @property
    def tuned_by(self) -> Sequence[str]:
        """Metrics whose average gap to retrained models tuning makes small; none: there is no tuning."""
        ...

    def workload(self, recipe: Any, cache: Cache) -> Workload:
        """Read what the recipe names; nothing is trained. Raises InputError for what is missing or does not fit."""
        ...

    def compare(self, finished: Finished) -> Mapping[str, Number]:
        """Numbers of a row that take other models: gaps to retraining, attacks, distributions."""
        ...

    def judge(self, finished: Finished, recipe: Any) -> tuple[Judgement, Mapping[str, Any]]:
        """The outcome of a row, and further keys of its record."""
        ...
