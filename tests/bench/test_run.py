"""A benchmark from its recipe to its table: what is run, what is never run again, and what is refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expunge.bench import cells, tuning
from expunge.bench.recipe import load_recipe
from expunge.bench.run import BenchSettings, fingerprint
from expunge.bench.world import World
from expunge.core.errors import FailedError, InputError, TamperedError
from expunge.core.journal import Journal
from expunge.methods import registry
from expunge.modalities.benchmark import TUNING_SET
from expunge.training import retrainings

from . import tiny
from .tiny import row, run, write

METRICS = {"FA", "UA", "RA", "TA", "mia_svc_nonmember", "mia_entropy_member", "gap", "gap_per_seed", "gap_svc", "tow"}


@pytest.fixture
def counted(monkeypatch) -> Iterator[dict[str, int]]:
    """How many models were trained and how many methods ran, in this process."""
    counts = {"trained": 0, "run": 0}

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **settings: Any) -> Any:
            counts[name] += 1
            return function(*args, **settings)

        return called

    monkeypatch.setattr(retrainings, "_fit", counting("trained", retrainings._fit))
    monkeypatch.setattr(cells, "run_cell", counting("run", cells.run_cell))
    monkeypatch.setattr("expunge.bench.run.run_cell", cells.run_cell)
    yield counts


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- the table ----------------------------------------------------------------------------------------------------------


def test_every_row_appears_and_says_in_words_what_became_of_it(tmp_path, cache):
    rows = {
        "fine_tune": {"epochs": 1},
        "broken": {"method": "gradient_ascent", "lr": 1e30, "epochs": 3},
        "overflow": {"method": "gradient_ascent", "lr": 1e28, "epochs": 1, "batch_size": 1000},
        "still": {"method": "ssd", "alpha": 1e12},
        "scrub_r": {"method": "scrub", "rewind": True, "epochs": 1},
        "r2d": {},
        "no_op": {},
    }
    record = run(write(tmp_path, methods=rows), tmp_path / "out", cache, seeds=1)
    assert [each["method"] for each in record["rows"]] == list(rows)
    assert all(each["verdict"].split(" (")[0] in tiny.VERDICTS for each in record["rows"])
    assert all(each["reason"] for each in record["rows"])
    said = {name: (row(record, name)["verdict"], row(record, name)["reason"]) for name in rows}
    assert said["fine_tune"][0] == said["no_op"][0] == "under-forgets"
    assert said["broken"][0] == "failed"
    assert "not finite" in said["broken"][1] and "smaller learning rate" in said["broken"][1]
    assert said["overflow"][0] == "failed"
    assert "cannot be used" in said["overflow"][1] and "not numbers" in said["overflow"][1]
    assert said["still"][0] == "failed"
    assert "left every tensor as it was" in said["still"][1]
    assert said["scrub_r"][0] == "refused"
    assert "held-out rows" in said["scrub_r"][1] and "validation" in said["scrub_r"][1]
    assert said["r2d"][0] == "refused"
    for name in ("broken", "overflow", "still", "scrub_r", "r2d"):
        assert (row(record, name)["seeds"], row(record, name)["metrics"]) == (0, {})
    assert not list((tmp_path / "out" / "running").glob("*/stages/*")), "a failed cell left its journal"


def test_the_record_has_the_promised_shape(tmp_path, cache):
    record = run(write(tmp_path), tmp_path / "out", cache)
    assert {"recipe", "rows", "reference", "seconds", "source", "n_forget", "forget"} <= record.keys()
    assert (record["recipe"], record["n_forget"], record["forget_sets"]) == ("tiny", [60, 60], 2)
    assert record["seconds"] > 0
    for each in record["rows"]:
        assert each["metrics"].keys() >= METRICS
        assert each["seeds"] == 2
        for item in each["metrics"].values():
            assert {"mean", "low", "high", "ideal", "null", "direction"} <= item.keys()
            assert item["low"] is None or item["low"] <= item["mean"] <= item["high"]
            assert item["direction"] in ("higher", "lower", "match")
    assert record["reference"]["seeds"] == 4
    assert record["reference"]["metrics"]["FA"]["mean"] < record["source"]["metrics"]["FA"]["mean"] - 10
    for name in ("FA", "UA", "RA", "TA"):
        assert row(record, "fine_tune")["metrics"][name]["ideal"] == pytest.approx(
            record["reference"]["metrics"][name]["mean"]
        )


def test_gap_per_seed_is_never_below_the_gap_in_real_tables(tmp_path, cache):
    rows = {
        "fine_tune": {"epochs": 2},
        "gradient_ascent": {"epochs": 4, "lr": 0.01},
        "random_labels": {"epochs": 4, "lr": 0.05},
        "ssd": {},
    }
    recipe = write(tmp_path, methods=rows)
    for seeds, sets in ((3, None), (3, 1)):
        record = run(recipe, tmp_path / "out", cache, seeds=seeds, forget_sets=sets)
        for each in record["rows"]:
            gap, per_seed = each["metrics"]["gap"], each["metrics"]["gap_per_seed"]
            assert per_seed["mean"] >= gap["mean"] - 1e-9, each["method"]
            assert per_seed["null"] >= gap["null"] > 0


@pytest.mark.slow
def test_every_method_of_the_registry_can_be_a_row(tmp_path, cache):
    """None stops the others: each is measured, or refused or failed in words."""
    names = [name for name in registry.targets() if name != "retrain"]
    record = run(write(tmp_path), tmp_path / "out", cache, seeds=1, methods=tuple(names))
    assert [each["method"] for each in record["rows"]] == names
    assert all(each["verdict"] in tiny.VERDICTS and each["reason"] for each in record["rows"])


# --- what is never done twice ---------------------------------------------------------------------------------------------


def test_a_finished_cell_is_never_run_again(tmp_path, cache, counted):
    recipe, out = write(tmp_path), tmp_path / "out"
    first = run(recipe, out, cache)
    assert (
        counted["run"] == 2 + 2 * 2 + 3 * 2
    )  # the source and two retrained models on two sets, three rows of two seeds
    before = files(out)
    counted.update(trained=0, run=0)
    again = run(recipe, out, cache)
    assert counted == {"trained": 0, "run": 0}
    assert files(out) == before
    assert fingerprint(again) == fingerprint(first)
    assert again["from_cache"]


def test_more_rows_and_seeds_cost_only_themselves(tmp_path, cache, counted):
    recipe, out = write(tmp_path), tmp_path / "out"
    small = run(recipe, out, cache, methods=("fine_tune",), seeds=1)
    told = (out / "results.jsonl").read_bytes()
    counted.update(trained=0, run=0)
    run(recipe, out, cache, methods=("fine_tune", "salun+dual"), seeds=1)
    assert counted["run"] == 1
    run(recipe, out, cache, methods=("fine_tune", "salun+dual"), seeds=2)
    assert counted["run"] == 1 + 2 + 3
    assert (out / "results.jsonl").read_bytes().startswith(told), "what was measured was rewritten"
    assert fingerprint(run(recipe, out, cache, methods=("fine_tune",), seeds=1)) == fingerprint(small)
    changed = write(tmp_path, methods={"fine_tune": {"epochs": 3}})  # the same row with other settings is another cell
    counted.update(run=0)
    other = run(changed, out, cache, seeds=1)
    assert counted["run"] == 1
    assert fingerprint(other) != fingerprint(small)


def test_the_same_seed_gives_the_same_weights_in_one_process_and_in_two(tmp_path, cache):
    """Repeatable, here and spread over processes: every weight, and with them the table."""
    recipe = write(tmp_path)
    one = run(recipe, tmp_path / "one", cache)
    again = run(recipe, tmp_path / "again", tmp_path / "cold")
    two = run(recipe, tmp_path / "two", cache, jobs=2)
    assert tiny.weights(tmp_path / "one") == tiny.weights(tmp_path / "again") == tiny.weights(tmp_path / "two")
    assert fingerprint(one) == fingerprint(again) == fingerprint(two)
    digests = [cell["weights"] for cell in tiny.lines(tmp_path / "one") if cell["row"] != "source"]
    assert len(set(digests)) == len(digests), "two seeds gave one model"


def test_a_line_that_was_never_finished_is_run_again(tmp_path, cache, counted):
    recipe, out = write(tmp_path), tmp_path / "out"
    whole = run(recipe, out, cache, seeds=1)
    path = out / "results.jsonl"
    content = path.read_bytes()
    *kept, last = content.splitlines(keepends=True)
    for cut in (1, len(last) // 2, len(last) - 1):
        path.write_bytes(b"".join(kept) + last[:cut])
        counted.update(run=0)
        assert fingerprint(run(recipe, out, cache, seeds=1)) == fingerprint(whole)
        assert counted["run"] == 1
        assert path.read_bytes().count(b"\n") == content.count(b"\n")


@pytest.mark.slow
def test_changed_margins_are_noticed(tmp_path, cache):
    recipe, out = write(tmp_path, retrained_models=4), tmp_path / "out"
    run(recipe, out, cache, forget_sets=1, seeds=1, methods=("fine_tune",))
    key = next(cell["key"] for cell in tiny.lines(out) if cell["row"] == "fine_tune")
    path = out / "margins" / f"{key}.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(TamperedError, match="changed after"):
        run(recipe, out, cache, forget_sets=1, seeds=1, methods=("fine_tune",))


# --- tuning, quick, defaults ----------------------------------------------------------------------------------------------


def test_tuning_gives_every_row_as_many_trials_and_repeats_none(tmp_path, cache, counted):
    pytest.importorskip("optuna")
    recipe, out = write(tmp_path), tmp_path / "out"
    rows = ("random_labels", "salun+dual")
    record = run(recipe, out, cache, tune=3, seeds=1, methods=rows)
    assert counted["run"] == 2 * 3 + 2 + (2 + 1 + 2)  # trials and what they are held against; rows, source, retrained
    for each in record["rows"]:
        assert each["metrics"]["tuning_trials"]["mean"] == each["tuning"]["trials"] == 3
        trials = [cell for cell in tiny.lines(out) if cell["row"] == each["method"] and cell["trial"] is not None]
        assert [cell["trial"] for cell in trials] == [0, 1, 2]
        assert {cell["forget_set"] for cell in trials} == {TUNING_SET}
        assert trials[0]["method"]["settings"] == registry.settings_of(made(each["method"]))["settings"]
        assert each["tuning"]["gap"] <= min(gaps(out, trials)) + 1e-9
    counted.update(trained=0, run=0)
    before = files(out)
    assert fingerprint(run(recipe, out, cache, tune=3, seeds=1, methods=rows)) == fingerprint(record)
    assert counted == {"trained": 0, "run": 0}
    assert files(out) == before
    path = out / "results.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    first = next(n for n, line in enumerate(lines[1:], 1) if json.loads(line)["trial"] == 1)
    path.write_text("".join(lines[:first]))  # as after a kill in the middle of the first study
    assert fingerprint(run(recipe, out, cache, tune=3, seeds=1, methods=rows)) == fingerprint(record)
    plain = run(recipe, out, cache, seeds=1, methods=rows)
    assert all("tuning_trials" not in each["metrics"] for each in plain["rows"])


def made(name: str) -> Any:
    settings = {"fine_tune": {"epochs": 2}, "random_labels": {"epochs": 2, "lr": 0.01, "retain_lr": 0.01}}
    return registry.make(name, settings.get(name, {"epochs": 2}))


def gaps(out: Path, trials: list[dict[str, Any]]) -> list[float]:
    """By hand: mean over the four metrics of the distance from the mean of both retrained models."""
    found = [c for c in tiny.lines(out) if c["row"] == "retrain" and c["forget_set"] == TUNING_SET]
    assert len(found) == 2
    names = ("FA", "RA", "TA", "mia_entropy_member")
    means = {name: sum(c["metrics"][name] for c in found) / 2 for name in names}
    return [sum(abs(c["metrics"][name] - means[name]) for name in names) / 4 for c in trials]


def test_a_row_whose_trials_all_fail_has_no_gap_and_its_own_settings(tmp_path, cache):
    pytest.importorskip("optuna")
    recipe = write(tmp_path, methods={"scrub_r": {"method": "scrub", "rewind": True}})
    record = run(recipe, tmp_path / "out", cache, tune=2, seeds=1, methods=("scrub_r",))
    assert record["rows"][0]["verdict"] == "refused"
    assert [cell["trial"] for cell in tiny.lines(tmp_path / "out") if cell["row"] == "scrub_r"] == [0, 1, None]


def test_every_range_is_of_a_setting_that_the_method_has():
    for name in registry.targets():
        for variant in (name, f"{name}+dual"):
            try:
                method = registry.make(variant)
            except InputError:
                continue
            for setting, (low, high) in tuning.ranges(method).items():
                assert 0 < low < high
                registry.make(variant, {setting: low})


def test_quick_runs_one_seed_with_the_shorter_settings(tmp_path, cache):
    recipe = write(
        tmp_path, methods={"fine_tune": {"epochs": 3, "lr": 0.02}, "ssd": {}}, quick={"fine_tune": {"epochs": 1}}
    )
    record = run(recipe, tmp_path / "out", cache, quick=True)
    assert (record["quick"], record["seeds"], row(record, "fine_tune")["seeds"]) == (True, 1, 1)
    settings = row(record, "fine_tune")["settings"]
    assert (settings["epochs"], settings["lr"]) == (1, 0.02)
    assert "ssd" in [each["method"] for each in record["rows"]]


def test_defaults_are_the_shipped_settings_of_the_same_rows(tmp_path, cache):
    rows = {
        "random_labels": {"epochs": 1},
        "mine": {"method": "fine_tune", "epochs": 1},
        "scrub_r": {"method": "scrub", "rewind": True, "epochs": 1},
    }
    record = run(write(tmp_path, methods=rows), tmp_path / "out", cache, defaults=True, seeds=1)
    assert record["defaults"]
    shipped = registry.settings_of(registry.make("random_labels"))["settings"]
    assert row(record, "random_labels")["settings"] == shipped
    assert row(record, "mine")["settings"] == registry.settings_of(registry.make("fine_tune"))["settings"]
    assert row(record, "scrub_r")["verdict"] == "refused"


# --- many models on one forget set ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retrained", [4, 6])
def test_many_models_on_one_forget_set_give_distributions_with_nulls_and_no_headline(tmp_path, cache, retrained):
    record = run(
        write(tmp_path, retrained_models=retrained),
        tmp_path / "out",
        cache,
        forget_sets=1,
        seeds=5,
        methods=("fine_tune",),
    )
    (each,) = record["rows"]
    assert record["forget_sets"] == 1
    for name in ("klom", "challenge", "ulira"):
        assert each["metrics"][name]["models"] == min(5, retrained)
        assert "too few models" in each["not_for_headlines"][name]
    assert each["metrics"]["klom"]["null"] > 1, "identical models differ by chance, and the table says by how much"
    assert each["metrics"]["klom"]["ideal"] == each["metrics"]["klom"]["null"]
    assert 0 <= each["metrics"]["challenge"]["null"] < 1
    assert each["metrics"]["ulira"]["mean"] > 0.6, "models that forgot nothing are told from retrained ones"
    assert each["metrics"]["ulira"]["ideal"] == 0.5


def test_few_models_give_no_distributions(tmp_path, cache):
    record = run(write(tmp_path), tmp_path / "out", cache, methods=("fine_tune",), forget_sets=1, seeds=3)
    assert not {"klom", "challenge", "ulira"} & record["rows"][0]["metrics"].keys()
    assert "not_for_headlines" not in record["rows"][0]


# --- forget sets ------------------------------------------------------------------------------------------------------------


def test_users_go_one_by_one_and_never_twice(tmp_path, cache):
    recipe = write(tmp_path, forget={"kind": "user", "column": "person"}, methods={"fine_tune": {"epochs": 1}})
    record = run(recipe, tmp_path / "out", cache, seeds=4)
    assert record["forget_sets"] == 3, "there are 3 people, and the fourth seed comes back to the first"
    assert record["n_forget"] == [100] * 3
    with pytest.raises(InputError, match=r"all 3 users or classes .* --forget-sets 2"):
        run(recipe, tmp_path / "tuned", cache, seeds=4, tune=2)


def test_the_forgotten_class_is_left_out_of_the_test_rows(tmp_path, cache):
    recipe = write(
        tmp_path, forget={"kind": "class", "labels": [2]}, methods={"fine_tune": {"epochs": 1}, "salun": {"epochs": 2}}
    )
    record = run(recipe, tmp_path / "out", cache, seeds=3)
    assert (record["forget_sets"], record["n_forget"]) == (1, [75])
    assert record["reference"]["metrics"]["FA"]["mean"] == 0
    assert record["reference"]["metrics"]["TA"]["mean"] > record["source"]["metrics"]["TA"]["mean"] - 5
    with pytest.raises(InputError, match="a single user or class"):
        run(recipe, tmp_path / "tuned", cache, seeds=3, tune=2)


def test_tuning_rows_are_no_rows_of_the_table(tmp_path, cache):
    recipe = write(tmp_path, forget={"kind": "user", "column": "person"})
    here = World.of(load_recipe(str(recipe)))
    sets = [set(here.deletion(number).forget.ids.tolist()) for number in (0, 1, TUNING_SET)]
    assert all(not a & b for i, a in enumerate(sets) for b in sets[:i])


# --- refused -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def refused(tmp_path, cache, counted) -> Callable[..., str]:
    """Run what must be refused before anything is trained or written; return the message."""

    def asked(recipe: Path | str, **settings: Any) -> str:
        before = files(tmp_path)
        with pytest.raises(InputError) as caught:
            run(recipe, tmp_path / "out", cache, **settings)  # type: ignore[arg-type]
        assert counted == {"trained": 0, "run": 0}
        assert files(tmp_path) == before
        return str(caught.value)

    return asked


def test_unknown_names_are_refused(tmp_path, refused):
    assert "mnist_random" in refused("mnist_radnom")
    assert "no recipe file" in refused(tmp_path / "missing.yaml")
    recipe = write(tmp_path)
    told = refused(recipe, methods=("salum",))
    assert "no row 'salum' in tiny" in told and "salun" in told
    assert "+dual" in refused(recipe, methods=("ssd+dual",))
    for name in ("retrain", "source"):
        assert "beside all others" in refused(recipe, methods=("fine_tune", name))
    assert "quick names salun" in refused(write(tmp_path, quick={"salun": {"epochs": 1}}), quick=True)
    assert "no setting epoch" in refused(write(tmp_path, methods={"salun": {"epoch": 3}}))
    assert "fine_tune.lr" in refused(write(tmp_path, methods={"fine_tune": {"lr": "fast"}}))
    assert "did you mean retrained_models?" in refused(write(tmp_path, retrained_model=3))
    assert "forget" in refused(write(tmp_path, forget={"kind": "samples", "share": 1.5}))
    assert "'drawer'; there are person" in refused(write(tmp_path, forget={"kind": "user", "column": "drawer"}))


def test_data_that_do_not_fit_are_refused(tmp_path, refused):
    wide = {"features": tiny.FEATURES, "classes": 3, "hidden": [8]}
    assert "labels below 3" in refused(write(tmp_path, model_settings=wide))
    narrow = {"features": 7, "classes": 4, "hidden": [8]}
    assert "does not accept rows" in refused(write(tmp_path, model_settings=narrow))
    assert "needs test rows" in refused(write(tmp_path, data={"format": "arrays", "path": "train.npz"}))
    assert "trains on 301 rows; the data here leave 300" in refused(write(tmp_path, training_rows=301))
    found = dict(np.load(tmp_path / "test.npz"))
    np.savez(tmp_path / "other.npz", **{**found, "y": found["y"] + 1})
    data = {"format": "arrays", "path": "train.npz", "test_path": "other.npz"}
    assert "labels below 4" in refused(write(tmp_path, data=data))


def test_forgetting_a_class_by_the_way_is_refused_with_what_to_do(tmp_path, refused):
    found = dict(np.load(write(tmp_path).parent / "train.npz"))
    y = np.where(found["y"] == 3, 0, found["y"])
    y[7] = 3  # one person has the only row of a class
    np.savez(tmp_path / "rare.npz", **{**found, "y": y})
    data = {"format": "arrays", "path": "rare.npz", "test_path": "test.npz"}
    told = refused(write(tmp_path, data=data, forget={"kind": "user", "column": "person"}), seeds=3)
    assert "every row of class 3" in told and "kind: class" in told
    assert "expected at least one value" in refused(write(tmp_path, forget={"kind": "samples", "share": 0.001}))
    assert "matches nothing" in refused(write(tmp_path, forget={"kind": "class", "labels": [7]}))


@pytest.mark.parametrize("setting", ["seeds", "forget_sets", "jobs", "tune"])
def test_counts_that_make_no_sense_are_refused(setting):
    with pytest.raises(InputError, match=setting.replace("_", "-")):
        BenchSettings(**{setting: -1})


def test_a_source_model_that_learnt_nothing_is_refused(tmp_path, cache):
    training = {"kind": "stochastic", "epochs": 1, "lr": 1e-6, "batch_size": 300}
    with pytest.raises(FailedError, match=r"training rows, below a quarter of the way .* Train longer"):
        run(write(tmp_path, training=training), tmp_path / "out", cache)
    assert not tiny.lines(tmp_path / "out")


def test_a_folder_of_another_benchmark_is_refused(tmp_path, cache, counted):
    out = tmp_path / "out"
    run(write(tmp_path), out, cache, seeds=1, methods=("fine_tune",))
    before = files(out)
    counted.update(trained=0, run=0)
    for change in ({"seed": 1}, {"validation": 0.1}, {"forget": {"kind": "samples", "share": 0.1}}):
        with pytest.raises(InputError, match="another benchmark"):
            run(write(tmp_path, **change), out, cache, seeds=1)
    (out / "results.jsonl").write_text('{"format": "something else"}\n')
    with pytest.raises(InputError, match="no results file"):
        run(write(tmp_path), out, cache, seeds=1)
    (out / "results.jsonl").write_bytes(before[out / "results.jsonl"])
    assert counted == {"trained": 0, "run": 0}
    assert files(out) == before
    run(write(tmp_path, title="Another title", note="and a note"), out, cache, seeds=1, methods=("fine_tune",))
    assert counted["run"] == 0


def test_another_process_in_the_folder_is_no_result_of_a_method(tmp_path, cache):
    """A lock that somebody else holds must not become a line "failed" that is never run again."""
    recipe, out = write(tmp_path), tmp_path / "out"
    run(recipe, out, cache, seeds=1, methods=("fine_tune",))
    (cell,) = [cell for cell in tiny.lines(out) if cell["row"] == "fine_tune"]
    lines = (out / "results.jsonl").read_text().splitlines(keepends=True)
    (out / "results.jsonl").write_text("".join(line for line in lines if cell["key"] not in line))
    for held in (out / "running" / cell["key"], out / "running"):
        with Journal(held), pytest.raises(InputError, match="another run"):
            run(recipe, out, cache, seeds=1, methods=("fine_tune",))
        assert cell["key"] not in (out / "results.jsonl").read_text()
    run(recipe, out, cache, seeds=1, methods=("fine_tune",))
    assert tiny.lines(out)[-1]["weights"] == cell["weights"]
