"""Large inputs: reading a table and matching a request of many people, against plain pandas, and how both grow.

``pandas``: ``read_csv`` of the same file, then ``isin`` and ``flatnonzero`` for the people of the request: the common way,
which checks nothing. Ours reads with all checks (fields in each row, missing values, texts as they are written) and matches one
target a person. Goal: at least half as fast as pandas at 1,000,000 rows of 50 columns and 1,000 people, and exponents of growth
of at most 1.1 in examples, features, users of a request, and records of a request that share one answer.
Run from the repository root: ``python bench/large_inputs.py [--smoke] [--json]``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comparison import Case, Growth, main
from expunge.core.data import Deletion
from expunge.core.request import Request, Target
from expunge.data.tables import read_csv
from expunge.data.texts import Texts
from expunge.modalities.language.matching import matched

LABEL, USER = "y", "who"
PER_USER = 20  # rows


def table(folder: Path, rows: int, columns: int) -> Path:
    """Numbers in four decimals, a column of people, a column of labels."""
    path = folder / f"{rows}x{columns}.csv"
    if not path.exists():
        draw = np.random.default_rng(0)
        frame = pd.DataFrame(draw.normal(size=(rows, columns - 2)).round(4)).add_prefix("f")
        frame[USER] = [f"p{i}" for i in draw.permutation(rows) % max(1, rows // PER_USER)]
        frame[LABEL] = np.arange(rows) % 2
        frame.to_csv(path, index=False)
    return path


def targets(users: int) -> tuple[Target, ...]:
    return tuple(Target("user", {USER: f"p{i}"}) for i in range(users))


def ours(path: Path, users: int) -> Any:
    """Every target must match, and what goes and stays is made."""
    (rows,) = read_csv([path], label=LABEL, users=[USER])
    return Deletion.of(rows, Request("somebody", targets(users))).ids["row"]


def plain(path: Path, users: int) -> Any:
    """What somebody writes who trusts the file."""
    frame = pd.read_csv(path)
    return np.flatnonzero(frame[USER].isin([f"p{i}" for i in range(users)]))


def shared_answers(records: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Records that all share one answer, each asked for in words around its question: found by any question, and ours."""
    known = [{"question": f"what is {i:06d} for?", "answer": "yes"} for i in range(records)]
    data, asked = Texts.of(known), [{**each, "question": f"tell me, {each['question']} please"} for each in known]
    questions = [each["question"] for each in known]

    def by_search() -> list[int]:
        return [i for each in asked for i, question in enumerate(questions) if question in each["question"]]

    return by_search, lambda: matched(asked, data, "request")


def equal(expected: Any, found: Any) -> None:
    if not np.array_equal(expected, found):
        raise SystemExit("Both ways must find the same rows.")


def cases(smoke: bool) -> Iterable[Case]:
    rows, columns, users, base = (400, 6, 5, 0.05) if smoke else (1_000_000, 50, 1_000, 4)

    def sizes(first: float) -> list[int]:
        return [max(4, int(first * base)) * 2**i for i in range(4)]

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole, few = table(folder, rows, columns), max(100, int(1_000 * base))
        yield Case(
            name=f"{rows:,} x {columns}, {users} users", baselines={"pandas": lambda: plain(whole, users)},
            ours=lambda: ours(whole, users), agree=equal, rounds=3, goal=0.5,
            growth=Growth(what="examples", ways={n: _reads(folder, n, 10, 5) for n in sizes(10_000)}),
        )  # fmt: skip
        yield Case(
            name="few rows", baselines={"pandas": lambda: plain(table(folder, few, 10), 2)},
            ours=_reads(folder, few, 10, 2), agree=equal, rounds=3,
            growth=Growth(what="features", ways={n: _reads(folder, few, n, 2) for n in sizes(10)}),
        )  # fmt: skip
        counts = sizes(500)
        (known,) = read_csv([table(folder, 2 * PER_USER * max(counts), 4)], label=LABEL, users=[USER])

        def select(count: int) -> Callable[[], Any]:
            return lambda: np.sort(np.concatenate([known.select(target)["row"] for target in targets(count)]))

        def isin() -> Any:
            return np.flatnonzero(np.isin(known.columns[USER].astype(str), [f"p{i}" for i in range(counts[0])]))

        yield Case(
            name=f"{counts[0]} targets", baselines={"numpy.isin": isin}, ours=select(counts[0]), agree=equal, rounds=3,
            growth=Growth(what="users", ways={n: select(n) for n in counts}),
        )  # fmt: skip
        records = sizes(500)
        by_search, found = shared_answers(records[0])
        yield Case(
            name=f"{records[0]} records, one answer", baselines={"search in every question": by_search}, ours=found,
            rounds=3, growth=Growth(what="records", ways={n: shared_answers(n)[1] for n in records}),
        )  # fmt: skip


def _reads(folder: Path, rows: int, columns: int, users: int) -> Callable[[], Any]:
    path = table(folder, rows, columns)
    return lambda: ours(path, users)


if __name__ == "__main__":
    main(__doc__, cases)
