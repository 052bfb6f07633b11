"""Recipes on disk: plain settings of expunge's own recipes, by name; code of anybody else's has no such form."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

# Name on disk → where its class is; loaded where a model is read that was trained so. A class whose settings are not all plain
# values has ``of_record``, which makes it again from what JSON made of them.
_OWN = {
    "stochastic": "expunge.training.stochastic:Stochastic", "language": "expunge.training.language:LanguageTraining",
    "graph": "expunge.training.graphs:GraphTraining", "graph minimum": "expunge.training.graph_minimiser:GraphMinimiser",
    "graph ridge": "expunge.training.graph_ridge:GraphRidge", "graph shards": "expunge.training.graph_shards:GraphShards",
    "sampled graph": "expunge.training.sampled_graphs:SampledGraphTraining",
    "pictures": "expunge.training.pictures:PictureTraining",
    "gossip": "expunge.network.gossip:Gossip",
    "walk": "expunge.network.walk:Walk",
}  # fmt: skip


def settings_record(recipe: Any) -> dict[str, Any] | None:
    """The settings of ``recipe`` with its kind, JSON-like; ``None`` for a recipe that is not one of these, by exact type."""
    kind = type(recipe)
    name = f"{kind.__module__}:{kind.__qualname__}"
    return next(({"kind": known, **asdict(recipe)} for known, own in _OWN.items() if own == name), None)


def from_record(record: Mapping[str, Any]) -> Any:
    """The recipe that :func:`settings_record` wrote; ``None`` for one without a kind of this table."""
    if record.get("kind") not in _OWN:
        return None
    module, _, name = _OWN[record["kind"]].partition(":")
    kind = getattr(importlib.import_module(module), name)
    settings = {name: value for name, value in record.items() if name != "kind"}
    return kind.of_record(settings) if hasattr(kind, "of_record") else kind(**settings)
