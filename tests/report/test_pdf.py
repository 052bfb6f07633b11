from __future__ import annotations

import importlib.util
import io
import re

import numpy as np
import pytest
from PIL import Image

from expunge.core.errors import ExtraMissingError
from expunge.report import pdf
from expunge.report.folder import as_json

from . import worlds

typst = pytest.importorskip("typst", reason="the optional extra pdf (typst) is not installed")


def test_it_is_archivable_and_the_same_every_time(record):
    made = pdf.render(record, as_json(record))
    assert made == pdf.render(record, as_json(record))
    assert made.startswith(b"%PDF-1.7")
    assert b"pdfaid:part>3<" in made and b"pdfaid:conformance>A<" in made and b"pdfuaid:part>1<" in made


def test_the_record_is_attached_as_it_is(record):
    evidence = as_json(record)
    made = pdf.render(record, evidence)
    assert pdf.attached(made, len(evidence)) == evidence
    assert pdf.attached(made.replace(b"/EmbeddedFile", b"/ElsewhatFile"), len(evidence)) == b""
    assert pdf.attached(made + made, len(evidence)) == b"", "two attachments: a reader might open the other one"
    assert len(pdf.attached(made, 100)) == 101, "a bomb is not inflated"


def test_the_first_page_is_a_picture_of_an_a4_page_with_words_on_it(record):
    page = Image.open(io.BytesIO(pdf.first_page(record, ppi=50))).convert("L")
    assert page.size == pytest.approx((210 / 25.4 * 50, 297 / 25.4 * 50), abs=1)  # A4 at 50 pixels an inch
    pixels = np.asarray(page)
    assert pixels[0, 0] == 255 and (pixels < 128).mean() > 0.003  # words: about a hundredth of it


def test_the_clock_is_the_records_own(record):
    moved = {**record, "created": "2001-02-03T04:05:06Z"}
    dates = re.findall(rb"/(?:CreationDate|ModDate) ?\(D:(\d{14})", pdf.render(moved, b"{}"))
    assert dates and set(dates) == {b"20010203040506"}


@pytest.mark.parametrize("verdict", ["heuristic-noise", "void", "no-certificate"])
def test_other_verdicts_make_a_pdf(record, verdict):
    assert pdf.render(worlds.with_verdict(record, verdict), b"{}")


def test_hostile_text_is_no_typst(certified):
    record = worlds.record_of(certified, title='#panic("x") $ * _ <a> "', note='#import "x"', name="#run")
    assert pdf.render(record, as_json(record))


def test_without_the_extra_it_says_what_to_install(record, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "typst" else found(name))
    with pytest.raises(ExtraMissingError, match=r"expunge\[pdf\]"):
        pdf.render(record, b"{}")
