"""Losses of answers: the identities of section 4 of the LLM spec in double precision, and what never enters a loss (A3)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, softmax

from cases import LANGUAGE, UNSURE, method
from descent.languages import GONE, deletion, gradients, language, moved, plain, unlike, words, work
from expunge.core.errors import InputError
from expunge.core.method import InMemory
from expunge.descent.descend import Descend
from expunge.descent.lora import LoRA
from expunge.descent.members import Member
from expunge.descent.optimizer import Shared
from expunge.descent.parameters import All
from expunge.descent.schedule import Joint, Turn
from expunge.methods.by_language import Balanced
from expunge.methods.dpo import DPO
from expunge.methods.grad_diff import GradDiff
from expunge.methods.idk import IDK
from expunge.methods.npo import NPO
from expunge.methods.rmu import RMU
from expunge.methods.simnpo import SimNPO
from expunge.objectives import language as losses
from expunge.tasks import adapters
from expunge.tasks.language import Language
from expunge.tasks.prompts import NO_LABEL

TURN = Turn("forget", 0, 10, 0, False, {})
BETAS = (0.05, 0.1, 0.5, 2.0)
REFUSALS = (UNSURE,)
EVERY = (method(name) for name in LANGUAGE)
ALL = (*(replace(each, gamma=1.0, alpha=1.0) for each in EVERY if isinstance(each, Balanced)), GradDiff(retain="kl"))


def step_on(role: str, batch: Any) -> Turn:
    """A step on all rows of one stream."""
    return replace(TURN, role=role, index={role: torch.arange(len(batch))})


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def slope(value: Tensor, by: Tensor) -> Tensor:
    return torch.autograd.grad(value.sum(), by, retain_graph=True)[0]


def close(a: Any, b: Any, rel: float = 1e-10) -> bool:
    return torch.allclose(torch.as_tensor(a), torch.as_tensor(b, dtype=torch.float64), rtol=rel, atol=1e-12)


def sums_of(on: Any, batch: Any) -> Tensor:
    return on.task.token_losses(on.model, on.params, batch)[0].sum(1)


# --- pure functions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", BETAS)
def test_a3_npo_at_the_reference_is_two_over_beta_ln_2_with_the_gradient_of_ascent(beta):
    sums = numbers(0.3, 4.0, 25.0)
    value = losses.npo(sums, sums.detach(), beta)
    assert close(value, [2 / beta * math.log(2)] * 3) and close(slope(value, sums), slope(-sums, sums))
    assert beta != 0.1 or abs(float(value[0].detach()) - 13.863) < 1e-3


@pytest.mark.parametrize("beta", BETAS)
def test_a3_npo_is_ascent_times_a_weight_that_fades(beta):
    sums, base = numbers(0.5, 2.0, 9.0, 60.0), torch.tensor([2.0] * 4, dtype=torch.float64)
    ratio = torch.exp(-(sums.detach() - base)) ** beta  # (p / p_ref)^beta
    weight = 2 * ratio / (1 + ratio)
    assert close(slope(losses.npo(sums, base, beta), sums), -weight)
    assert weight[0] > 1 > weight[2] > weight[3] and (beta < 0.5 or weight[3] < 1e-9)


def test_a3_npo_with_beta_towards_zero_is_ascent():
    sums = numbers(0.5, 9.0)
    assert close(slope(losses.npo(sums, torch.ones(2, dtype=torch.float64), 1e-7), sums), [-1.0, -1.0], rel=1e-5)


@pytest.mark.parametrize(("beta", "delta"), [(4.5, 0.0), (2.5, 1.0), (0.7, 0.3)])
def test_a3_simnpo_weighs_by_the_mean_log_probability(beta, delta):
    sums, length = numbers(0.4, 3.0, 12.0), torch.tensor([1.0, 3.0, 7.0], dtype=torch.float64)
    g = torch.exp(-sums.detach()) ** (beta / length) * math.exp(beta * delta)
    value = losses.simnpo(sums / length, beta, delta)
    assert close(slope(value, sums), -2 * g / (1 + g) / length)
    assert close(value, 2 / beta * torch.log1p(g))


@pytest.mark.parametrize("beta", BETAS)
def test_a3_dpo_prefers_the_refusal_relative_to_the_reference(beta):
    good, good_base, bad, bad_base = numbers(3.0, 1.0), numbers(2.0, 1.0), numbers(0.5, 4.0), numbers(1.5, 4.0)
    margin = (-good + good_base) - (-bad + bad_base)  # log-probabilities are minus sums
    value = losses.dpo(good, good_base, bad, bad_base, beta)
    assert close(value, -2 / beta * torch.log(torch.sigmoid(beta * margin)))
    assert close(value[1], 2 / beta * math.log(2))  # at the reference
    assert close(slope(losses.dpo(good, good_base, bad, bad_base, beta), good)[1], 1.0)
    assert close(slope(losses.dpo(good, good_base, bad, bad_base, beta), bad)[1], -1.0)


MASK = torch.tensor([[True, True, False], [True, False, False]])


def test_a3_wga_with_beta_zero_is_ascent_on_the_token_mean():
    tokens = numbers(0.3, 2.0, 7.0, 4.0, 9.0, 9.0)
    grid = tokens.view(2, 3) * MASK
    assert close(losses.weighted_ascent(grid, MASK, 0.0), -losses.token_mean(grid, MASK))
    ours, ascent = losses.weighted_ascent(grid, MASK, 0.0), -losses.token_mean(grid, MASK)
    assert close(slope(ours, tokens), slope(ascent, tokens))


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_a3_wga_weighs_tokens_by_detached_probabilities(beta):
    tokens = numbers(0.3, 2.0, 7.0, 4.0, 9.0, 9.0)
    weight = torch.exp(-beta * tokens.detach()).view(2, 3) * MASK / 3
    value = losses.weighted_ascent(tokens.view(2, 3), MASK, beta)
    assert close(value, -(weight * tokens.detach().view(2, 3)).sum())
    assert close(slope(value, tokens), -weight.flatten())  # nothing flows through the weight


def logits(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Of the moving model, of the one before, and labels; two of six places have none."""
    draw = torch.Generator().manual_seed(seed)
    z, base = (torch.randn(2, 3, 5, generator=draw, dtype=torch.float64) for _ in range(2))
    return z.requires_grad_(), base, torch.tensor([[1, 4, 0], [2, NO_LABEL, NO_LABEL]])


