"""What a benchmark is: model, data, training, what is forgotten, and the settings of every row. A YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from expunge.bench.benchmark import Benchmark
from expunge.bench.language_recipe import LanguageRecipe
from expunge.core.digest import digest_json
from expunge.core.errors import InputError
from expunge.jobs.schema import validated
from expunge.jobs.yaml_files import read_yaml
from expunge.methods import registry
from expunge.modalities.classification.config import Setup, StochasticTraining
from expunge.modalities.settings import Strict, in_folder


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


class Recipe(Benchmark, Setup):
    """One benchmark of classifiers.

    Attributes:
        training: how source and references are trained.
        validation: share of the training rows of each class that nobody trains on or reports (SCRUB+R chooses by it).
        training_rows: how many rows there must be to train on; ``None``: any number.
        forget: what is forgotten.
        references: retrainings for each forget set; two are the least that say what retrainings differ by.
        methods: empty stands for :func:`every_row`.
    """

    training: StochasticTraining
    validation: float = Field(0.0, ge=0, lt=1)
    training_rows: int | None = Field(None, ge=1)
    forget: Annotated[ForgetSamples | ForgetUser | ForgetClass, Field(discriminator="kind")]
    references: int = Field(2, ge=2)

    @property
    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """Row → settings."""
        return self.methods or every_row()

    @property
    def digest(self) -> str:
        """Of all settings that decide source, references and forget sets: not of titles, notes, methods and places of files."""
        content = self.model_dump(
            mode="json",
            include={"model", "model_settings", "dtype", "device", "data", "training", "validation", "forget", "seed"},
        )
        data = {name: value for name, value in content.pop("data").items() if name not in ("path", "test_path")}
        return digest_json([content, data])

    def own(self, row: str) -> dict[str, Any]:
        """Settings of the recipe, or of :func:`every_row` for a row that it does not have."""
        return dict(self.rows.get(row, every_row().get(row, {})))

    def _shipped(self, row: str) -> Mapping[str, Any]:
        rows = every_row()
        return rows[row] if row in rows else super()._shipped(row)


def names() -> list[str]:
    """The recipes that come with the package."""
    folder = resources.files("expunge") / "recipes"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_recipe(name_or_path: str) -> Recipe | LanguageRecipe:
    """A recipe by name, or from a YAML file; ``task: language`` in it says that it is one of language models.

    Raises:
        InputError: for an unknown name, or a file that the schema does not allow, all problems at once.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise InputError(f"There is no recipe file {path}.")
        recipe = _checked(read_yaml(path), path.name)
        place = path.resolve().parent
        return recipe.in_folder(place) if isinstance(recipe, LanguageRecipe) else in_folder(recipe, place)
    if name_or_path not in names():
        raise InputError(
            f"Expected a recipe among {', '.join(names())}, or a path to a YAML file; got {name_or_path!r}."
        )
    file = resources.files("expunge") / "recipes" / f"{name_or_path}.yaml"
    with resources.as_file(file) as place:
        return _checked(read_yaml(place), place.name)


def _checked(content: Any, name: str) -> Recipe | LanguageRecipe:
    if isinstance(content, Mapping) and content.get("task") == "language":
        return validated(LanguageRecipe, content, name)
    return validated(Recipe, content, name)
