"""What released code of image methods does, by small re-implementations: clocks, masks, teachers, penalties, rewinding."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from cases import CASES, blobs, method
from descent.worlds import plain, restless, run, same, work
from expunge import planning
from expunge.core.errors import InputError
from expunge.core.method import InMemory
from expunge.descent.descend import Descend
from expunge.descent.members import Member
from expunge.descent.optimizer import Shared
from expunge.descent.parameters import FisherRatio, Saliency
from expunge.descent.schedule import Interleave, Passes, Turn
from expunge.descent.work import Work
from expunge.methods import registry
from expunge.methods.scrub import Scrub
from expunge.objectives.distillation import Scrub as Distilled
from expunge.objectives.supervised import Ascent, Sparse


def batches(on: Work, size: int) -> dict[str, list[tuple[torch.Tensor, torch.Tensor]]]:
    rows = {"forget": on.deletion.forget, "retain": on.deletion.after}
    return {
        role: [(d.x[i : i + size].float(), d.y[i : i + size]) for i in range(0, len(d), size)]
        for role, d in rows.items()
    }


def gradient(on: Work, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Of the mean loss of one batch, in evaluation mode, flat."""
    on.model.eval()
    found = torch.autograd.grad(cross_entropy(on.model(x), y), list(on.model.parameters()))
    return torch.cat([each.flatten() for each in found])


@pytest.mark.parametrize(("steps", "inner"), [(23, 5), (10, 1), (7, 3)])
def test_sfron_has_one_clock_that_counts_retain_steps(steps, inner):
    """The released loop: before every ``inner``-th retain step a forget step, at the rate of that retain step."""
    expected = []
    for i in range(steps):
        rate = (1 + math.cos(math.pi * i / steps)) / 2
        expected += [("forget", rate)] * (i % inner == 0) + [("retain", rate)]
    sizes = {"forget": 4, "retain": 4}
    turns = Interleave(1, inner, steps, clock="retain").turns(sizes, sizes, 0)
    found = [(turn.role, (1 + math.cos(math.pi * turn.progress)) / 2) for turn in turns]
    assert [role for role, _ in found] == [role for role, _ in expected]
    assert [rate for _, rate in found] == pytest.approx([rate for _, rate in expected])
    schedule = registry.make("sfron").composition(None).schedule
    assert schedule == Interleave(1, 5, 1500, clock="retain")


def test_the_rates_of_an_sfron_run_are_those_of_its_clock():
    """Plain SGD on a linear loss: each step is the rate times a gradient that never changes."""
    on = work(plain)
    method = replace(
        registry.make("sfron", {"steps": 4, "inner": 2}).composition(None), optimizer=Shared(Member("sgd", 0.1))
    )
    seen: list[tuple[str, float]] = []
    from expunge.descent import optimizer as optimizers

    step = optimizers.Stepper.step

    def watched(self, role, gradients, factor=1.0, size=None):
        seen.append((role, factor))
        return step(self, role, gradients, factor, size)

    optimizers.Stepper.step = watched  # type: ignore[method-assign]
    try:
        run(method, on)
    finally:
        optimizers.Stepper.step = step  # type: ignore[method-assign]
    rates = [(1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)]
    expected = [("forget", 0), ("retain", 0), ("retain", 1), ("forget", 2), ("retain", 2), ("retain", 3)]
    assert [role for role, _ in seen] == [role for role, _ in expected]
    assert [factor for _, factor in seen] == pytest.approx([rates[i] for _, i in expected])


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_dualoptims_mask_ranks_the_difference_of_absolute_mean_gradients(seed, augmented):
    on = work(restless, seed=seed, augment=lambda x, generator: 2 * x + 1)
    means = {}
    for role, parts in batches(on, 4).items():
        views = [(2 * x + 1 if augmented else x, y) for x, y in parts]
        means[role] = torch.stack([gradient(on, x, y) for x, y in views]).mean(0)
    score = means["forget"].abs() - means["retain"].abs()
    kept = int(0.5 * len(score))
    threshold = score.sort(descending=True).values[kept - 1]
    choice = Saliency(0.5, 4, of="difference", augmented=augmented).select(on)
    mask = torch.cat([choice.masks["retain"][name].flatten() for name in choice.names])
    assert mask.sum() == kept and torch.equal(mask, score >= threshold)
    own = Saliency(0.5, 4, augmented=augmented).select(on).masks["forget"]
    assert not torch.equal(mask, torch.cat([own[name].flatten() for name in choice.names]))
    assert choice.gradient_evaluations == len(blobs())
    assert registry.make("salun", {"mask": "difference"}).preparing(3, 7) == 10


