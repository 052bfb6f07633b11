"""What a recipe of classifiers says: model, data, training, what is forgotten, and the settings of every row."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field

from expunge.core.digest import digest_json
from expunge.methods import registry
from expunge.metrics.metric_spec import MetricSpec
from expunge.modalities.classification.config import Setup, StochasticTraining
from expunge.modalities.recipes import BenchmarkRecipe
from expunge.modalities.settings import Strict

STAY = "test_of_classes_that_stay"  # the test set of a request for a whole class


@cache
def every_row() -> Mapping[str, Mapping[str, Any]]:
    """Rows where a recipe names none: every method that forgets rows of a classifier and promises nothing, with the
    configurations that it brings, then DualOptim where two objectives alternate by default.
    """
    rows: dict[str, Mapping[str, Any]] = {}
    dual: dict[str, Mapping[str, Any]] = {}
    for name in registry.targets():
        method = registry.load(name)
        can = method.capabilities
        if "samples" not in can.kinds or not {"*", "classification"} & {*can.tasks}:
            continue
        if can.certified or can.effect != "weights":
            continue
        further = getattr(method, "configurations", {})
        rows |= {name: {}, **{row: {"method": name, **settings} for row, settings in further.items()}}
        if "dual" in registry.variants_of(name) and not registry.needed_under(name, "dual"):
            dual[f"{name}+dual"] = {}
    return rows | dual


class ForgetSamples(Strict):
    """A random share of the training rows."""

    kind: Literal["samples"]
    share: float = Field(gt=0, lt=1)


class ForgetUser(Strict):
    """One user after another, in random order: all rows whose ``column`` holds the same value."""

    kind: Literal["user"]
    column: str


class ForgetClass(Strict):
    """One class after another, in the order given."""

    kind: Literal["class"]
    labels: list[int] = Field(min_length=1)


class ClassifierRecipe(Setup, BenchmarkRecipe):
    """One benchmark of classifiers.

    Attributes:
        training: how the original and the retrained models are trained.
        validation: share of the training rows of each class that nobody trains on or reports (SCRUB+R chooses by it).
        training_rows: how many rows there must be to train on; ``None``: any number.
        forget: what is forgotten.
        retrained_models: retrainings for each forget set; two are the least that say what retrainings differ by.
        methods: empty stands for :func:`every_row`.
    """

    training: StochasticTraining
    validation: float = Field(0.0, ge=0, lt=1)
    training_rows: int | None = Field(None, ge=1)
    forget: Annotated[ForgetSamples | ForgetUser | ForgetClass, Field(discriminator="kind")]
    retrained_models: int = Field(2, ge=2)

    @property
    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """Row → settings."""
        return self.methods or every_row()

    @property
    def digest(self) -> str:
        """Of all settings that decide the models and the forget sets: not of titles, notes, methods and places of files."""
        content = self.model_dump(
            mode="json",
            include={"model", "model_settings", "dtype", "device", "data", "training", "validation", "forget", "seed"},
        )
        data = {name: value for name, value in content.pop("data").items() if name not in ("path", "test_path")}
        return digest_json([content, data])

    @property
    def forgets(self) -> Mapping[str, Any]:
        """The section ``forget``."""
        return self.forget.model_dump()

    def measured(self, metric: MetricSpec) -> tuple[str, str | None]:
        """Where a class is forgotten, test rows of it are left out: another set than ``test``."""
        name, of = super().measured(metric)
        return name, STAY if of == "test" and isinstance(self.forget, ForgetClass) else of

    def own(self, row: str) -> dict[str, Any]:
        """Settings of the recipe, or of :func:`every_row` for a row that it does not have."""
        return dict(self.rows.get(row, every_row().get(row, {})))

    def _shipped(self, row: str) -> Mapping[str, Any]:
        rows = every_row()
        return rows[row] if row in rows else super()._shipped(row)
