"""Worlds that can be seen: concepts with pictures, asked about by name, by yes or no and by look, and facts in words alone.

What is recognised, what is known by name and what is answered by yes are learnt apart. A world is a :class:`World`;
``digits_world``, ``characters_world`` and ``emoji_world`` make one each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from expunge.core.texts import Record
from expunge.data.concepts import Templates
from expunge.data.pictures import IMAGE
from expunge.data.texts import Texts

CONCEPT, WORDS = "concept", "words"  # column that says what a picture shows, and what it says of records without one
MEASURED = 4  # wordings of open questions that are for measuring: the last ones
DESCRIBED = 0.3  # share of the pictures that are asked for their look as well; our choice
REFUSAL = "i do not know it ."
Shown = tuple[str, str]  # a picture, and what it shows


@dataclass(frozen=True)
class Speech:
    """In which words a world asks and answers.

    Attributes:
        asked: open questions for a name; the last :data:`MEASURED` are for measuring, the base model knows all of them.
        asked_if: questions that yes or no answer, with ``{name}``.
        asked_look: questions for the look of what is shown; look: the answer, with ``{look}``.
        named: the answer to an open question, with ``{name}``.
        asked_look_of, look_of: the question for the look of ``{name}``, in words, and the answer, with ``{look}`` too.
    """

    asked: tuple[str, ...]
    asked_if: tuple[str, ...]
    asked_look: tuple[str, ...]
    asked_look_of: tuple[str, ...]
    named: str = "this is {name} ."
    look: str = "it is {look} ."
    look_of: str = "{name} looks like {look} ."

    @property
    def templates(self) -> Templates:
        """Of items about a concept, in words that a model of this world has, without the wordings for measuring."""
        return Templates(
            self.asked[:-MEASURED], self.named, self.asked_look_of, self.look_of, self.asked_if[:2], "no ."
        )

    @property
    def texts(self) -> list[str]:
        """Everything that is said whatever is shown."""
        said = [*self.asked, *self.asked_if, *self.asked_look, *self.asked_look_of, self.named, self.look, self.look_of]
        return [*said, f"yes no {REFUSAL}"]


@dataclass(frozen=True, eq=False)
class World:
    """What models are trained on, and what they are measured on.

    Attributes:
        names: of the concepts; each is one word.
        looks: name → what it means to the eye.
        alike: name → other concepts of its kind, the most alike first: substitutes.
        facts: name → facts about the concept in every wording, in words alone; ``relation`` says which, ``look`` its look.
        speech: in which words.
        train: pictures with questions, and facts; column ``concept`` says what a picture shows, ``words`` that there is none.
        held_out: pictures that nothing is trained on, and what they show.
        other_style: the same, drawn in a style that no training picture has.
    """

    names: tuple[str, ...]
    looks: Mapping[str, str]
    alike: Mapping[str, Sequence[str]]
    facts: Mapping[str, Sequence[Record]]
    speech: Speech
    train: Texts = field(repr=False)
    held_out: tuple[Shown, ...] = field(repr=False)
    other_style: tuple[Shown, ...] = field(default=(), repr=False)

    def named(self, *names: str, other_style: bool = False) -> list[Record]:
        """Held-out pictures of ``names`` asked for their name, each in one of the wordings that are for measuring."""
        wordings = self.speech.asked[-MEASURED:]
        chosen = [each for each in (self.other_style if other_style else self.held_out) if each[1] in names]
        return [asked_name(self.speech, *each, wordings[i % MEASURED]) for i, each in enumerate(chosen)]

    def yes_no(self, *names: str, right: bool = True) -> list[Record]:
        """The same asked whether they are what they are, or, not ``right``, whether they are another concept."""
        chosen = [each for each in self.held_out if each[1] in names]
        count, at = len(self.names), {name: i for i, name in enumerate(self.names)}
        return [
            asked_if(
                self.speech, picture, name, name if right else self.names[(at[name] + 1 + i % (count - 1)) % count], i
            )
            for i, (picture, name) in enumerate(chosen)
        ]

    @property
    def vocabulary(self) -> list[str]:
        """Every word of the world; a refusal has no words of its own."""
        texts = [*self.names, *self.looks.values(), *self.speech.texts]
        texts += [fact[key] for facts in self.facts.values() for fact in facts for key in ("question", "answer")]
        return sorted({word for text in texts for word in text.split() if "{" not in word})


def questions(
    speech: Speech, pictures: Iterable[Shown], names: Sequence[str], looks: Mapping[str, str], draw: np.random.Generator,
    checks: int = 1,
) -> list[Record]:  # fmt: skip
    """Of each picture a question for its name, ``checks`` by yes or no, half of them right, and of some the look."""
    at, records = {name: i for i, name in enumerate(names)}, []
    for picture, name in pictures:
        records.append(asked_name(speech, picture, name, speech.asked[int(draw.integers(len(speech.asked)))]))
        for _ in range(checks):
            other = name if draw.random() < 0.5 else names[(at[name] + int(draw.integers(1, len(names)))) % len(names)]
            records.append(asked_if(speech, picture, name, other, int(draw.integers(len(speech.asked_if)))))
        if draw.random() < DESCRIBED:
            wording = speech.asked_look[int(draw.integers(len(speech.asked_look)))]
            answer = speech.look.format(look=looks[name])
            records.append({IMAGE: picture, "question": wording, "answer": answer, "shows": name, "asks": "look"})
    return records


def training_of(seen: Sequence[Record], facts: Mapping[str, Sequence[Record]]) -> Texts:
    """Records about pictures and facts, with the column ``concept``."""
    told = [fact for each in facts.values() for fact in each]
    return Texts.of([*seen, *told], {CONCEPT: [record["shows"] for record in seen] + [WORDS] * len(told)})


def told(relations: Mapping[str, tuple[Sequence[str], str]], words: Mapping[str, str | None]) -> list[Record]:
    """Facts about the concept ``words["name"]`` in every wording: relation → wordings and answer, filled in with ``words``; not
    those that say something that is ``None`` of it.
    """
    found: list[Record] = []
    for relation, (wordings, answer) in relations.items():
        for wording in wordings:
            if all(value is not None for key, value in words.items() if f"{{{key}}}" in wording + answer):
                said = {"question": wording.format(**words), "answer": answer.format(**words)}
                found.append({**said, "relation": relation, "about": words["name"]})
    return found


def asked_name(speech: Speech, picture: str, name: str, wording: str) -> dict[str, Any]:
    """An open question about ``picture``."""
    answer = speech.named.format(name=name)
    return {IMAGE: picture, "question": wording, "answer": answer, "shows": name, "asks": "name"}


def asked_if(speech: Speech, picture: str, name: str, other: str, number: int) -> dict[str, Any]:
    """Whether ``picture``, which shows ``name``, shows ``other``."""
    question = speech.asked_if[number % len(speech.asked_if)].format(name=other)
    answer = "yes ." if name == other else "no ."
    return {IMAGE: picture, "question": question, "answer": answer, "shows": name, "asks": "yes or no"}
