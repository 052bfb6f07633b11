"""Where the labels of points go, so that none covers another label or a point."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

Box = tuple[float, float, float, float]  # left, bottom, right, top, in points of print

_LETTER, _HEIGHT = 5.3, 8.6  # of a letter in 8.5 point, a little generous
_MARK = 4.2  # half of a mark
_APART = 3.0  # between two labels
_NEAR = 13.0  # from here on a line leads from the label to its point
_RINGS = (8.5, 13.0, 18.0, 24.0, 31.0, 39.0, 48.0, 58.0, 70.0, 84.0, 100.0)
_TURNS = 32


def place_labels(figure: Any, axes: Any, points: Sequence[tuple[float, float, str]], ink: str, line: str) -> None:
    """Write each label of ``points`` (x, y, text) as near to its point as there is room for it.

    Labels are placed one after another in the order given: equal points give equal places.
    """
    figure.draw_without_rendering()  # settles the layout: from here on data have their places on paper
    scale = 72 / figure.dpi
    at = [tuple(float(v) * scale for v in axes.transData.transform((x, y))) for x, y, _ in points]
    frame = axes.get_window_extent()
    room = (frame.x0 * scale, frame.y0 * scale, frame.x1 * scale, frame.y1 * scale)
    taken = [(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in at]
    for (x, y), (data_x, data_y, text) in zip(at, points, strict=True):
        width = _LETTER * len(text) + _APART
        dx, dy, box = _free(x, y, width, taken, room)
        taken.append(box)
        far = math.hypot(dx, dy) > _NEAR + width / 2
        note = axes.annotate(
            text, (data_x, data_y), xytext=(dx, dy), textcoords="offset points", ha="center", va="center", color=ink,
            zorder=6,
            arrowprops={"arrowstyle": "-", "color": line, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3} if far else None,
        )  # fmt: skip
        note.set_in_layout(False)


def _free(x: float, y: float, width: float, taken: Sequence[Box], room: Box) -> tuple[float, float, Box]:
    """Offset of the first place that is free; the least crowded one where none is."""
    best: tuple[float, float, Box] | None = None
    fewest = math.inf
    for dx, dy in _offsets(width):
        left, bottom = x + dx - width / 2, y + dy - _HEIGHT / 2
        box = (left, bottom, left + width, bottom + _HEIGHT)
        outside = box[0] < room[0] or box[1] < room[1] or box[2] > room[2] or box[3] > room[3]
        covered = sum(_overlap(box, other) for other in taken) + (2 if outside else 0)
        if not covered:
            return dx, dy, box
        if covered < fewest:
            best, fewest = (dx, dy, box), covered
    assert best is not None
    return best


def _offsets(width: float) -> Iterator[tuple[float, float]]:
    """Around the point, ring after ring, beginning at the upper right."""
    for ring in _RINGS:
        for turn in range(_TURNS):
            angle = math.pi / 4 + 2 * math.pi * turn / _TURNS
            yield (ring + (width / 2 - 3)) * math.cos(angle), ring * math.sin(angle)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
