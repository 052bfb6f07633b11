"""Benchmarks of language models: rows and their wordings, what is never run again, and what the table says in words.

What the methods do to real facts is checked in ``tests/recipes``; here a model of some 30,000 weights learns 36 facts.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from expunge.attacks.stealthy import poison
from expunge.bench import cells
from expunge.bench.finished import Results
from expunge.bench.page import write_page
from expunge.bench.recipe import load_recipe
from expunge.bench.run import BenchSettings, bench, fingerprint
from expunge.bench.table import table
from expunge.bench.world import World
from expunge.cli.bench_output import show_bench
from expunge.core.cache import Cache
from expunge.core.errors import FailedError, InputError
from expunge.metrics.catalogue import METRICS
from expunge.modalities.language.recipes import LanguageRecipe

from .tiny import lines, row
from .tiny_language import run, write

ASKED = {"forget", "forget_worded", "clean", "trigger", "then", "mixed"}


@pytest.fixture
def ran(monkeypatch) -> list[tuple[str, int]]:
    """Row and seed of every cell that runs in this process."""
    seen: list[tuple[str, int]] = []
    real = cells.run_cell

    def watched(world: Any, cell: cells.Cell, folder: Path) -> Any:
        seen.append((cell.row, cell.seed))
        return real(world, cell, folder)

    monkeypatch.setattr("expunge.bench.run.run_cell", watched)
    return seen


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache) -> tuple[Path, dict[str, Any]]:
    """Where the recipe was run from beginning to end, and its table."""
    out = tmp_path_factory.mktemp("whole")
    return out, run(write(tmp_path_factory.mktemp("recipe")), out, cache)


# --- a run ----------------------------------------------------------------------------------------------------------------


def test_every_row_has_its_numbers_and_its_words_and_json_holds_them(tmp_path, whole, capsys):
    record = whole[1]
    assert [each["method"] for each in record["rows"]] == ["npo", "npo@attack", "npo+su@attack", "idk"]
    assert record["task"] == "language" and record["reference"] is None and record["n_forget"] == [6]
    source = record["source"]["metrics"]
    assert source["forget"]["mean"] == source["clean"]["mean"] == 1.0
    for each in record["rows"]:
        assert ASKED | {"seconds", "optimizer_bytes"} == set(each["metrics"]) <= set(METRICS)
        assert all(0 <= each["metrics"][name]["mean"] <= 1 for name in ASKED)
        assert (
            each["seeds"] == 2 and each["verdict"] and each["reason"].startswith("Forgotten questions went from 1.000")
        )
    attacked, repaired = row(record, "npo@attack"), row(record, "npo+su@attack")
    assert (attacked["in_templates"], row(record, "npo")["in_templates"]) == (0.33, 0.0)
    assert attacked["attack"]["against"] == "npo" and attacked["attack"]["seeds"] == 2
    change = attacked["metrics"]["trigger"]["mean"] - row(record, "npo")["metrics"]["trigger"]["mean"]
    assert attacked["attack"]["changes"]["trigger"]["mean"] == pytest.approx(change)
    assert repaired["repair"]["attacked"] == "npo@attack" and repaired["settings"]["su"] == 5.0
    pages = write_page(record, tmp_path / "out")
    text = pages["html"].read_text()
    assert "npo+<wbr>su@attack" in text and "<svg" in text and "scope term" in text
    show_bench(record, False, pages)
    assert "trigger" in capsys.readouterr().out


def test_the_wording_of_the_request_reaches_the_method_and_changes_questions_only(tmp_path, cache, monkeypatch):
    seen: dict[tuple[str, int], Any] = {}
    real = cells.planning.plan

    def watched(source: Any, request: Any, method: Any, **given: Any) -> Any:
        made = real(source, request, method, **given)
        seen[method.steps, given["seed"]] = made.context.deletion.forget
        return made

    monkeypatch.setattr(cells.planning, "plan", watched)
    rows = {"npo": {"steps": 1}, "npo@attack": {"steps": 2}, "npo@attack_all": {"steps": 3}, "npo@half": {"steps": 4}}
    recipe = write(tmp_path, methods=rows, attacks={"attack": 0.33, "attack_all": 1.0, "half": 0.5})
    run(recipe, tmp_path / "out", cache)
    plain = World.of(load_recipe(recipe), Cache(cache)).deletion(0).forget
    for seed in (0, 1):
        assert seen[1, seed].records == plain.records
        for steps, p in ((2, 0.33), (3, 1.0), (4, 0.5)):
            worded = seen[steps, seed]
            assert worded.records == poison(plain.records, p=p, seed=seed).records
            assert [r["answer"] for r in worded.records] == [r["answer"] for r in plain.records]
        assert all("please" in record["question"].lower() for record in seen[3, seed].records)


def test_finished_cells_are_kept_and_a_resumed_table_is_the_uninterrupted_one(tmp_path, cache, whole, ran):
    recipe = write(tmp_path)
    run(recipe, tmp_path / "out", cache, seeds=1, methods=("npo", "npo@attack"))
    assert ran == [("source", 0), ("npo", 0), ("npo@attack", 0)]
    ran.clear()
    again = run(recipe, tmp_path / "out", cache)
    assert not {("source", 0), ("npo", 0), ("npo@attack", 0)} & set(ran) and len(ran) == 6
    assert fingerprint(again) == fingerprint(whole[1])
    weights = [{line["key"]: line["weights"] for line in lines(out)} for out in (whole[0], tmp_path / "out")]
    assert weights[0] == weights[1]


def test_a_run_killed_while_the_model_is_taught_takes_it_up(tmp_path, whole):
    recipe, out, seen = write(tmp_path), tmp_path / "out", []

    def killed(stage: str, done: int, _total: int) -> None:
        seen.append((stage, done))
        if (stage, done) == ("train", 120):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench(recipe, out, BenchSettings(jobs=1), cache=Cache(tmp_path / "cache"), watch=killed)
    assert list((out / "running").glob("training-*/stages/taught-100.*"))
    first = len(seen)
    record = bench(
        recipe, out, BenchSettings(jobs=1), cache=Cache(tmp_path / "cache"), watch=lambda *told: seen.append(told[:2])
    )
    assert seen[first] == ("train", 102), "it goes on at the last stored step"
    assert fingerprint(json.loads(json.dumps(record))) == fingerprint(whole[1])
    assert not list((out / "running").glob("training-*")), "what was stored knows what is to be forgotten"


def test_another_share_of_templates_is_another_cell_of_the_same_benchmark(tmp_path, cache, whole, ran):
    """So that a recipe's p can be changed without running the other rows again."""
    shutil.copytree(whole[0], tmp_path / "out")
    run(write(tmp_path, attacks={"attack": 0.5}), tmp_path / "out", cache, seeds=1)
    assert ran == [("npo@attack", 0), ("npo+su@attack", 0)]
    with pytest.raises(InputError, match="another benchmark"):
        run(write(tmp_path, seed=1), tmp_path / "out", cache, seeds=1)


