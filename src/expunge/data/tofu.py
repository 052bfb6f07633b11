"""TOFU: 200 authors who do not exist, 20 questions each, and what a model should go on knowing (Maini et al. 2024).

A folder holds ``full.json`` and the splits that were made of it, one JSON object on each line. Author i wrote rows 20 i to
20 i + 19 of ``full``; forget splits are its last rows, ``forget10`` and ``retain90`` together are all of it. ``*_perturbed``
carry wrong answers beside the right one. Licence of the data: MIT.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from expunge.core.errors import InputError
from expunge.data.texts import Texts, read_jsonl

AUTHOR = "author"  # column: which of the authors a question is about
OF_AUTHOR = 20  # questions of each, one after another in ``full``
FULL, REFUSALS = "full", "idontknow"
ELSEWHERE = ("real_authors", "world_facts")  # people and facts that exist: no rows of ``full``


def splits(folder: Path) -> tuple[str, ...]:
    """Names that :func:`read_tofu` takes for this folder, sorted."""
    return tuple(sorted(path.stem for path in folder.glob("*.json")))


def read_tofu(folder: Path, split: str) -> Texts:
    """One split, with ids that are positions in ``full`` and a column ``author``.

    Splits about real authors and world facts are no part of ``full``: their ids are positions in their own file, and
    they have no such column.

    Raises:
        InputError: for a split that the folder lacks (it names those that are there), or rows that ``full`` does not have.
    """
    if split not in splits(folder):
        known = ", ".join(splits(folder)) or "none: it holds no file that ends in .json"
        extra = f" The refusals are read by refusals(), not as a split: {REFUSALS}." if split == REFUSALS else ""
        raise InputError(f"Expected a split of TOFU in {folder}; got {split!r}. There are: {known}.{extra}")
    found = read_jsonl(folder / f"{split}.json")
    if split.removesuffix("_perturbed") in ELSEWHERE:
        return found
    if split != FULL:
        found = replace(found, ids=_positions(folder, split, found))
    return replace(found, columns={AUTHOR: found.ids // OF_AUTHOR})


def refusals(folder: Path) -> tuple[str, ...]:
    """TOFU's ways to say "I do not know", one text each (the file holds plain lines, whatever its ending says).

    Raises:
        InputError: for a missing or empty file.
    """
    path = folder / f"{REFUSALS}.jsonl"
    if not path.is_file():
        raise InputError(f"There is no file {path}; TOFU's refusals are one sentence on each line of it.")
    found = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    if not found:
        raise InputError(f"Expected one refusal on each line of {path.name}; it is empty.")
    return found


def _positions(folder: Path, split: str, found: Texts) -> np.ndarray:
    """Where each record lies in ``full``, by question and answer: two authors share a question."""
    full = read_jsonl(folder / f"{FULL}.json")
    where = {(record["question"], record["answer"]): i for i, record in enumerate(full.records)}
    asked = [(record["question"], record["answer"]) for record in found.records]
    if lost := [i for i, pair in enumerate(asked) if pair not in where]:
        raise InputError(
            f"{len(lost)} of {len(asked)} records of {split} are not in {FULL}, the first on line {lost[0] + 1}: "
            f"{asked[lost[0]][0]!r:.80}. Take both files from one copy of TOFU."
        )
    positions = np.array([where[pair] for pair in asked], dtype=np.int64)
    if len(np.unique(positions)) < len(positions):
        raise InputError(f"{split} holds records twice. Take it from one copy of TOFU, or drop the copies.")
    return positions
