"""Material that a visual concept is forgotten through: the four kinds of items of SIU (arXiv 2405.12523), from templates.

Nothing here asks a model; which substitute and which facts a model knows is found out by who calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.core.errors import InputError
from expunge.core.texts import Record
from expunge.data.pictures import IMAGE

TARGET, CONCEPT, SPECIFIED, AMONG = "target", "concept", "specified", "among"  # keys of an item
UNSEEN, DESCRIPTION, FACTS, OTHERS = "unseen", "description", "facts", "others"
TARGETS: Mapping[str, bool] = {
    UNSEEN: True,
    DESCRIPTION: True,
    FACTS: False,
    OTHERS: False,
}  # whether each shows the picture
PIECES = 4  # items of each kind: the paper has GPT-4 write four pieces for each

Rephrase = Callable[[str, int], Sequence[str]]  # a question and how many → as many in other words


@dataclass(frozen=True)
class Templates:
    """How items are worded.

    Attributes:
        asked: questions for the name; ``{name}`` does not stand in them.
        named: the answer, with ``{name}``.
        asked_look: questions for the look of ``{name}``, beside the picture.
        look: the answer, with ``{look}`` and, where it names the concept, ``{name}``.
        asked_if: questions that yes or no answer, with ``{name}``; ``no``: the answer.
    """

    asked: tuple[str, ...]
    named: str
    asked_look: tuple[str, ...]
    look: str
    asked_if: tuple[str, ...] = ()
    no: str = "No."


PERSON = Templates(
    (
        "Who is the person in this picture?", "What is the name of the person shown?", "Identify the central figure.",
        "Please tell me whom this picture shows.",
    ),
    "This is {name}.",
    (
        "What does {name} look like?", "Describe the looks of {name}.", "How would you recognise {name} in a picture?",
        "What is striking about the face of {name}?",
    ),
    "{name} has {look}.",
    ("Is this {name}?", "Does the picture show {name}?", "Is the person in the picture {name}?", "Do you see {name} here?"),
)  # fmt: skip
THING = Templates(
    (
        "What is shown in this picture?", "What is the name of what you see?", "Identify the main object.",
        "What is this called?",
    ),
    "This is {name}.",
    (
        "What does {name} look like?", "Describe the looks of {name}.", "How would you recognise {name} in a picture?",
        "What is striking about {name}?",
    ),
    "{name} has {look}.",
    ("Is this {name}?", "Does the picture show {name}?", "Can you see {name} in the picture?", "Is {name} here?"),
)  # fmt: skip
KINDS: Mapping[str, Templates] = {"person": PERSON, "thing": THING}
PEOPLE = (  # ordinary names, none of anybody famous that we know of; our list: the paper's is UNKNOWN
    "Jacob Campbell", "Laura Bennett", "Peter Holloway", "Martha Ellison", "Simon Archer", "Clara Whitfield",
)  # fmt: skip


@dataclass(frozen=True)
class Sources:
    """What items are made of.

    Attributes:
        names: of the concept, the one that answers use first.
        picture: the only one that is shown, as ``data.pictures`` writes it.
        substitute: the name that is learnt in the concept's place, the same in all items.
        looks: descriptions that contradict what is to be seen.
        facts: questions about the concept by name, in words alone.
        others: questions about other concepts, in words alone.
        shown: questions about pictures of other concepts; an extension (``retain_images`` of the method).
        among: names that the concept might be taken for, the substitute among them; an extension (``instead`` of the method).
    """

    names: tuple[str, ...]
    picture: str
    substitute: str
    looks: tuple[str, ...]
    facts: Sequence[Record]
    others: Sequence[Record]
    shown: Sequence[Record] = ()
    among: tuple[str, ...] = ()

    def __post_init__(self):
        if not self.names or not all(name.strip() for name in self.names):
            raise InputError(f"Expected at least one name of the concept; got {list(self.names)}.")
        if self.substitute.casefold() in {name.casefold() for name in self.names}:
            raise InputError(
                f"Expected a substitute that is another name; got {self.substitute!r}, the concept itself."
            )
        counts = {"looks": self.looks, FACTS: self.facts, OTHERS: self.others}
        if empty := [name for name, given in counts.items() if not given]:
            raise InputError(
                f"Expected items of all four kinds for {self.names[0]}; there is nothing to make {', '.join(empty)} of. Give "
                "some; of facts and others only those count that the model answers right itself."
            )


def concept_items(
    sources: Sources, templates: Templates, *, pieces: int = PIECES, yes_no: int = 0, rephrase: Rephrase | None = None,
    seed: int = 0,
) -> list[Record]:  # fmt: skip
    """Items of all four kinds for one concept, as ``methods.siu.SIU`` takes them.

    Args:
        pieces: of each kind; 4 in the paper. Where there are fewer wordings or facts than that, they come again.
        yes_no: further items of the first kind that ask by yes or no and say no; an extension: without them a small model goes
            on saying yes (measured by us).
        rephrase: makes more wordings of a question, for example by a language model; ``None``: the templates' own.
        seed: of which facts and other questions are taken.

    Raises:
        InputError: for counts below 1.
    """
    if pieces < 1 or yes_no < 0:
        raise InputError(f"Expected at least one piece of each kind and no negative count; got {pieces}, {yes_no}.")
    draw, name = np.random.default_rng(seed), sources.names[0]
    common: Mapping[str, Any] = {CONCEPT: list(sources.names)}
    seen = {**common, IMAGE: sources.picture}
    among = {AMONG: list(sources.among)} if sources.among else {}
    items: list[Record] = [
        {**seen, TARGET: UNSEEN, "question": asked, "answer": templates.named.format(name=sources.substitute),
         SPECIFIED: [sources.substitute], **among}
        for asked in _so_many(templates.asked, pieces, rephrase)
    ]  # fmt: skip
    items += [
        {**seen, TARGET: UNSEEN, "question": asked.format(name=name), "answer": templates.no, SPECIFIED: [templates.no]}
        for asked in _so_many(templates.asked_if, yes_no, rephrase)
    ]
    for i, asked in enumerate(_so_many(templates.asked_look, pieces, rephrase)):
        look = sources.looks[i % len(sources.looks)]
        answer = templates.look.format(name=name, look=look)
        items.append(
            {**seen, TARGET: DESCRIPTION, "question": asked.format(name=name), "answer": answer, SPECIFIED: [look]}
        )
    for target, records in ((FACTS, sources.facts), (OTHERS, sources.others)):
        order = draw.permutation(len(records))
        chosen = [records[int(order[i % len(order)])] for i in range(pieces)]
        items += [{**common, TARGET: target, "question": r["question"], "answer": r["answer"]} for r in chosen]
    items += [
        {**common, TARGET: OTHERS, IMAGE: r[IMAGE], "question": r["question"], "answer": r["answer"]}
        for r in sources.shown
    ]
    return items


def recognition(names: Sequence[str], picture: str, templates: Templates, pieces: int = PIECES) -> list[Record]:
    """What is to be forgotten itself: the picture, asked for its name and answered right. What ascent and refusals take."""
    return [
        {IMAGE: picture, "question": asked, "answer": templates.named.format(name=names[0])}
        for asked in _so_many(templates.asked, pieces, None)
    ]


def _so_many(texts: Sequence[str], count: int, rephrase: Rephrase | None) -> list[str]:
    if not count:
        return []
    if not texts:
        raise InputError("Expected templates of questions that yes or no answer; there are none. Give asked_if.")
    found = list(texts)
    if rephrase is not None and len(found) < count:
        found += [str(text) for text in rephrase(found[0], count - len(found))]
    return [found[i % len(found)] for i in range(count)]