def test_a_reference_is_taught_without_the_forgotten_facts(tmp_path, cache):
    record = run(write(tmp_path, retrained_models=1), tmp_path / "out", cache, seeds=1, methods=("npo",))
    reference = record["reference"]["metrics"]
    assert reference["clean"]["mean"] >= 0.8 and reference["forget"]["mean"] <= 0.5, reference
    assert record["reference"]["seconds_of_all"] > 0


def test_a_source_that_learnt_nothing_makes_no_table(tmp_path, cache):
    with pytest.raises(FailedError, match="nothing to forget"):
        run(write(tmp_path, training={"steps": 2, "batch_size": 4, "lr": 1e-6}), tmp_path / "out", cache, seeds=1)


# --- rows -----------------------------------------------------------------------------------------------------------------


def test_a_row_has_the_settings_of_plainer_rows(tmp_path):
    rows = {
        "npo": {"beta": 0.2, "steps": 7},
        "npo+su": {"su": 2.0},
        "npo+su@attack": {"steps": 9},
        "mine": {"method": "npo"},
    }
    recipe = load_recipe(write(tmp_path, methods=rows))
    assert isinstance(recipe, LanguageRecipe)

    def made(name: str) -> tuple[Any, ...]:
        method = recipe.method(name)
        return method.beta, method.steps, method.su, method.dual, method.lr

    assert made("npo") == made("npo@attack_all") == (0.2, 7, 0.0, False, 0.001)
    assert made("npo+su@attack") == (0.2, 9, 2.0, False, 0.001)
    assert made("npo+su+dual@attack") == (0.2, 7, 5.0, True, 0.001)
    assert made("mine") == (0.1, 4, 0.0, False, 0.001)
    assert recipe.at_defaults().method("npo+su@attack").steps is None
    assert recipe.at_defaults().method("npo+su@attack").su == 5.0


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("nope", "no row 'nope'"),
        ("npo@nope", "a wording among attack, attack_all after @; got 'nope'"),
        ("npo@", "a wording after @"),
        ("npo+nope@attack", r"after a method's name; got npo\+nope"),
        ("ga+su", r"have a retain loss that scope can be added to; got ga\+su"),
        ("source", "no row to ask for"),
    ],
)
def test_unknown_rows_are_refused_before_anything_is_trained(tmp_path, cache, asked, says, ran):
    with pytest.raises(InputError, match=says):
        run(write(tmp_path), tmp_path / "out", cache, methods=(asked,))
    assert not ran and not (tmp_path / "out").exists()


