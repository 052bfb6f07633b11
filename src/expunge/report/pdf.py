"""report.pdf: the same words, tables and figures as PDF/A-3 with the evidence record attached inside.

The optional extra ``pdf`` brings typst. Only fonts that come with it are used and the clock is the record's own, so that
the same record gives the same bytes on every machine with the same version.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from typing import Any

from expunge.core.errors import ExtraMissingError

# a: archivable and tagged for reading aloud; 3: files of any kind may be attached. UA-1: refuses a figure without words.
STANDARDS: Any = ["a-3a", "ua-1"]
ATTACHED = "evidence.json"
_EMBEDDED = b"/Type/EmbeddedFile"


def available() -> bool:
    """Whether typst is installed."""
    from importlib.util import find_spec

    return find_spec("typst") is not None


def render(record: Mapping[str, Any], evidence: bytes) -> bytes:
    """The PDF of a record.

    Args:
        evidence: the bytes of evidence.json, attached as they are.

    Raises:
        ExtraMissingError: if typst is not installed.
    """
    return _compiled(record, evidence, format="pdf", pdf_standards=STANDARDS)


def first_page(record: Mapping[str, Any], ppi: float = 144.0) -> bytes:
    """The first page of the PDF as a PNG picture of ``ppi`` pixels an inch: how the picture in the README is made.

    Raises:
        ExtraMissingError: if typst is not installed.
    """
    pages = _compiled(record, b"", format="png", ppi=ppi)
    return pages[0] if isinstance(pages, list) else pages


def _compiled(record: Mapping[str, Any], evidence: bytes, **how: Any) -> Any:
    if not available():
        raise ExtraMissingError("pdf", "typst")
    import typst

    from expunge.report.sheet import sheet

    created = datetime.fromisoformat(record["created"])
    moment = [created.year, created.month, created.day, created.hour, created.minute, created.second]
    return typst.compile(
        files("expunge.report").joinpath("templates/report.typ").read_bytes(),
        **how,
        timestamp=int(created.timestamp()),
        ignore_system_fonts=True,
        sys_inputs={
            "sheet": json.dumps({**sheet(record, outline=True), "moment": moment}),
            "name": ATTACHED,
            "evidence": evidence.decode(),
        },
    )


def attached(pdf: bytes, largest: int) -> bytes:
    """The file inside a PDF that :func:`render` made, read without a PDF library; empty where there is none, or not one.

    Args:
        largest: bytes that it may have; of more the first ``largest + 1`` are returned.
    """
    if pdf.count(_EMBEDDED) != 1:
        return b""
    at = pdf.index(_EMBEDDED)
    head = pdf[pdf.rfind(b" obj", 0, at) : (start := pdf.find(b"stream", at))]
    length = re.search(rb"/Length (\d{1,12})\b", head[:1000])
    content = pdf[start:][len(b"stream") :].removeprefix(b"\r").removeprefix(b"\n")[: int(length[1]) if length else 0]
    try:
        return zlib.decompressobj().decompress(content, largest + 1) if b"/FlateDecode" in head[:1000] else content
    except zlib.error:
        return b""
