"""The smallest benchmark of a language model: some 30,000 weights learn 36 facts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from expunge.bench.run import BenchSettings, bench
from expunge.core.cache import Cache

TINY = """
name: tiny_language
task: language
title: Six entities, a model of one layer
world: {kind: micro, entities: 6, cities: 0, forget: 1, model: {width: 48, layers: 1, heads: 2, inner: 64}}
training: {steps: 200, batch_size: 16, lr: 0.005}
common: {batch_size: 6, anneal: constant, warmup: 0.0, lr: 0.001, steps: 4}
seeds: 2
methods:
  npo: {}
  npo@attack: {}
  npo+su@attack: {}
  idk: {refusals: [unsure]}
"""


def write(folder: Path, **sections: Any) -> str:
    """The recipe in ``folder`` with sections replaced."""
    content = yaml.safe_load(TINY) | sections
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


def run(recipe: str, out: Path, cache: Path, **settings: Any) -> dict[str, Any]:
    record = bench(recipe, out, BenchSettings(**{"jobs": 1, **settings}), cache=Cache(cache))
    return json.loads(json.dumps(record, allow_nan=False))
