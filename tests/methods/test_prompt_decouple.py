"""Prompt Decouple on a tiny model that sees: the loss by hand, what counts as harmless, and what is refused."""

from __future__ import annotations

import functools

import pytest
import torch

from cases import shapes, small_vision_language
from expunge import planning
from expunge.core.data import Deletion, Ids
from expunge.core.errors import InputError, RefusedError
from expunge.core.request import Request, Target
from expunge.core.trained import Trained
from expunge.data.texts import Texts
from expunge.descent.work import Work
from expunge.methods.prompt_decouple import PromptDecouple

STARS = [3, 7]
REQUEST = Request("a rights holder", (Target("samples", {"ids": STARS}),))
SHORT = {"steps": 2, "lr": 1e-2, "batch_size": 2, "warmup": 0.0}


@functools.cache
def model() -> Trained:
    task = small_vision_language()
    return planning.adopt(task, task.released(task.build(seed=1)), shapes())


def work(retained: Texts | None = None) -> Work:
    base, ids = model().artifact.tensors, Ids.rows(STARS)
    after = shapes().without(ids) if retained is None else retained
    deletion = Deletion(shapes(), after, shapes().only(ids), ids)
    network = model().task.build({name: tensor.clone() for name, tensor in base.items()})
    return Work(model().task, network, base, deletion, {"forget": 2, "retain": 2}, 0)


@torch.no_grad()
def mean_loss(on: Work, records: list) -> float:
    """Mean over all tokens of the answers, from whole logits of one record at a time."""
    found = []
    for record in records:
        batch = on.task.encode([record])
        logits = on.model.eval()(**on.task.inputs(on.model, batch)).logits[0, :-1]
        labels = batch["labels"][0, 1 : len(logits) + 1]
        found += [-logits.log_softmax(-1)[i, t] for i, t in enumerate(labels.tolist()) if t != -100]
    return float(torch.stack(found).mean())


@pytest.mark.parametrize("forgotten", ["ascent", "refusal"])
def test_the_loss_is_ascent_or_a_refusal_and_the_harmless_answer_about_the_same_picture(forgotten):
    on = work()
    safe = {"is circle round ?": "yes"}
    method = PromptDecouple(forgotten=forgotten, decouple=0.25, gamma=2.0, safe=safe, refusals=("no",))
    ready = method.prepare(on)
    found = float(ready.loss("forget", ready.streams["forget"], None).detach())
    stars = on.deletion.forget.records
    first = stars if forgotten == "ascent" else [{**r, "answer": "no"} for r in stars]
    beside = [{**r, "question": "is circle round ?", "answer": "yes"} for r in stars]
    sign = -1 if forgotten == "ascent" else 1
    assert found == pytest.approx(2 * (sign * mean_loss(on, first) + 0.25 * mean_loss(on, beside)), rel=1e-5)


def test_retained_questions_about_the_same_picture_come_before_those_without_one():
    star, other = shapes().records[3], shapes().records[7]
    own = {"image": star["image"], "question": "is this round ?", "answer": "no"}
    word = {"question": "is circle round ?", "answer": "yes"}
    found = PromptDecouple().harmless([star, other], [own, word, shapes().records[0]], 0)
    assert found[0] == own
    assert found[1] == {**word, "image": other["image"]}
    assert PromptDecouple(safe={"what ?": "this"}).harmless([star], [own], 0)[0]["question"] == "what ?"


def test_it_runs_and_moves_an_adapter_alone():
    outcome = planning.plan(model(), REQUEST, PromptDecouple(**SHORT, lora={"r": 2}), key=b"k").run()
    assert outcome.releases[0].artifact.adapter is not None and max(outcome.change.values()) > 0


def test_pictures_that_nothing_harmless_is_known_about_are_refused():
    shown = shapes().at([i for i in range(16)])
    task = small_vision_language()
    blind = planning.adopt(task, model().artifact.tensors, shown)
    with pytest.raises(RefusedError, match="Nothing harmless is known about the picture of forgotten record 1"):
        planning.plan(blind, REQUEST, PromptDecouple(**SHORT), key=b"k")
    planning.plan(blind, REQUEST, PromptDecouple(**SHORT, safe={"is this round ?": "no"}), key=b"k")
    words = Request("somebody", (Target("samples", {"ids": [16]}),))
    with pytest.raises(RefusedError, match="has no picture"):
        planning.plan(model(), words, PromptDecouple(**SHORT), key=b"k")


@pytest.mark.parametrize("settings", [{"safe": {"what ?": " "}}, {"safe": {"what ?": 1}}])
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(InputError, match="safe"):
        PromptDecouple(**settings)
