"""The refusal loss beside the one mean that ``transformers`` takes of both batches joined, as TOFU's code has it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from cases import UNSURE
from descent.languages import gradients, moved, work
from expunge.core.errors import InputError
from expunge.descent.schedule import Turn
from expunge.methods.idk import IDK
from expunge.objectives.language import worded_refusals
from expunge.tasks.prompts import NO_LABEL

REFUSALS = (UNSURE, "please what is")


def both(objective: Any, on: Any, forget: Tensor, retain: Tensor) -> tuple[Any, dict[str, Any], Turn]:
    """The prepared objective, a batch of each stream, and the joint step that they belong to."""
    ready = objective.prepare(on)
    index = {"forget": forget, "retain": retain}
    return (
        ready,
        {role: ready.streams[role].take(rows) for role, rows in index.items()},
        Turn("joint", 0, 1, 0, True, index),
    )


def joined(on: Any, batches: dict[str, Any]) -> Tensor:
    """The loss that the model's own code gives for all rows in one batch."""
    longest = max(batch["input_ids"].shape[1] for batch in batches.values())
    ids, labels, mask = [], [], []
    for batch in batches.values():
        lack = longest - batch["input_ids"].shape[1]
        ids.append(pad(batch["input_ids"], (0, lack), value=0))
        labels.append(pad(batch["labels"], (0, lack), value=NO_LABEL))
        mask.append((torch.arange(longest) < batch["lengths"][:, None]).long())
    return on.model(input_ids=torch.cat(ids), attention_mask=torch.cat(mask), labels=torch.cat(labels)).loss.double()


@pytest.mark.parametrize("seed", range(4))
def test_refusals_and_retained_answers_share_one_mean_over_tokens(seed):
    draw = torch.Generator().manual_seed(seed)
    on = moved(work(seed=seed), seed=seed)
    forget, retain = torch.randperm(4, generator=draw)[:3], torch.randperm(8, generator=draw)[: 3 + seed % 2]
    ready, batches, turn = both(IDK(refusals=REFUSALS), on, forget, retain)
    ours = sum(ready.loss(role, batch, turn) for role, batch in batches.items())
    theirs = joined(on, batches)
    assert torch.allclose(ours, theirs, rtol=1e-6)  # transformers takes the loss in single precision
    mine, right = gradients(ours, on), gradients(theirs, on)
    assert (mine - right).norm() < 1e-5 * right.norm()
    two_means = sum(joined(on, {role: batch}) for role, batch in batches.items())
    assert not torch.allclose(ours, two_means, rtol=0.1)


def test_weights_multiply_each_part_of_the_mean_and_alternating_steps_have_a_mean_each():
    on = moved(work())
    ready, batches, turn = both(IDK(refusals=REFUSALS, gamma=2.0, alpha=0.5), on, torch.arange(3), torch.arange(4))
    count = {role: int((batch["labels"] != NO_LABEL).sum()) for role, batch in batches.items()}
    for role, weight in (("forget", 2.0), ("retain", 0.5)):
        mean = joined(on, {role: batches[role]})
        share = count[role] / sum(count.values())
        assert torch.allclose(ready.loss(role, batches[role], turn), weight * share * mean, rtol=1e-6)
        alone = replace(turn, role=role, index={role: turn.index[role]})
        assert torch.allclose(ready.loss(role, batches[role], alone), weight * mean, rtol=1e-6)


def test_a_retain_loss_that_is_no_mean_of_token_losses_has_its_own():
    on = moved(work())
    ready, batches, turn = both(IDK(refusals=REFUSALS, retain="kl"), on, torch.arange(3), torch.arange(4))
    assert torch.allclose(
        ready.loss("forget", batches["forget"], turn), joined(on, {"forget": batches["forget"]}), rtol=1e-6
    )


def test_tofu_stands_for_the_refusals_of_tofus_file(tmp_path, monkeypatch):
    (tmp_path / "tofu").mkdir()
    (tmp_path / "tofu" / "idontknow.jsonl").write_text("unsure\nplease what is\n\n")
    monkeypatch.setenv("EXPUNGE_DATA", str(tmp_path))
    assert worded_refusals("tofu") == ("unsure", "please what is")
    on = work()
    drawn, own = (IDK(refusals=each).prepare(on).streams["forget"] for each in ("tofu", REFUSALS))
    assert torch.equal(drawn["input_ids"], own["input_ids"])
    with pytest.raises(InputError, match="the word tofu; got 'tofoo'"):
        worded_refusals("tofoo")
    monkeypatch.setenv("EXPUNGE_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match=r"There is no idontknow.jsonl"):
        worded_refusals("tofu")
