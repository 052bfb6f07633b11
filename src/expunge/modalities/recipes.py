"""What every recipe says whatever its kind of model: names, rows with their settings, how often each is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from expunge.core.digest import digest_json
from expunge.core.errors import InputError
from expunge.methods import registry
from expunge.metrics.metric_spec import MetricSpec
from expunge.modalities.named import named_method
from expunge.modalities.settings import Strict, in_folder

SOURCE, RETRAIN = "source", "retrain"  # rows of models that methods are compared with


class Published(Strict):
    """What a paper prints for a row, to stand beside ours, never mixed with it; and in what its settings differ."""

    row: str
    source: str
    differs: str = ""
    metrics: dict[str, float]
    std: dict[str, float] = Field({})


class BenchmarkRecipe(Strict):
    """What recipes of all kinds of models have; each kind adds sections of its own for model, data and training.

    Attributes:
        name, title, note: what it is called and what a reader must know, findings included.
        task: the name of the modality.
        marks: ``gpu`` or ``slow``: what it needs; such a recipe runs only when asked for by name.
        forget_sets: how many different ones at most; seeds beyond go round. ``None``: one a seed.
        seeds: cells of each row; ``seed``: of the original model and of the forget sets.
        retrained_models: retrained models for each forget set.
        quick: row → shorter settings.
        methods: row → settings; a row may name its ``method``.
        published: what papers print.
    """

    renamed: ClassVar[Mapping[str, str]] = {"references": "retrained_models"}

    name: str
    title: str
    task: Any
    note: str = ""
    marks: list[Literal["gpu", "slow"]] = Field([])
    forget_sets: int | None = Field(None, ge=1)
    seeds: int = Field(3, ge=1)
    seed: int = Field(0, ge=0)
    retrained_models: int = Field(1, ge=0)
    quick: dict[str, dict[str, Any]] = Field({})
    methods: dict[str, dict[str, Any]] = Field({})
    published: list[Published] = Field([])

    @property
    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """Row → settings."""
        return self.methods

    @property
    def digest(self) -> str:
        """Of all settings that decide the original model and the forget sets: not of titles, notes and methods."""
        return digest_json(self.model_dump(mode="json", exclude=set(BenchmarkRecipe.model_fields) - {"task", "seed"}))

    @property
    def forgets(self) -> Mapping[str, Any]:
        """What is forgotten, as the record of a run says it: its ``kind``, and what tells it from others of this kind."""
        return {}

    def about(self, row: str) -> Mapping[str, Any]:
        """What the record says of a row whatever is measured."""
        return {}

    def measured(self, metric: MetricSpec) -> tuple[str, str | None]:
        """The metric and the set that a column of the table holds, as ``expunge run`` and ``expunge eval`` name them."""
        return metric.of or (metric.name, None)

    def in_folder(self, base: Path) -> Self:
        """With relative paths made absolute; they begin in ``base``, where the recipe file is."""
        return in_folder(self, base)

    def own(self, row: str) -> dict[str, Any]:
        """What the recipe sets for ``row``, and the name of its ``method`` where that is not the row's."""
        return dict(self.rows.get(row, {}))

    def at_defaults(self) -> Self:
        """The methods' shipped settings; what makes a row the row that it is stays."""
        return self.model_copy(update={"methods": {row: self._shipped(row) for row in self.rows}})

    def shortened(self) -> Self:
        """What ``--quick`` runs: the recipe's shorter settings where it has any.

        Raises:
            InputError: for shorter settings of a row that it does not have.
        """
        if unknown := sorted(self.quick.keys() - self.rows.keys()):
            raise InputError(f"Expected rows of {self.name}; quick names {', '.join(unknown)}, which it does not have.")
        rows = {row: {**settings, **self.quick.get(row, {})} for row, settings in self.rows.items()}
        return self.model_copy(update={"methods": rows})

    def _shipped(self, row: str) -> Mapping[str, Any]:
        return {name: value for name, value in self.rows[row].items() if name == "method"}

    def method(self, row: str, settings: Mapping[str, Any] | None = None) -> Any:
        """The method of ``row`` with its settings, or with ``settings`` over them.

        Raises:
            InputError: for a row that neither the recipe nor the registry knows.
        """
        own = self.own(row)
        name = own.pop("method", row)
        try:
            return named_method(row, name, {**own, **(settings or {})})
        except InputError as error:
            if row in self.rows or name != row:
                raise InputError(f"Row {row} of {self.name}: {error}") from None
            raise InputError(f"There is no row {row!r} in {self.name} and no such method. {error}") from None

    def identity(self, row: str, settings: Mapping[str, Any]) -> Any:
        """Everything in the recipe that decides a result of ``row`` besides :attr:`digest`, JSON-like."""
        return registry.settings_of(self.method(row, settings))["digest"]
