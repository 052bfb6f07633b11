"""What methods do to a diffusion model, against closed forms and on a few thousand weights."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.diffusion.tiny import CLASSES, SIDE, squares, tiny
from torch import Tensor, nn

from expunge import planning
from expunge.core.data import Deletion
from expunge.core.errors import InputError, RefusedError
from expunge.core.method import InMemory
from expunge.core.request import Request, Target
from expunge.core.trained import Trained
from expunge.descent.schedule import FORGET, RETAIN, Turn
from expunge.descent.work import Work
from expunge.methods import registry
from expunge.objectives.generation import Amnesia, Misled, NegativeGuidance, held
from expunge.tasks.diffusion.sampling import Sampler
from expunge.training.stochastic import Stochastic

CLASS = Request("a rights holder", (Target("class", {"label": 1}),))
SEEDS = (0,)  # measured with seeds 0 and 1
ADAM = {"optimizer": "adam", "lr": 3e-3, "retain_lr": 3e-3, "batch_size": 20}


class Constant(nn.Module):
    """Noise that is a number of its own for each condition."""

    def __init__(self, values: tuple[float, ...]):
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.values[y].view(-1, 1, 1, 1).expand_as(x)


def work_of(values: tuple[float, ...], **options) -> Work:
    task = replace(tiny(torch.float64, **options), factory=functools.partial(Constant, values))
    model, data = task.build(), squares(30)
    ids = data.select(CLASS.targets[0])
    deletion = Deletion(data, data.without(ids), data.only(ids), ids)
    base = {name: each.detach().clone() for name, each in model.state_dict().items()}
    return Work(task, model, base, deletion, {FORGET: 8, RETAIN: 8}, seed=3)


def turn(role: str, step: int = 0) -> Turn:
    return Turn(role, step, 10, 0, False, {})


@pytest.mark.parametrize("eta", [0.5, 1.0, 3.0])
def test_negative_guidance_aims_at_any_class_less_what_is_particular_to_the_class(eta):
    """Of constants c and a for the class and for any class, (c - (a - eta (c - a)))² = ((1 + eta) (c - a))²."""
    work = work_of((0.1, 0.7, 0.3, 0.2))
    prepared = NegativeGuidance(eta).prepare(work)
    batch = prepared.streams[FORGET]
    assert set(batch["y"].tolist()) == {1} and set(prepared.streams[RETAIN]["y"].tolist()) == {0, 2}
    loss = prepared.loss(FORGET, batch, turn(FORGET))
    assert float(loss.detach()) == pytest.approx(((1 + eta) * (0.7 - 0.2)) ** 2, rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, [work.params["values"]])
    assert (
        gradient[1] > 0 and gradient[[0, 2, 3]].abs().sum() == 0
    )  # descent takes the class towards any class and beyond


def test_random_labels_draw_the_class_as_the_others_are_and_leave_the_others_alone():
    work = work_of((0.1, 0.7, 0.3, 0.2))
    prepared = Misled().prepare(work)
    loss = prepared.loss(FORGET, prepared.streams[FORGET], turn(FORGET))
    possible = [(0.7 - other) ** 2 for other in (0.1, 0.3)]
    assert min(possible) < float(loss.detach()) < max(possible)  # a mean over both
    (gradient,) = torch.autograd.grad(loss, [work.params["values"]])
    assert gradient[1] > 0 and gradient[[0, 2, 3]].abs().sum() == 0


def test_elastic_weights_cost_half_their_squared_distance_weighed():
    start, weigh = {"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, 5.0])}
    moved = {"a": torch.tensor([2.0, 4.0])}
    assert float(held(moved, start, weigh)) == (3 * 1 + 5 * 4) / 2 and float(held(start, start, weigh)) == 0


def test_amnesia_weighs_by_the_fisher_of_losses_that_are_sums_over_pixels():
    """The model is one number per condition: d/dc of the mean squared error is 2 mean(c - e), by hand from its own noise."""
    values, ewc, pixels = (0.1, 0.7, 0.3, 0.2), 4.0, SIDE * SIDE
    work = work_of(values)
    prepared = Amnesia(ewc, replayed=2, fisher=3).prepare(work)
    replay = prepared.streams[RETAIN]
    assert sorted(replay["y"].tolist()) == [0, 0, 2, 2] and float(replay["x"].abs().max()) <= 1
    assert prepared.gradient_evaluations == 4 + 3 * CLASSES
    expected = torch.zeros(CLASSES + 1, dtype=torch.float64)
    ids = torch.arange(3 * CLASSES)
    drawn = replay.with_columns()  # only ids and shapes matter to the noise
    fixed = work.task.fixed(replace(drawn, columns={"x": torch.zeros(len(ids), 1, SIDE, SIDE).double(), "id": ids}))
    for i, label in enumerate(np.repeat(np.arange(CLASSES), 3)):
        gradient = float(np.mean([2 * (values[label] - float(noise[i].mean())) for _, noise in fixed]))
        expected[label] += gradient**2 / len(ids)
    turned = turn(RETAIN)
    torch.manual_seed(0)
    at_start = prepared.loss(RETAIN, replay, turned)
    step = torch.tensor([0.5, -0.25, 0.125, 0.0], dtype=torch.float64)
    with torch.no_grad():
        work.model.values += step
        torch.manual_seed(0)
        moved = prepared.loss(RETAIN, replay, turned)
        torch.manual_seed(0)
        level, noise = work.task.drawn(replay)
        y = work.task.sometimes_hidden(replay["y"])
        change = sum(
            work.task.errors(work.model, {"values": at}, replay["x"], level, noise, y).mean() * sign
            for at, sign in ((work.model.values, 1), (torch.tensor(values, dtype=torch.float64), -1))
        )
    penalty = ewc * pixels * float((expected * step**2).sum()) / 2
    assert float((moved - at_start).detach()) == pytest.approx(float(change) + penalty, rel=1e-9)


def test_amnesia_teaches_uniform_noise_for_the_class_and_never_looks_at_its_images():
    work = work_of((0.1, 0.7, 0.3, 0.2))
    prepared = Amnesia(1.0, replayed=2, fisher=1).prepare(work)
    losses = []
    for x in (prepared.streams[FORGET]["x"], torch.zeros_like(prepared.streams[FORGET]["x"])):
        torch.manual_seed(0)
        losses.append(float(prepared.loss(FORGET, prepared.streams[FORGET].with_columns(x=x), turn(FORGET)).detach()))
    assert losses[0] == losses[1]


@functools.cache
def trained() -> Trained:
    """Draws squares where they belong, most of the time."""
    return planning.train(tiny(), squares(), Stochastic(epochs=50, lr=1e-2, batch_size=20, optimizer="adam"), seed=0)


def errors(tensors, label: int) -> float:
    """Mean loss of the images of a class, each at its fixed noise."""
    task, data = tiny(), squares()
    model = task.build(tensors).eval()
    rows = data.only(data.select(Target("class", {"label": label})))
    with torch.no_grad():
        return float(task.losses(model, dict(model.named_parameters()), task.batch(rows)).mean())


SETTINGS = {
    "gradient_ascent": {"lr": 5e-3, "epochs": 5, "batch_size": 20},
    "sfron": {**ADAM, "steps": 20, "inner": 1, "alpha": 1.0},
    "sfron+dual": {**ADAM, "steps": 20, "inner": 1},
    "salun": {**ADAM, "epochs": 8},
    "salun+dual": {**ADAM, "epochs": 8},
    "random_labels": {**ADAM, "epochs": 8},
    "negative_guidance": {"lr": 3e-3, "retain_lr": 3e-3, "steps": 20, "batch_size": 20},
    "negative_guidance+dual": {"lr": 3e-3, "retain_lr": 3e-3, "steps": 20, "batch_size": 20},
    "selective_amnesia": {"lr": 3e-3, "steps": 20, "replayed": 10, "fisher": 2, "batch_size": 20},
    "selective_amnesia+dual": {
        "lr": 3e-3, "retain_lr": 3e-3, "steps": 20, "replayed": 10, "fisher": 2, "batch_size": 20,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (i % 2)) for i, name in enumerate(SETTINGS)]
)
def test_a_method_raises_the_loss_of_the_class_more_than_that_of_the_others(name):
    """The sign of every forget loss; two seeds."""
    before = trained().artifact.tensors
    for seed in SEEDS:
        outcome = planning.plan(trained(), CLASS, registry.make(name, SETTINGS[name]), seed=seed).run()
        after = outcome.releases[0].artifact.tensors
        rise = {label: errors(after, label) - errors(before, label) for label in range(CLASSES)}
        assert rise[1] > 0, (name, rise)
        if name != "gradient_ascent":  # which harms every class
            assert rise[1] > max(rise[0], rise[2]), (name, rise)


def test_salun_moves_half_of_the_weights_and_no_other():
    outcome = planning.plan(trained(), CLASS, registry.make("salun", {**ADAM, "epochs": 1}), seed=0).run()
    before, after = trained().artifact.tensors, outcome.releases[0].artifact.tensors
    moved = sum(int((before[name] != after[name]).sum()) for name in before)
    everything = sum(each.numel() for each in before.values())
    assert 0.3 * everything < moved <= 0.5 * everything


class Stops(InMemory):
    """Dies before a stage is stored."""

    def __init__(self, after: int):
        super().__init__()
        self.after = after

    def once(self, name, compute):
        if name not in self.stages and len(self.stages) >= self.after:
            raise KeyboardInterrupt
        return super().once(name, compute)


def test_a_run_that_was_killed_ends_with_the_same_bits(monkeypatch):
    monkeypatch.setattr("expunge.core.journal.STEPS_PER_STAGE", 10)
    method = registry.make("sfron", {**ADAM, "steps": 12, "inner": 1, "batch_size": 8})
    whole = planning.plan(trained(), CLASS, method, seed=0).run().releases[0].artifact
    journal = Stops(after=1)
    with pytest.raises(KeyboardInterrupt):
        planning.plan(trained(), CLASS, method, seed=0, journal=journal).run()
    assert len(journal.stages) == 1
    journal.after = 100
    assert (
        planning.plan(trained(), CLASS, method, seed=0, journal=journal).run().releases[0].artifact.digest
        == whole.digest
    )


def test_methods_refuse_what_they_cannot_serve():
    blind = tiny(hidden=0.0, sampler=Sampler(2, 0.0))
    model = planning.train(blind, squares(), Stochastic(epochs=1, lr=1e-3, batch_size=20, optimizer="adam"), seed=0)
    with pytest.raises(RefusedError, match="any class"):
        planning.plan(model, CLASS, registry.make("negative_guidance"))
    few = Request("somebody", (Target("samples", {"ids": [1, 2]}),))
    with pytest.raises(RefusedError, match="it serves class"):
        planning.plan(trained(), few, registry.make("selective_amnesia"))
    with pytest.raises(InputError, match="optimizer"):
        planning.plan(trained(), CLASS, registry.make("salun", {"optimizer": "lion"}))
    with pytest.raises(InputError, match="leave out mixed"):
        planning.plan(trained(), CLASS, registry.make("random_labels", {"mixed": True}))
    with pytest.raises(RefusedError, match="not on diffusion"):
        planning.plan(trained(), CLASS, registry.make("scrub"))
    with pytest.raises(InputError, match="class"):
        planning.plan(trained(), Request("a", (Target("class", {"label": 7}),)), registry.make("sfron"))
    planning.plan(trained(), few, registry.make("sfron", ADAM))
