"""What may move, and that the rest does not (vision spec 6.1, checks 6 and 10)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cases import PointTask
from descent.worlds import Given, Masked, plain, restless, run, same, work
from expunge.core.data import Deletion, Ids
from expunge.core.errors import InputError
from expunge.data.rows import Rows
from expunge.descent.descend import Descend
from expunge.descent.members import Member
from expunge.descent.optimizer import Dual, Shared
from expunge.descent.parameters import (
    All,
    Encoder,
    FisherRatio,
    Modules,
    Saliency,
    gradient_sums,
    largest_share,
    mean_squares,
)
from expunge.descent.schedule import Interleave, Joint, Mixed, Passes
from expunge.descent.work import Work
from expunge.objectives.supervised import Ascent, RandomLabels
from expunge.tasks.classification import Classification

SGD = Member("sgd", 0.05, momentum=0.9, weight_decay=0.1)
CHOICES = {
    "shared": Shared(SGD), "adamw": Shared(Member("adamw", 0.05, weight_decay=0.1)),
    "dual": Dual(Member("adamw", 0.05, weight_decay=0.1), SGD), "lion": Shared(Member("lion", 0.01, weight_decay=0.1)),
}  # fmt: skip


def moved(descended, on: Work, mask: bool) -> list[int]:
    """How many weights under the mask (or outside it) have changed, by tensor."""
    masks = Masked().select(on).masks["forget"]
    return [int(((descended.tensors[n] != on.base[n]) & (m == mask)).sum()) for n, m in masks.items()]


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("schedule", [Interleave(1, 1, retain_steps=25), Passes(8)])
def test_check_06_a_strict_mask_holds_weights_bit_for_bit(choice, schedule):
    on = work()
    done = run(Descend(Ascent(0.1), schedule, CHOICES[choice], Masked()), on)
    assert sum(done.steps.values()) >= 50
    assert sum(moved(done, on, mask=False)) == 0 and sum(moved(done, on, mask=True)) > 20


@pytest.mark.parametrize("choice", CHOICES)
def test_check_06_a_mask_on_gradients_alone_does_not(choice):
    """The published behaviour, by name: decay moves what the mask should hold."""
    on = work()
    done = run(Descend(Ascent(0.1), Interleave(1, 1, retain_steps=25), CHOICES[choice], Masked(strict=False)), on)
    held = sum(int((~mask).sum()) for mask in Masked().select(on).masks["forget"].values())
    assert sum(moved(done, on, mask=False)) == held > 10


def test_check_06_a_strict_mask_of_some_steps_takes_back_those_steps_alone():
    """Plain SGD moves nothing whose gradient is masked: holding it is no change, and what retain steps did stays."""
    held, free = work(), work()
    results = [
        run(
            Descend(
                Ascent(0.1), Interleave(1, 1, retain_steps=6), Shared(Member("sgd", 0.05)), Masked(strict, ("forget",))
            ),
            on,
        )
        for strict, on in ((True, held), (False, free))
    ]
    assert same(*(dict(done.tensors) for done in results))
    assert sum(moved(results[0], held, mask=False)) > 10


@pytest.mark.parametrize("schedule", [Joint(2), Mixed(2), Passes(2)])
def test_check_06_salun_s_mask_holds_whatever_the_schedule(schedule):
    on = work()
    done = run(Descend(RandomLabels(), schedule, Shared(SGD), Saliency(0.3)), on)
    masks = Saliency(0.3).select(on).masks["forget"]  # of the moved model: only its size is looked at
    changed = sum(int((done.tensors[name] != on.base[name]).sum()) for name in masks)
    assert 0 < changed <= int(0.3 * sum(mask.numel() for mask in masks.values()))


def test_modules_and_the_encoder_leave_the_others_frozen_and_put_them_back():
    for choice, held in ((Modules(("0.*",)), "2."), (Modules(("!0.*",)), "0."), (Encoder(), "2.")):
        on = work()
        done = run(Descend(Ascent(), Passes(1), Shared(SGD), choice), on)
        assert all(torch.equal(t, on.base[n]) == n.startswith(held) for n, t in done.tensors.items())
        assert all(tensor.requires_grad for tensor in on.model.parameters())


def test_weights_that_the_user_froze_stay_frozen():
    on = work()
    on.model[0].weight.requires_grad_(False)
    done = run(Descend(Ascent(), Passes(1), Shared(SGD)), on)
    assert torch.equal(done.tensors["0.weight"], on.base["0.weight"]) and not on.model[0].weight.requires_grad
    assert not torch.equal(done.tensors["0.bias"], on.base["0.bias"])


def test_a_weight_that_no_loss_reaches_is_no_error():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(2, 3), nn.Linear(2, 3)

        def forward(self, x):
            return self.used(x)

    on = work(Spare)
    plain_sgd = Shared(Member("sgd", 0.1))
    done = run(Descend(RandomLabels(), Passes(1), plain_sgd, Saliency(0.4)), on)
    assert torch.equal(done.tensors["spare.weight"], on.base["spare.weight"])
    assert not torch.equal(done.tensors["used.weight"], on.base["used.weight"])


# --- saliency and Fisher ------------------------------------------------------------------------------------------------


def linear_work(rows: list[list[float]]) -> Work:
    """Loss <x, theta>: the gradient of a batch of one is the row itself."""
    data = Rows.of(torch.tensor([*rows, [0.0] * len(rows[0])]), torch.zeros(len(rows) + 1, dtype=torch.long))
    ids = Ids.rows(range(len(rows)))
    task = PointTask(len(rows[0]), lambda theta, batch: batch["x"] @ theta)
    model = task.build()
    base = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    return Work(task, model, base, Deletion(data, data.without(ids), data.only(ids), ids), {})


def test_check_10_signed_sums_first_the_absolute_value_last():
    """Gradients +1, -1, 0 cancel: saliency 0, although their absolute values sum to more than the other weight's 1.5."""
    on = linear_work([[1.0, 0.5], [-1.0, 0.5], [0.0, 0.5]])
    total = gradient_sums(on, ("theta",), on.task.batch(on.deletion.forget), 1, power=1)
    assert total["theta"].tolist() == [0.0, 1.5]
    mask = Saliency(0.5, batch_size=1).select(on).masks["forget"]["theta"]
    assert mask.tolist() == [False, True]
    wrong = largest_share({"theta": torch.tensor([1.0 + 1.0 + 0.0, 0.5 * 3])}, 0.5)["theta"]
    assert wrong.tolist() == [True, False], "summing absolute values would have chosen the other weight"


