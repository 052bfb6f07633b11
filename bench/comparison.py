"""What every script here does: two or more ways take turns, and the same numbers are printed of each pair.

A script is ``main(__doc__, cases)``: ``cases(smoke)`` yields :class:`Case` after :class:`Case`, each with the baseline first.
The baseline is named after whose way it is and gets what costs it nothing: the same layout of memory, batches padded to
their own longest. Printed of each case:

* ``ratio``: median processor time of the baseline over ours, and ``spread``, the least and the largest over rounds;
* processor time of both, and ``peak``: how far the resident memory of this process rose above where it stood (Linux only);
* ``of product rate``: our arithmetic a second as a share of what a large square matrix product reaches here and now;
* ``growth``: the exponent e of our processor time ~ size^e over four sizes, and what is varied; ``--plot FILE`` draws it.

``--smoke`` is the smallest size that still computes everything: it says that a script works and nothing about speed.
Run on its own, this file prints the rate of matrix products.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Way = Callable[[], Any]
HEAD = ["case", "baseline", "ratio", "spread", "baseline, s", "ours, s", "peaks, MiB", "of product rate", "growth"]
SLOW = 5.0  # seconds; a way that takes longer is read once, and its first run counts: warming up is lost in it


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Our way at four sizes, smallest first; ``what`` is varied."""

    what: str
    ways: Mapping[int, Way]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Ways to do the same work.

    Attributes:
        baselines: name → the way; the first is what ``ratio`` compares with, each gets a line of its own.
        agree: raises or exits unless (a baseline's result, ours) are the same work.
        operations: floating-point operations of our way; ``None`` where arithmetic is not what it spends time on.
        double: whether they are in double precision.
        rounds: how often the ways take turns, after one that warms up.
        clock: what is compared; processor time of this process unless the way starts others.
        goal: the ratio that is aimed at, against the first baseline.
    """

    name: str
    baselines: Mapping[str, Way]
    ours: Way
    agree: Callable[[Any, Any], None] | None = None
    operations: float | None = None
    double: bool = False
    growth: Growth | None = None
    rounds: int = 5
    clock: Callable[[], float] = time.process_time
    goal: float | None = None


def main(doc: str | None, cases: Callable[[bool], Iterable[Case]]) -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="the smallest size, once")
    parser.add_argument("--json", action="store_true", help="one more line with all numbers")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plot", type=Path, help="draw processor time over size into this file (.svg, .png or .pdf)")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(given.threads)
    lines = run(cases, given.smoke)
    if given.plot:
        plot(lines, given.plot)
    if given.json:
        print(json.dumps(lines))


def run(cases: Callable[[bool], Iterable[Case]], smoke: bool) -> list[dict[str, Any]]:
    """Measure all cases and print their table; one dictionary for each case and baseline.

    Each case is printed to standard error as soon as it is measured: what is cut off later keeps what it has.
    """
    import torch

    torch.manual_seed(0)
    lines = []
    for case in cases(smoke):
        lines += (measured := measure(case, smoke))
        for line in measured:
            print(*cells(line), sep="  ", file=sys.stderr, flush=True)
    print_table([HEAD, *(cells(line) for line in lines)])
    for line in lines:
        if line["goal"] is not None and not smoke:
            met = "met" if line["ratio"] >= line["goal"] else "missed"
            print(f"{line['case']}: the goal of {line['goal']:g} x is {met} ({line['ratio']:.2f} x)")
    return lines


def measure(case: Case, smoke: bool) -> list[dict[str, Any]]:
    """Every way of ``case`` in turn; what each made is compared before any time counts."""
    ways = {**case.baselines, "ours": case.ours}
    made, first = {}, {}
    for name, way in ways.items():  # warms up
        begun = case.clock()
        made[name] = way()
        first[name] = case.clock() - begun
    for name in case.baselines:
        if case.agree is not None:
            case.agree(made[name], made["ours"])
    made.clear()
    peaks = {name: peak(way) for name, way in ways.items()} if not smoke else dict.fromkeys(ways)
    spent: dict[str, list[float]] = {name: [] for name in ways}
    rounds, inner = (1, 1) if smoke else (case.rounds, 1 if first["ours"] > SLOW else repeats(case))
    if not smoke and min(first.values()) > SLOW:
        spent = {name: [seconds] for name, seconds in first.items()}
        rounds -= 1
    for _ in range(rounds):
        for name, way in ways.items():
            begun = case.clock()
            for _ in range(inner):
                way()
            spent[name].append(max((case.clock() - begun) / inner, 1e-9))
    ours = statistics.median(spent["ours"])
    rate = (
        None if case.operations is None else case.operations / ours / product_rate(case.double, 64 if smoke else 1024)
    )
    grown = {} if case.growth is None else times(case.growth, case.clock, smoke)
    lines = []
    for i, name in enumerate(case.baselines):
        pairs = [slow / fast for slow, fast in zip(spent[name], spent["ours"], strict=True)]
        lines.append(
            {
                "case": case.name, "baseline": name, "ratio": statistics.median(spent[name]) / ours,
                "least": min(pairs), "largest": max(pairs), "baseline_s": statistics.median(spent[name]), "ours_s": ours,
                "baseline_peak_mib": peaks[name], "ours_peak_mib": peaks["ours"], "of_product_rate": rate,
                "growth": exponent(grown) if grown else None, "grown_s": grown,
                "varied": None if case.growth is None else case.growth.what,
                "goal": case.goal if i == 0 else None,
            }
        )  # fmt: skip
    return lines


def repeats(case: Case) -> int:
    """How often a way runs between two readings of the clock: at least a hundredth of a second in all."""
    begun = case.clock()
    case.ours()
    return max(1, math.ceil(0.01 / max(case.clock() - begun, 1e-6)))


def peak(way: Way) -> float | None:
    """MiB by which the resident memory rises while ``way`` runs; ``None`` where the kernel does not say."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed and kept would hide what is taken again
        Path("/proc/self/clear_refs").write_text("5")  # the highest mark falls back to what is resident now
        before = _kib("VmRSS")
        result = way()
        del result
        return (_kib("VmHWM") - before) / 1024
    except (OSError, AttributeError):
        way()
        return None


def _kib(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise OSError(f"/proc/self/status has no {name}")


def product_rate(double: bool = False, size: int = 1024) -> float:
    """Floating-point operations a second of a square matrix product, the best of a few."""
    import torch

    a = torch.randn(size, size, dtype=torch.float64 if double else torch.float32)
    best = math.inf
    for _ in range(4):
        begun = time.process_time()
        a @ a
        best = min(best, max(time.process_time() - begun, 1e-9))
    return 2 * size**3 / best


def times(growth: Growth, clock: Callable[[], float], smoke: bool) -> dict[int, float]:
    """Seconds of our way at each of four sizes, the best of three readings; a slow way is read once."""
    if len(growth.ways) != 4:
        raise SystemExit(f"Expected four sizes of {growth.what}; got {len(growth.ways)}.")
    found = {}
    for size, way in growth.ways.items():
        begun = clock()
        way()
        readings = [first] if (first := clock() - begun) > SLOW else []
        for _ in range(0 if readings else 1 if smoke else 3):
            begun, done = clock(), 0
            while not done or (clock() - begun < 0.01 and not smoke):
                way()
                done += 1
            readings.append((clock() - begun) / done)
        found[size] = max(min(readings), 1e-9)
    return found


def exponent(seconds: Mapping[int, float]) -> float:
    """Slope of log time over log size, by least squares."""
    points = [(math.log(size), math.log(time)) for size, time in seconds.items()]
    x, y = (statistics.fmean(values) for values in zip(*points, strict=True))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def plot(lines: Sequence[Mapping[str, Any]], to: Path) -> None:
    """Processor time over size on logarithmic axes, one line for each case that has several sizes, with its exponent."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="size", ylabel="processor time, s")
    drawn = {line["case"]: line for line in lines if line["grown_s"]}
    for name, line in drawn.items():
        label = f"{line['varied']} ({name}): exponent {line['growth']:.2f}"
        axes.plot([*line["grown_s"]], [*line["grown_s"].values()], marker="o", label=label)
    if not drawn:
        raise SystemExit("Nothing to draw: no case here has several sizes.")
    axes.legend()
    figure.savefig(to)


def cells(line: Mapping[str, Any]) -> list[str]:
    """One line of the table."""
    peaks = [line["baseline_peak_mib"], line["ours_peak_mib"]]
    return [
        line["case"],
        line["baseline"],
        f"{line['ratio']:.2f} x",
        f"{line['least']:.2f}-{line['largest']:.2f}",
        f"{line['baseline_s']:.3g}",
        f"{line['ours_s']:.3g}",
        "-" if None in peaks else " / ".join(f"{value:.1f}" for value in peaks),
        "-" if line["of_product_rate"] is None else f"{line['of_product_rate']:.0%}",
        "-" if line["growth"] is None else f"{line['growth']:.2f} ({line['varied']})",
    ]


def print_table(table: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell; words to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for row in table:
        print("  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))))


if __name__ == "__main__":
    for name, double in (("single", False), ("double", True)):
        print(f"square matrix product in {name} precision: {product_rate(double) / 1e9:.1f} GFLOP/s")
