"""Gradients written out against autograd, as today's networks without a closed form are differentiated.

Cases: a full-batch step of the digits' softmax head (goal: 4 x in double precision), of the binary head and of small
perceptrons, and the gradient of 16 stacked heads, each with its own weights of examples (goal: 8 x).
Run from the repository root: ``python bench/closed_forms.py [--smoke] [--json]``.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import stack_module_state, vmap

from comparison import Case, Growth, main
from expunge.core.batch import Batch
from expunge.data.rows import Rows
from expunge.tasks.classification import Classification
from expunge.tasks.closed_forms import closed_form
from expunge.tasks.networks import SoftmaxHead, mlp, perceptron
from expunge.training.descent import MeanGradient, Step, differentiated, split

DIGITS, FEATURES, STACKED = 1797, 64, 16
STEP = Step(0.1, 1e-3)


def setting(factory: Callable[[], nn.Module], rows: int, classes: int, dtype: torch.dtype) -> tuple[Any, Batch]:
    x, y = torch.randn(rows, FEATURES, dtype=dtype), torch.randint(0, classes, (rows,))
    task = Classification(factory, dtype=dtype)
    return task, task.batch(Rows.of(x, y))


def agree(expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    for name, tensor in expected.items():
        gap = float((tensor - found[name]).abs().max())
        if gap > (1e-12 if tensor.dtype == torch.float64 else 1e-5) * max(1.0, float(tensor.abs().max())):
            raise SystemExit(f"{name}: autograd and the closed form differ by {gap:.1e}.")


def operations(widths: list[int], rows: int) -> float:
    """Of the matrix products of one gradient: forward, weights, and inputs of all layers but the first."""
    return sum(2 * rows * i * o * (3 if layer else 2) for layer, (i, o) in enumerate(itertools.pairwise(widths)))


def alone(
    name: str, factory: Callable[[], nn.Module], widths: list[int], dtype: torch.dtype, goal: float | None, n: int
) -> Case:
    def ours(rows: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
        task, batch = setting(factory, rows, widths[-1], dtype)
        model = task.build(seed=1)
        moved, fixed = split(model, model.state_dict())
        mean = MeanGradient.of(task, model, fixed, STEP).on(batch)
        return lambda: mean(moved), lambda: differentiated(task, model, moved, fixed, batch, STEP)

    written, autograd = ours(n)
    sizes = {size: ours(size)[0] for size in (n, 2 * n, 4 * n, 8 * n)}
    return Case(
        name=name, baselines={"autograd, one batch": autograd}, ours=written, agree=agree,
        operations=operations(widths, n), double=dtype == torch.float64, growth=Growth(what="rows", ways=sizes), goal=goal,
    )  # fmt: skip


def stacked(n: int, count: int) -> Case:
    task, batch = setting(functools.partial(SoftmaxHead, FEATURES, 10), n, 10, torch.float64)

    def ways(models: int) -> tuple[Callable[[], Any], Callable[[], Any], Callable[[], Any]]:
        built: Any = [task.build(seed=seed) for seed in range(models)]
        leaves, fixed = stack_module_state(built)
        values = {name: tensor.detach() for name, tensor in leaves.items()}
        share = torch.rand(models, n, dtype=torch.float64)
        form = closed_form(task, built[0])
        assert form is not None
        examples = form.examples(batch)
        losses = vmap(lambda p, f: task.losses(built[0], {**p, **f}, batch))

        def by_vmap() -> dict[str, Tensor]:
            found = torch.autograd.grad((losses(leaves, fixed) * share).sum(), list(leaves.values()))
            return dict(zip(leaves, found, strict=True))

        def one_by_one() -> dict[str, Tensor]:
            found: list[dict[str, Tensor]] = []
            for r, model in enumerate(built):
                own = {name: tensor[r].clone().requires_grad_() for name, tensor in values.items()}
                loss = (task.losses(model, own, batch) * share[r]).sum()
                found.append(dict(zip(own, torch.autograd.grad(loss, list(own.values())), strict=True)))
            return {name: torch.stack([each[name] for each in found]) for name in values}

        return one_by_one, by_vmap, lambda: form.gradient(values, values.keys(), examples, share.unsqueeze(1))

    one_by_one, by_vmap, ours = ways(count)
    sizes = {models: ways(models)[2] for models in (count // 2, count, 2 * count, 4 * count)}
    return Case(
        name=f"{count} stacked heads {FEATURES}-10, fp64",
        baselines={"autograd, one by one": one_by_one, "torch.func.vmap": by_vmap}, ours=ours, agree=agree,
        operations=count * operations([FEATURES, 10], n), double=True, growth=Growth(what="models", ways=sizes), goal=8.0,
    )  # fmt: skip


def cases(smoke: bool) -> Iterable[Case]:
    n = 40 if smoke else DIGITS
    head = functools.partial(SoftmaxHead, FEATURES, 10)
    yield alone("head 64-10, fp64", head, [FEATURES, 10], torch.float64, 4.0, n)
    yield alone("head 64-10, fp32", head, [FEATURES, 10], torch.float32, None, n)
    yield alone("head 64-2, fp64", functools.partial(SoftmaxHead, FEATURES, 2), [FEATURES, 2], torch.float64, None, n)
    yield alone("SmeLU 64-32-10, fp32", functools.partial(perceptron, (FEATURES, 32, 10)), [FEATURES, 32, 10],
                torch.float32, None, n)  # fmt: skip
    yield alone("ReLU 64-32-10, fp32", functools.partial(mlp, FEATURES, 10, (32,)), [FEATURES, 32, 10],
                torch.float32, None, n)  # fmt: skip
    yield stacked(n, 2 if smoke else STACKED)


if __name__ == "__main__":
    main(__doc__, cases)
