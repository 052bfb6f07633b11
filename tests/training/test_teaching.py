"""Teaching a language model: where a killed run is taken up, no bit is another."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load
from tests.cases import facts, small_language

from expunge.core import journal as journals
from expunge.core.errors import InputError
from expunge.core.method import InMemory
from expunge.training.language import LanguageTraining

RECIPES = {
    "all weights": LanguageTraining(steps=12, lr=1e-2, batch_size=8),
    "epochs": LanguageTraining(epochs=3, lr=1e-2, batch_size=8, warmup=0.4),
    "adapter with dropout": LanguageTraining(steps=12, lr=1e-2, batch_size=8, lora={"r": 2, "lora_dropout": 0.3}),
    "bfloat16": LanguageTraining(steps=12, lr=1e-4, batch_size=8),
}


@pytest.fixture(autouse=True)
def every_step(monkeypatch):
    """Each step is a stage of the journal."""
    monkeypatch.setattr(journals, "STEPS_PER_STAGE", 1)
    monkeypatch.setattr(journals, "STAGES_AT_MOST", 10**6)


def taught(recipe: LanguageTraining, journal: InMemory | None = None, seen: list[int] | None = None):
    def watch(_stage: str, done: int, _total: int) -> None:
        if seen is not None:
            seen.append(done)

    dtype = torch.bfloat16 if recipe is RECIPES["bfloat16"] else torch.float32
    return recipe.fit(small_language(dtype=dtype), facts(), seed=3, watch=watch, journal=journal)


@pytest.mark.parametrize("name", RECIPES)
def test_a_teaching_killed_after_any_step_ends_with_the_same_bits(name):
    recipe, journal, steps = RECIPES[name], InMemory(), []
    whole = taught(recipe, seen=steps).artifact
    told = taught(recipe, journal)
    assert told.artifact.digest == whole.digest
    assert len(journal.stages) == len(steps) - 1 >= 8, "the end is the model itself"
    for done in range(0, len(steps), 3):
        left, again = InMemory(), []
        left.stages = dict(list(journal.stages.items())[:done])
        torch.manual_seed(done)  # another process: another global state
        resumed = taught(recipe, left, again)
        assert resumed.artifact.digest == whole.digest, f"killed after {done} steps"
        assert again == steps[done:], "no step is made twice"
        assert resumed.fact("seconds") > 0


def test_seconds_count_earlier_tries():
    journal, recipe = InMemory(), RECIPES["all weights"]
    whole = taught(recipe, journal).fact("seconds")
    earlier = float(load(journal.stages["taught-11"])["seconds"])
    assert 0 < earlier < taught(recipe, journal).fact("seconds") and earlier < whole


def test_without_a_journal_a_teaching_says_nothing_of_time():
    """Facts are compared between runs, and two runs never take equally long."""
    assert taught(RECIPES["all weights"]).fact("seconds") is None


@pytest.mark.parametrize("seed", range(2))
def test_a_teaching_is_that_of_the_trainers_groups_and_schedule(seed):
    """A plain loop with the optimizer groups and the schedule of ``transformers``' Trainer, one batch of all records a step."""
    from transformers import Trainer, get_cosine_schedule_with_warmup

    task, data, steps, share, decay = small_language(dtype=torch.float64), facts(), 7, 0.3, 0.4
    recipe = LanguageTraining(epochs=steps, lr=1e-2, batch_size=len(data), weight_decay=decay, warmup=share, clip=0.5)
    ours = recipe.fit(task, data, seed=seed).artifact.tensors
    model = task.build(seed=seed).train()
    named, start = dict(model.named_parameters()), task.build(seed=seed).state_dict()
    names = named.keys() & set(Trainer.get_decay_parameter_names(None, model))  # type: ignore[arg-type]
    assert 0 < len(names) < len(named)
    groups = [{"params": [named[n] for n in names], "weight_decay": decay},
              {"params": [named[n] for n in named if n not in names], "weight_decay": 0.0}]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    rates = get_cosine_schedule_with_warmup(optimizer, math.ceil(share * steps), steps)
    batch = task.batch(data)
    for _ in range(steps):
        task.losses(model, named, batch).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        rates.step()
    for name, tensor in named.items():
        assert torch.allclose(ours[name], tensor, atol=1e-10) and not torch.equal(tensor, start[name]), name


def test_a_single_step_with_warm_up_would_do_nothing_and_is_refused():
    with pytest.raises(InputError, match="more than one step"):
        LanguageTraining(steps=1).fit(small_language(), facts())
    assert len(LanguageTraining(steps=1, warmup=0.0).fit(small_language(), facts()).artifact.tensors)
