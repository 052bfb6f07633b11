"""Optimizers and seeds: the same numbers as torch's own, without what their first use costs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from expunge.tasks.seeds import seed_global
from expunge.training import optimizers

SHAPES = {"weight": (7, 5), "bias": (5,), "kernel": (4, 3, 3, 3)}
PAIRS = {
    "sgd": (lambda p: optimizers.SGD(p, 0.1), lambda p: torch.optim.SGD(p, 0.1, fused=True)),
    "sgd with momentum and decay": (
        lambda p: optimizers.SGD(p, 0.05, 0.9, 5e-4),
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=5e-4, fused=True),
    ),
    "adam": (
        lambda p: optimizers.Adam(p, 1e-2, weight_decay=0.01),
        lambda p: torch.optim.Adam(p, 1e-2, weight_decay=0.01, fused=True),
    ),
    "adamw": (
        lambda p: optimizers.AdamW(p, 1e-2, (0.8, 0.95), 1e-6, 0.05),
        lambda p: torch.optim.AdamW(p, 1e-2, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.05, fused=True),
    ),
}


def weights(dtype: torch.dtype) -> list[torch.Tensor]:
    """A matrix, a vector, and a kernel in ``channels_last``, of two types at once."""
    generator = torch.Generator().manual_seed(0)
    found = [torch.randn(shape, generator=generator, dtype=dtype) for shape in SHAPES.values()]
    found[2] = found[2].contiguous(memory_format=torch.channels_last)
    return [tensor.requires_grad_() for tensor in [*found, torch.ones(3, dtype=torch.float64)]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PAIRS)
def test_weights_and_states_are_those_of_torch_bit_for_bit(name, dtype):
    """A weight without a gradient in some steps, and a rate that changes."""
    make_ours, make_theirs = PAIRS[name]
    ours, theirs = weights(dtype), weights(dtype)
    own, plain = make_ours(ours), make_theirs(theirs)
    for step in range(7):
        generator = torch.Generator().manual_seed(step)
        for mine, other in zip(ours, theirs, strict=True):
            gradient = torch.randn(mine.shape, generator=generator, dtype=mine.dtype)
            skipped = mine.ndim == 1 and step == 3
            mine.grad = None if skipped else gradient.clone()
            other.grad = None if skipped else optimizers.laid_out_like(other, gradient)
        for optimizer in (own, plain):
            optimizer.param_groups[0]["lr"] *= 0.9
            optimizer.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)), step
    kept = plain.state_dict()["state"]
    states = {i: state for i, state in kept.items() if any(value is not None for value in state.values())}
    assert own.numbered().keys() == states.keys()
    for i, state in own.numbered().items():
        assert all(
            torch.equal(value, states[i][key]) and value.dtype == states[i][key].dtype for key, value in state.items()
        )


@pytest.mark.parametrize("name", PAIRS)
def test_a_weight_that_is_a_slice_moves_alone(name):
    """Fused kernels walk through memory; torch's own would move what lies in the gaps."""
    for begin in (0, 1):
        around = torch.zeros(4, 6)
        sliced, whole = around[:, begin::2].requires_grad_(), torch.zeros(4, 3).requires_grad_()
        for tensor in (sliced, whole):
            optimizer = PAIRS[name][0]([tensor])
            for step in range(3):
                tensor.grad = torch.full((4, 3), 1.0 + step)
                optimizer.step()
        assert torch.equal(sliced, whole) and whole.any()
        assert not around[:, 1 - begin :: 2].any()


@pytest.mark.parametrize("epochs", [1, 2, 7, 40])
def test_a_cosine_is_that_of_torch_bit_for_bit(epochs):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.37)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    rate = 0.37
    for epoch in range(1, epochs + 1):
        optimizer.step()
        scheduler.step()
        rate = optimizers.cosine(rate, epoch, epochs)
        assert rate == optimizer.param_groups[0]["lr"]
    assert rate == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", [0, 7, 2**63, 2**64 - 1])
def test_a_global_seed_is_torch_s(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expected = torch.rand(5)
        seed_global(seed)
        assert torch.equal(torch.rand(5), expected)


def test_training_imports_neither_a_compiler_nor_scikit_learn():
    """SymPy and dynamo come with the first step of any ``torch.optim``; scikit-learn, for its digits alone, costs as much."""
    code = (
        "import sys, torch\n"
        "from expunge.data.digits import digits\n"
        "from expunge.tasks.classification import Classification\n"
        "from expunge.training.recipes import Stochastic\n"
        "rows = digits(1700)[0]\n"
        "task = Classification(lambda: torch.nn.Linear(64, 10))\n"
        "Stochastic(epochs=1, lr=0.1, momentum=0.9, schedule='cosine').fit(task, rows)\n"
        "heavy = ('torch._dynamo', 'sympy', 'sklearn', 'scipy.stats', 'scipy.optimize', 'matplotlib', 'transformers')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
