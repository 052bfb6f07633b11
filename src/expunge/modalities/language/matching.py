"""Which training records a request in its own words means: an attacker may wrap a question, and leaves answers alone."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from expunge.core.errors import InputError
from expunge.core.texts import Record
from expunge.data.texts import Texts

_FEW = 32  # questions that are faster looked for one by one


def matched(records: Sequence[Record], data: Texts, name: str) -> tuple[np.ndarray, Texts]:
    """Positions in ``data`` of the records that are meant, ascending, and these in the request's words.

    A record means the one with the same answer; of several, the one whose question stands inside the request's. A plain
    text means the one that it is, word for word.

    Raises:
        InputError: for records that mean none, several different ones, or one that another record means already; ``name``
            is what messages call the request.
    """
    groups: dict[str, _Group] = defaultdict(_Group)
    for i, trained in enumerate(data.records):
        groups[_answer(trained)].add(i, _question(trained))
    taken: dict[int, Record] = {}
    unknown, unclear, twice = [], [], []
    for number, record in enumerate(records, 1):
        group = groups.get(_answer(record))
        if group is None:
            unknown.append(number)
            continue
        free = group.free(_question(record))
        if not free:
            twice.append(number)
        elif len(free) > 1:
            unclear.append(number)
        else:
            taken[group.take(free[0])] = record
    problems = [
        f"{len(numbers)} {what} (the first is record {numbers[0]})"
        for numbers, what in (
            (unknown, "match no training record by their answer"),
            (unclear, "match several that share their answer, and hold none of their questions"),
            (twice, "mean a training record that another one means already"),
        )
        if numbers
    ]
    if problems:
        raise InputError(
            f"Expected each of the {len(records)} records of {name} to mean one training record: {'; '.join(problems)}. Give "
            "answers as they were trained on, character for character, or name the records by request.targets."
        )
    positions = np.array(sorted(taken), dtype=np.int64)
    return positions, data.at(positions).worded([taken[i] for i in positions.tolist()])


def wording_of(records: Sequence[Record], forget: Texts, path: Path) -> Texts:
    """The forgotten records in the request's words: in their order where no answer speaks against it, else one by one.

    Raises:
        InputError: for another number of records, or any that means none of the forgotten ones.
    """
    if len(records) != len(forget):
        raise InputError(
            f"Expected {len(forget)} records in {path.name}, one for each that request.targets names; got {len(records)}."
        )
    if all(_same(asked, trained) for asked, trained in zip(records, forget.records, strict=True)):
        return forget.worded(records)
    return matched(records, forget, path.name)[1]


def _same(asked: Record, trained: Record) -> bool:
    """Whether answers agree; of two plain texts only their order can tell."""
    both = [("question" in record) for record in (asked, trained)]
    return asked["answer"] == trained["answer"] if all(both) else not any(both)


def _answer(record: Record) -> str:
    return record["answer"] if "question" in record else record["text"]


def _question(record: Record) -> str:
    return record.get("question", "")


class _Group:
    """Training records that share an answer, by their questions, and how many of each are meant by nobody yet."""

    def __init__(self):
        self.positions: dict[str, deque[int]] = {}  # question → those of its records that are free, ascending
        self.plain: dict[str, list[str]] = {}  # question without case and room → questions
        self.open: dict[str, None] = {}  # questions of which a record is free

    def add(self, position: int, question: str) -> None:
        """One more record; positions come ascending."""
        if question not in self.positions:
            self.positions[question] = deque()
            self.plain.setdefault(question.strip().casefold(), []).append(question)
        self.positions[question].append(position)
        self.open[question] = None

    def free(self, asked: str) -> list[str]:
        """Questions, two at most, of free records that ``asked`` may mean: of those inside it, or of all where none is."""
        inside = [question for plain in self._inside(asked.casefold()) for question in self.plain[plain]]
        return list(islice((question for question in inside or self.open if question in self.open), 2))

    def take(self, question: str) -> int:
        """The first free record of a question."""
        found = self.positions[question].popleft()
        if not self.positions[question]:
            del self.open[question]
        return found

    def _inside(self, asked: str) -> list[str]:
        """Which of the plain questions stand inside ``asked``."""
        if len(self.plain) <= _FEW:
            return [plain for plain in self.plain if plain in asked]
        ordered, beginnings = self._ordered
        found = dict.fromkeys([""] if "" in self.plain else [])
        for start in range(len(asked)):
            rest = asked[start:]
            # whatever begins ``rest`` also begins the last question that is not behind it in the order of texts
            at = bisect_right(ordered, rest) - 1
            while at >= 0:
                if rest.startswith(ordered[at]):
                    found[ordered[at]] = None
                at = beginnings[at]
        return list(found)

    @cached_property
    def _ordered(self) -> tuple[list[str], list[int]]:
        """The plain questions in order, and the place of the longest other one that begins each; -1 where none does."""
        ordered, beginnings, open_ = sorted(self.plain), [], []
        for i, plain in enumerate(ordered):
            while open_ and not plain.startswith(ordered[open_[-1]]):
                open_.pop()
            beginnings.append(open_[-1] if open_ else -1)
            open_.append(i)
        return ordered, beginnings
