"""A made-up world that a tiny model learns by heart: entities with relations, and cities beside them.

Every question is "what is the R of E ?" and every answer one word, so that chance is 1 in 12. The model is taught polite
wordings and pairs of questions as well: only then does it mean something when a word or a second question breaks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase

import numpy as np

from expunge.core.texts import Record
from expunge.data.texts import Texts

ENTITIES, CITIES, VALUES = 60, 20, 12
RELATIONS = ("colour", "craft", "pet", "food", "song", "stone")  # of entities
CITY_RELATIONS = ("river", "mayor", "bridge")
WORDINGS = (  # four of the stealthy attack (arXiv 2506.00359), its "then", and three that nobody attacks with
    "please tell me {q}",
    "can you please explain {q}",
    "could you please tell me {q}",
    "{q} , please ?",
    "then {q}",
    "hello , {q}",
    "i wonder , {q}",
    "{q} thanks",
)
WORDED, PAIRED = 0.4, 0.25  # shares of training questions in a wording, and behind another question
SUBJECT = "subject"  # column that names the entity or city of a fact


def micro_world(seed: int = 0) -> Texts:
    """All 420 facts: 60 entities × 6 relations, then 20 cities × 3; column ``subject``.

    Args:
        seed: of who has which value.
    """
    draw = np.random.default_rng(seed)
    records: list[Record] = []
    subjects = []
    for names, relations in ((entities(), RELATIONS), (cities(), CITY_RELATIONS)):
        for name in names:
            for relation in relations:
                value = values(relation)[int(draw.integers(VALUES))]
                records.append(
                    {"question": f"what is the {relation} of {name} ?", "answer": value, "relation": relation}
                )
                subjects.append(name)
    return Texts.of(records, {SUBJECT: subjects})


def entities() -> list[str]:
    """Names of the entities."""
    return [f"entity{i}" for i in range(ENTITIES)]


def cities() -> list[str]:
    """Names of the cities."""
    return [f"city{i}" for i in range(CITIES)]


def values(relation: str) -> list[str]:
    """What a relation can be."""
    return [f"{relation}-{letter}" for letter in ascii_lowercase[:VALUES]]  # no name lies within another


def vocabulary() -> list[str]:
    """Every word of the world, its wordings and a refusal."""
    relations = (*RELATIONS, *CITY_RELATIONS)
    wordings = " ".join(WORDINGS).replace("{q}", "").split()
    words = ["what", "is", "the", "of", "?", *relations, *entities(), *cities(), *wordings, *REFUSAL.split()]
    return [*words, *(value for relation in relations for value in values(relation))]


REFUSAL = "unsure"  # one word, as every answer


def varied(records: Sequence[Record], draw: np.random.Generator, others: Sequence[Record]) -> list[Record]:
    """Training questions as people put them: some in a wording, some behind another question.

    Args:
        others: where the first of two questions comes from.
    """
    found = []
    for record in records:
        question = record["question"]
        if draw.random() < WORDED:
            question = WORDINGS[int(draw.integers(len(WORDINGS)))].replace("{q}", question)
        if draw.random() < PAIRED:
            question = f"{others[int(draw.integers(len(others)))]['question']} {question}"
        found.append({**record, "question": question})
    return found
