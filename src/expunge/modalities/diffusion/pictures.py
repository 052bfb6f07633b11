"""Drawn images that a person looks at: some of each class, from the models before and after and the retrained one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from expunge.data.pictures import as_picture, enlarged
from expunge.evidence.comparison import Models
from expunge.evidence.membership import FORGET
from expunge.modalities.diffusion.readings import RETAIN, Drawn, Readings

SHOWN = 8  # images of a class; our choice: a line of them fits into a column of a page
HEIGHT = 48  # pixels at least: small images are enlarged by a whole number


def pictures(readings: Models[Readings]) -> list[dict[str, Any]]:
    """One line of images for each class and model, those of forgotten classes first; see ``evidence.comparison.Draws``.

    Images in one column of two lines began with the same noise. Empty where nothing was drawn.
    """
    if (drawn := readings.unlearned.drawn) is None:
        return []
    lines = readings.each(lambda read: {} if read.drawn is None else _lines(read.drawn))
    gone = set(drawn.gone)
    return [
        {
            "set": FORGET if label in gone else RETAIN, "asked": f"class {label}", "after": lines.unlearned[label],
            "before": None if lines.original is None else lines.original.get(label),
            "retrained": None if lines.retrained is None else lines.retrained.get(label),
        }
        for label in sorted(lines.unlearned, key=lambda label: (label not in gone, label))
    ]  # fmt: skip


def _lines(drawn: Drawn) -> Mapping[int, str]:
    """Of each class its first images side by side, as a data URI."""
    return {
        int(label): _side_by_side(drawn.images[drawn.asked == label][:SHOWN].double().numpy())
        for label in np.unique(drawn.asked)
    }


def _side_by_side(images: np.ndarray) -> str:
    """Images (n, c, h, w) in [0, 1]; in grey unless they have three channels."""
    from PIL import Image

    if images.shape[1] != 3:
        images = images.mean(1, keepdims=True)
    line = np.concatenate(list(images.clip(0, 1)), axis=2).transpose(1, 2, 0)
    pixels = (255 * line).round().astype(np.uint8)
    pixels = enlarged(pixels, HEIGHT)
    return as_picture(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
