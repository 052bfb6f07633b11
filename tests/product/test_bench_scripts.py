"""Every script under bench/ runs at its smallest size, its ways agree, and it prints what all of them promise."""

import importlib
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
SCRIPTS = sorted(path.stem for path in BENCH.glob("*.py") if path.stem != "comparison")


@pytest.fixture
def on_the_path(monkeypatch):
    """Scripts are run from their own folder; what this test imports is forgotten again."""
    monkeypatch.syspath_prepend(str(BENCH))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(BENCH)):
            del sys.modules[name]


def test_every_script_runs_at_its_smallest_size(on_the_path, capsys):
    comparison = importlib.import_module("comparison")
    for script in SCRIPTS:
        module = importlib.import_module(script)
        lines = comparison.run(module.cases, smoke=True)
        printed = capsys.readouterr().out
        if "Nothing to measure" in printed:  # a script that needs data says so
            assert not lines
            continue
        assert lines, script
        for line in lines:
            assert line["ratio"] > 0 and 0 < line["least"] <= line["largest"] and line["baseline_s"] > 0, line
            assert line["case"] in printed and line["baseline"] in printed
        assert all(column in printed for column in ("spread", "peaks, MiB", "of product rate", "growth"))
        assert module.__doc__ and f"bench/{script}.py" in module.__doc__


def test_the_exponent_of_growth_is_that_of_the_power_and_is_drawn(on_the_path, tmp_path):
    comparison = importlib.import_module("comparison")
    now = 0.0

    def work(size):
        nonlocal now
        now += size**1.7

    ways = {size: lambda size=size: work(size) for size in (1, 2, 4, 8)}
    growth = comparison.Growth(what="size", ways=ways)
    seconds = comparison.times(growth, lambda: now, True)
    assert comparison.exponent(seconds) == pytest.approx(1.7)
    line = {"case": "work", "grown_s": seconds, "growth": 1.7, "varied": "size"}
    comparison.plot([line, {"case": "other", "grown_s": {}}], tmp_path / "growth.svg")
    assert "size (work): exponent 1.70" in (tmp_path / "growth.svg").read_text()  # as a comment beside its outlines
    with pytest.raises(SystemExit, match="Nothing to draw"):
        comparison.plot([{"case": "other", "grown_s": {}}], tmp_path / "none.svg")


def test_a_case_whose_ways_differ_is_refused(on_the_path):
    comparison = importlib.import_module("comparison")

    def agree(expected, found):
        if expected != found:
            raise SystemExit("not the same work")

    case = comparison.Case(name="a", baselines={"b": lambda: 1}, ours=lambda: 2, agree=agree)
    with pytest.raises(SystemExit, match="same work"):
        comparison.measure(case, True)