def test_check_10_a_large_negative_sum_is_salient():
    on = linear_work([[-1.0, 0.5], [-1.0, 0.5]])
    assert Saliency(0.5, batch_size=1).select(on).masks["forget"]["theta"].tolist() == [True, False]


@settings(max_examples=40, deadline=None)
@given(density=st.floats(0.01, 1.0), seed=st.integers(0, 50), ties=st.booleans())
def test_check_10_density_is_exact_and_global(density, seed, ties):
    generator = torch.Generator().manual_seed(seed)
    scores = {"a": torch.rand((3, 5), generator=generator), "b": torch.rand(7, generator=generator)}
    if ties:
        scores = {name: (score * 3).floor() for name, score in scores.items()}
    chosen = largest_share(scores, density)
    assert sum(int(mask.sum()) for mask in chosen.values()) == int(density * 22)
    inside = torch.cat([scores[name][mask] for name, mask in chosen.items()])
    outside = torch.cat([scores[name][~mask] for name, mask in chosen.items()])
    assert not len(inside) or not len(outside) or inside.min() >= outside.max()
    assert {name: mask.shape for name, mask in chosen.items()} == {"a": (3, 5), "b": (7,)}


def test_check_10_ties_are_settled_by_position():
    chosen = largest_share({"a": torch.zeros(4000), "b": torch.ones(1)}, 0.25)
    assert chosen["b"].all() and chosen["a"][:999].all() and not chosen["a"][999:].any()


@pytest.mark.parametrize("choice", [Saliency(0.5), FisherRatio()])
@pytest.mark.parametrize("training", [True, False])
def test_check_10_masks_are_measured_in_evaluation_mode_and_move_nothing(choice, training):
    on = work(restless)
    on.model.train(training)
    before = {name: tensor.clone() for name, tensor in on.model.state_dict().items()}
    torch.manual_seed(0)
    first = choice.select(on)
    torch.manual_seed(1)
    second = choice.select(on)
    assert same(first.masks["forget"], second.masks["forget"]), "dropout was active"
    assert on.model.training is training and same(dict(on.model.state_dict()), before)


def test_fisher_is_the_mean_over_batches_of_squared_batch_gradients():
    on = linear_work([[1.0, 0.0], [3.0, 2.0], [-4.0, 2.0]])
    batch = on.task.batch(on.deletion.forget)
    assert mean_squares(on, ("theta",), batch, 1)["theta"].tolist() == pytest.approx([26 / 3, 8 / 3])
    assert mean_squares(on, ("theta",), batch, 2)["theta"].tolist() == pytest.approx([(4 + 16) / 2, (1 + 4) / 2])
    outputs = mean_squares(on, ("theta",), batch, 2, losses="outputs")["theta"]
    assert outputs.tolist() == [0.0, 0.0], "theta is zero, and so is the squared output"


def test_fisher_ratio_masks_forget_steps_only():
    on = work()
    chosen = FisherRatio(gamma=1.0, batch_size=4).select(on)
    assert set(chosen.masks) == {"forget"} and not chosen.strict and chosen.gradient_evaluations == 60
    none = FisherRatio(gamma=1e9).select(on).masks["forget"]
    assert not any(mask.any() for mask in none.values())
    for method, expected in ((FisherRatio(1e9), False), (FisherRatio(0.0), True)):
        fresh = work()
        still = Descend(Given(_no_retain), Interleave(1, 1, retain_steps=3), Shared(Member("sgd", 0.1)), method)
        done = run(still, fresh)
        assert any(not torch.equal(t, fresh.base[n]) for n, t in done.tensors.items()) is expected


def _no_retain(on: Work, role: str, batch, turn):
    loss = on.task.losses(on.model, on.params, batch).mean()
    return -loss if role == "forget" else 0 * loss


# --- what is refused ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OnlyHead:
    """A net that is nothing but its head."""

    def __call__(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(2, 3))


def test_choices_that_leave_nothing_are_refused():
    frozen = work()
    frozen.model.requires_grad_(False)
    for choice in (All(), Saliency(), FisherRatio(), Encoder(), Modules(("0.*",))):
        with pytest.raises(InputError, match="frozen"):
            choice.select(frozen)
    with pytest.raises(InputError, match="nothing but its head"):
        Encoder().select(work(OnlyHead()))
    with pytest.raises(InputError, match=r"No trainable tensor fits nothing\.\*"):
        Modules(("nothing.*",)).select(work(plain))
    for density in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="density"):
            Saliency(density)
    with pytest.raises(InputError, match="no linear layer"):
        Encoder().select(work(task=Classification(lambda: nn.Sequential(nn.Conv1d(1, 3, 2), nn.Flatten()))))
