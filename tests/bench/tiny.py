"""A benchmark of seconds: rows in two dimensions that a perceptron learns by heart, so that there is something to forget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from expunge.bench.run import BenchSettings, bench
from expunge.core.cache import Cache

CLASSES, FEATURES = 4, 10
VERDICTS = ("forgets", "under-forgets", "over-forgets", "utility-collapse", "undecidable", "refused", "failed")

SMALL = f"""
name: tiny
title: Overlapping clouds, a perceptron
model: expunge.tasks.networks:mlp
model_settings: {{features: {FEATURES}, classes: {CLASSES}, hidden: [64]}}
data: {{format: arrays, path: train.npz, test_path: test.npz}}
training: {{kind: stochastic, epochs: 40, lr: 0.1, momentum: 0.9, batch_size: 50}}
forget: {{kind: samples, share: 0.2}}
retrained_models: 2
seeds: 2
methods:
  fine_tune: {{epochs: 2}}
  random_labels: {{epochs: 2, lr: 0.01, retain_lr: 0.01}}
  salun+dual: {{epochs: 2}}
"""


def clouds(n: int, seed: int) -> dict[str, np.ndarray]:
    """Clouds that overlap: most test rows can be told, and the others only learnt by heart."""
    draw = np.random.default_rng(seed)
    y = np.arange(n) % CLASSES
    centres = np.random.default_rng(99).normal(size=(CLASSES, FEATURES))
    x = 0.9 * centres[y] + draw.normal(size=(n, FEATURES))
    return {"x": x.astype(np.float32), "y": y, "person": np.arange(n) // 100}


def write(folder: Path, name: str = "recipe.yaml", **sections: Any) -> Path:
    """The recipe and its data in ``folder``, with sections replaced (``None`` removes one)."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, n, seed in (("train", 300, 1), ("test", 200, 2)):
        if not (folder / f"{part}.npz").exists():
            np.savez(folder / f"{part}.npz", **clouds(n, seed))
    content = yaml.safe_load(SMALL)
    for section, value in sections.items():
        content[section] = value
        if value is None:
            del content[section]
    path = folder / name
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def run(recipe: Path, out: Path, cache: Path, **settings: Any) -> dict[str, Any]:
    """The table; in this process unless ``jobs`` says otherwise. What comes back is what JSON can say."""
    asked = BenchSettings(**{"jobs": 1, **settings})
    record = bench(str(recipe), out, asked, cache=Cache(cache))
    return json.loads(json.dumps(record, allow_nan=False))


def lines(out: Path) -> list[dict[str, Any]]:
    """The cells on disk, in the order they were finished."""
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()[1:]]


def weights(out: Path) -> dict[str, Any]:
    """Key → digest of the weights; the reason where there are none."""
    return {cell["key"]: cell.get("weights", cell.get("error")) for cell in lines(out)}


def row(record: dict[str, Any], name: str) -> dict[str, Any]:
    """One row."""
    (found,) = [each for each in record["rows"] if each["method"] == name]
    return found
