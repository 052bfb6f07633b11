from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from expunge.report import html

from . import worlds

VOID = {"meta", "link", "br", "img", "hr", "input", "path", "use", "rect", "circle"}


class Page(HTMLParser):
    """What accessibility and self-containment are judged by."""

    def __init__(self, text: str):
        super().__init__()
        self.headings: list[tuple[int, str]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.tables: list[dict] = []
        self.svgs: list[dict] = []
        self.headers: list[dict] = []
        self.lang = ""
        self._heading: int | None = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        if tag == "html":
            self.lang = given.get("lang", "")
        if tag == "table":
            self.tables.append({"caption": False})
        if tag == "caption":
            self.tables[-1]["caption"] = True
        if tag == "th":
            self.headers.append(given)
        if tag == "svg":
            self.svgs.append(given)
        if "id" in given:
            self.ids.append(given["id"])
        self.links += [given[name] for name in ("src", "href", "xlink:href", "action", "data") if name in given]
        if re.fullmatch(r"h[1-6]", tag):
            self._heading = int(tag[1])
            self.headings.append((self._heading, ""))

    def handle_data(self, data):
        if self._heading:
            self.headings[-1] = (self._heading, self.headings[-1][1] + data)

    def handle_endtag(self, tag):
        if re.fullmatch(r"h[1-6]", tag):
            self._heading = None


def in_order(page: Page) -> bool:
    levels = [level for level, _ in page.headings]
    return levels[0] == 1 and levels.count(1) == 1 and all(later - earlier <= 1 for earlier, later in pairwise(levels))


@pytest.fixture(scope="module")
def page(record) -> Page:
    return Page(html.render(record))


@pytest.mark.parametrize("verdict", worlds.VERDICTS)
def test_every_verdict_makes_a_whole_page(record, verdict):
    text = html.render(worlds.with_verdict(record, verdict))
    shown = Page(text)
    assert text.rstrip().endswith("</html>") and "In plain words" in text and "How to check this again" in text
    assert all(table["caption"] for table in shown.tables) and in_order(shown)
    if not verdict.startswith("certified"):
        assert not re.search(r'class="verdict certified', text)


def test_headings_are_in_order(page):
    assert in_order(page)
    assert all(text.strip() for _, text in page.headings)
    assert [text for level, text in page.headings if level == 2][:2] == ["In plain words", "The answer in one table"]


def test_it_can_be_read_without_seeing_it(page):
    assert page.lang == "en"
    assert page.svgs and all(svg.get("role") == "img" and len(svg["aria-label"]) > 30 for svg in page.svgs)
    assert page.tables and all(table["caption"] for table in page.tables)
    assert all(header.get("scope") in ("row", "col", "rowgroup") for header in page.headers)


def test_it_is_self_contained(page, record):
    assert not {"script", "link", "iframe", "img", "object", "embed"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)
    text = html.render(record)
    assert not re.search(r"@import|url\((?!#)", text)
    assert not re.search(r"\son\w+=", text), "no script in an attribute"


def test_ids_are_unique_and_found(page):
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)


def test_the_same_record_gives_the_same_bytes(record):
    assert html.render(record) == html.render(copy.deepcopy(record))


def test_status_is_said_in_words(record):
    text = html.render(worlds.with_verdict(record, "void"))
    assert re.search(r'<span aria-hidden="true">✗</span> violated', text)
    assert re.search(r'<span aria-hidden="true">✓</span> holds', text)


def test_hostile_names_stay_text(record):
    record = copy.deepcopy(record)
    evil = '<script>alert("x")</script>$\\alpha$'
    record["title"] = evil
    record["runs"][0]["name"] = evil
    record["runs"][0]["change"] = {f"{evil}.weight": 1.0, "b.weight": 2.0}
    record["runs"].append({**record["runs"][0], "name": "second"})
    text = html.render(record)
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "$\\alpha$" in text, "names are no formulas"


def test_without_reference_ledger_and_decision(certified):
    record = worlds.record_of(certified, reference=None)
    record["request"]["decision"] = None
    text = html.render(record)
    assert "No ledger was kept" in text and "There is no reference" in text and "undecidable" in text


def test_measurements_that_have_no_target_are_not_called_undecidable(record):
    record = copy.deepcopy(record)
    item = {
        **record["runs"][0]["evidence"]["measurements"][0],
        "name": "distance to retrained",
        "metric": "distance",
        "set": None,
        "ideal": None,
        "agrees": None,
    }
    record["runs"][0]["evidence"]["measurements"].append(item)
    assert "not compared" in html.render(record)


def test_a_network_shows_every_view(record):
    record = copy.deepcopy(record)
    run = record["runs"][0]
    run["other_views"] = [{"view": "peer 1", "model": run["model"], "certificate": run["certificate"]}]
    assert "View: peer 1" in html.render(record)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(first: str, second: str) -> float:
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_text_has_enough_contrast_in_light_and_dark(record):
    from expunge.report import drawing

    schemes = re.findall(r":root \{([^}]*)\}", html.render(record))
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", scheme))
        colours = {n: c if len(c) == 7 else "#" + "".join(2 * d for d in c[1:]) for n, c in colours.items()}
        for name in ("ink", "grey", "accent"):
            assert _contrast(colours[name], colours["paper"]) >= 4.5
            assert _contrast(colours[name], colours["pale"]) >= 4.5
        assert _contrast(colours["on-accent"], colours["accent"]) >= 4.5
    for colour in (drawing.INK, drawing.GREY, drawing.ACCENT):
        assert _contrast(colour, "#ffffff") >= 4.5
