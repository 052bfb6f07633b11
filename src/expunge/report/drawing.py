"""How figures are drawn: fonts, colours, and SVG text that is equal for equal input.

Matplotlib's settings are global; they are changed only while a plot is drawn, under a lock, and put back.
"""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache, wraps
from typing import Any

from expunge.core.digest import digest_bytes
from expunge.report import numbers as say

# Contrast on white: ink 15.9, grey 5.7, accent 7.0; the two light greys carry no information of their own.
INK, GREY, LIGHT, PALE, ACCENT = "#1c2126", "#5f676e", "#ccd2d7", "#e9ecef", "#0b5d7a"

_SETTINGS: Any = {
    "font.family": ["DejaVu Sans"],  # comes with Matplotlib: the same everywhere
    "font.size": 8.5,
    "text.parse_math": False,  # names are names, also with a dollar sign in them
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.8,
    "legend.fontsize": 8.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
DOTS = 200  # of an inch of a PNG; our choice: sharp at the width of a page
_UNDATED: Any = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
FORMS = tuple(_UNDATED)
_LOCK = threading.RLock()
REMEMBERED = 16  # figures of each plot: those of a report, which are asked for by two pages and a PDF


@dataclass(frozen=True)
class Figure:
    """A drawing with its words.

    Attributes:
        svg: one ``svg`` element, self-contained, without scripts, ids prefixed so that many fit on a page.
        alt: what it shows, for those who cannot see it.
        caption: how to read it.
        outlined: makes the same with letters as shapes instead of as text in the reader's font: for the PDF.
        saved: makes the same as a file: ``png``, ``pdf`` or ``svg``, on white; letters are shapes, and equal figures are equal
            bytes.
    """

    svg: str
    alt: str
    caption: str
    outlined: Callable[[], str] = field(repr=False, compare=False)
    saved: Callable[[str], bytes] = field(repr=False, compare=False)


def styled(plot: Callable[..., Figure | None]) -> Callable[..., Figure | None]:
    """A plot of JSON-like arguments, drawn once for equal ones, under our settings, one at a time."""

    @lru_cache(maxsize=REMEMBERED)
    def drawn(arguments: str) -> Figure | None:
        with _LOCK, _settings():
            return plot(*json.loads(arguments))

    @wraps(plot)
    def run(*arguments: Any) -> Figure | None:
        return drawn(json.dumps(arguments))

    run.cache_clear = drawn.cache_clear  # type: ignore[attr-defined]
    return run


def _settings(**more: Any) -> Any:
    import matplotlib

    settings: Any = {**_SETTINGS, **more}
    return matplotlib.rc_context(settings)


def canvas(width: float, height: float) -> Any:
    """An empty Matplotlib figure, in inches."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Drawn

    figure = Drawn(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def powers(axes: Any, which: str) -> None:
    """A logarithmic axis, ``x`` or ``y``, whose ticks are whole powers of ten, five at most."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(numticks=6))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: say.power(value)))


def finished(figure: Any, name: str, alt: str, caption: str) -> Figure:
    """The drawing as a :class:`Figure`; where everything lies is worked out once, for both kinds of letters.

    Args:
        name: what makes its ids its own; different for each figure of a page.
    """
    figure.set_dpi(72)  # that of SVG
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")

    @cache
    def written(fonttype: str) -> str:
        mark = "f" + digest_bytes(name.encode())[:8]
        target = io.StringIO()
        with _LOCK, _settings(**{"svg.hashsalt": mark, "svg.fonttype": fonttype, "svg.id": mark}):
            figure.savefig(target, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
        svg = target.getvalue()
        return _own_ids(svg[svg.index("<svg") :].rstrip(), mark)

    @cache
    def saved(form: str) -> bytes:
        target = io.BytesIO()
        with _LOCK, _settings(**{"svg.hashsalt": name, "svg.fonttype": "path", "pdf.fonttype": 42}):
            figure.savefig(target, format=form, dpi=DOTS, facecolor="white", metadata=_UNDATED[form])
        return target.getvalue()

    return Figure(written("none"), alt, caption, lambda: written("path"), saved)


def _own_ids(svg: str, mark: str) -> str:
    """Ids that something refers to, prefixed; all others dropped: two figures on a page must not share any."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r'\s+id="([^"]*)"', lambda m: f' id="{mark}-{m[1]}"' if m[1] in used else "", svg)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{mark}-", svg)
