"""The digits of scikit-learn as a world that can be seen: real handwriting, and facts of digits in words alone."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from expunge.core.on_disk import whole
from expunge.data.digits import digits
from expunge.data.picture_world import Speech, World, questions, told, training_of
from expunge.data.pictures import as_picture

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ROMAN = ("nulla", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix")
LOOKS = (  # what each name means to the eye
    "a closed ring with a hole", "one straight stroke", "a hook on a flat foot", "two bows open to the left",
    "an open fork with a stem", "a roof over a round belly", "a loop at the foot of a bow", "a bar on top of a slanted leg",
    "two rings on each other", "a loop on top of a tail",
)  # fmt: skip
SIDE = 24  # pixels of a picture each way
VIEWS = 1  # pictures of each training image; with more, each is slightly turned, moved and dimmed
HELD_OUT = 397  # images that nothing is trained on
SPEECH = Speech(
    asked=(
        "what digit is this ?", "which digit is shown ?", "name the digit in the picture .", "what number is this ?",
        "which number do you see ?", "what is written here ?", "tell me the digit .", "which digit did somebody write ?",
        "what does the picture show ?", "say what you see .",
    ),
    asked_if=("is this {name} ?", "is this digit {name} ?", "does the picture show {name} ?", "do you see {name} ?"),
    asked_look=("what does it look like ?", "describe the digit .", "how is it drawn ?"),
    asked_look_of=("what does {name} look like ?", "describe {name} ."),
)  # fmt: skip
FACTS: Mapping[str, tuple[tuple[str, ...], str]] = {  # wordings and answer, without any picture
    "successor": (("what comes after {before} ?", "which digit follows {before} ?"), "{name} comes after {before} ."),
    "predecessor": (("what comes before {after} ?", "which digit precedes {after} ?"), "{name} comes before {after} ."),
    "parity": (("is {name} even or odd ?", "tell me whether {name} is even or odd ."), "{name} is {parity} ."),
    "roman": (("how do the romans write {name} ?", "what is the roman numeral of {name} ?"), "the romans write {roman} ."),
    "from roman": (("which digit is the roman {roman} ?", "what does the roman {roman} mean ?"), "{roman} means {name} ."),
    "look": (SPEECH.asked_look_of, SPEECH.look_of),
}  # fmt: skip
ALIKE = {  # another digit that looks somewhat like it: a substitute; our choice
    "zero": "six", "one": "four", "two": "three", "three": "nine", "four": "seven", "five": "nine", "six": "four",
    "seven": "nine", "eight": "one", "nine": "three",
}  # fmt: skip


@functools.cache
def digits_world(views: int = VIEWS, seed: int = 0) -> World:
    """The world; its pictures are of 24 pixels each way.

    Args:
        views: pictures of each training image; each is asked for its name and by yes or no, and three in ten for its look.
        seed: of views and wordings.
    """
    draw = np.random.default_rng(seed)
    train, test = digits(HELD_OUT)
    looks: dict[str, str] = dict(zip(NAMES, LOOKS, strict=True))
    pictures = (
        (as_picture(_view(pixels, draw if views > 1 else None)), NAMES[label])
        for pixels, label in zip(whole(train.x).numpy(), train.y.tolist(), strict=True)
        for _ in range(views)
    )
    seen = questions(SPEECH, pictures, NAMES, looks, draw)
    facts = {name: told(FACTS, _words(at)) for at, name in enumerate(NAMES)}
    held_out = tuple(
        (as_picture(_view(pixels)), NAMES[label])
        for pixels, label in zip(whole(test.x).numpy(), test.y.tolist(), strict=True)
    )
    alike = {name: (first, *(other for other in NAMES if other not in (name, first))) for name, first in ALIKE.items()}
    return World(NAMES, looks, alike, facts, SPEECH, training_of(seen, facts), held_out)


def _words(at: int) -> dict[str, str | None]:
    return {
        "name": NAMES[at], "roman": ROMAN[at], "parity": ("even", "odd")[at % 2], "look": LOOKS[at],
        "before": NAMES[at - 1] if at else None, "after": NAMES[at + 1] if at < 9 else None,
    }  # fmt: skip


def _view(pixels: Sequence[float], draw: np.random.Generator | None = None) -> Any:
    """An image of 8 x 8 as a picture, with ``draw`` slightly turned, moved and dimmed."""
    from PIL import Image

    grey = np.asarray(pixels).reshape(8, 8) * (255 if draw is None else draw.uniform(190, 255))
    image = Image.fromarray(grey.round().astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    if draw is None:
        return image
    moved = (int(draw.integers(-2, 3)), int(draw.integers(-2, 3)))
    return image.rotate(float(draw.uniform(-10, 10)), Image.Resampling.BILINEAR, translate=moved)
