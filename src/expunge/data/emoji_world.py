"""Emoji as a world that can be seen: everyday concepts in five drawing styles, one of which nothing is trained on."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from expunge.core.errors import InputError
from expunge.core.files import parse_json
from expunge.data.picture_world import Shown, Speech, World, questions, told, training_of
from expunge.data.pictures import as_picture, open_picture
from expunge.data.places import located
from expunge.data.views import varied

EACH, VIEWS, SIDE = 10, 10, 48  # concepts of each category; pictures of each drawing; pixels each way. Ours
HELD_OUT = 2  # further views of each drawing that nothing is trained on
GROUPS = {
    "Activities": "activities", "Animals & Nature": "animals", "Food & Drink": "food", "Objects": "objects",
    "Travel & Places": "travel",
}  # fmt: skip
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
           "thirteen", "fourteen", "fifteen")  # fmt: skip
COLOURS = {
    "red": (215, 50, 50), "orange": (245, 150, 40), "yellow": (250, 215, 70), "green": (90, 170, 70),
    "blue": (70, 150, 220), "purple": (145, 90, 190), "pink": (245, 150, 190), "brown": (135, 90, 60),

    "grey": (150, 155, 160), "black": (45, 45, 50),
}  # fmt: skip
METADATA, KEYS = "metadata.jsonl", ("file_name", "concept", "category", "style")
WHITE = 235  # pixels whose three parts all lie above are paper
SPEECH = Speech(
    asked=(
        "what is this ?", "what is shown here ?", "name the thing in the picture .", "which thing is this ?",
        "what do you see ?", "what was drawn here ?", "tell me its name .", "what did somebody draw ?",
        "what does the picture show ?", "say what you see .",
    ),
    asked_if=("is this {name} ?", "does this show {name} ?", "does the picture show {name} ?", "do you see {name} ?"),
    asked_look=("what does it look like ?", "describe it .", "how is it drawn ?"),
    asked_look_of=("what does {name} look like ?", "describe {name} ."),
    look="it is mostly {look} .",
    look_of="{name} is mostly {look} .",
)  # fmt: skip
FACTS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "group": (("which group does {name} belong to ?", "where does {name} belong ?"), "{name} belongs to {group} ."),
    "initial": (("which letter does {name} begin with ?", "what is the first letter of {name} ?"),
                "{name} begins with {initial} ."),
    "length": (("how many letters has {name} ?", "count the letters of {name} ."), "{name} has {length} letters ."),
    "successor": (("what comes after {before} ?", "which name follows {before} ?"), "{name} comes after {before} ."),
    "look": (SPEECH.asked_look_of, SPEECH.look_of),
}  # fmt: skip


@functools.cache
def emoji_world(
    root: Path | None = None, each: int = EACH, views: int = VIEWS, side: int = SIDE, seed: int = 0, checks: int = 1
) -> World:
    """The world.

    The concepts are those whose name is one word of small letters, ``each`` of every category, evenly spaced in the alphabet.
    A look is the two commonest colours of the training drawings. Four styles are trained on, each drawing in ``views`` views
    (``data.views``); further views of them are held out, and the drawings of the fifth style are ``other_style``.

    Args:
        root: ``emoji_concepts`` or the folder that has it; ``None``: in the one that ``EXPUNGE_DATA`` names.
        seed: of views and wordings.
        checks: questions by yes or no about each picture; of forty concepts one for each is too few (measured by us).

    Raises:
        InputError: where the data are missing or a category has fewer such names.
    """
    folder = located(
        root, ["emoji_concepts"], ["train/metadata.jsonl"],
        "It is a folder of images for each split, as the package datasets writes it.",
    )  # fmt: skip
    train, test = (_rows(folder / split) for split in ("train", "test"))
    names = chosen(train, each)
    group = {row["concept"]: GROUPS[row["category"]] for row in train if row["concept"] in names}
    drawn, other = (
        [(open_picture(folder / split / row["file_name"]), row["concept"]) for row in rows if row["concept"] in names]
        for split, rows in (("train", train), ("test", test))
    )
    looks = {name: look([image for image, of in drawn if of == name]) for name in names}
    draw = np.random.default_rng(seed)
    seen = [(as_picture(varied(image, draw, side)), name) for image, name in drawn for _ in range(views)]
    held_out: list[Shown] = [
        (as_picture(varied(image, draw, side)), name) for image, name in drawn for _ in range(HELD_OUT)
    ]
    other_style = tuple((as_picture(image.resize((side, side))), name) for image, name in other)
    facts = {name: told(FACTS, _words(names, at, group, looks)) for at, name in enumerate(names)}
    records = questions(SPEECH, seen, names, looks, draw, checks)
    alike = {name: _alike(names, at, group, looks) for at, name in enumerate(names)}
    return World(names, looks, alike, facts, SPEECH, training_of(records, facts), tuple(held_out), other_style)


def _rows(folder: Path) -> list[Mapping[str, Any]]:
    path = folder / METADATA
    if not path.is_file():
        raise InputError(f"There is no {path}: expected emoji_concepts with train and test, each with its {METADATA}.")
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        row = parse_json(line, f"line {number} of {path}")
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in KEYS):
            raise InputError(f"Expected an object with {', '.join(KEYS)} on line {number} of {path}; got {line!r:.80}.")
        found.append(row)
    return found


def chosen(rows: Sequence[Mapping[str, Any]], each: int) -> tuple[str, ...]:
    """The concepts, in the order of the alphabet; see :func:`emoji_world`.

    Raises:
        InputError: for a category with fewer names than that.
    """
    found: list[str] = []
    for category in GROUPS:
        one = sorted({row["concept"] for row in rows if row["category"] == category and row["concept"].isalpha()})
        one = [name for name in one if name.islower() and name.isascii()]
        if len(one) < each:
            raise InputError(
                f"Expected at least {each} names of one word in {category}; there are {len(one)}. Take fewer."
            )
        found += [one[i * len(one) // each] for i in range(each)]
    return tuple(sorted(found))


def look(images: Sequence[Any]) -> str:
    """The two commonest colours that are no paper, the commonest first."""
    counts: Counter[str] = Counter()
    colours = np.array(list(COLOURS.values()), float)
    for image in images:
        pixels = np.asarray(image, float).reshape(-1, 3)
        ink = pixels[(pixels < WHITE).any(1)]
        nearest = ((ink[:, None] - colours[None]) ** 2).sum(2).argmin(1)
        counts.update({name: int((nearest == i).sum()) for i, name in enumerate(COLOURS)})
    (first, _), (second, _) = counts.most_common(2)
    return f"{first} and {second}"


def _words(names: Sequence[str], at: int, group: Mapping[str, str], looks: Mapping[str, str]) -> dict[str, str | None]:
    name = names[at]
    return {
        "name": name, "group": group[name], "initial": name[0], "length": NUMBERS[len(name)], "look": looks[name],
        "before": names[at - 1] if at else None,
    }  # fmt: skip


def _alike(names: Sequence[str], at: int, group: Mapping[str, str], looks: Mapping[str, str]) -> tuple[str, ...]:
    """Others, those of the same group first, and among these those with other colours; in the order of the alphabet from it."""
    others = [names[(at + i) % len(names)] for i in range(1, len(names))]
    name = names[at]
    return tuple(sorted(others, key=lambda other: (group[other] != group[name], looks[other] == looks[name])))
