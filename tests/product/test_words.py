"""What a reader cannot open is not cited: sources are papers, or are said to be ours."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUFFIXES = {".py", ".md", ".yaml", ".j2", ".toml"}
PAGES = sorted(
    path
    for folder in ("src", "docs", "bench", "examples")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in SUFFIXES
) + [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]

# Internal notes: "spec 1.6(b)", "R2D spec", "section 3 of the spec", "our working notes", and paths of one machine.
NOTES = re.compile(r"\bspecs?\b|\b(our|working|internal) notes\b|/work/", re.IGNORECASE)


def cited_notes(text: str) -> list[str]:
    return [found.group() for found in NOTES.finditer(" ".join(text.split()))]


def test_no_page_cites_notes_that_are_not_in_the_repository():
    found = {path.relative_to(ROOT): cited_notes(path.read_text(encoding="utf-8")) for path in PAGES}
    found = {str(path): words for path, words in found.items() if words}
    assert not found, f"cite the paper, or say that it is ours: {found}"


@pytest.mark.parametrize(
    "text",
    ["Source: R2D spec 1.6(b).", "section A.3 of the spec", "(vision\n    spec, section 0)", "our\nworking notes"],
)
def test_the_test_sees_such_words(text: str):
    """The negative control; a line break does not hide them."""
    assert cited_notes(text)


@pytest.mark.parametrize("text", ["(arXiv 2409.09778, Theorem 3.1)", "a specific MetricSpec", "derived here"])
def test_papers_may_be_cited(text: str):
    assert not cited_notes(text)


# Words that earlier versions used in a meaning of their own, and what the field says instead (docs/glossary.md).
PRIVATE = re.compile(r"\b(beside|twins?|taught|untaught|told|re-?worded|in one breath|by heart)\b", re.IGNORECASE)
PROSE = [page for page in PAGES if page.suffix == ".md" and page.name not in ("CHANGELOG.md", "paper_index.md")]


def private_words(text: str) -> list[str]:
    """Such words outside of code."""
    without_code = re.sub(r"^```.*?^```$|`[^`\n]*`", " ", text, flags=re.DOTALL | re.MULTILINE)
    return PRIVATE.findall(without_code)


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_documentation_uses_the_field_s_words(page: Path):
    assert not private_words(page.read_text(encoding="utf-8"))


def test_the_test_sees_private_words_and_leaves_code_alone():
    """The negative control."""
    assert private_words("the retrained twin\nstands beside it") == ["twin", "beside"]
    assert not private_words("the key `twins`\n\n```yaml\ntwins: 2\n```\n")