@pytest.mark.parametrize("beta", [0.0, 3.0, 10.0])
def test_a3_undial_pulls_towards_the_reference_with_the_true_token_pushed_down(beta):
    z, base, labels = logits()
    mask = labels != NO_LABEL
    target = base[mask] - beta * torch.nn.functional.one_hot(labels[mask], 5)
    value = losses.self_distillation(z, base, labels, beta)
    assert close(value, -(softmax(target, -1) * log_softmax(z[mask], -1)).sum() / 4)
    gradient = slope(value, z)
    assert close(gradient[mask], (softmax(z[mask], -1) - softmax(target, -1)) / 4) and not gradient[~mask].any()


def test_a3_undial_with_beta_zero_has_no_gradient_at_the_reference():
    _, base, labels = logits()
    z = base.clone().requires_grad_()
    assert slope(losses.self_distillation(z, base, labels, 0.0), z).abs().max() < 1e-16
    assert slope(losses.self_distillation(z, base, labels, 3.0), z).abs().max() > 1e-2


def test_a3_the_divergence_is_zero_at_the_reference_and_averages_over_labels_alone():
    z, base, labels = logits()
    mask = labels != NO_LABEL
    same = base.clone().requires_grad_()
    assert losses.divergence(same, base, labels).abs() < 1e-15
    assert slope(losses.divergence(same, base, labels), same).abs().max() < 1e-15
    p, log_q = softmax(base[mask], -1), log_softmax(z[mask], -1)
    value = losses.divergence(z, base, labels)
    assert close(value, (p * (p.log() - log_q)).sum() / 4) and value > 0  # of the reference, not to it
    assert not slope(value, z)[~mask].any()


# --- objectives on a model ----------------------------------------------------------------------------------------------


def forget_loss(objective: Any, on: Any) -> tuple[Tensor, Any]:
    prepared = objective.prepare(on)
    batch = prepared.streams["forget"]
    return prepared.loss("forget", batch, step_on("forget", batch)), batch


@pytest.mark.parametrize("beta", BETAS)
def test_a3_npo_of_a_model_begins_as_ascent_on_summed_log_probabilities(beta):
    on = work()
    loss, batch = forget_loss(NPO(beta=beta), on)
    ours, ascent = gradients(loss, on), gradients(-sums_of(on, batch).mean(), on)
    assert close(loss, 2 / beta * math.log(2))
    assert (ours - ascent).norm() / ascent.norm() < 1e-5 and ascent.norm() > 0.1


