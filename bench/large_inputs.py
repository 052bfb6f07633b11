"""Large inputs: reading a table and matching a request of many people, against plain pandas, and how both grow.

``pandas``: ``read_csv`` of the same file, then ``isin`` and ``flatnonzero`` for the people of the request: the common way,
which checks nothing. ``ours``: ``open_csv`` and ``read_csv`` with all their checks (fields in each row, missing values, texts
as they are written), then ``Deletion.of`` with one target a person. Goal: under 2 x at 1,000,000 rows of 50 columns and 1,000
people. Then the exponents of growth, the slope of log time over log size at four sizes (goal: at most 1.1): in examples, in
features, in users of a request, and in records of a request that share one answer.

Both run in this process, in turn; processor seconds are compared, the median of the turns with the spread between the
quartiles. Run: python bench/large_inputs.py [--quick | --smoke] [--json]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from expunge.core.data import Deletion
from expunge.core.request import Request, Target
from expunge.data.tables import read_csv
from expunge.data.texts import Texts
from expunge.modalities.language.matching import matched

SIZES = {  # rows, columns, users of the comparison; base of the four sizes of each growth; turns
    "full": (1_000_000, 50, 1_000, 8, 3), "quick": (100_000, 50, 1_000, 4, 3), "smoke": (400, 6, 5, 0.05, 1),
}  # fmt: skip
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


def ours(path: Path, users: int) -> Any:
    """Every target must match, and what goes and stays is made."""
    (rows,) = read_csv([path], label=LABEL, users=[USER])
    return match(rows, users).ids["row"]


def match(rows: Any, users: int) -> Deletion:
    return Deletion.of(rows, Request("somebody", tuple(Target("user", {USER: f"p{i}"}) for i in range(users))))


def plain(path: Path, users: int) -> Any:
    """What somebody writes who trusts the file."""
    frame = pd.read_csv(path)
    return np.flatnonzero(frame[USER].isin([f"p{i}" for i in range(users)]))


def shared_answers(records: int) -> Callable[[], Any]:
    """Records that all share one answer, each asked for in words around its question."""
    known = [{"question": f"what is {i:06d} for?", "answer": "yes"} for i in range(records)]
    data, asked = Texts.of(known), [{**each, "question": f"tell me, {each['question']} please"} for each in known]
    return lambda: matched(asked, data, "request")


def timed(run: Callable[[], Any]) -> float:
    before = time.process_time()
    run()
    return time.process_time() - before


def spread(values: list[float]) -> str:
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return f"spread {low:.3f} to {high:.3f} s"


def exponent(sizes: list[int], runs: list[Callable[[], Any]], turns: int) -> float:
    """Slope of log time over log size; the least of the turns: what was not disturbed."""
    times = [min(timed(run) for _ in range(turns)) for run in runs]
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(times, 1e-9)), 1)[0])


def growths(folder: Path, base: float, turns: int) -> dict[str, float]:
    """Exponents over four sizes, each twice the one before."""

    def sizes(first: float) -> list[int]:
        return [max(4, int(first * base)) * 2**i for i in range(4)]

    rows, columns, users, records = sizes(10_000), sizes(10), sizes(500), sizes(500)
    (whole,) = read_csv([table(folder, 2 * PER_USER * max(users), 4)], label=LABEL, users=[USER])
    match(whole, 1)  # the index of the column is made once for all requests
    paths = [[table(folder, n, 10) for n in rows], [table(folder, max(100, int(1_000 * base)), c) for c in columns]]
    return {
        "examples": exponent(rows, [lambda p=p: ours(p, 5) for p in paths[0]], turns),
        "features": exponent(columns, [lambda p=p: ours(p, 2) for p in paths[1]], turns),
        "users": exponent(users, [lambda n=n: [whole.select(Target("user", {USER: f"p{i}"})) for i in range(n)]
                                  for n in users], turns),
        "records": exponent(records, [shared_answers(n) for n in records], turns),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--smoke", action="store_true", help="sizes at which nothing can be said: shows that it runs")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    size = "smoke" if arguments.smoke else "quick" if arguments.quick else "full"
    rows, columns, users, base, turns = SIZES[size]
    with tempfile.TemporaryDirectory() as name:
        path = table(Path(name), rows, columns)
        assert np.array_equal(ours(path, users), plain(path, users)), "both must find the same rows"
        times: dict[str, list[float]] = {"ours": [], "pandas": []}
        for _ in range(turns):
            times["ours"].append(timed(lambda: ours(path, users)))
            times["pandas"].append(timed(lambda: plain(path, users)))
        median = {way: statistics.median(values) for way, values in times.items()}
        ratio = median["ours"] / median["pandas"]
        for way, values in times.items():
            print(f"{way:<8} {median[way]:8.3f} s of processor time, {spread(values)}")
        print(f"ratio {ratio:.2f} at {rows} x {columns} with {users} users (goal under 2 at the full size)")
        found = growths(Path(name), base, turns)
    for what, slope in found.items():
        print(f"exponent of growth in {what:<9} {slope:5.2f} (goal at most 1.1)")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the whole process {peak:.0f} MiB")
    if arguments.json:
        print(json.dumps({**median, "ratio": ratio, "exponents": found, "peak_mib": peak, "size": size}))


if __name__ == "__main__":
    main()
