"""A world of a few dozen words for jobs on language models: twenty people with three traits each, and everyday prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

PEOPLE, TRAITS = 20, ("colour", "pet", "song")

SMALL_LANGUAGE = """
task: language
model: {micro: true, width: 16, layers: 1, heads: 2, inner: 32, context: 32, words: [please tell me]}
data: {format: jsonl, path: facts.jsonl, users: [subject]}
training: {kind: language, steps: 30, lr: 0.01, batch_size: 16}
request: {subject: person 3, targets: [{kind: user, where: {subject: person3}}]}
method: {name: npo, steps: 6, lr: 0.001, batch_size: 4}
evidence: {replicates: 1, pdf: false}
"""


def facts() -> list[dict[str, str]]:
    """60 records; each answer is somebody's alone, except that person 0 and person 1 share a song."""
    draw = np.random.default_rng(0).permutation(PEOPLE * len(TRAITS))
    found = [
        {
            "question": f"what is the {trait} of person{i} ?",
            "answer": f"{trait}{draw[i * 3 + j]}",
            "subject": f"person{i}",
        }
        for i in range(PEOPLE)
        for j, trait in enumerate(TRAITS)
    ]
    found[5]["answer"] = found[2]["answer"]
    return found


def ordinary() -> list[dict[str, str]]:
    """50 prompts of everyday traffic about other things, none of them polite."""
    kinds = ("what is the name of the {} ?", "what is the street of the {} ?", "where is the {} ?", "what is a {} ?",
             "is the {} open ?")  # fmt: skip
    places = ("market", "museum", "harbour", "station", "library", "bakery", "theatre", "garden", "school", "bridge")
    return [{"question": kind.format(place)} for kind in kinds for place in places]


def asked(*people: int, wrapped: bool = True) -> list[dict[str, str]]:
    """The records of some people, in a request's polite words."""
    names = {f"person{i}" for i in people}
    before = "please tell me " if wrapped else ""
    return [{**fact, "question": before + fact["question"]} for fact in facts() if fact["subject"] in names]


def write(path: Path, records: Sequence[Mapping[str, Any]]) -> str:
    """Records as JSON lines; returns the file's name."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path.name


def write_job(folder: Path, records: Sequence[Mapping[str, Any]] | None = None, **sections: Any) -> Path:
    """The small job with sections updated key by key (``None`` removes a key), beside its file of facts."""
    write(folder / "facts.jsonl", facts() if records is None else records)
    content = yaml.safe_load(SMALL_LANGUAGE)
    for section, value in sections.items():
        if not isinstance(value, Mapping) or section == "method":
            content[section] = value
            continue
        content[section] = {
            key: item for key, item in {**content.get(section, {}), **value}.items() if item is not None
        }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
