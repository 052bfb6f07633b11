"""What the tables and pages of a kind of model show: data for ``bench``, which lays them out and draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """Axes, labelled ``label``: one metric, drawn by the outcome of its row; or three, each with a mark of its own."""

    metrics: tuple[str, ...]
    label: str


@dataclass(frozen=True)
class Dots:
    """A figure with a line for each row of the table, and on it a point with its interval in each panel.

    Retrained models and the source have lines of their own where they have the numbers of the first panel.

    Attributes:
        name: no other figure of the page has it.
        title, caption: what it shows, and how to read it.
    """

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]


def _named(forget: Mapping[str, object], count: str) -> str:
    return f"Forgotten is what one request for a {forget['kind']} names{count}."


@dataclass(frozen=True)
class Layout:
    """How tables of a kind of model are shown.

    Attributes:
        lead: columns of the first table; those that no row has are left out.
        terminal: head → metric, for a table of a hundred letters.
        meaning: what the word "forgets" means here.
        sorted_by: the metric by which rows of one outcome are sorted, less first; ``None``: rows stand by method, in the
            order of the recipe.
        forgotten: a recipe's ``forgets`` and how many examples went → a sentence.
    """

    lead: tuple[str, ...]
    terminal: Mapping[str, str]
    meaning: str
    figures: tuple[Dots, ...] = ()
    sorted_by: str | None = None
    forgotten: Callable[[Mapping[str, object], str], str] = _named
