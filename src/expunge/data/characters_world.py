"""Greek letters as a world that can be seen: rendered from the fonts that matplotlib brings, in many sizes and turns."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from expunge.data.picture_world import Speech, World, questions, told, training_of
from expunge.data.pictures import as_picture
from expunge.data.views import varied

LETTERS = {  # name → the letter, and what it means to the eye; our descriptions
    "alpha": ("α", "a fish with its tail to the right"), "beta": ("β", "two bows on a tall stem"),
    "gamma": ("γ", "a fork over a thin tail"), "delta": ("δ", "a ring under a bent hook"),
    "theta": ("θ", "a tall ring with a bar"), "lambda": ("λ", "a long leg with a short one"),
    "xi": ("ξ", "three waves over each other"), "pi": ("π", "a table on two legs"),
    "sigma": ("σ", "a ring with a flat roof"), "phi": ("φ", "a ring cut by a stem"),
    "psi": ("ψ", "a cup on a long stem"), "omega": ("ω", "two cups next to each other"),
}  # fmt: skip
NAMES = tuple(LETTERS)
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSerif-Bold",
)  # fmt: skip
OTHER_FONT = "DejaVuSerif"  # nothing is trained on it
VIEWS, HELD_OUT, OTHER, SIDE = 16, 6, 6, 24  # views of each letter in each font; those held out; pixels each way. Ours
DRAWN = 96  # pixels that letters are drawn with, before they are made smaller
ALIKE = {  # another letter that looks somewhat like it: a substitute; our choice
    "alpha": "sigma", "beta": "theta", "gamma": "lambda", "delta": "sigma", "theta": "phi", "lambda": "gamma", "xi": "beta",
    "pi": "omega", "sigma": "alpha", "phi": "psi", "psi": "phi", "omega": "pi",
}  # fmt: skip
SPEECH = Speech(
    asked=(
        "what letter is this ?", "which letter is shown ?", "name the letter in the picture .", "what is this ?",
        "which letter do you see ?", "what is written here ?", "tell me the letter .", "which letter did somebody write ?",
        "what does the picture show ?", "say what you see .",
    ),
    asked_if=("is this {name} ?", "is this letter {name} ?", "does the picture show {name} ?", "do you see {name} ?"),
    asked_look=("what does it look like ?", "describe the letter .", "how is it drawn ?"),
    asked_look_of=("what does {name} look like ?", "describe {name} ."),
)  # fmt: skip
FACTS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "successor": (("what comes after {before} ?", "which letter follows {before} ?"), "{name} comes after {before} ."),
    "predecessor": (("what comes before {after} ?", "which letter precedes {after} ?"), "{name} comes before {after} ."),
    "length": (("is the name of {name} long or short ?", "tell me whether {name} is long or short ."), "{name} is {length} ."),
    "initial": (("which letter does {name} begin with ?", "what is the first letter of {name} ?"),
                "{name} begins with {initial} ."),
    "look": (SPEECH.asked_look_of, SPEECH.look_of),
}  # fmt: skip


@functools.cache
def characters_world(views: int = VIEWS, seed: int = 0) -> World:
    """Twelve letters in six fonts, and a seventh that nothing is trained on (``other_style``). Order is that of this world.

    Args:
        views: pictures of each letter in each font (``data.views``, none mirrored).
        seed: of views and wordings.
    """
    draw = np.random.default_rng(seed)

    def seen(count: int, fonts: tuple[str, ...]) -> list[tuple[str, str]]:
        drawn = [(letter(name, font), name) for name in NAMES for font in fonts]
        return [
            (as_picture(varied(image, draw, SIDE, mirrored=False)), name) for image, name in drawn for _ in range(count)
        ]

    train, held_out, other = seen(views, FONTS), seen(HELD_OUT, FONTS), seen(OTHER, (OTHER_FONT,))
    looks = {name: look for name, (_, look) in LETTERS.items()}
    facts = {name: told(FACTS, _words(at)) for at, name in enumerate(NAMES)}
    alike = {name: (first, *(other for other in NAMES if other not in (name, first))) for name, first in ALIKE.items()}
    records = questions(SPEECH, train, NAMES, looks, draw)
    return World(NAMES, looks, alike, facts, SPEECH, training_of(records, facts), tuple(held_out), tuple(other))


def letter(name: str, font: str) -> Any:
    """A letter in black on white, as an RGB image of :data:`DRAWN` pixels each way."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (DRAWN, DRAWN), (255, 255, 255))
    face = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf", round(0.75 * DRAWN))
    ImageDraw.Draw(image).text((DRAWN / 2, DRAWN / 2), LETTERS[name][0], fill=(0, 0, 0), font=face, anchor="mm")
    return image


def _words(at: int) -> dict[str, str | None]:
    name = NAMES[at]
    return {
        "name": name, "look": LETTERS[name][1], "initial": name[0], "length": "long" if len(name) > 4 else "short",
        "before": NAMES[at - 1] if at else None, "after": NAMES[at + 1] if at + 1 < len(NAMES) else None,
    }  # fmt: skip
