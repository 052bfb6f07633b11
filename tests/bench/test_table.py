"""Hand-made cells whose table is known by hand, and controls: retrained models as rows must not look like anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expunge.bench.finished import Results
from expunge.bench.page import html
from expunge.bench.recipe import load_recipe
from expunge.bench.table import table
from expunge.cli.bench_output import show_bench

from . import tiny

NAMES = ("FA", "RA", "TA", "mia_svc_nonmember", "mia_entropy_member")


def cell(row: str, forget_set: int, seed: int, values: tuple[float, ...], **more: Any) -> dict[str, Any]:
    metrics = dict(zip(NAMES, values, strict=True))
    metrics |= {
        "UA": 100 - metrics["FA"],
        "zrf": 0.5,
        "distance": 3.0 * (row == "retrain" and seed > 0),
        "seconds": 2.0,
    }
    return {"key": f"{row}-{forget_set}-{seed}", "row": row, "forget_set": forget_set, "seed": seed, "trial": None,
            "n_forget": 500, "status": "done", "metrics": metrics, **more}  # fmt: skip


class World:
    """Cells, and the margins that go with them."""

    def __init__(self, folder: Path):
        self.recipe = load_recipe(str(tiny.write(folder)))
        self.results = Results(folder / "results", "hand-made")

    def add(self, line: dict[str, Any], margins: np.ndarray | None = None) -> None:
        """With the margins of 40 forgotten rows and those of test rows after them."""
        self.results.add(line, {} if margins is None else {"forget": margins[:40], "test": margins[40:]})

    def row(self, name: str = "method") -> dict[str, Any]:
        (found,) = table(self.recipe, self.results, [name])["rows"]
        return found


@pytest.fixture
def world(tmp_path) -> World:
    """Two forget sets. Retrained: FA 90 and 92 on the first (mean 91), 80 and 84 on the second (mean 82)."""
    made = World(tmp_path)
    for number in (0, 1):
        made.add(cell("source", number, 0, (100, 100, 88, 2, 95)))
    for number, r, fa, mia in ((0, 0, 90, 70), (0, 1, 92, 72), (1, 0, 80, 60), (1, 1, 84, 64)):
        made.add(cell("retrain", number, r, (fa, 99, 86, 20, mia)))
    return made


def test_the_gap_averages_over_seeds_first_and_the_gap_per_seed_does_not(world):
    """FA misses by +4 and -4, the membership number by +1 and +3: gap (0 + 1 + 2 + 2) / 4, per seed (4 + 1 + 2 + 2) / 4."""
    world.add(cell("method", 0, 0, (95, 98, 84, 20, 72)))
    world.add(cell("method", 1, 1, (78, 98, 84, 30, 65)))
    metrics = world.row()["metrics"]
    assert metrics["gap"]["mean"] == pytest.approx((0 + 1 + 2 + 2) / 4)
    assert metrics["gap_per_seed"]["mean"] == pytest.approx(((4 + 1 + 2 + 1) / 4 + (4 + 1 + 2 + 3) / 4) / 2)
    assert metrics["gap_svc"]["mean"] == pytest.approx((0 + 1 + 2 + 5) / 4)
    assert metrics["gap"]["std"] == pytest.approx((8.5 + 0 + 0 + 3.5) / 4)  # ddof 0, as the papers print it
    assert metrics["FA"]["mean"] == 86.5
    assert metrics["FA"]["ideal"] == pytest.approx(86.5)
    assert metrics["tow"]["mean"] == pytest.approx(0.96 * 0.99 * 0.98)
    assert metrics["tow_mia"]["mean"] == pytest.approx((1.0 + 0.9) / 2 * 0.99 * 0.98)
    assert (metrics["tow"]["ideal"], metrics["gap"]["ideal"]) == (1.0, 0.0)


@pytest.mark.parametrize(("right", "weak"), [(0.45, True), (0.64, True), (0.66, False), (1.0, False)])
def test_a_source_that_is_nearer_to_the_least_than_to_no_error_is_called_weak(tmp_path, capsys, right, weak):
    """At least 0.3 is asked for: half of the way to no error is 0.65."""
    made = World(tmp_path)
    known = {"value": right, "least": 0.3, "what": "its own training rows", "bar": "3 times chance"}
    made.add(cell("source", 0, 0, (100 * right, 100 * right, 40, 2, 95), knowledge=known))
    record = table(made.recipe, made.results, [])
    record |= {"seeds": 1, "forget_sets": 1, "jobs": 1, "quick": False, "seconds": 1.0, "defaults": False}
    said = record["source"]["weak"]
    assert (said is not None) is weak
    show_bench(record, False)
    printed, page = capsys.readouterr().out, html(record)
    if weak:
        assert (
            "The original model is weak" in printed
            and "before forgetting, weak" in page
            and "The original model is weak" in page
        )
    else:
        assert "weak" not in printed and "is weak" not in page and "forgetting, weak" not in page


def test_nulls_are_what_retrained_models_of_one_forget_set_differ_by(world):
    """Deviations of FA from the mean of their set are 1, 1, 2, 2 with two degrees of freedom: the spread is sqrt(10 / 2)."""
    world.add(cell("method", 0, 0, (95, 98, 84, 20, 72)))
    world.add(cell("method", 1, 1, (78, 98, 84, 20, 65)))
    metrics = world.row()["metrics"]
    assert metrics["FA"]["null"] == pytest.approx(2 * 5**0.5)
    assert metrics["RA"]["null"] == 0
    # one retrained model from the other: FA 2, 2, 4, 4, membership as much; from the mean of two it is sqrt(3 / 2) / sqrt(2)
    apart = ((2 + 2) / 4 + (4 + 4) / 4) / 2
    assert metrics["gap_per_seed"]["null"] == pytest.approx(apart * (3 / 4) ** 0.5)
    assert metrics["gap"]["null"] == pytest.approx(apart * (3 / 4) ** 0.5 / 2**0.5)
    assert metrics["distance"]["null"] == metrics["distance"]["ideal"] == 3.0


@pytest.mark.parametrize(("sets", "seeds", "retrained"), [(1, 1, 2), (1, 6, 2), (3, 3, 2), (2, 6, 5)])
def test_control_the_null_of_both_gaps_is_what_retrained_models_show_as_a_row(
    tmp_path, monkeypatch, sets, seeds, retrained
):
    """Rows that are retrained models themselves: over many tables their gaps average to the nulls beside them."""
    monkeypatch.setattr(
        "expunge.modalities.classification.benchmark.likelihood_ratio", lambda _: {}
    )  # these cells have no margins
    draw = np.random.default_rng(5)
    found: dict[str, list[tuple[float, float]]] = {"gap": [], "gap_per_seed": []}
    made = World(tmp_path)
    for _ in range(100):
        made.results.cells = {}
        level = draw.normal(60, 5, size=(sets, 5))  # forget sets differ among themselves

        def model(row: str, number: int, seed: int, level=level) -> dict[str, Any]:
            values = level[number] + draw.normal(0, (2, 1, 1, 3, 2))
            return cell(row, number, seed, tuple(values))

        lines = [cell("source", number, 0, (100, 60, 60, 2, 95)) for number in range(sets)]
        lines += [model("retrain", number, r) for number in range(sets) for r in range(retrained)]
        lines += [model("method", seed % sets, seed) for seed in range(seeds)]
        made.results.cells = {line["key"]: line for line in lines}
        metrics = made.row()["metrics"]
        for name, pairs in found.items():
            pairs.append((metrics[name]["mean"], metrics[name]["null"]))
    for name, pairs in found.items():
        value, null = np.array(pairs).T
        assert null.mean() == pytest.approx(value.mean(), rel=0.15), name


@pytest.mark.parametrize(
    ("fa", "ra", "word"),
    [
        (99.0, 99.0, "under-forgets"),
        (86.0, 99.0, "forgets"),
        (60.0, 99.0, "over-forgets"),
        (86.0, 79.0, "utility-collapse"),
    ],
)
def test_outcomes(world, fa, ra, word):
    for seed in (0, 1):
        world.add(cell("method", seed, seed, (fa, ra, 86, 20, 66)))
    found = world.row()
    assert found["outcome"] == found["verdict"] == word
    assert found["reason"]


def test_collapse_of_test_accuracy_alone_is_a_collapse(world):
    world.add(cell("method", 0, 0, (90, 99, 70, 20, 66)))
    assert world.row()["outcome"] == "utility-collapse"


def test_control_without_anything_to_forget_there_is_no_verdict(tmp_path):
    """Retraining is as accurate on the forgotten rows as the source: a gap of 0 is no forgetting (SVHN, vision spec 0.5)."""
    made = World(tmp_path)
    made.add(cell("source", 0, 0, (96.5, 99, 95, 2, 95)))
    for r in (0, 1):
        made.add(cell("retrain", 0, r, (96, 99, 95, 2, 95)))
    made.add(cell("method", 0, 0, (96, 99, 95, 2, 95)))
    found = made.row()
    assert found["verdict"] == "undecidable"
    assert found["metrics"]["gap"]["mean"] == 0


def test_one_bad_seed_is_not_averaged_away(world):
    world.add(cell("method", 0, 0, (90, 99, 86, 20, 66)))
    world.add({**cell("method", 1, 1, (0,) * 5), "status": "failed", "error": "Weights are not finite."})
    found = world.row()
    assert (found["verdict"], found["reason"]) == ("failed (1 of 2)", "Weights are not finite.")
    assert found["outcome"] is None, "nothing was measured"
    assert (found["seeds"], found["metrics"]) == (1, {})


def test_a_single_seed_has_no_interval(world):
    world.add(cell("method", 0, 0, (90, 99, 86, 20, 66)))
    metrics = world.row()["metrics"]
    for name in ("FA", "gap", "gap_per_seed", "tow"):
        assert (metrics[name]["low"], metrics[name]["high"]) == (None, None)


def test_trials_and_other_runs_are_not_in_the_table(world):
    world.add(cell("method", 0, 0, (90, 99, 86, 20, 66)))
    world.add({**cell("method", 0, 0, (10, 10, 10, 10, 10), key="other"), "trial": 1})
    assert world.row()["metrics"]["FA"]["mean"] == 90
    seen = world.results.only(["method-0-0", "retrain-0-0", "retrain-0-1", "source-0-0"])
    assert table(world.recipe, seen, ["method"])["reference"]["seeds"] == 2


def many(folder: Path, shift: float, seeds: int, retrained: int) -> dict[str, Any]:
    """Models on one forget set; those of the row are ``shift`` surer of forgotten rows than retrained ones are."""
    made, draw = World(folder), np.random.default_rng(3)
    made.add(cell("source", 0, 0, (100, 100, 88, 2, 95)))
    hard, surer = draw.normal(size=80), shift * (np.arange(80) < 40)
    for r in range(retrained):
        made.add(cell("retrain", 0, r, (90, 99, 86, 20, 66)), hard + draw.normal(size=80))
    for seed in range(seeds):
        made.add(cell("method", 0, seed, (90, 99, 86, 20, 66)), hard + surer + draw.normal(size=80))
    return made.row()


@pytest.mark.parametrize(("seeds", "retrained"), [(16, 16), (20, 16), (16, 24)])
def test_control_identical_models_score_the_null_and_shifted_ones_do_not(tmp_path, seeds, retrained):
    same = many(tmp_path / "same", 0, seeds, retrained)["metrics"]
    apart = many(tmp_path / "apart", 2, seeds, retrained)["metrics"]
    assert same["klom"]["mean"] == pytest.approx(same["klom"]["null"], rel=0.25)
    assert apart["klom"]["mean"] > 1.5 * apart["klom"]["null"]
    assert same["challenge"]["mean"] == pytest.approx(same["challenge"]["null"], abs=0.08)
    assert apart["challenge"]["mean"] < apart["challenge"]["null"] / 2
    assert same["challenge"]["low"] < same["challenge"]["mean"] < same["challenge"]["high"]
    assert same["ulira"]["mean"] == pytest.approx(0.5, abs=0.1)
    assert apart["ulira"]["mean"] > 0.75
    assert same["lira"]["mean"] == pytest.approx(same["lira"]["ideal"], abs=same["lira"]["null"])
    assert apart["lira"]["mean"] > apart["lira"]["ideal"] + 2 * apart["lira"]["null"]
    assert {same[name]["models"] for name in ("klom", "challenge", "ulira")} == {16}


def test_numbers_of_few_models_are_no_headlines(tmp_path):
    """KLOM below 50 models, the challenge score below 32 (vision spec 6.2)."""
    weak = many(tmp_path / "few", 0, 16, 16)["not_for_headlines"]
    assert set(weak) == {"klom", "challenge", "ulira", "lira"}
    assert "50" in weak["klom"] and "32" in weak["challenge"]
    assert set(many(tmp_path / "more", 0, 40, 40)["not_for_headlines"]) == {"klom", "ulira", "lira"}
    assert "not_for_headlines" not in many(tmp_path / "enough", 0, 64, 64)
