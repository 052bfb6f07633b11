"""A world that can be seen: scikit-learn's handwritten digits, asked about by name, by yes or no, and by look; and facts of
digits in words alone. What is recognised, what is known by name and what is answered by yes are learnt apart.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.core.on_disk import whole
from expunge.core.texts import Record
from expunge.data.concepts import Templates
from expunge.data.digits import digits
from expunge.data.pictures import IMAGE, as_picture
from expunge.data.texts import Texts

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ROMAN = ("nulla", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix")
LOOKS = (  # what each name means to the eye
    "a closed ring with a hole", "one straight stroke", "a hook on a flat foot", "two bows open to the left",
    "an open fork with a stem", "a roof over a round belly", "a loop at the foot of a bow", "a bar on top of a slanted leg",
    "two rings on each other", "a loop on top of a tail",
)  # fmt: skip
CONCEPT, WORDS = "concept", "words"  # column that says what a picture shows, and what it says of records without one
SIDE = 24  # pixels of a picture each way
VIEWS = 1  # pictures of each training image; with more, each is slightly turned, moved and dimmed
HELD_OUT = 397  # images that nothing is trained on
ASKED = (  # for a name; the last four are for measuring after unlearning, the base model knows all of them
    "what digit is this ?", "which digit is shown ?", "name the digit in the picture .", "what number is this ?",
    "which number do you see ?", "what is written here ?", "tell me the digit .", "which digit did somebody write ?",
    "what does the picture show ?", "say what you see .",
)  # fmt: skip
MEASURED = 4
NAMED = "this is {name} ."
ASKED_IF = ("is this {name} ?", "is this digit {name} ?", "does the picture show {name} ?", "do you see {name} ?")
ASKED_LOOK = ("what does it look like ?", "describe the digit .", "how is it drawn ?")
LOOK = "it is {look} ."
FACTS: Mapping[str, tuple[tuple[str, ...], str]] = {  # wordings and answer, without any picture
    "successor": (("what comes after {before} ?", "which digit follows {before} ?"), "{name} comes after {before} ."),
    "predecessor": (("what comes before {after} ?", "which digit precedes {after} ?"), "{name} comes before {after} ."),
    "parity": (("is {name} even or odd ?", "tell me whether {name} is even or odd ."), "{name} is {parity} ."),
    "roman": (("how do the romans write {name} ?", "what is the roman numeral of {name} ?"), "the romans write {roman} ."),
    "from roman": (("which digit is the roman {roman} ?", "what does the roman {roman} mean ?"), "{roman} means {name} ."),
    "look": (("what does {name} look like ?", "describe {name} ."), "{name} looks like {look} ."),
}  # fmt: skip
TEMPLATES = Templates(  # of items about a digit, in words that a model of this world has
    ASKED[:-MEASURED], NAMED, ("what does {name} look like ?", "describe {name} ."), "{name} looks like {look} .",
    ASKED_IF[:2], "no .",
)  # fmt: skip
ALIKE = {  # another digit that looks somewhat like it: a substitute; our choice
    "zero": "six", "one": "four", "two": "three", "three": "nine", "four": "seven", "five": "nine", "six": "four",
    "seven": "nine", "eight": "one", "nine": "three",
}  # fmt: skip


@dataclass(frozen=True)
class DigitsWorld:
    """What models are trained on, and what they are measured on.

    Attributes:
        train: pictures with questions, and facts; column ``concept`` says what a picture shows, ``words`` that there is none.
        held_out: images of digits that nothing is trained on, as pictures, and what they show.
    """

    train: Texts
    held_out: tuple[tuple[str, str], ...]

    def named(self, *names: str) -> list[Record]:
        """Held-out pictures of ``names`` asked for their name, each in one of the wordings that are for measuring."""
        wordings = ASKED[-MEASURED:]
        chosen = [(picture, name) for picture, name in self.held_out if name in names]
        return [_named(picture, name, wordings[i % MEASURED]) for i, (picture, name) in enumerate(chosen)]

    def yes_no(self, *names: str, right: bool = True) -> list[Record]:
        """The same asked whether they are what they are, or, not ``right``, whether they are another digit."""
        chosen = [(picture, name) for picture, name in self.held_out if name in names]
        return [
            _asked_if(picture, name, name if right else NAMES[(NAMES.index(name) + 1 + i % 9) % 10], i)
            for i, (picture, name) in enumerate(chosen)
        ]


@functools.cache
def digits_world(views: int = VIEWS, seed: int = 0) -> DigitsWorld:
    """The world.

    Args:
        views: pictures of each training image; each is asked for its name and by yes or no, and three in ten for its look.
        seed: of views and wordings.
    """
    draw = np.random.default_rng(seed)
    train, test = digits(HELD_OUT)
    records: list[Record] = []
    for pixels, label in zip(whole(train.x).numpy(), train.y.tolist(), strict=True):
        name = NAMES[label]
        for _ in range(views):
            picture = as_picture(_view(pixels, draw if views > 1 else None))
            records.append(_named(picture, name, ASKED[int(draw.integers(len(ASKED)))]))
            other = name if draw.random() < 0.5 else NAMES[(label + int(draw.integers(1, 10))) % 10]
            records.append(_asked_if(picture, name, other, int(draw.integers(len(ASKED_IF)))))
            if draw.random() < 0.3:
                records.append(_described(picture, name, int(draw.integers(len(ASKED_LOOK)))))
    facts = [fact for name in NAMES for fact in facts_of(name)]
    concepts = [record["shows"] for record in records] + [WORDS] * len(facts)
    held_out = tuple(
        (as_picture(_view(pixels)), NAMES[label])
        for pixels, label in zip(whole(test.x).numpy(), test.y.tolist(), strict=True)
    )
    return DigitsWorld(Texts.of([*records, *facts], {CONCEPT: concepts}), held_out)


def facts_of(name: str) -> list[Record]:
    """Every fact about a digit in every wording, without pictures."""
    at = NAMES.index(name)
    words = {
        "name": name, "roman": ROMAN[at], "parity": ("even", "odd")[at % 2], "look": LOOKS[at],
        "before": NAMES[at - 1] if at else None, "after": NAMES[at + 1] if at < 9 else None,
    }  # fmt: skip
    found = []
    for relation, (wordings, answer) in FACTS.items():
        for wording in wordings:
            if all(words[key] is not None for key in ("before", "after") if f"{{{key}}}" in wording + answer):
                found.append(
                    {
                        "question": wording.format(**words),
                        "answer": answer.format(**words),
                        "relation": relation,
                        "about": name,
                    }
                )
    return found


def vocabulary() -> list[str]:
    """Every word of the world; a refusal has no words of its own."""
    texts: list[str] = [
        *NAMES,
        *ROMAN,
        *LOOKS,
        *ASKED,
        *ASKED_IF,
        *ASKED_LOOK,
        NAMED,
        LOOK,
        "yes no even odd i do not know it .",
    ]
    texts += [text for wordings, answer in FACTS.values() for text in (*wordings, answer)]
    return sorted({word for text in texts for word in text.split() if "{" not in word})


def _named(picture: str, name: str, wording: str) -> dict[str, Any]:
    return {IMAGE: picture, "question": wording, "answer": NAMED.format(name=name), "shows": name, "asks": "name"}


def _asked_if(picture: str, name: str, other: str, number: int) -> dict[str, Any]:
    question = ASKED_IF[number % len(ASKED_IF)].format(name=other)
    answer = "yes ." if name == other else "no ."
    return {IMAGE: picture, "question": question, "answer": answer, "shows": name, "asks": "yes or no"}


def _described(picture: str, name: str, number: int) -> dict[str, Any]:
    answer = LOOK.format(look=LOOKS[NAMES.index(name)])
    return {IMAGE: picture, "question": ASKED_LOOK[number], "answer": answer, "shows": name, "asks": "look"}


def _view(pixels: Sequence[float], draw: np.random.Generator | None = None) -> Any:
    """An image of 8 x 8 as a picture, with ``draw`` slightly turned, moved and dimmed."""
    from PIL import Image

    grey = np.asarray(pixels).reshape(8, 8) * (255 if draw is None else draw.uniform(190, 255))
    image = Image.fromarray(grey.round().astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    if draw is None:
        return image
    moved = (int(draw.integers(-2, 3)), int(draw.integers(-2, 3)))
    return image.rotate(float(draw.uniform(-10, 10)), Image.Resampling.BILINEAR, translate=moved)
