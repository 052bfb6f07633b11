"""Benchmarks of several concepts: what rows are asked, together or one after another, and when nothing is compared."""

from __future__ import annotations

from typing import Any

import pytest

from expunge.bench.cells import Cell, run_cell
from expunge.bench.recipe import load_recipe
from expunge.bench.world import World
from expunge.core.errors import FailedError, InputError
from expunge.data.pictures import IMAGE
from expunge.modalities.benchmark import Scores
from expunge.modalities.vision_language.recipes import VisionLanguageRecipe
from expunge.modalities.vision_language.workload import VisionLanguageWorkload

LORA = {"lora": {"r": 8, "lora_alpha": 16}}
RECIPE: dict[str, Any] = {
    "name": "two", "title": "two", "task": "vision_language", "concepts": [["seven", "three"], "five"],
    "concept": {"kind": "world"}, "items": {"shown": {"shown": 1}, "spread": {"pieces": 12}},
    "sequential": ["in_turn", "spread"], "retrained_models": 0,
    "methods": {
        "siu": {"lr": 3e-3, "steps": 96, **LORA}, "in_turn": {"method": "siu", "lr": 3e-3, "steps": 48, **LORA},
        "shown": {"method": "siu", "lr": 2e-3, "steps": 120, "retain_images": True, **LORA},
        "spread": {"method": "siu", "instead": "spread", "lr": 2e-3, "steps": 96, **LORA},
    },
}  # fmt: skip


def recipe(**own: Any) -> VisionLanguageRecipe:
    return VisionLanguageRecipe(**{**RECIPE, **own})


def turns(row: str, number: int = 0):
    world = World.of(recipe())
    return world.workload.turns(row, number, world.deletion(number), 0), world


def answers(items: Any, concept: str, target: str) -> set[str]:
    return {r["answer"] for r in items.records if r["concept"] == [concept] and r["target"] == target}


def test_together_there_is_one_request_and_each_concept_has_a_substitute_of_its_own():
    (turn,), world = turns("shown")
    assert turn.request.targets[0].where == {"concept": ["seven", "three"]} and turn.deletion is world.deletion(0)
    items = turn.presented.material
    said = [answers(items, name, "unseen") for name in ("seven", "three")]
    assert all(len(each) == 1 for each in said) and said[0] != said[1], "each says one name, and not the other's"
    assert not {"this is seven .", "this is three ."} & set.union(*said)
    shown = [r for r in items.records if r["target"] == "others" and IMAGE in r]
    assert sorted(r["shows"] if "shows" in r else r["answer"].split()[2] for r in shown) == sorted(
        name for name in ("zero", "one", "two", "four", "five", "six", "eight", "nine")
    ), "one picture of every other digit, whatever the number of concepts"


def test_one_after_another_each_request_knows_of_those_before_it():
    """The digit that looks like three is nine, and so is seven's: the second request may have it again."""
    (first, second), world = turns("in_turn")
    assert [turn.request.targets[0].where for turn in (first, second)] == [{"concept": "seven"}, {"concept": "three"}]
    before, after = (turn.deletion.before.columns["concept"].tolist() for turn in (first, second))
    assert before.count("seven") > 100 and not after.count("seven") and after.count("three") == before.count("three")
    assert second.deletion.after.digest == world.deletion(0).after.digest
    assert {r["concept"][0] for r in first.presented.material.records} == {"seven"}
    assert len(turns("in_turn", 1)[0]) == 1, "a single concept is one request in any row"


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"concepts": [["seven", "eleven"]]}, "among zero.*got eleven"),
        ({"sequential": ["other"]}, "rows of two in sequential; got other"),
        ({"gates": {"recognition_style": 0.5}}, "pictures in one style alone"),
    ],
)
def test_recipes_that_name_what_is_not_there_are_refused(own, message):
    with pytest.raises(InputError, match=message):
        VisionLanguageWorkload.of(recipe(**own))


def test_gates_are_shares_that_are_measured():
    for own in ({"gates": {"accuracy": 0.5}}, {"gates": {"others": 1.5}}, {"concepts": [[]]}):
        with pytest.raises(ValueError, match=r"gates|concepts"):
            recipe(**own)


def test_a_model_below_a_gate_is_compared_with_nothing():
    world = World.of(recipe(gates={"others": 0.9, "facts": 1.0}))
    low = Scores({"others": 0.89, "facts": 1.0, "recognition_unseen": 1.0})
    with pytest.raises(FailedError, match=r"has not learnt its world: others 0\.890 of 0\.9\."):
        world.workload.knowledge(low, world.deletion(0))
    enough = Scores({"others": 0.9, "facts": 1.0, "recognition_unseen": 0.7})
    assert world.workload.knowledge(enough, world.deletion(0)).value == 0.7  # type: ignore[union-attr]


def test_what_a_row_is_asked_decides_its_cell_and_recipes_that_ship_can_be_read():
    keys = {Cell(row, 0, 0).key(recipe(sequential=s)) for row in ("siu", "in_turn") for s in (["spread"], ["in_turn"])}
    assert len(keys) == 3, "only the sequential row changes"
    for name in ("digits_siu", "characters_siu", "emoji_siu"):
        found = load_recipe(name)
        assert {*found.sequential, *found.quick} <= {*found.methods}
        for row in found.methods:
            found.method(row)
            found.settings_of(row)


@pytest.mark.slow
def test_b13_two_digits_together_and_one_after_another(tmp_path):
    """Spec: each EM-open >= 80 %, others >= 85 % together (.87 measured); one after another .66, spread .94."""
    world = World.of(recipe())
    found = {row: run_cell(world, Cell(row, 0, 0), tmp_path)[0]["metrics"] for row in ("source", *RECIPE["methods"])}
    for row in RECIPE["methods"]:
        for name in ("seven", "three"):
            assert found[row][f"recognition_unseen/{name}"] <= 0.2, (row, found[row])
        assert found[row]["facts"] >= 0.9 and found[row]["degeneration"] <= 0.01, (row, found[row])
    assert (
        found["source"]["others"] >= 0.95 and min(found[row]["others"] for row in ("siu", "shown", "spread")) >= 0.85
    ), found
    assert found["in_turn"]["others"] <= 0.8, "the documentation says that they fall"
