"""Killed runs, bad numbers and guards (vision spec 6.1, checks 7 and 9)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from cases import blobs, pictures, small_pictures_net
from descent.worlds import Given, plain, restless, run, same, work
from expunge.core import journal as journals
from expunge.core.errors import FailedError, InputError
from expunge.core.method import InMemory
from expunge.data.augment import crop_flip
from expunge.descent.descend import Descend
from expunge.descent.guard import Guard
from expunge.descent.members import SMALLEST_8BIT, Member
from expunge.descent.optimizer import Dual, Shared
from expunge.descent.parameters import Encoder, FisherRatio, Saliency
from expunge.descent.schedule import Alone, Interleave, Joint, Mixed, Passes
from expunge.descent.work import Work
from expunge.objectives.distillation import BadTeacher
from expunge.objectives.distillation import Scrub as Distilled
from expunge.objectives.manifold import Manifold
from expunge.objectives.margins import SelfModeConnectivity
from expunge.objectives.supervised import AdaptiveAscent, Ascent, RandomLabels
from expunge.tasks.classification import Classification

SGD = Member("sgd", 0.02, momentum=0.9, weight_decay=5e-4)
ADAMW = Member("adamw", 1e-2, weight_decay=0.05)
LION = Member("lion", 1e-3, weight_decay=1e-2)
EIGHT = Member("adamw", 1e-2, weight_decay=0.05, bits=8)
CURVE = SelfModeConnectivity(steps=3, batch_size=8)


def error_on(on: Work, rows) -> float:
    batch = on.task.batch(rows)
    on.model.eval()
    with torch.no_grad():
        return float((on.task.outputs(on.model, on.params, batch).logits.argmax(-1) != batch["y"]).double().mean())


def held_out(on: Work) -> float:
    return -abs(error_on(on, on.deletion.forget) - error_on(on, on.deletion.probes["validation"]))


RESTLESS = functools.partial(work, restless, probes={"validation": blobs(30, seed=9)})
WIDE = functools.partial(work, functools.partial(restless, SMALLEST_8BIT // 6 + 1))
HALF = functools.partial(work, task=Classification(restless, dtype=torch.bfloat16))
IMAGES = functools.partial(
    work, data=pictures(), task=small_pictures_net(), augment=functools.partial(crop_flip, padding=1)
)
RUNS: dict[str, tuple[Descend, Callable[[], Work]]] = {
    "labels, shared sgd, mask": (Descend(RandomLabels(), Passes(2), Shared(SGD, 0.03), Saliency(0.5, 4)), RESTLESS),
    "labels, dual": (Descend(RandomLabels(), Passes(2), Dual(ADAMW, SGD)), RESTLESS),
    "labels, mixed, lion": (Descend(RandomLabels(), Mixed(2), Shared(LION)), RESTLESS),
    "labels, dual, lion and adamw": (Descend(RandomLabels(), Passes(2), Dual(LION, ADAMW)), RESTLESS),
    "sfron, dual": (
        Descend(AdaptiveAscent(1.0), Interleave(1, 2, retain_steps=9), Dual(ADAMW, SGD), FisherRatio(1.0, 4),
                clip={"forget": 7.0}, anneal="cosine"), RESTLESS,
    ),
    "dual, bfloat16": (Descend(RandomLabels(), Passes(2), Dual(ADAMW, SGD)), HALF),
    "eight bits and a mask, bfloat16": (Descend(RandomLabels(), Passes(2), Shared(EIGHT), Saliency(0.5, 4)), HALF),
    "eight bits, shared": (Descend(RandomLabels(), Passes(1), Shared(EIGHT)), WIDE),
    "eight bits, dual": (Descend(RandomLabels(), Passes(1), Dual(EIGHT, EIGHT)), WIDE),
    "scrub, guarded": (
        Descend(Distilled(0.5, 1.0, 2.0), Passes(3), Shared(replace(ADAMW, lr=0.05)), guard=Guard(held_out)), RESTLESS,
    ),
    "guard that looks often and stops": (
        Descend(Ascent(), Passes(6, retain=0), Shared(replace(SGD, lr=0.5)),
                guard=Guard(lambda on: -error_on(on, on.deletion.after), every=2, max_drop=0.2)), RESTLESS,
    ),
    "bad teacher, augmented": (Descend(BadTeacher(0.5), Mixed(4), Shared(ADAMW)), IMAGES),
    "joint": (Descend(Ascent(0.05, 0.95), Joint(2), Shared(SGD)), RESTLESS),
    "manifold": (
        Descend(Manifold(k=3, curve=CURVE, refresh_every=2, repair=True), Passes(3), Dual(ADAMW, SGD), Encoder()), RESTLESS,
    ),
    "manifold from a fresh bend": (
        Descend(Manifold(k=3, curve=replace(CURVE, start="fresh", loss="ce")), Passes(3, retain=0),
                Shared(Member("adam", 5e-3)), Encoder()), RESTLESS,
    ),
}  # fmt: skip


@pytest.fixture
def every_step(monkeypatch):
    """Each step is a stage of the journal."""
    monkeypatch.setattr(journals, "STEPS_PER_STAGE", 1)
    monkeypatch.setattr(journals, "STAGES_AT_MOST", 10**6)


def until(journal: InMemory, stages: int) -> InMemory:
    """What is left of a journal when the run was killed after so many stages."""
    left = InMemory()
    left.stages = dict(list(journal.stages.items())[:stages])
    return left


@pytest.mark.parametrize(  # half of them: each kills its run after every step
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (i % 2)) for i, name in enumerate(RUNS)]
)
def test_check_07_a_run_killed_after_any_step_ends_with_the_same_bits(name, every_step):
    method, start = RUNS[name]
    journal = InMemory()
    whole = run(method, start(), journal)
    stages = list(journal.stages)
    assert len(stages) >= 7 and not same(whole.tensors, start().base)
    for done in range(len(stages)):
        torch.manual_seed(done)  # another process: another global state
        torch.rand(done)
        resumed = run(method, start(), until(journal, done))
        assert same(whole.tensors, resumed.tensors), f"killed after {done} steps"
        assert (resumed.steps, resumed.scores, resumed.stopped) == (whole.steps, whole.scores, whole.stopped)
        assert resumed.gradient_evaluations == whole.gradient_evaluations
        assert resumed.state_bytes == whole.state_bytes


@pytest.mark.parametrize("name", RUNS)
def test_check_07_where_a_run_is_cut_changes_no_bit(name, monkeypatch):
    method, start = RUNS[name]
    whole = run(method, start())
    monkeypatch.setattr(journals, "STEPS_PER_STAGE", 3)
    assert same(whole.tensors, run(method, start()).tensors)


class Killed(Exception):
    pass


@dataclass
class Dying(InMemory):
    """Raises before (or right after) its ``at``-th new stage is written."""

    at: int
    written: bool

    def __post_init__(self):
        super().__init__()

    def once(self, name: str, compute: Callable[[], bytes]) -> bytes:
        if name not in self.stages and len(self.stages) == self.at:
            content = compute()
            if self.written:
                self.stages[name] = content
            raise Killed
        return super().once(name, compute)


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("name", ["labels, dual", "scrub, guarded", "manifold"])
def test_check_07_killed_in_the_middle_of_a_stage_and_between_the_phases(name, written, monkeypatch):
    monkeypatch.setattr(journals, "STEPS_PER_STAGE", 1)
    monkeypatch.setattr(journals, "STAGES_AT_MOST", 7)
    method, start = RUNS[name]
    whole = run(method, start())
    roles = [turn.role for turn in method.schedule.turns({"forget": 10, "retain": 50}, start().batch_size, 0)]
    cuts = [len(roles) * (i + 1) // 7 for i in range(7)]
    if name == "labels, dual":
        assert any(
            0 < cut < len(roles) and roles[cut - 1] == "forget" and roles[cut] == "retain" for cut in range(len(roles))
        )
    for at in range(len(cuts)):
        journal = Dying(at, written)
        with pytest.raises(Killed):
            run(method, start(), journal)
        journal.at = 10**6
        torch.manual_seed(at)
        assert same(whole.tensors, run(method, start(), journal).tensors)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("labels, dual", "optimizer:forget"),
        ("labels, dual", "optimizer:retain"),
        ("labels, dual", "model:1.running_mean"),
        ("manifold", "objective:margins"),
        ("guard that looks often and stops", "best:"),
        ("eight bits, dual", "optimizer:forget/exp_avg_scale"),
    ],
)
def test_check_07_fails_where_a_part_of_the_state_is_lost(name, part, every_step):
    """The negative control: each part that is stored is needed."""
    method, start = RUNS[name]
    journal = InMemory()
    whole = run(method, start(), journal)
    for done in range(1, len(journal.stages)):
        cut = until(journal, done)
        last = list(cut.stages)[-1]
        tensors = load_tensors(cut.stages[last])
        hit = [key for key in tensors if key.startswith(part)]
        for key in hit:
            tensors[key] = tensors[key] * 0 + (1 if tensors[key].dtype == torch.uint8 else 0)
        cut.stages[last] = save_tensors(tensors)
        if hit and not same(whole.tensors, run(method, start(), cut).tensors):
            return
    pytest.fail(f"a run ends with the same bits without {part}")


def test_check_07_equal_seeds_give_equal_bits_and_others_do_not():
    method, _ = RUNS["labels, dual"]
    ends = []
    for seed, scramble in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(scramble)
        before = torch.get_rng_state()
        ends.append(run(method, work(restless, seed=seed)).tensors)
        assert torch.equal(torch.get_rng_state(), before), "the user's random state is not ours"
    assert same(ends[0], ends[1]) and not same(ends[0], ends[2])


# --- check 9: numbers that are none -------------------------------------------------------------------------------------


def poisoned(at: int, kind: str) -> Given:
    """Cross-entropy up and down; at step ``at`` the gradient or the loss is not finite."""

    def loss(on: Work, role: str, batch: Any, turn: Any):
        value = on.task.losses(on.model, on.params, batch).mean()
        value = -value if role == "forget" else value
        if turn.step == at:
            weight = next(iter(on.params.values())).sum()
            value = value + ((weight - weight.detach()).sqrt() if kind == "gradient" else value * math.inf)
        return value

    return Given(loss)


@pytest.mark.parametrize("kind", ["gradient", "loss"])
@pytest.mark.parametrize("at", [0, 1, 3, 6, 8, 9])
@pytest.mark.parametrize("choice", [Shared(SGD), Dual(ADAMW, SGD)], ids=["shared", "dual"])
def test_check_09_the_run_ends_at_the_last_good_state_and_says_where(at, kind, choice, every_step):
    schedule = Passes(2)
    good, bad = InMemory(), InMemory()
    run(Descend(poisoned(-1, kind), schedule, choice), work(restless), good)
    on = work(restless)
    turns = list(schedule.turns({"forget": 10, "retain": 50}, on.batch_size, 0))
    with pytest.raises(FailedError) as caught:
        run(Descend(poisoned(at, kind), schedule, choice), on, bad)
    message, turn = str(caught.value), turns[at]
    assert f"step {at + 1} of {len(turns)} (epoch {turn.epoch + 1})" in message
    assert f"the {turn.role} {kind} is not finite" in message and f"{turn.role} steps" in message
    assert list(bad.stages) == list(good.stages)[:at], "the failed step is not in the journal"
    if at:
        stored = load_tensors(list(good.stages.values())[at - 1])
        expected = {key.removeprefix("model:"): t for key, t in stored.items() if key.startswith("model:")}
    else:
        expected = dict(on.base)
    assert same(dict(on.model.state_dict()), expected), "weights and running statistics of the last good step"
    assert all(p.grad is None and p.requires_grad for p in on.model.parameters())


def test_check_09_rows_that_are_no_numbers_in_the_middle_of_a_run():
    data = blobs()
    x = data.x.clone()
    x[37] = float("nan")  # a retained row, which Rows.of would have refused
    on = work(restless, data=replace(data, x=x))
    with pytest.raises(FailedError, match=r"Stopped at step \d+ of 14 .*the retain loss is not finite"):
        run(Descend(Ascent(), Passes(2), Dual(ADAMW, SGD)), on)
    assert all(torch.isfinite(tensor).all() for tensor in on.model.state_dict().values())


def test_check_09_a_last_step_that_overflows_is_not_released():
    """Its gradient was finite, and no later loss would tell."""
    ahead = Descend(Ascent(), Passes(1, retain=0), Shared(Member("sgd", 1e39)))
    journal = InMemory()
    with pytest.raises(FailedError, match="not finite"):
        run(ahead, work(forget=3), journal)
    assert not journal.stages


def test_one_row_and_batchnorm_is_refused_in_words():
    with pytest.raises(InputError, match="single row, which has no variance"):
        run(Descend(Ascent(), Passes(1, retain=0), Shared(SGD)), work(restless, forget=1))
    run(Descend(Ascent(), Passes(1, retain=0), Shared(SGD), training_mode=False), work(restless, forget=1))
    run(Descend(Ascent(), Passes(1, retain=0), Shared(SGD)), work(plain, forget=1))


# --- guards -----------------------------------------------------------------------------------------------------------------


def scripted(scores: list[float]) -> Callable[[Work], float]:
    left = list(scores)

    def score(on: Work) -> float:
        on.model.eval()  # as a score does that looks at the model as it will be used
        return left.pop(0)

    return score


def modes(on: Work, seen: list[bool]) -> Given:
    def loss(at: Work, role: str, batch: Any, turn: Any):
        seen.append(at.model.training)
        return at.task.losses(at.model, at.params, batch).mean()

    return Given(loss)


@pytest.mark.parametrize("training", [True, False])
def test_a_guard_leaves_the_mode_of_the_run_alone_also_before_the_first_step(training):
    seen: list[bool] = []
    on = work(restless)
    method = Descend(
        modes(on, seen), Passes(2), Shared(SGD), guard=Guard(scripted([0.0, 1.0, 2.0])), training_mode=training
    )
    run(method, on)
    assert len(seen) == 14 and set(seen) == {training}


def test_a_guard_keeps_the_best_state_and_never_the_start(every_step):
    journal = InMemory()
    method = Descend(Ascent(), Passes(4, retain=0), Shared(SGD), guard=Guard(scripted([99.0, 1.0, 3.0, 2.0, 3.0])))
    done = run(method, work(), journal)
    stored = load_tensors(journal.stages["descended-6"])  # the second of four epochs of three steps
    assert same(dict(done.tensors), {k.removeprefix("model:"): t for k, t in stored.items() if k.startswith("model:")})
    assert done.scores == ((0, 99.0), (3, 1.0), (6, 3.0), (9, 2.0), (12, 3.0)) and done.stopped is None


def test_a_guard_stops_what_has_gone_too_far():
    method = Descend(
        Ascent(), Passes(4, retain=0), Shared(SGD), guard=Guard(scripted([0.9, 0.8, 0.3, 0.9]), every=2, max_drop=0.5)
    )
    done = run(method, work())
    assert done.steps == {"forget": 4} and done.stopped and "0.9 to 0.3 at step 4" in done.stopped
    assert done.scores[-1] == (4, 0.3)


def test_a_guard_ends_with_the_epoch_of_the_largest_score():
    method, start = RUNS["scrub, guarded"]
    done = run(method, start())
    best = max(score for at, score in done.scores if at)
    on = start()
    on.model.load_state_dict(done.tensors)
    assert held_out(on) == best
    assert len({score for at, score in done.scores}) > 1, "nothing to choose between"


def test_settings_of_a_run_that_make_no_sense_are_refused():
    for broken in (
        lambda: Descend(Ascent(), Passes(1), Shared(SGD), anneal="steps"),
        lambda: Descend(Ascent(), Passes(1), Shared(SGD), warmup=1.1),
        lambda: Joint(),
        lambda: Joint(1, steps=3),
        lambda: Alone(steps=0),
        lambda: Descend(Ascent(), Passes(1), Shared(SGD), clip={"forget": 0.0}),
        lambda: Descend(Ascent(), Passes(1), Shared(SGD), clip={"forget": -7.0}),
        lambda: Descend(Ascent(), Joint(1), Dual(ADAMW, SGD)),
        lambda: Descend(RandomLabels(), Mixed(1), Dual(ADAMW, SGD)),
        lambda: Descend(Ascent(), Passes(1, retain=0), Dual(ADAMW, SGD)),
        lambda: Guard(held_out, every=0),
    ):
        with pytest.raises(InputError):
            broken()


def test_progress_is_told_and_ends_with_all():
    seen: list[tuple[str, int, int]] = []
    Descend(Ascent(), Passes(2), Shared(SGD)).run(work(), InMemory(), lambda *what: seen.append(what))
    assert seen[-1] == ("unlearn", 14, 14) and {stage for stage, _, _ in seen} == {"unlearn"}
