"""Pictures as they might have been as well: turned, moved, scaled, mirrored, and in other colours."""

from __future__ import annotations

from typing import Any

import numpy as np

TURN, MOVE, SCALE = 8.0, 0.05, 0.1  # degrees; shares of a side. Ours, as all below
TINT, SHADES = 0.1, (0.75, 1.35)  # how far colours run into each other; powers of what is not white


def varied(image: Any, draw: np.random.Generator, side: int, mirrored: bool = True) -> Any:
    """A view of ``image``, ``side`` pixels each way, on white.

    Args:
        mirrored: whether half of the views are mirrored: not where left and right mean something.
    """
    from PIL import Image, ImageOps

    if mirrored and draw.random() < 0.5:
        image = ImageOps.mirror(image)
    size = max(1, round(side * float(draw.uniform(1 - SCALE, 1 + SCALE))))
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    image = image.rotate(float(draw.uniform(-TURN, TURN)), Image.Resampling.BILINEAR, fillcolor=(255, 255, 255))
    whole = Image.new("RGB", (side, side), (255, 255, 255))
    moved = [round((side - size) / 2 + side * float(draw.uniform(-MOVE, MOVE))) for _ in "xy"]
    whole.paste(image, (moved[0], moved[1]))
    ink = 1 - np.asarray(whole, np.float64) / 255
    mixing = np.eye(3) + TINT * draw.standard_normal((3, 3))
    ink = np.clip(ink @ mixing * draw.uniform(0.7, 1.2), 0, 1) ** draw.uniform(*SHADES)
    return Image.fromarray(((1 - ink) * 255).round().astype(np.uint8))
