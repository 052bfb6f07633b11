"""Where benchmarks of classifiers and of language models part: each recipe has its world, and each world its table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor

from expunge.bench import language_table, table
from expunge.bench.language_recipe import LanguageRecipe
from expunge.bench.language_world import LanguageWorld
from expunge.bench.recipe import Recipe
from expunge.bench.results import Results
from expunge.bench.scores import Scores
from expunge.bench.world import World
from expunge.core.cache import Cache
from expunge.core.data import Deletion
from expunge.core.method import Watch
from expunge.core.request import Request
from expunge.core.trained import Trained
from expunge.training.retrainings import Retraining

AnyRecipe = Recipe | LanguageRecipe


class AnyWorld(Protocol):
    """What running a benchmark needs to know of its world."""

    tunable: ClassVar[bool]

    @property
    def recipe(self) -> Any:
        """What it was made from."""
        ...

    @property
    def cache(self) -> Cache:
        """Where trained models lie."""
        ...

    @property
    def digest(self) -> str:
        """Of everything that cells in one folder must agree in."""
        ...

    @property
    def threads(self) -> int:
        """Of one process."""
        ...

    @property
    def different_sets(self) -> float:
        """How many forget sets there are before they repeat."""
        ...

    def request(self, number: int) -> Request:
        """What forget set ``number`` asks for."""
        ...

    def deletion(self, number: int) -> Deletion:
        """What that comes to."""
        ...

    def wording(self, row: str, number: int, seed: int) -> Any:
        """What goes as the request of ``row`` words it; ``None``: as it was learnt."""
        ...

    def models(
        self, sets: Sequence[int], jobs: int = 1, watch: Watch = ..., folder: Path | None = None
    ) -> Mapping[tuple[str, int, int], Retraining]:
        """The source and the references of ``sets``, trained or cached; ``folder``: for what long training stores of itself."""
        ...

    def source(self, model: Retraining) -> Trained:
        """The source model as methods are given it."""
        ...

    def score(self, row: str, number: int, tensors: Mapping[str, Tensor]) -> Scores:
        """What is measured on one model."""
        ...


def world_of(recipe: AnyRecipe, cache: Cache | None = None) -> AnyWorld:
    """The recipe's world: data are read, nothing is trained."""
    return LanguageWorld.of(recipe, cache) if isinstance(recipe, LanguageRecipe) else World.of(recipe, cache)


def table_of(
    recipe: AnyRecipe, results: Results, rows: Sequence[str], tuning: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The recipe's table, from finished cells."""
    if isinstance(recipe, LanguageRecipe):
        return language_table.table(recipe, results, rows)
    return table.table(recipe, results, rows, tuning)
