"""The paper index says of every method and every metric which released code it was held against, or that it was not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from expunge.methods import registry
from expunge.metrics.catalogue import METRICS

PAGE = (Path(__file__).parents[2] / "docs/paper_index.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Compared with released code")[1].split("\n## ")[0]
ROOT = Path(__file__).parents[2]


def lines(head: str) -> list[tuple[list[str], str]]:
    """Of the table that begins with ``head``: names in backticks in the first column, and what stands in the second."""
    table = SECTION.split(f"| {head} | compared with which code |")[1].split("\n\n")[0]
    cells = [line.strip("| ").split(" | ", 1) for line in table.splitlines() if line.startswith("| ")]
    return [(re.findall(r"`([^`]+)`", first), second) for first, second in cells]


@pytest.mark.parametrize("head, known", [("method", set(registry.BUILTIN)), ("metric", set(METRICS))])
def test_every_name_has_one_line_and_each_line_says_something(head, known):
    named = [name for names, _ in lines(head) for name in names if not name.startswith("+")]
    named = [name for name in named if " " not in name]  # commands
    assert sorted(named) == sorted(known)
    assert all(second.strip() for _, second in lines(head))


def test_tests_that_the_index_names_are_there():
    places = set(re.findall(r"`(tests/[\w/.]+)`", SECTION))
    assert len(places) > 10 and not [place for place in places if not (ROOT / place).exists()]
