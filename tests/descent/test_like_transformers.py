"""A run of a language method beside a plain loop with the optimizer groups and the schedule of ``transformers``' Trainer."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from cases import CASES, method
from descent.languages import work
from expunge import planning
from expunge.core.errors import InputError
from expunge.core.method import InMemory
from expunge.methods import registry

DECAY, RATE = 0.3, 5e-3


def trainers_groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Weights with and without decay, by the names that the Trainer's own code gives."""
    from transformers import Trainer

    names = Trainer.get_decay_parameter_names(None, model)  # type: ignore[arg-type]
    named = dict(model.named_parameters())
    assert 0 < len(names) < len(named)
    return [
        {"params": [tensor for name, tensor in named.items() if name in names], "weight_decay": DECAY},
        {"params": [tensor for name, tensor in named.items() if name not in names], "weight_decay": 0.0},
    ]


def loop(made: Any, on: Any) -> Any:
    """The same batches and losses, by torch's AdamW and the schedules of ``transformers``."""
    from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

    ready = made.objective.prepare(on)
    sizes = {name: len(stream) for name, stream in ready.streams.items()}
    turns = list(made.schedule.turns(sizes, on.batch_size, on.seed))
    optimizer = torch.optim.AdamW(trainers_groups(on.model), lr=RATE)
    scheduler = {"linear": get_linear_schedule_with_warmup, "cosine": get_cosine_schedule_with_warmup}[made.anneal]
    rates = scheduler(optimizer, math.ceil(len(turns) / 5), len(turns))
    for turn in turns:
        batches = {name: ready.streams[name].take(index) for name, index in turn.index.items()}
        loss = sum(ready.loss(name, batch, turn) for name, batch in batches.items())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        torch.nn.utils.clip_grad_norm_(on.model.parameters(), 1.0)
        optimizer.step()
        rates.step()
    return on


@pytest.mark.parametrize("anneal", ["linear", "cosine"])
@pytest.mark.parametrize("seed", range(3))
def test_a_run_is_that_of_the_trainers_groups_and_schedule(anneal, seed):
    settings = {"epochs": 5, "steps": None, "lr": RATE, "weight_decay": DECAY, "anneal": anneal}
    made = method("grad_diff", **settings).composition(None)  # five epochs, one of them warm-up
    ours, theirs = work(seed=seed), loop(made, work(seed=seed))
    made.run(ours, InMemory())
    start = {name: tensor.clone() for name, tensor in work(seed=seed).model.named_parameters()}
    for (name, mine), right in zip(ours.model.named_parameters(), theirs.model.parameters(), strict=True):
        assert torch.allclose(mine, right, atol=1e-10), name
        assert not torch.equal(mine, start[name])


@pytest.mark.parametrize(("name", "share"), [("npo", 0.1), ("wga", 0.2), ("satimp", 0.2)])
def test_warm_up_is_one_epoch_of_those_that_a_method_makes(name, share):
    assert registry.make(name).composition(None).warmup == share
    assert registry.make(name, {"warmup": 0.3}).composition(None).warmup == 0.3


def test_a_single_step_with_warm_up_would_do_nothing_and_is_refused():
    case = CASES["language"]
    trained = case.train()
    with pytest.raises(InputError, match="more than one step"):
        planning.plan(trained, case.request, method("npo", steps=1))
    assert planning.plan(trained, case.request, method("npo", steps=1, warmup=0.0)).estimate is not None


@pytest.mark.parametrize("seed", range(2))
def test_alternate_takes_turns_under_one_optimizer(seed):
    """One forget step, then two retain steps, over and over, all on one AdamW: a plain loop beside it."""
    settings = {"steps": 2, "retain_steps": 2, "lr": RATE, "forget_lr": 3 * RATE, "warmup": 0.0, "anneal": "constant"}
    made = method("me+alternate", clip=None, weight_decay=0.0, **settings).composition(None)
    ours, theirs = work(seed=seed), work(seed=seed)
    done = made.run(ours, InMemory())
    assert done.steps == {"forget": 2, "retain": 4}
    ready = made.objective.prepare(theirs)
    sizes = {name: len(stream) for name, stream in ready.streams.items()}
    turns = list(made.schedule.turns(sizes, theirs.batch_size, theirs.seed))
    assert [turn.role for turn in turns] == ["forget", "retain", "retain"] * 2
    optimizer = torch.optim.AdamW(theirs.model.parameters(), weight_decay=0.0)
    for turn in turns:
        optimizer.param_groups[0]["lr"] = 3 * RATE if turn.role == "forget" else RATE
        optimizer.zero_grad()
        ready.loss(turn.role, ready.streams[turn.role].take(turn.index[turn.role]), turn).backward()
        optimizer.step()
    for mine, right in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.allclose(mine, right, atol=1e-10)
    apart = method("me+dual", clip=None, weight_decay=0.0, **settings).composition(None)
    two = work(seed=seed)
    apart.run(two, InMemory())
    assert not all(
        torch.allclose(a, b, atol=1e-6) for a, b in zip(two.model.parameters(), ours.model.parameters(), strict=True)
    )
