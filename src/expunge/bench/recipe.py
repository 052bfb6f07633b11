"""What a benchmark is: model, data, training, what is forgotten, and the settings of every row. A YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from expunge.core.digest import digest_json
from expunge.core.errors import InputError
from expunge.jobs.build import named_method
from expunge.jobs.data_schema import Strict
from expunge.jobs.schema import Setup, StochasticTraining, in_its_folder, validated
from expunge.jobs.yaml_files import read_yaml

# Rows where a recipe names none: every method that forgets rows and promises nothing, then DualOptim where two objectives
# alternate. ManiF-SMC has a retain loss only with repair.
ROWS: Mapping[str, Mapping[str, Any]] = {
    "fine_tune": {},
    "gradient_ascent": {},
    "neg_grad_plus": {},
    "random_labels": {},
    "l1_sparse": {},
    "scrub": {},
    "scrub_r": {"method": "scrub", "rewind": True},
    "bad_teacher": {},
    "ssd": {},
    "salun": {},
    "sfron": {},
    "manif_smc": {},
    "neg_grad_plus+dual": {},
    "random_labels+dual": {},
    "scrub+dual": {},
    "bad_teacher+dual": {},
    "salun+dual": {},
    "sfron+dual": {},
    "manif_smc+repair": {"method": "manif_smc", "repair": True},
    "manif_smc+repair+dual": {"method": "manif_smc", "repair": True, "dual": True},
}


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


class Published(Strict):
    """What a paper prints for a row, to stand beside ours, never mixed with it; and in what its settings differ."""

    row: str
    source: str
    differs: str = ""
    metrics: dict[str, float]
    std: dict[str, float] = Field({})


class Recipe(Setup):
    """One benchmark.

    Attributes:
        name, title, note: what it is called and what a reader must know, findings included.
        marks: ``gpu`` or ``slow``: what it needs; such a recipe runs only when asked for by name.
        training: how source and references are trained.
        validation: share of the training rows of each class that nobody trains on or reports (SCRUB+R chooses by it).
        training_rows: how many rows there must be to train on; ``None``: any number.
        forget: what is forgotten.
        forget_sets: how many different ones at most; seeds beyond go round. ``None``: one a seed.
        references: retrainings for each forget set; two are the least that say what retrainings differ by.
        methods: row → settings; a row may name its ``method``. Empty: :data:`ROWS`.
        published: what papers print.
    """

    name: str
    title: str
    note: str = ""
    marks: list[Literal["gpu", "slow"]] = Field([])
    training: StochasticTraining
    validation: float = Field(0.0, ge=0, lt=1)
    training_rows: int | None = Field(None, ge=1)
    forget: Annotated[ForgetSamples | ForgetUser | ForgetClass, Field(discriminator="kind")]
    forget_sets: int | None = Field(None, ge=1)
    references: int = Field(2, ge=2)
    seeds: int = Field(3, ge=1)
    quick: dict[str, dict[str, Any]] = Field({})
    methods: dict[str, dict[str, Any]] = Field({})
    published: list[Published] = Field([])

    @property
    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """Row → settings."""
        return self.methods or ROWS

    @property
    def digest(self) -> str:
        """Of all settings that decide source, references and forget sets: not of titles, notes, methods and places of files."""
        content = self.model_dump(
            mode="json",
            include={"model", "model_settings", "dtype", "device", "data", "training", "validation", "forget", "seed"},
        )
        data = {name: value for name, value in content.pop("data").items() if name not in ("path", "test_path")}
        return digest_json([content, data])

    def method(self, row: str, settings: Mapping[str, Any] | None = None) -> Any:
        """The method of ``row`` with its settings, or with ``settings`` over them.

        Raises:
            InputError: for a row that neither the recipe nor the registry knows.
        """
        own = dict(self.rows.get(row, ROWS.get(row, {})))
        name = own.pop("method", row)
        try:
            return named_method(row, name, {**own, **(settings or {})})
        except InputError as error:
            if row in self.rows or name != row:
                raise InputError(f"Row {row} of {self.name}: {error}") from None
            raise InputError(f"There is no row {row!r} in {self.name} and no such method. {error}") from None


def names() -> list[str]:
    """The recipes that come with the package."""
    folder = resources.files("expunge") / "recipes"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_recipe(name_or_path: str) -> Recipe:
    """A recipe by name, or from a YAML file.

    Raises:
        InputError: for an unknown name, or a file that the schema does not allow, all problems at once.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise InputError(f"There is no recipe file {path}.")
        recipe = validated(Recipe, read_yaml(path), path.name)
        return in_its_folder(recipe, path.resolve().parent)
    if name_or_path not in names():
        raise InputError(
            f"Expected a recipe among {', '.join(names())}, or a path to a YAML file; got {name_or_path!r}."
        )
    file = resources.files("expunge") / "recipes" / f"{name_or_path}.yaml"
    with resources.as_file(file) as place:
        return validated(Recipe, read_yaml(place), place.name)
