"""Pages that say something else than the record they lie beside, whatever plotting library drew them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from expunge.core.digest import digest_bytes, digest_json
from expunge.core.errors import TamperedError
from expunge.report import pdf
from expunge.report.verify import pages, verify_folder

from .folders import build, certificate, copy, record_of, rewrite, sign

PDF = pytest.mark.skipif(not pdf.available(), reason="the optional extra pdf (typst) is not installed")


@pytest.fixture(scope="module", autouse=True)
def rendered_once():
    """Each page is made once in this file: that it is the same every time is tested in tests/report."""

    def once(render):
        made = {}

        def kept(record, *evidence):
            key = digest_json(record) + digest_bytes(b"".join(evidence))
            return made[key] if key in made else made.setdefault(key, render(record, *evidence))

        return kept

    with pytest.MonkeyPatch.context() as patch:
        for module in (pdf, pages.html):
            patch.setattr(module, "render", once(module.render))
        yield


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("pages"), pdf=True)


def found(folder: Path) -> dict[str, str]:
    return {check.name: check.problem for check in verify_folder(folder).checks if check.problem}


def test_f12_a_page_of_one_sentence_is_found_whatever_library_the_record_names(honest, tmp_path):
    folder = rewrite(copy(honest, tmp_path), lambda r: r["environment"].update(matplotlib="3.0.0"))
    (folder / "report.html").write_text("<html><body><h1>Everything was erased. Proved.</h1></body></html>")
    assert "does not say" in found(sign(folder))["report.html"]


def elsewhere(record: dict) -> dict:
    """The record as a machine with another plotting library would have made it."""
    return {**record, "environment": {**record["environment"], "matplotlib": "3.0.0"}}


def drawn_otherwise(page: str) -> str:
    """What another version of the plotting library draws: other places, other numbers along the axes."""

    def other(drawing: re.Match[str]) -> str:
        moved = re.sub(r' d="[^"]*"', ' d="M 7 7 L 8 8"', drawing[0])
        return re.sub(r">[\d.]+<", ">0.75<", moved)

    return re.sub(r"<svg.*?</svg>", other, page, flags=re.DOTALL)


def test_another_plotting_library_may_draw_otherwise_but_not_say_otherwise(honest):
    record = elsewhere(record_of(honest))
    page = pages.html.render(record)
    other = drawn_otherwise(page)
    assert other != page and pages.page(record, page.encode()) == ""
    assert "all words compared" in pages.page(record, other.encode())
    with pytest.raises(TamperedError):  # made here, every byte counts
        pages.page(record_of(honest), drawn_otherwise(pages.html.render(record_of(honest))).encode())
    for change in (
        lambda p: p.replace("at most", "at least", 1),
        lambda p: p.replace("</svg>", "<text>Everything was erased</text></svg>", 1),
        lambda p: p.replace("</svg>", "<foreignObject/></svg>", 1),
        lambda p: p.replace("</svg>", '<path onclick="x"/></svg>', 1),
        lambda p: re.sub(r'aria-label="[^"]*"', 'aria-label="Everything was erased"', p, count=1),
        lambda p: p.replace("<svg", "<!--", 1),
        lambda p: p + "<p>Everything was erased</p>",
    ):
        assert change(other) != other
        with pytest.raises(TamperedError):
            pages.page(record, change(other).encode())


@PDF
def test_f13_pages_of_a_pdf_that_say_otherwise_are_found(honest, tmp_path):
    folder, record = copy(honest, tmp_path), record_of(honest)
    assert not found(folder)
    evidence = (folder / "evidence.json").read_bytes()
    said = record_of(honest)
    said["title"] = "EVERYTHING ERASED"
    certificate(said)["epsilon"] = 1e-9
    forged = pdf.render(said, evidence)
    (folder / "report.pdf").write_bytes(forged)
    assert "pages of report.pdf" in found(sign(folder))["report.pdf"]
    moved = {**elsewhere(record), "created": record["created"]}
    with pytest.raises(TamperedError, match="pages"):
        pages.portable_page(moved, forged, evidence)
    ours = pdf.render(moved, evidence)
    again = ours.replace(b"/Producer", b"/producer", 1) if b"/Producer" in ours else ours + b"\n"
    assert pages.portable_page(moved, again, evidence) == pages.COMPARED
    with pytest.raises(TamperedError, match="attached"):
        pages.portable_page(moved, ours, evidence + b" ")
    words = pages.pdf_words(ours)
    assert "Asmalldeletion" in words and "EVERYTHING" not in words and len(words) > 2000
    assert "EVERYTHINGERASED" in pages.pdf_words(forged)
