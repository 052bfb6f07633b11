"""Kinds of models, each a folder; packages add one by an entry point of the group ``expunge.modalities``."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, cast

from expunge.core.errors import InputError

if TYPE_CHECKING:
    from expunge.modalities.modality import Modality

GROUP = "expunge.modalities"
_OWN = {
    name: f"expunge.modalities.{name}:MODALITY"
    for name in ("classification", "diffusion", "graph", "language", "vision_language")
}


def names() -> list[str]:
    """Every kind of model that can be loaded."""
    return sorted({*_OWN, *(point.name for point in entry_points(group=GROUP))})


def load(name: str) -> Modality:
    """The kind of model called ``name``; only its own code is imported.

    Raises:
        InputError: for an unknown one, listing those that there are.
    """
    if name in _OWN:
        module, _, attribute = _OWN[name].partition(":")
        return cast("Modality", getattr(importlib.import_module(module), attribute))
    for point in entry_points(group=GROUP):
        if point.name == name:
            return cast("Modality", point.load())
    raise InputError(f"Expected task among {', '.join(names())}; got {name!r}.")