@pytest.mark.parametrize("seed", range(2))
def test_sfrons_fisher_may_be_that_of_augmented_views(seed):
    on = work(restless, seed=seed, augment=lambda x, generator: 2 * x + 1)
    fisher = {
        role: torch.stack([gradient(on, 2 * x + 1, y).square() for x, y in parts]).mean(0)
        for role, parts in batches(on, 4).items()
    }
    choice = FisherRatio(1.0, 4, augmented=True).select(on)
    mask = torch.cat([choice.masks["forget"][name].flatten() for name in choice.names])
    assert torch.equal(mask, fisher["forget"] >= fisher["retain"]) and 0 < mask.sum() < len(mask)


def normalised() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize("seed", range(3))
def test_a_teacher_in_training_mode_leaves_the_first_forget_step_without_a_gradient(seed):
    sizes = {}
    for teacher in ("train", "eval"):
        on = work(normalised, seed=seed)
        on.model.train()
        ready = Distilled(0.5, 1.0, 1.0, teacher).prepare(on)
        batch = ready.streams["forget"].take(torch.randperm(10, generator=torch.Generator().manual_seed(seed))[:5])
        loss = ready.loss("forget", batch, Turn("forget", 0, 1, 0, False, {}))
        gradients = torch.autograd.grad(loss, list(on.model.parameters()))
        sizes[teacher] = float(torch.cat([each.flatten() for each in gradients]).norm())
    assert sizes["train"] < 1e-6 < 1e-3 < sizes["eval"]


def test_the_l1_penalty_falls_after_each_epoch():
    on = work(plain)
    ready = Sparse(0.3, 4).prepare(on)
    batch = ready.streams["retain"]
    length = sum(float(tensor.detach().abs().sum()) for tensor in on.model.parameters())
    for epoch in range(4):
        for step in (10 * epoch, 10 * epoch + 9):
            loss = float(ready.loss("retain", batch, Turn("retain", step, 40, epoch, False, {})).detach())
            plain_loss = float(cross_entropy(on.model(batch["x"]), batch["y"]).detach())
            assert loss == pytest.approx(plain_loss + 0.3 * (1 - epoch / 4) * length, rel=1e-6)


def test_rates_are_a_tenth_from_each_milestone_on():
    """SCRUB's own form: epochs are counted from 1, and the rate falls after epochs 3, 5 and 9."""
    own = registry.make("scrub", Scrub.configurations["scrub_own"] | {"epochs": 10})
    made = own.composition(None)
    assert own.batch_sizes() == {"forget": 32, "retain": 128, "mixed": 128}
    assert made.optimizer == Shared(Member("sgd", 5e-4, momentum=0.9, weight_decay=5e-4), 5e-4)
    assert made.schedule == Passes(10, forget_until=2)
    from expunge.descent.descend import _Run

    steps = _Run(made, work(plain))
    for epoch in range(10):
        factor = steps._factor(Turn("retain", 3 * epoch, 30, epoch, False, {}))
        assert factor == pytest.approx(0.1 ** sum(epoch + 1 > at for at in (3, 5, 9)))


@pytest.mark.parametrize("seed", range(4))
def test_scrub_plus_r_aims_at_the_held_out_error_of_the_last_epoch(seed):
    """Beside runs of one, two, … epochs, which are its beginnings: their steps are the same."""

    def start() -> Work:
        return work(normalised, seed=seed, probes={"validation": blobs(40, seed=9)})

    def error(on: Work, rows) -> float:
        on.model.eval()
        with torch.no_grad():
            return float((on.model(rows.x.float()).argmax(1) != rows.y).double().mean())

    settings = {"lr": 0.05, "retain_lr": 0.02, "temperature": 2.0}
    ends = []
    for epochs in range(1, 7):
        on = start()
        run(Scrub(epochs=epochs, **settings).composition(None), on)
        ends.append((error(on, on.deletion.forget), error(on, on.deletion.probes["validation"]), on.model.state_dict()))
    aim = ends[-1][1]
    best = min(range(6), key=lambda i: (abs(ends[i][0] - aim), i))
    on = start()
    method = Scrub(epochs=6, rewind=True, **settings)
    found = method.rewound(method.composition(None), on, InMemory())
    assert same(dict(found.tensors), ends[best][2])
    assert len({end[0] for end in ends}) > 1


def test_bad_teacher_shows_images_as_they_are_unless_asked():
    case = CASES["pictures"]
    trained = planning.train(case.task, case.data, replace(case.recipe, epochs=1, augment="crop_flip"))
    context = planning.plan(trained, case.request, method("bad_teacher")).context
    assert method("bad_teacher").views(context) is None
    assert method("bad_teacher", augment=True).views(context) is not None
    assert method("salun").views(context) is not None


def test_settings_that_do_not_exist_are_refused():
    for bad in (
        lambda: Saliency(of="both"),
        lambda: Scrub(optimizer="lion"),
        lambda: Scrub(optimizer="sgd", dual=True),
        lambda: Scrub(teacher="off").composition(None),
    ):
        with pytest.raises(InputError, match=r"Expected|two AdamW"):
            bad()
    assert Descend(Ascent(), Passes(1), Shared(Member("sgd", 0.1))).milestones == ()
