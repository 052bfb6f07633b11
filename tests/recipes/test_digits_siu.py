"""SIU on a model that recognises digits: the shipped weights of the original and of one that was never shown a seven."""

from __future__ import annotations

from functools import cache

import pytest
from tests.recipes.seeing import Pair, digits, ga, made, po, sevens, shipped_digits, siu

from expunge.modalities.vision_language.make_weights import GATES, GOLD, make, without_concept
from expunge.modalities.vision_language.world_scores import world_scores
from expunge.training.pictures import PictureTraining
from expunge.training.shipped import name_of

ROWS = {
    "siu 24": siu(3e-3, 24),
    "siu 48": siu(3e-3, 48),
    "siu spread": made(siu(2e-3, 96, instead="spread"), pieces=12),
    "plain KL": siu(3e-3, 24, positions="none", vocabulary=False),
    "po": po(3e-3, 12),
    "ga 12": ga(1e-3, 12),
    "ga 24": ga(1e-3, 24),
}


@cache
def pair() -> Pair:
    return sevens(ROWS)


def test_b14_the_shipped_models_pass_their_gates():
    task, scene = pair().task, pair().scene(each=14)
    found = {which: world_scores(task, shipped_digits(which), scene)[0] for which in ("original", "gold")}
    assert not {name for name, least in GATES.items() if found["original"][name] < least}, found["original"]
    assert not {name for name, least in GOLD.items() if found["gold"][name] < least}, found["gold"]
    assert found["gold"]["recognition_unseen"] <= 0.05


@pytest.mark.parametrize(
    ("row", "number", "named"),
    [
        pytest.param("siu 24", 0, 0.05, marks=pytest.mark.slow),
        ("siu 48", 0, 0.05),
        pytest.param("siu 48", 2, 0.25, marks=pytest.mark.slow),
    ],
)
def test_b14_from_one_picture_held_out_pictures_are_seldom_named_and_facts_and_others_stay(row, number, named):
    """Which picture is shown matters: from the third one .13 are still named (measured), from the first two none.

    No bound on the divergence to the retrained model: that one takes sevens for several digits, and SIU for one (see b08).
    """
    found, before = pair().shares(row, number), pair().shares("original")
    assert found["recognition_unseen"] <= named and found["name_probability"] <= 0.1 + named, found
    assert found["facts"] >= 0.95 and found["facts_others"] >= 0.95, found
    assert found["others"] >= before["others"] - 0.1 and found["yes_others"] >= 0.9, found
    assert found["kl_to_retrained"] < before["kl_to_retrained"] and found["degeneration"] == 0, found


@pytest.mark.parametrize(("number", "share"), [(0, 0.2), pytest.param(2, 0.27, marks=pytest.mark.slow)])
def test_b08_names_that_are_spread_come_nearer_to_the_retrained_model(number, share):
    """KL(gold || SIU) <= .2 KL(gold || original): .19 and .18 from the first two pictures, .25 and .22 from the next two."""
    found, before = pair().shares("siu spread", number), pair().shares("original")
    assert found["kl_to_retrained"] <= share * before["kl_to_retrained"], found
    assert found["recognition_unseen"] <= 0.05 and found["facts"] >= 0.95 and found["facts_others"] >= 0.95, found
    assert found["others"] >= before["others"] - 0.05 and found["yes_others"] >= 0.9 and found["degeneration"] == 0, (
        found
    )


def test_b14_what_the_paper_says_of_other_ways():
    """From the first picture; from the next two twelve steps of GA are as good as SIU (``test_digits_checks.py``)."""
    assert pair().shares("plain KL")["recognition_unseen"] >= 0.5
    assert pair().shares("po")["name_probability"] >= 0.8, "a refusal changes the form: the name is as likely as before"
    for row in ("ga 12", "ga 24"):  # at no number of steps as good as SIU at both of its
        found = pair().shares(row)
        assert found["recognition_unseen"] > 0.1 or min(found["facts"], found["others"]) < 0.8, found


def test_yes_or_no_is_reported_beside_open_questions_and_is_not_unlearnt():
    """The retrained model says no; after SIU the model still says yes: EM on such questions would be another number."""
    assert pair().shares("gold")["yes_no"] <= 0.2 and pair().shares("siu 24")["yes_no"] >= 0.5


@pytest.mark.slow
@pytest.mark.parametrize("which", ["original", "gold"])
def test_the_shipped_models_can_be_made_again(which, tmp_path):
    found = make(tmp_path, which)
    world, task = digits()
    data = world.train if which == "original" else without_concept(world.train)
    assert [path.stem for path in tmp_path.iterdir()] == [name_of(task, data, PictureTraining(), 0)]
    assert found["facts"] == 1.0
