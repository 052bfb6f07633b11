"""Numbers of a classifier's cell beside the same numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import kl_div

from expunge.core.data import Deletion
from expunge.core.request import Request, Target
from expunge.data.rows import Rows
from expunge.modalities.classification.workload import UNTRAINED_SEED, score
from expunge.tasks.classification import Classification


def world(seed: int) -> tuple[Classification, Deletion]:
    draw = torch.Generator().manual_seed(seed)
    task = Classification(lambda: nn.Linear(3, 4), dtype=torch.float64)
    train, test = (
        Rows(torch.randn(40, 3, generator=draw), torch.arange(40) % 4, np.arange(40) + first) for first in (0, 100)
    )
    return task, Deletion.of(train, Request("x", (Target("samples", {"ids": np.arange(12)}),)), {"test": test})


@pytest.mark.parametrize("seed", range(2))
def test_both_forms_of_zrf_stand_side_by_side(seed):
    task, deletion = world(seed)
    metrics = score(task, deletion, task.build(seed=seed).state_dict(), None).metrics
    x = deletion.forget.x.double()
    with torch.no_grad():
        p, q = (task.build(seed=each)(x).softmax(1) for each in (seed, UNTRAINED_SEED))
    middle = (p + q) / 2
    released = 1 - sum(float(kl_div(side.log(), middle, reduction="none").mean()) for side in (p, q)) / 2
    textbook = 1 - sum(float((side * (side / middle).log2()).sum(1).mean()) for side in (p, q)) / 2
    assert metrics["zrf_released"] == pytest.approx(released, abs=1e-9)
    assert metrics["zrf"] == pytest.approx(textbook, abs=1e-9)
    assert metrics["zrf_released"] > metrics["zrf"]


def test_a_class_of_probability_zero_has_no_number_of_the_released_form():
    task, deletion = world(0)
    certain = {name: 1e5 * tensor for name, tensor in task.build(seed=0).state_dict().items()}
    metrics = score(task, deletion, certain, None).metrics
    assert "zrf_released" not in metrics and 0 <= metrics["zrf"] <= 1
