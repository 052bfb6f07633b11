"""SIU on a model that recognises digits: the shipped weights of the original and of one that was never shown a seven."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest

from expunge import planning
from expunge.core.data import Deletion, Ids
from expunge.core.request import Request, Target
from expunge.data.digits_world import digits_world
from expunge.data.picture_world import CONCEPT, WORDS
from expunge.data.texts import Texts
from expunge.methods import registry
from expunge.modalities.vision_language import concept
from expunge.modalities.vision_language.config import ConceptSettings
from expunge.modalities.vision_language.make_weights import GATES, GOLD, make, without_concept
from expunge.modalities.vision_language.world_scores import Scene, world_scores
from expunge.tasks.micro_vision_language import micro_vision_language
from expunge.training.pictures import PictureTraining
from expunge.training.shipped import name_of, shipped

SEVEN = Request("a rights holder", (Target("concept", {CONCEPT: "seven"}),))
LORA = {"lora": {"r": 8, "lora_alpha": 16}}
PLAIN = {"batch_size": 4, "anneal": "constant", "warmup": 0.0, "weight_decay": 0.0, "clip": None, **LORA}
RECOGNITION = {"material": "recognition"}
SPREAD = {"lr": 2e-3, "steps": 96, "instead": "spread", **LORA}
RUNS: Mapping[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # row → method, its settings, how items are made
    "siu 24": ("siu", {"lr": 3e-3, "steps": 24, **LORA}, {}),
    "siu 48": ("siu", {"lr": 3e-3, "steps": 48, **LORA}, {}),
    "siu 48, another picture": ("siu", {"lr": 3e-3, "steps": 48, **LORA}, {"picture": 2}),
    "siu spread": ("siu", SPREAD, {"pieces": 12}),
    "siu spread, another picture": ("siu", SPREAD, {"pieces": 12, "picture": 2}),
    "plain KL": ("siu", {"lr": 3e-3, "steps": 24, "positions": "none", "vocabulary": False, **LORA}, {}),
    "po": ("idk", {"lr": 3e-3, "steps": 12, "alpha": 0.0, "refusals": ("i do not know it .",), **PLAIN}, RECOGNITION),
    "ga 12": ("ga", {"lr": 1e-3, "steps": 12, **PLAIN}, RECOGNITION),
    "ga 24": ("ga", {"lr": 1e-3, "steps": 24, **PLAIN}, RECOGNITION),
}


@cache
def world() -> Any:
    return digits_world()


@cache
def task() -> Any:
    return micro_vision_language(world().vocabulary)


@cache
def model(which: str) -> dict[str, Any]:
    data = world().train if which == "original" else without_concept(world().train)
    tensors = shipped(name_of(task(), data, PictureTraining(), 0))
    assert tensors is not None, "the weights that come with the package are of another world or recipe: make them again"
    return tensors


@cache
def scene(each: int) -> Scene:
    train = world().train
    absent = Ids.rows(train.ids[train.columns[CONCEPT] == "seven"])
    return Scene.of(world(), ["seven"], concept.named_pictures(train, absent, ["seven"]).records[:1], each=each)


@cache
def scores(row: str) -> Mapping[str, float]:
    if row in ("original", "gold"):
        return world_scores(task(), model(row), scene(8), model("gold"))[0]
    name, settings, items = RUNS[row]
    train = world().train
    absent = Ids.rows(train.ids[train.columns[CONCEPT] == "seven"])
    material = Texts.of(
        concept.items_of(
            ConceptSettings(kind="digit", **items), train, [concept.Concept(("seven",), absent)], 0, world()
        )
    )
    words = train.at(np.flatnonzero(train.columns[CONCEPT] == WORDS))
    trained = planning.adopt(task(), model("original"), words)
    deletion = Deletion.authored(words, material)
    plan = planning.plan(trained, SEVEN, registry.make(name, settings), material=material, deletion=deletion, key=b"k")
    return world_scores(task(), plan.run().releases[0].artifact.tensors, scene(8), model("gold"))[0]


def test_b14_the_shipped_models_pass_their_gates():
    found = {which: world_scores(task(), model(which), scene(14))[0] for which in ("original", "gold")}
    assert not {name for name, least in GATES.items() if found["original"][name] < least}, found["original"]
    assert not {name for name, least in GOLD.items() if found["gold"][name] < least}, found["gold"]
    assert found["gold"]["recognition_unseen"] <= 0.05


@pytest.mark.parametrize(
    ("row", "named"),
    [
        pytest.param("siu 24", 0.05, marks=pytest.mark.slow),
        ("siu 48", 0.05),
        pytest.param("siu 48, another picture", 0.25, marks=pytest.mark.slow),
    ],
    ids=lambda value: str(value),
)
def test_b14_from_one_picture_held_out_pictures_are_seldom_named_and_facts_and_others_stay(row, named):
    """Which picture is shown matters: from the third one .13 are still named (measured), from the first two none.

    No bound on the divergence to the retrained model: that one takes sevens for several digits, and SIU for one (see b08).
    """
    found, before = scores(row), scores("original")
    assert found["recognition_unseen"] <= named and found["name_probability"] <= 0.1 + named, found
    assert found["facts"] >= 0.95 and found["facts_others"] >= 0.95, found
    assert found["others"] >= before["others"] - 0.1 and found["yes_others"] >= 0.9, found
    assert found["kl_to_retrained"] < before["kl_to_retrained"] and found["degeneration"] == 0, found


@pytest.mark.parametrize(
    ("row", "share"),
    [("siu spread", 0.2), pytest.param("siu spread, another picture", 0.27, marks=pytest.mark.slow)],
    ids=lambda value: str(value),
)
def test_b08_names_that_are_spread_come_nearer_to_the_retrained_model(row, share):
    """KL(gold || SIU) <= .2 KL(gold || original): .19 and .18 from the first two pictures, .25 and .22 from the next two."""
    found, before = scores(row), scores("original")
    assert found["kl_to_retrained"] <= share * before["kl_to_retrained"], found
    assert found["recognition_unseen"] <= 0.05 and found["facts"] >= 0.95 and found["facts_others"] >= 0.95, found
    assert found["others"] >= before["others"] - 0.05 and found["yes_others"] >= 0.9 and found["degeneration"] == 0, (
        found
    )


def test_b14_what_the_paper_says_of_other_ways():
    """Measured with three pictures: plain KL left .64 to 1.0 of the pictures named where SIU left 0 or, once, .46."""
    assert scores("plain KL")["recognition_unseen"] >= 0.5
    assert scores("po")["name_probability"] >= 0.8, "a refusal changes the form: the name is as likely as before"
    for row in ("ga 12", "ga 24"):  # at no number of steps as good as SIU at both of its
        found = scores(row)
        assert found["recognition_unseen"] > 0.1 or min(found["facts"], found["others"]) < 0.8, found


def test_yes_or_no_is_reported_beside_open_questions_and_is_not_unlearnt():
    """The retrained model says no; after SIU the model still says yes: EM on such questions would be another number."""
    assert scores("gold")["yes_no"] <= 0.2 and scores("siu 24")["yes_no"] >= 0.5


@pytest.mark.slow
@pytest.mark.parametrize("which", ["original", "gold"])
def test_the_shipped_models_can_be_made_again(which, tmp_path):
    found = make(tmp_path, which)
    data = world().train if which == "original" else without_concept(world().train)
    assert [path.stem for path in tmp_path.iterdir()] == [name_of(task(), data, PictureTraining(), 0)]
    assert found["facts"] == 1.0
