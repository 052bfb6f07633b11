"""report.html: one self-contained page, without scripts or anything from elsewhere, the same bytes for the same record."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any


def render(record: Mapping[str, Any]) -> str:
    """The page of an evidence record. A function of the record alone, given the versions in `record.RENDERED_BY`."""
    from expunge.report.sheet import sheet

    return _template().render(sheet(record))


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    environment = Environment(
        loader=PackageLoader("expunge.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip

    def drawing(svg: str, alt: str) -> Markup:
        """Our own SVG, announced by its words; texts inside it were escaped when it was drawn."""
        opening = Markup('<svg role="img" aria-label="{}" ').format(escape(alt))
        return opening + Markup(svg.removeprefix("<svg "))

    environment.filters["drawing"] = drawing
    return environment.get_template("report.html.j2")
