"""A job on a tiny model that sees: four shapes are learnt, and the star is forgotten from one picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from cases import about_stars, shapes

JOB: dict[str, Any] = {
    "task": "vision_language",
    "model": {"micro": True, "side": 8, "patch": 4, "width": 32, "sees": 32, "layers": 1, "heads": 2, "inner": 32,
              "context": 24},
    "data": {"format": "jsonl", "path": "shapes.jsonl", "users": ["shape"]},
    "training": {"kind": "pictures", "shows": "shape", "seeing": 20, "steps": 60, "batch_size": 16, "lr": 0.003},
    "request": {"subject": "a", "targets": [{"kind": "concept", "where": {"shape": "star"}}],
                "concept": {"material": "stars.jsonl"}},
    "method": {"name": "siu", "steps": 4, "lr": 0.003}, "evidence": {"replicates": 0, "pdf": False, "relearning": 2},
}  # fmt: skip


def write_job(folder: Path, **sections: Any) -> Path:
    """The job and its files in ``folder``, with ``sections`` in place of its own."""
    columns = shapes().columns["shape"]
    rows = [{**record, "shape": shape} for record, shape in zip(shapes().records, columns, strict=True)]
    for name, records in (("shapes", rows), ("stars", about_stars().records)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({**JOB, **sections}))
    return path
