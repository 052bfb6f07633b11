"""The entropy loss by a loop over places, in double precision."""

from __future__ import annotations

import math

import pytest
import torch

from descent.languages import moved, work
from expunge.descent.schedule import Turn
from expunge.methods.me import ME, from_uniform

TURN = Turn("forget", 0, 10, 0, False, {})


@pytest.mark.parametrize("seed", range(3))
def test_the_divergence_from_the_uniform_distribution_place_by_place(seed):
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(2, 3, 7, generator=draw, dtype=torch.float64).requires_grad_()
    mask = torch.tensor([[True, True, False], [False, True, False]])
    by_hand = []
    for i, t in mask.nonzero().tolist():
        p = torch.softmax(z[i, t], 0)
        by_hand.append(sum((1 / 7) * (math.log(1 / 7) - torch.log(p[v])) for v in range(7)))
    value = from_uniform(z, mask)
    assert torch.allclose(value, torch.stack(by_hand).mean(), rtol=1e-12)
    (slope,) = torch.autograd.grad(value, z)
    assert torch.allclose(slope[mask], (torch.softmax(z[mask], -1) - 1 / 7) / 3) and not slope[~mask].any()
    assert from_uniform(torch.full((1, 1, 7), 3.0), torch.ones(1, 1, dtype=torch.bool)).abs() < 1e-6


@pytest.mark.parametrize("questions", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_me_of_a_model_counts_questions_where_asked_to_and_never_padding(questions, seed):
    on = moved(work(seed=seed), seed=seed)
    ready = ME(gamma=1.0, questions=questions).prepare(on)
    rows, by_hand = on.task.prompts.tokens(on.deletion.forget.records), []
    for ids, start in rows:  # one at a time: there is nothing to fill up
        logs = on.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        size = logs.shape[1]
        by_hand += [-math.log(size) - logs[t - 1].mean() for t in range(1 if questions else start, len(ids))]
    stream = ready.streams["forget"]
    assert torch.allclose(ready.loss("forget", stream, TURN), torch.stack(by_hand).mean(), rtol=1e-9)
    few = stream.take(torch.tensor([2, 0]))
    assert ready.loss("forget", few, TURN).isfinite()
