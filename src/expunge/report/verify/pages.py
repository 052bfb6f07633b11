"""report.html and report.pdf against what is rendered again from the record.

Made by the same versions here, both must be the same byte for byte. With another version of the plotting library the drawings
differ in their numbers; then all words of the page must be the same, those inside drawings included, and no drawing may hold
anything but lines, shapes and text. With another version of expunge itself the words are others too: nothing is compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from expunge.core.errors import TamperedError
from expunge.report import html
from expunge.report import pdf as portable
from expunge.report.record import RENDERED_BY, environment
from expunge.report.verify.reading import inflated

Record = Mapping[str, Any]
COMPARED = "all words compared; what is drawn was made by another version of the plotting library"
_LARGEST_STREAM = 64 * 2**20
_SVG = re.compile(r"<svg\b[^>]*>.*?</svg>", re.DOTALL)
_TAG = re.compile(r"<(/?)([a-zA-Z:]+)([^<>]*)>")
_DRAWN = {
    "svg", "g", "defs", "path", "use", "style", "clipPath", "rect", "circle", "text", "tspan", "line", "polygon", "polyline",
    "metadata", "title", "desc",
}  # fmt: skip


def other_version(record: Record) -> str:
    """Why pages of this record cannot be made again here; empty where they can, but for what is drawn."""
    here = environment()
    for name in ("expunge", "source", "jinja2"):
        if (then := record["environment"].get(name)) != here[name]:
            made = f"made with {name} {str(then)[:12]}, here is {here[name][:12]}"
            return f"{made}: words are not compared"
    return ""


def same_machine(record: Record, *also: str) -> bool:
    """Whether drawings come out the same here, byte for byte."""
    here = environment()
    return all(record["environment"].get(name) == here[name] for name in (*RENDERED_BY, "system", "machine", *also))


def page(record: Record, content: bytes) -> str:
    """Compare report.html; returns how, where it was not byte for byte.

    Raises:
        TamperedError: if it does not say what the record says.
    """
    expected, found = html.render(record), content.decode("utf-8", errors="replace")
    if found == expected:
        return ""
    if same_machine(record):
        raise TamperedError("the page does not say what the record says")
    ours, theirs = (_SVG.split(text) for text in (expected, found))
    if ours != theirs:
        raise TamperedError("the page does not say what the record says")
    for one, other in zip(_SVG.findall(expected), _SVG.findall(found), strict=True):
        if _words(one) != _words(other):
            raise TamperedError("a drawing on the page does not say what the record says")
    return COMPARED


def _words(svg: str) -> list[str]:
    """The label and all texts of a drawing that are words; numbers along axes may be others.

    Raises:
        TamperedError: if there is something in it that is neither line, shape nor text.
    """
    names = {name for _, name, _ in _TAG.findall(svg)}
    if strange := sorted(names - _DRAWN) or re.findall(r"\bon\w+=|https?:(?!//www\.w3\.org/)", svg):
        raise TamperedError(f"a drawing on the page holds {strange[0]!r}, which none of ours does")
    label = re.search(r'aria-label="([^"]*)"', svg)
    texts = [
        text.strip() for text in _TAG.sub("\n", re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)).split("\n")
    ]
    return [label[1] if label else "", *sorted({text for text in texts if re.search(r"[A-Za-z]{2}", text)})]


def portable_page(record: Record, content: bytes, evidence: bytes) -> str:
    """Compare report.pdf; returns how, where it was not byte for byte.

    Raises:
        TamperedError: if pages or attachment do not say what the record says.
    """
    if portable.attached(content, len(evidence)) != evidence:
        raise TamperedError("the record attached to report.pdf is not evidence.json")
    expected = portable.render(record, evidence)
    if content == expected:
        return ""
    if same_machine(record, "typst"):
        raise TamperedError("the pages of report.pdf do not say what the record says")
    if pdf_words(content) != pdf_words(expected):
        raise TamperedError("the pages of report.pdf do not say what the record says")
    return COMPARED


def pdf_words(content: bytes) -> str:
    """The text of all pages in the order in which it is written, blanks left out; of PDF files as typst writes them.

    Raises:
        TamperedError: if the file is built in another way.
    """
    objects = _objects(content)
    trees = [match[1] for body in objects.values() if (match := _PAGES.match(body))]
    if len(trees) != 1:
        raise TamperedError("report.pdf has not one list of pages")
    text = []
    for kid in re.findall(rb"(\d+) 0 R", trees[0]):
        page = objects[int(kid)]
        resources = objects[_number(page, rb"Resources")]
        fonts = re.findall(rb"/(f\d+) (\d+) 0 R", resources.partition(b"/Font<<")[2].partition(b">>")[0])
        maps = {name: _unicode(objects, int(number)) for name, number in fonts}
        text.append(_shown(_stream(objects[_number(page, rb"Contents")]), maps))
    return "".join("".join(text).split())


_PAGES = re.compile(rb"<</Type/Pages/Count \d+/Kids\[([^\]]*)\]")
_MAPPED = re.compile(rb"<([0-9A-Fa-f]{4})>\s*<([0-9A-Fa-f]+)>")
# a font is chosen, or text is shown: as hexadecimal digits, or in parentheses
_TEXT = re.compile(rb"/(f\d+) [\d.]+ Tf|<([0-9A-Fa-f]+)>|\(((?:[^()\\]|\\.)*)\)", re.DOTALL)
_ESCAPED = re.compile(rb"\\([0-7]{1,3}|.)", re.DOTALL)


def _objects(content: bytes) -> dict[int, bytes]:
    """Objects by number; each number once, or a reader might show another one than we compare."""
    starts = [(int(m[1]), m.end()) for m in re.finditer(rb"(?:^|[\r\n])(\d{1,8}) 0 obj\s", content)]
    if len({number for number, _ in starts}) != len(starts):
        raise TamperedError("report.pdf holds an object twice")
    ends = [start for _, start in starts[1:]] + [len(content)]
    return {number: content[start:end] for (number, start), end in zip(starts, ends, strict=True)}


def _number(body: bytes, name: bytes) -> int:
    """The number of the object that an object names so."""
    match = re.search(rb"/" + name + rb" (\d+) 0 R", body)
    if match is None:
        raise TamperedError(f"a part of report.pdf lacks {name.decode()}")
    return int(match[1])


def _stream(body: bytes) -> bytes:
    """The content of an object that holds a stream."""
    head, _, rest = body.partition(b"stream")
    length = re.search(rb"/Length (\d{1,12})\b", head)
    if length is None:
        raise TamperedError("a part of report.pdf has no length")
    data = rest.removeprefix(b"\r").removeprefix(b"\n")[: int(length[1])]
    return inflated(data, _LARGEST_STREAM) if b"/FlateDecode" in head else data


def _unicode(objects: Mapping[int, bytes], font: int) -> dict[bytes, str]:
    """Glyph → text, from the font's ToUnicode map."""
    content = _stream(objects[_number(objects[font], rb"ToUnicode")])
    listed = b"".join(re.findall(rb"beginbfchar(.*?)endbfchar", content, re.DOTALL))
    return {
        glyph.upper(): bytes.fromhex(text.decode()).decode("utf-16-be", errors="replace")
        for glyph, text in _MAPPED.findall(listed)
    }


def _shown(content: bytes, maps: Mapping[bytes, Mapping[bytes, str]]) -> str:
    """Text that a page's content shows; a glyph that its font does not name stands as its number."""
    text, font = list[str](), dict[bytes, str]()
    for match in _TEXT.finditer(content):
        if match[1]:
            font = dict(maps.get(match[1], {}))
            continue
        raw = match[2].upper() if match[2] else _literal(match[3]).hex().upper().encode()
        glyphs = [raw[at : at + 4] for at in range(0, len(raw), 4)]
        text += [font.get(glyph, f"[{glyph.decode()}]") for glyph in glyphs]
    return "".join(text)


def _literal(text: bytes) -> bytes:
    """The bytes of a PDF string in parentheses."""
    plain = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}
    return _ESCAPED.sub(lambda m: bytes([int(m[1], 8) & 255]) if m[1].isdigit() else plain.get(m[1], m[1]), text)
