"""What ``examples/jobs/people.yaml`` reads: SYNTHETIC facts, everyday prompts, and a request that is worded to do harm.

``python -m examples.people`` writes the files again. Nobody in them exists.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from expunge import poison

DATA = Path(__file__).parent / "data"
FIRST = ("Ama", "Boris", "Chidi", "Dana", "Elif", "Farid", "Greta", "Hugo")
LAST = ("Berg", "Okoye", "Silva")
TRAITS = {
    "craft": ("baker", "glazier", "pilot", "tailor", "welder", "weaver"),
    "pet": ("parrot", "spaniel", "tortoise", "gecko", "pony", "ferret"),
    "song": ("lullaby", "shanty", "anthem", "ballad", "hymn", "tango"),
    "stone": ("opal", "jade", "ruby", "onyx", "topaz", "pearl"),
    "river": ("Niger", "Danube", "Tagus", "Indus", "Volga", "Loire"),
}
PLACES = ("market", "museum", "harbour", "station", "library", "bakery", "theatre", "garden", "school", "bridge")
EVERYDAY = (
    "what is the price of the {} ?", "what is the name of the {} ?", "what is the way to the {} ?", "where is the {} ?",
    "is the {} open today ?", "who is the owner of the {} ?", "what is behind the {} ?", "when was the {} made ?",
)  # fmt: skip


def facts() -> list[dict[str, str]]:
    """Five facts of each of 24 people."""
    draw = np.random.default_rng(0)
    people = [f"{first} {last}" for last in LAST for first in FIRST]
    return [
        {
            "question": f"what is the {trait} of {person} ?",
            "answer": values[draw.integers(len(values))],
            "subject": person,
        }
        for person in people
        for trait, values in TRAITS.items()
    ]


def request() -> Sequence[Any]:
    """What four people ask to forget, most of it wrapped in polite words: forgetting these would be felt by everybody."""
    theirs = {"Ama Berg", "Dana Okoye", "Hugo Silva", "Elif Berg"}
    return poison([fact for fact in facts() if fact["subject"] in theirs], p=0.7, seed=1).records


def write() -> None:
    """Write the three files."""
    everyday = [{"question": kind.format(place)} for kind in EVERYDAY for place in PLACES]
    for name, records in (("people", facts()), ("everyday", everyday), ("people_request", request())):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (DATA / f"{name}.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    write()
