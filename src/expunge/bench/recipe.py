"""Recipes by name or from a YAML file; the key ``task`` names the kind of model, and with it what a recipe may say."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from expunge.core.errors import InputError
from expunge.jobs.schema import DEFAULT, validated
from expunge.jobs.yaml_files import read_yaml
from expunge.modalities.network_benchmark import benchmark_named
from expunge.modalities.recipes import BenchmarkRecipe


def names() -> list[str]:
    """The recipes that come with the package."""
    folder = resources.files("expunge") / "recipes"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_recipe(name_or_path: str) -> Any:
    """A recipe by name, or from a YAML file: what the modality that its ``task`` names has as ``benchmark.recipe``.

    Raises:
        InputError: for an unknown name or task, or a file that the schema does not allow, all problems at once.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise InputError(f"There is no recipe file {path}.")
        return _read(path).in_folder(path.resolve().parent)
    if name_or_path not in names():
        raise InputError(
            f"Expected a recipe among {', '.join(names())}, or a path to a YAML file; got {name_or_path!r}."
        )
    with resources.as_file(resources.files("expunge") / "recipes" / f"{name_or_path}.yaml") as place:
        return _read(place)


def _read(path: Path) -> BenchmarkRecipe:
    content = read_yaml(path)
    kind = benchmark_named(str(content.get("task", DEFAULT)), "network" in content)
    return validated(kind.recipe, content, path.name)
