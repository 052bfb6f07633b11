"""Losses whose values are known (vision spec 6.1, checks 11 to 13)."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from descent.worlds import plain, restless, run, same, work
from expunge.core.errors import InputError
from expunge.descent.descend import Descend
from expunge.descent.members import Member
from expunge.descent.optimizer import Shared
from expunge.descent.schedule import Joint, Mixed, Passes, Turn
from expunge.methods.ssd import dampened
from expunge.objectives.distillation import BadTeacher, Scrub, divergence
from expunge.objectives.supervised import AdaptiveAscent, Ascent, RandomLabels, Sparse, easy_first, random_labels

SGD = Shared(Member("sgd", 0.1))


def turn(role: str = "forget", step: int = 0, steps: int = 10) -> Turn:
    return Turn(role, step, steps, 0, False, {})


def loss_of(objective, role: str, on, step: int = 0, rows: int | None = None) -> tuple[torch.Tensor, dict]:
    prepared = objective.prepare(on)
    batch = prepared.streams[role].take(slice(rows))
    return prepared.loss(role, batch, turn(role, step)), batch


def by_hand(on, batch) -> torch.Tensor:
    return cross_entropy(on.model(batch["x"]), batch["y"], reduction="none")


# --- ascent, penalty, labels ----------------------------------------------------------------------------------------------


def test_ascent_and_its_weights():
    on = work()
    for role, factor in (("forget", -0.05), ("retain", 0.95)):
        loss, batch = loss_of(Ascent(0.05, 0.95), role, on)
        assert torch.allclose(loss, factor * by_hand(on, batch).mean())


def test_neg_grad_plus_takes_both_terms_in_one_step():
    on = work()
    on = replace(on, batch_size={**on.batch_size, "retain": 50})
    index = next(Joint(1).turns({"forget": 10, "retain": 50}, on.batch_size, on.seed)).index
    assert {name: len(rows) for name, rows in index.items()} == {"forget": 4, "retain": 50}
    gone, kept = on.task.batch(on.deletion.forget), on.task.batch(on.deletion.after)
    goes, stays = gone.take(index["forget"]), kept.take(index["retain"])
    loss = 0.95 * by_hand(on, stays).mean() - 0.05 * by_hand(on, goes).mean()
    gradients = dict(zip(on.params, torch.autograd.grad(loss, list(on.params.values())), strict=True))
    done = run(Descend(Ascent(0.05, 0.95), Joint(1), SGD), on)
    assert done.steps == {"joint": 1} and done.gradient_evaluations == 54
    for name, tensor in done.tensors.items():
        assert torch.allclose(tensor, on.base[name] - 0.1 * gradients[name], atol=1e-6)


def test_the_penalty_is_of_all_trainable_weights():
    on = work()
    on.model[0].bias.requires_grad_(False)
    length = sum(t.abs().sum() for n, t in on.params.items() if n != "0.bias")
    loss, batch = loss_of(Sparse(0.3, 10), "retain", on)
    assert torch.allclose(loss, by_hand(on, batch).mean() + 0.3 * length)


@settings(max_examples=25, deadline=None)
@given(classes=st.integers(2, 7), seed=st.integers(0, 99), exclude=st.booleans())
def test_random_labels_are_uniform_and_may_leave_out_the_true_one(classes, seed, exclude):
    labels = torch.arange(classes).repeat(400)
    drawn = random_labels(labels, classes, torch.Generator().manual_seed(seed), exclude)
    assert drawn.min() >= 0 and drawn.max() < classes
    hits = int((drawn == labels).sum())
    assert (hits == 0) if exclude else (hits > 0)
    rest = classes - 1 if exclude else classes
    for true in range(classes):
        count = torch.bincount(drawn[labels == true], minlength=classes).double()
        expected = torch.full((classes,), 400 / rest, dtype=torch.double)
        if exclude:
            expected[true] = 0
        assert ((count - expected).abs() <= 6 * math.sqrt(400 / rest)).all()


def test_labels_are_redrawn_for_every_batch_over_the_classes_of_the_model_and_retained_rows_keep_theirs():
    on = work()
    prepared = RandomLabels().prepare(on)
    batch = prepared.streams["forget"]
    values = [float(prepared.loss("forget", batch, turn(step=step)).detach()) for step in (0, 1, 0)]
    assert values[0] == values[2] != values[1]
    retain, rows = loss_of(RandomLabels(), "retain", on)
    assert torch.allclose(retain, by_hand(on, rows).mean())
    mixed = prepared.streams["mixed"]
    assert int(mixed["forgotten"].sum()) == 10 and len(mixed["y"]) == 60
    kept = mixed.take(slice(10, None))
    assert torch.allclose(prepared.loss("mixed", kept, turn("mixed")), by_hand(on, kept).mean())
    gone = mixed.take(slice(10))
    assert not torch.allclose(prepared.loss("mixed", gone, turn("mixed")), by_hand(on, gone).mean())


def test_random_labels_need_two_classes():
    from torch import nn

    one = work(lambda: nn.Sequential(nn.Linear(2, 1)))
    with pytest.raises(InputError, match="at least two classes"):
        RandomLabels().prepare(one)


# --- check 11 -----------------------------------------------------------------------------------------------------------


def test_check_11_weights_of_sfron():
    rows = torch.tensor([0.04, 0.25, 1.0], dtype=torch.float64, requires_grad=True)
    weights = easy_first(rows, 0.5)
    assert weights.tolist() == pytest.approx([0.625, 0.25, 0.125])
    weighted = (weights * rows).sum()
    assert float(weighted.detach()) == pytest.approx(0.2125)
    (gradient,) = torch.autograd.grad(weighted, [rows])
    assert gradient.tolist() == pytest.approx([0.625, 0.25, 0.125]), "no gradient through the weights"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_check_11_a_loss_of_zero_does_not_silence_its_batch(dtype):
    weights = easy_first(torch.tensor([0.0, 0.04, 1.0], dtype=dtype), 0.5)
    assert torch.isfinite(weights).all() and float(weights.sum()) == pytest.approx(1)
    assert weights[0] > weights[1] > weights[2]
    in_single = easy_first(torch.tensor([0.0, 1e-3]), 0.5)
    assert in_single[1] > 1e-3, "the row whose gradient is not zero still counts"
    assert easy_first(torch.tensor([3.0, 0.1]), 0.0).tolist() == [0.5, 0.5]


def test_check_11_the_ascent_fades():
    on = work()
    for step in (0, 3, 9):
        loss, batch = loss_of(AdaptiveAscent(31.0, 0.5), "forget", on, step)
        rows = by_hand(on, batch).detach()
        weights = rows**-0.5 / (rows**-0.5).sum()
        fade = (1 + math.cos(math.pi * step / 10)) / 2
        assert float(loss.detach()) == pytest.approx(float(-31 * fade * (weights * rows).sum()), rel=1e-5)
    loss, batch = loss_of(AdaptiveAscent(31.0), "retain", on)
    assert torch.allclose(loss, by_hand(on, batch).mean())


# --- check 12 -----------------------------------------------------------------------------------------------------------


def test_check_12_dampening():
    forget = {"w": torch.tensor([30.0, 20.0, 0.0, 5.0, 30.0])}
    everything = {"w": torch.tensor([2.0, 2.0, 0.0, 1.0, 0.0])}
    weights = {"w": torch.tensor([3.0, 3.0, 3.0, 3.0, 3.0])}
    result = dampened(weights, forget, everything, alpha=10.0, lambda_=1.0)["w"]
    assert result.tolist() == pytest.approx([3 * 2 / 30, 3.0, 3.0, 3.0, 0.0])
    never_up = dampened(weights, forget, everything, alpha=1.0, lambda_=100.0)["w"]
    assert (never_up <= weights["w"]).all() and never_up[0] == 3.0


# --- check 13 -----------------------------------------------------------------------------------------------------------


def gradient_size(loss: torch.Tensor, on) -> float:
    parts = torch.autograd.grad(loss, list(on.params.values()))
    return float(torch.cat([part.flatten() for part in parts]).norm())


def test_check_13_a_student_that_is_its_teacher_has_a_dead_start():
    on = work()
    loss, _ = loss_of(Scrub(0.5, 1.0, 1.0), "forget", on)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-7)
    assert gradient_size(loss, on) < 1e-6
    retain, rows = loss_of(Scrub(0.5, 1.0, 1.0), "retain", on)
    assert gradient_size(retain, on) > 1e-2 and torch.allclose(retain, by_hand(on, rows).mean(), atol=1e-6)
    with torch.no_grad():
        on.model[0].weight.add_(0.3)
    again, _ = loss_of(Scrub(0.5, 1.0, 1.0), "forget", on)
    assert again < -1e-4 and gradient_size(again, on) > 1e-3, "it ends as soon as anything has moved"


@pytest.mark.parametrize("msteps", [0, 1, 2, None])
def test_check_13_msteps_ends_the_forget_passes(msteps):
    schedule = Passes(3, forget_until=msteps)
    done = run(Descend(Scrub(0.5, 1.0, 1.0), schedule, SGD), work())
    assert done.steps == {"forget": 3 * (3 if msteps is None else msteps), "retain": 12}


def test_scrub_by_hand():
    on = work()
    teacher = on.task.build(on.base)
    with torch.no_grad():
        on.model[0].weight.add_(0.3)
    for role in ("forget", "retain"):
        loss, batch = loss_of(Scrub(0.4, 0.9, 2.0), role, on)
        p, q = softmax(teacher(batch["x"]) / 2, 1), log_softmax(on.model(batch["x"]) / 2, 1)
        apart = kl_div(q, p, reduction="batchmean") * 4
        expected = -apart if role == "forget" else 0.4 * apart + 0.9 * by_hand(on, batch).mean()
        assert torch.allclose(loss, expected, atol=1e-6)


def test_divergence_reductions():
    teacher, student = torch.randn(5, 4), torch.randn(5, 4)
    rows, elements = (divergence(teacher, student, 1.0, each) for each in ("rows", "elements"))
    assert torch.allclose(rows, 4 * elements)
    reference = kl_div(log_softmax(student, 1), softmax(teacher, 1), reduction="batchmean")
    assert torch.allclose(rows, reference, atol=1e-6)


def test_bad_teacher_shows_each_row_its_own_teacher():
    on = work(seed=11)
    bad = on.task.build(seed=12)
    prepared = BadTeacher(retain_share=0.3).prepare(on)
    assert len(prepared.streams["retain"]["y"]) == 15 and len(prepared.streams["mixed"]["y"]) == 25
    forget = prepared.streams["forget"]
    expected = divergence(bad(forget["x"]), on.model(forget["x"]))
    assert torch.allclose(prepared.loss("forget", forget, turn()), expected, atol=1e-6)
    assert float(prepared.loss("retain", prepared.streams["retain"], turn("retain")).detach()) == pytest.approx(
        0, abs=1e-6
    )
    mixed = prepared.streams["mixed"]
    both = prepared.loss("mixed", mixed, turn("mixed"))
    assert torch.allclose(both, expected * 10 / 25, atol=1e-6)
    kept = {tuple(row.tolist()) for row in on.task.batch(on.deletion.after)["x"]}
    assert {tuple(row.tolist()) for row in prepared.streams["retain"]["x"]} <= kept


def test_teachers_beside_redrawn_inputs_say_what_cached_ones_say():
    """With augmentation frozen models run beside the student; an augmentation that changes nothing changes nothing."""
    for objective, schedule in (
        (Scrub(0.5, 1.0, 1.0), Passes(2)),
        (BadTeacher(1.0), Mixed(2)),
        (BadTeacher(0.5), Passes(2)),
    ):
        cached, beside = (run(Descend(objective, schedule, SGD), on) for on in (work(), work(augment=lambda x, g: x)))
        assert all(torch.allclose(cached.tensors[n], t, atol=1e-5) for n, t in beside.tensors.items())


def test_a_frozen_teacher_is_not_moved_by_the_student():
    on = work(restless)
    prepared = Scrub(0.5, 1.0, 1.0).prepare(on)
    before = prepared.streams["retain"]["original"].clone()
    run(Descend(Scrub(0.5, 1.0, 1.0), Passes(1), SGD), on)
    on.model.load_state_dict(on.base)
    assert torch.equal(Scrub(0.5, 1.0, 1.0).prepare(on).streams["retain"]["original"], before)
    assert same(dict(on.model.state_dict()), dict(on.base))


@pytest.mark.parametrize(
    "broken",
    [
        lambda: BadTeacher(0.0), lambda: BadTeacher(1.5), lambda: BadTeacher(reduction="row"),
        lambda: BadTeacher(temperature=0.0), lambda: Scrub(0.5, 1.0, 0.0), lambda: Scrub(0.5, 1.0, -1.0),
    ],
)  # fmt: skip
def test_objectives_that_make_no_sense_are_refused(broken):
    with pytest.raises(InputError, match="Expected"):
        broken()


def test_what_stays_may_be_unknown():
    on = work(plain)
    alone = replace(on, deletion=replace(on.deletion, before=None, after=None))
    done = run(Descend(Ascent(), Passes(1, retain=0), SGD), alone)
    assert done.steps == {"forget": 3}