def test_a3_sums_enter_npo_and_dpo_and_means_enter_simnpo():
    on = work()
    rows = on.task.batch(on.deletion.forget)
    length = (rows["labels"] != NO_LABEL).sum(1)
    assert sorted(length.tolist()) == [2, 2, 3, 4]  # the end token included
    base = sums_of(on, rows).detach()
    prepared = {o: replace(o, beta=0.3).prepare(on) for o in (NPO(), SimNPO(gamma=1.0))}
    moved(on)
    sums = sums_of(on, rows)
    by_hand = {NPO(): losses.npo(sums, base, 0.3), SimNPO(gamma=1.0): losses.simnpo(sums / length, 0.3, 0.0)}
    for objective, ready in prepared.items():
        assert close(ready.loss("forget", ready.streams["forget"], TURN), by_hand[objective].mean())


def test_a3_dpo_of_a_model_holds_refusals_against_answers():
    on = work()
    ready = DPO(refusals=REFUSALS, beta=0.4).prepare(on)
    answers = on.task.batch(on.deletion.forget)
    refusals = on.task.batch(on.deletion.forget.worded([{**r, "answer": UNSURE} for r in on.deletion.forget.records]))
    before = [sums_of(on, rows).detach() for rows in (refusals, answers)]
    moved(on)
    now = [sums_of(on, rows) for rows in (refusals, answers)]
    by_hand = losses.dpo(now[0], before[0], now[1], before[1], 0.4).mean()
    assert close(ready.loss("forget", ready.streams["forget"], TURN), by_hand)


def test_a3_rmu_pushes_answer_tokens_to_one_direction_and_keeps_retained_ones():
    on = work()
    ready = RMU(layer=0, c=3.0).prepare(on)
    rows = on.task.batch(on.deletion.forget)
    hidden = on.task.hidden(on.model, on.params, rows, 0)
    places = [(i, t) for i, row in enumerate(rows["labels"]) for t, label in enumerate(row) if label != NO_LABEL]
    u = torch.rand(hidden.shape[-1], generator=on.draw("direction", 0)).double()
    by_hand = torch.stack([(hidden[i, t] - 3.0 * u / u.norm()).square().mean() for i, t in places]).mean()
    assert close(ready.loss("forget", rows, TURN), by_hand, rel=1e-6)
    assert ready.loss("forget", rows, TURN) == ready.loss("forget", rows, replace(TURN, step=7))
    kept = ready.streams["retain"]
    assert ready.loss("retain", kept, TURN).item() == 0
    moved(on)
    assert ready.loss("retain", kept, TURN).item() > 0


def test_refusals_are_drawn_once_by_seed_and_the_answer_is_not_in_them():
    several = (UNSURE, "please", "stone")
    on = work()
    drawn = [
        IDK(refusals=several).prepare(replace(on, seed=seed)).streams["forget"]["input_ids"] for seed in (0, 0, 1, 2, 3)
    ]
    assert torch.equal(drawn[0], drawn[1]) and not all(torch.equal(drawn[0], other) for other in drawn[2:])
    said = {word for row in drawn[0] for word in words(on, row)}
    assert not said & {word for record in on.deletion.forget.records for word in record["answer"].split()}
    for bad, match in ((), "at least one refusal"), ((UNSURE,), "plain texts ask none"):
        gone = deletion(plain()) if bad else deletion()
        with pytest.raises(InputError, match=match):
            IDK(refusals=bad).prepare(work(gone=gone))


@pytest.mark.parametrize("bad", [{"retain": "l2"}, {"gamma": -1.0}, {"alpha": -0.1}])
def test_weights_and_retain_losses_that_do_not_exist_are_refused(bad):
    with pytest.raises(InputError, match=r"Expected (a retain loss nll or kl|a finite number at least 0)"):
        NPO(**bad)
    with pytest.raises(InputError, match="activations or nll or kl"):
        RMU(retain="l2")


# --- prompts and padding ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said(Language):
    """A task whose model says what it is told to: logits for every place of a batch, one after the other."""

    logits: Tensor = field(kw_only=True)

    @classmethod
    def of(cls, task: Language, logits: Tensor) -> Language:
        return cls(**{each.name: getattr(task, each.name) for each in fields(task)}, logits=logits)

    def answered(self, model: Any, params: Any, batch: Any) -> tuple[Tensor, Tensor]:
        rows, length = batch["labels"].shape
        return self.logits[:rows, : length - 1], batch["labels"][:, 1:]


