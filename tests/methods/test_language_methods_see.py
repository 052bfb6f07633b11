"""Every method for language models serves models that see: requests for records with pictures, and concepts."""

from __future__ import annotations

import functools

import pytest

from cases import LANGUAGE, about_stars, method, shapes, small_vision_language
from expunge import planning
from expunge.core.data import Deletion, Ids
from expunge.core.errors import InputError, RefusedError
from expunge.core.request import Request, Target
from expunge.core.task import runs_on
from expunge.core.trained import Trained
from expunge.data.concepts import Templates, recognition
from expunge.data.texts import Texts
from expunge.methods import registry

STAR = Request("a rights holder", (Target("concept", {"shape": "star"}),))
PICTURES = Request("somebody", (Target("samples", {"ids": [3, 7]}),))


@functools.cache
def model() -> Trained:
    task = small_vision_language()
    return planning.adopt(task, task.released(task.build(seed=1)), shapes())


def right_name() -> Texts:
    asked = Templates(("what is this ?",), "{name}", (), "")
    return Texts.of(recognition(["star"], shapes().records[3]["image"], asked, pieces=1))


@pytest.mark.parametrize("name", LANGUAGE)
def test_pictures_and_concepts_are_forgotten_by_every_method_for_language_models(name):
    settings = {"steps": 1, "batch_size": 2, "warmup": 0.0}
    if "refusals" in registry.settings_names(name):
        settings["refusals"] = ("no",)
    made = method(name, **settings)
    record = planning.plan(model(), PICTURES, made).run()
    stars = Ids.rows([i for i, record in enumerate(shapes().records) if record["answer"] == "star"])
    deletion = Deletion.authored(shapes(), right_name(), absent=stars)
    concept = planning.plan(model(), STAR, made, material=right_name(), deletion=deletion).run()
    assert all(max(outcome.change.values()) > 0 for outcome in (record, concept))
    assert record.deletion.member and not concept.deletion.member


def test_what_is_to_be_learnt_is_no_answer_to_forget():
    with pytest.raises(RefusedError, match=r"to be learnt instead.*Eligible here: siu"):
        planning.plan(model(), STAR, method("ga"), material=about_stars())


def test_joint_prompts_of_two_pictures_are_refused_before_any_step():
    with pytest.raises(InputError, match="Joint prompts hold one picture"):
        planning.plan(model(), PICTURES, method("npo+su", steps=1, batch_size=2, warmup=0.0))


def test_a_method_runs_on_what_a_task_can_do_whatever_its_name():
    from cases import small_network

    assert runs_on(("language",), small_vision_language()) and runs_on(("*",), small_network())
    assert not runs_on(("language", "classification"), small_network()) and runs_on(("graph", "x"), small_network())
