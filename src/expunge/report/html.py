"""report.html: one self-contained page, without scripts or anything from elsewhere, the same bytes for the same record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any


def render(record: Mapping[str, Any]) -> str:
    """The page of an evidence record. A function of the record alone, given the versions in `record.RENDERED_BY`."""
    from expunge.report.sheet import sheet

    return _template().render(sheet(record))


@cache
def _template() -> Any:
    return environment_of("expunge.report").get_template("report.html.j2")


@cache
def page_style() -> str:
    """The style of the evidence report, which our other pages share."""
    environment = environment_of("expunge.report")
    assert environment.loader is not None
    source, *_ = environment.loader.get_source(environment, "report.html.j2")
    style = re.search(r"<style>\n(.*?)</style>", source, re.DOTALL)
    assert style is not None, "the report's template has a style of its own"
    return style[1]


def environment_of(package: str) -> Any:
    """Where the templates of ``package`` are filled in: everything is escaped, and a name that is not there is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    environment = Environment(
        loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )

    def drawing(svg: str, alt: str) -> Markup:
        """Our own SVG, announced by its words; texts inside it were escaped when it was drawn."""
        opening = Markup('<svg role="img" aria-label="{}" ').format(escape(alt))
        return opening + Markup(svg.removeprefix("<svg "))

    environment.filters["drawing"] = drawing
    return environment