@pytest.mark.parametrize(
    "objective", [o for o in ALL if o.retain != "activations"], ids=lambda o: f"{o.name}-{o.retain}"
)
@pytest.mark.parametrize("role", ["forget", "retain"])
def test_a3_what_is_said_about_prompts_and_padding_never_enters(objective, role):
    on = work()
    size = len(on.task.prompts.tokenizer)
    said = torch.randn(20, 20, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ready = objective.prepare(replace(on, task=Said.of(on.task, said)))
    batch = ready.streams[role]
    gradient = slope(ready.loss(role, batch, step_on(role, batch)), said)[: len(batch["labels"])]
    used = torch.zeros(gradient.shape[:2], dtype=torch.bool)
    for name in [name for name in batch.columns if name.endswith("labels")]:
        used[:, : batch[name].shape[1] - 1] |= batch[name][:, 1:] != NO_LABEL
    assert not gradient[~used].any()
    if objective.retain in ("nll", "ap") or role == "forget":  # at the start there is no divergence yet
        assert gradient[used].any()


@pytest.mark.parametrize("objective", ALL, ids=lambda o: f"{o.name}-{o.retain}")
@pytest.mark.parametrize("role", ["forget", "retain"])
def test_a3_more_padding_changes_no_loss(objective, role):
    on = work()
    ready = objective.prepare(on)
    moved(on)
    batch = ready.streams[role]
    wide = batch
    for name in batch.columns:
        if name.endswith(("input_ids", "labels")):
            filler = NO_LABEL if name.endswith("labels") else 0
            wide = wide.with_columns(**{name: torch.nn.functional.pad(batch[name], (0, 5), value=filler)})
    turn = step_on(role, batch)
    assert close(ready.loss(role, wide, turn), ready.loss(role, batch, turn))


def test_a3_token_mean_counts_tokens_and_losses_count_rows():
    on = moved(work())
    rows = on.task.batch(on.deletion.forget)
    each = [
        cross_entropy(on.model(input_ids=rows["input_ids"][i : i + 1, :n]).logits[0, :-1], rows["labels"][i, 1:n],
                      reduction="none", ignore_index=NO_LABEL)
        for i, n in enumerate(rows["lengths"].tolist())
    ]  # fmt: skip
    each = [values[values != 0] for values in each]
    assert close(losses.token_mean(*on.task.token_losses(on.model, on.params, rows)), torch.cat(each).mean())
    assert close(on.task.losses(on.model, on.params, rows), torch.stack([values.mean() for values in each]))


# --- the model before the run -------------------------------------------------------------------------------------------


class Counted:
    """How often a model is run, and in which mode."""

    def __init__(self, on: Any):
        self.passes: list[bool] = []
        on.model.register_forward_pre_hook(lambda module, _: self.passes.append(module.training))


@pytest.mark.parametrize("lora", [None, {"r": 2, "lora_dropout": 0.4}])
@pytest.mark.parametrize(
    ("objective", "before", "each"),
    [(NPO(), 1, 2), (DPO(refusals=REFUSALS), 2, 3), (NPO(retain="kl"), 1, 3)],
)
def test_a3_base_log_probabilities_take_one_pass_and_no_second_module(objective, before, each, lora, monkeypatch):
    on = work(share=lora is not None)
    counted = Counted(on)
    monkeypatch.setattr(Language, "build", lambda *_, **__: pytest.fail("a second module was built"))
    method = Descend(objective, Joint(None, steps=3), Shared(Member("adamw", 1e-2)), LoRA(lora) if lora else All())
    method.run(on, InMemory())
    assert len(counted.passes) == before + 3 * each
    assert not any(counted.passes[:before]) and sum(counted.passes) == 3 * (3 if before == 2 else 2)


@pytest.mark.parametrize("lora", [None, {"r": 2, "lora_dropout": 0.4}, {"r": 2, "init_lora_weights": False}])
def test_a3_the_model_before_the_run_says_the_same_after_steps(lora):
    on = work(share=lora is not None)
    rows = on.task.batch(on.deletion.after)
    with torch.no_grad():
        at_first, sums = on.task.answered(on.model, on.params, rows)[0], sums_of(on, rows)
    if lora:
        adapters.inject(on.model, lora)
        on = replace(on)  # parameters are looked up anew
    base = losses.Base(on)
    assert close(base.sums(rows), sums)
    with torch.no_grad():
        for tensor in (t for t in on.params.values() if t.requires_grad):
            tensor.add_(0.1)
    on.model.train()
    assert torch.equal(base.logits(rows), at_first) if lora else close(base.logits(rows), at_first)
    assert on.model.training and not base.logits(rows).requires_grad
    assert not close(on.task.answered(on.model, on.params, rows)[0], at_first)


def test_answers_are_as_the_spec_words_them():
    assert [len(record["answer"].split()) for record in unlike().records[:4]] == [1, 2, 3, 1] and len(GONE) == 4
    assert language().prompts.template == "{question} {answer}"
