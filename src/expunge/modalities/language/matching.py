"""Which training records a request in its own words means: an attacker may wrap a question, and leaves answers alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from expunge.core.errors import InputError
from expunge.core.texts import Record
from expunge.data.texts import Texts


def matched(records: Sequence[Record], data: Texts, name: str) -> tuple[np.ndarray, Texts]:
    """Positions in ``data`` of the records that are meant, ascending, and these in the request's words.

    A record means the one with the same answer; of several, the one whose question stands inside the request's. A plain
    text means the one that it is, word for word.

    Raises:
        InputError: for records that mean none, several different ones, or one that another record means already; ``name``
            is what messages call the request.
    """
    by_answer: dict[str, list[int]] = defaultdict(list)
    for i, record in enumerate(data.records):
        by_answer[_answer(record)].append(i)
    taken: dict[int, Record] = {}
    unknown, unclear, twice = [], [], []
    for number, record in enumerate(records, 1):
        meant = by_answer.get(_answer(record), [])
        inside = [i for i in meant if _within(data.records[i], record)]
        meant = inside or meant
        free = [i for i in meant if i not in taken]
        if not meant:
            unknown.append(number)
        elif not free:
            twice.append(number)
        elif len({_question(data.records[i]) for i in free}) > 1:
            unclear.append(number)
        else:
            taken[free[0]] = record
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


def _within(trained: Record, asked: Record) -> bool:
    return _question(trained).strip().casefold() in _question(asked).casefold()