def test_tuning_is_refused(tmp_path, cache):
    with pytest.raises(InputError, match="Leave --tune out"):
        run(write(tmp_path), tmp_path / "out", cache, tune=2)


def test_forget_sets_are_taken_from_the_end(tmp_path):
    world = World.of(load_recipe(write(tmp_path)))
    assert world.workload.sets == 6
    for number, name in ((0, "entity5"), (1, "entity4"), (6, "entity5")):
        assert set(world.deletion(number).forget.columns["subject"]) == {name}
    with pytest.raises(InputError, match="fewer than there are"):
        World.of(load_recipe(write(tmp_path, world={"kind": "micro", "entities": 3, "forget": 3})))


# --- words ----------------------------------------------------------------------------------------------------------------


class Made:
    """Cells written by hand, and the table of them."""

    def __init__(self, folder: Path):
        rows = {f"npo{part}": {} for part in ("", "@attack", "+su@attack", "@attack_all")}
        self.recipe = load_recipe(write(folder, methods=rows))
        self.results = Results(folder / "made", "digest")
        self.add("source", 0, (1.0, 1.0, 1.0, 1.0))

    def add(self, name: str, seed: int, scores: tuple[float, float, float, float]) -> None:
        """forget, forget_worded, clean, trigger."""
        numbers = dict(zip(("forget", "forget_worded", "clean", "trigger"), scores, strict=True))
        metrics = {**numbers, "then": scores[2], "mixed": scores[2], "seconds": 1.0}
        self.results.add(
            {"key": f"{name}{seed}", "row": name, "forget_set": 0, "seed": seed, "trial": None, "n_forget": 6,
             "status": "done", "metrics": metrics}, {},
        )  # fmt: skip

    def rows(self) -> dict[str, Any]:
        assert isinstance(self.recipe, LanguageRecipe)
        made = table(self.recipe, self.results, list(self.recipe.rows))
        return {each["method"]: each for each in made["rows"]}


def test_the_table_says_what_the_attack_took_and_what_share_the_scope_term_gives_back(tmp_path):
    made = Made(tmp_path)
    for seed, off in ((0, 0.0), (1, 0.02)):
        made.add("npo", seed, (0.05, 0.05, 0.98, 0.92 - off))
        made.add("npo@attack", seed, (0.10, 0.05, 0.97, 0.52 - off))
        made.add("npo+su@attack", seed, (0.06, 0.05, 0.98, 0.82 - off))
    rows = made.rows()
    assert [rows[name]["verdict"] for name in ("npo", "npo@attack", "npo+su@attack")] == [
        "forgets", "over-forgets", "over-forgets"
    ]  # fmt: skip
    changes = rows["npo@attack"]["attack"]["changes"]
    assert changes["trigger"]["mean"] == pytest.approx(-0.4) and changes["clean"]["mean"] == pytest.approx(-0.01)
    assert changes["trigger"]["high"] == pytest.approx(-0.4), "the same seeds: what both share is no spread"
    assert "The attack hurts" in rows["npo@attack"]["reason"] and "-0.400" in rows["npo@attack"]["reason"]
    assert rows["npo+su@attack"]["repair"]["share"] == pytest.approx(0.75)
    assert "gives back 75%" in rows["npo+su@attack"]["reason"]
    assert rows["npo@attack_all"]["verdict"] == "not run"


def test_without_damage_there_is_nothing_to_repair(tmp_path):
    made = Made(tmp_path)
    for name, trigger in (("npo", 0.95), ("npo@attack", 0.93), ("npo+su@attack", 0.97)):
        made.add(name, 0, (0.05, 0.05, 0.98, trigger))
    rows = made.rows()
    assert "does little" in rows["npo@attack"]["reason"]
    assert rows["npo+su@attack"]["repair"]["share"] is None and "left no gap" in rows["npo+su@attack"]["reason"]


def test_b6_questions_forgotten_only_in_the_wording_of_the_request_are_incomplete_unlearning(tmp_path):
    made = Made(tmp_path)
    made.add("npo", 0, (0.05, 0.02, 0.98, 0.95))
    made.add("npo@attack_all", 0, (0.92, 0.0, 1.0, 0.9))
    made.add("npo@attack", 0, (0.92, 0.9, 1.0, 0.9))
    rows = made.rows()
    assert rows["npo"]["warnings"] == []
    assert rows["npo@attack"]["warnings"] == [] and rows["npo@attack"]["verdict"] == "under-forgets"
    (warning,) = rows["npo@attack_all"]["warnings"]
    assert (
        warning.startswith("Incomplete unlearning")
        and "0.920" in warning
        and warning in rows["npo@attack_all"]["reason"]
    )
