"""Every method for language models forgets through its forget loss, and not through what happens around it.

The source is a Llama of one layer that knows 24 facts by heart, asked alone and behind another question: the scope term asks
nothing new of it. Learning rates are hundreds of times the defaults, which belong to models of a billion weights. Each method
is held against its own run without the forget loss (``gamma`` 0); against fine-tuning on retained rows where it has no other
loss, and for RMU, whose retain loss is zero where nothing moved: Adam makes steps of full length along what rounding leaves
of its gradient.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cases import CASES, LANGUAGE, UNSURE, VARIANTS, class_of, facts, forget_facts, small_language
from expunge import planning
from expunge.core.certificate import Verdict
from expunge.core.errors import RefusedError
from expunge.core.request import Request, Target
from expunge.core.trained import Trained
from expunge.data.texts import Texts
from expunge.methods import registry
from expunge.training.language import LanguageTraining

ROWS = [each for name in LANGUAGE for each in (name, *VARIANTS[name])]
REQUEST = forget_facts(1, 4)
KNOWN = {"lr": 3e-3, "batch_size": 6, "steps": 10}
SETTINGS: dict[str, dict[str, Any]] = {
    "idk": {"refusals": (UNSURE,)}, "dpo": {"refusals": (UNSURE,)}, "rmu": {"layer": 0},
    "undial+dual": {"alpha": 1.0}, "lune": {"guard": False, "lr": 1e-2, "steps": 30},
}  # fmt: skip


@functools.cache
def source() -> Trained:
    task, every = small_language(), np.arange(len(facts()))
    pairs = [task.pair(facts().at(np.roll(every, shift)), facts()) for shift in (1, 5, 10, 17)]
    taught = Texts.of([record for rows in (facts(), *pairs) for record in rows.records])
    model = planning.train(task, taught, LanguageTraining(steps=250, lr=1e-2, batch_size=40))
    return planning.adopt(task, model.artifact.tensors, facts())


def made(name: str, **settings: Any) -> Any:
    own = SETTINGS.get(name, SETTINGS.get(name.partition("+")[0], {}))
    alternating = {"steps": 4, "forget_lr": 2e-2, "retain_steps": 2} if "+dual" in name else {}
    return registry.make(name, {**KNOWN, **alternating, **own, **settings})


def forget_loss(tensors: Any, data: Any) -> float:
    task = source().task
    model = task.build(tensors).eval()
    with torch.no_grad():
        return float(task.losses(model, dict(model.named_parameters()), task.batch(data)).mean())


def after(method: Any) -> float:
    outcome = planning.plan(source(), REQUEST, method).run()
    return forget_loss(outcome.releases[0].artifact.tensors, outcome.deletion.forget)


@functools.cache
def fine_tuned() -> float:
    return after(registry.make("fine_tune", {"lr": 0.01, "batch_size": 6, "epochs": 3}))


def test_the_source_knows_what_is_to_be_forgotten():
    assert forget_loss(source().artifact.tensors, facts()) < 0.2 and fine_tuned() < 0.5


@pytest.mark.parametrize("name", ROWS)
def test_no_dead_language_method(name):
    lost = after(made(name))
    weighed = "gamma" in registry.settings_names(name.partition("+")[0]) and not name.startswith("rmu")
    silenced = after(made(name, gamma=0.0)) if weighed else fine_tuned()
    assert lost > silenced + 0.1 and lost > 1.5 * silenced, (lost, silenced)


@pytest.mark.parametrize("pretrained", [False, True])
def test_retraining_is_exact_only_where_the_start_saw_nothing(pretrained):
    task = small_language()
    task = replace(task, start=dict(source().artifact.tensors)) if pretrained else task
    trained = planning.train(task, facts(), LanguageTraining(steps=3, batch_size=24))
    certificate = planning.plan(trained, REQUEST, registry.make("retrain")).run().certificate
    assert certificate is not None and certificate.epsilon == 0
    start = next(a for a in certificate.assumptions if a.name == "start")
    assert (certificate.verdict == Verdict.VOID) == pretrained == (start.status == "violated")


@pytest.mark.parametrize("name", ROWS)
def test_an_estimate_is_never_below_what_steps_take(name):
    plan = planning.plan(source(), REQUEST, made(name, steps=1))
    assert 0 < plan.run().cost["gradient_evaluations"] <= plan.estimate.gradient_evaluations


@pytest.mark.parametrize("name", LANGUAGE)
def test_kinds_and_tasks_that_a_method_does_not_declare_are_refused(name):
    case = CASES["convex quadratic"]
    with pytest.raises(RefusedError, match="runs on language, not on point"):
        planning.plan(case.train(), case.request, made(name))
    concept = Request("a rights holder", (Target("concept", {"name": "a square"}),))
    with pytest.raises(RefusedError, match="does not serve requests of kind concept"):
        planning.plan(source(), concept, made(name), material=facts().first(2))
    assert class_of(name).capabilities.effect in ("weights", "adapter")
