"""Whole SalUn and SCRUB runs against the loops of the authors' released code (goal: 1.5 x each).

Ours is ``planning.plan(...).run()`` on a trained model: request, mask or teacher, steps, digests and the comparison of weights
included. The authors' way starts from the same weights and makes the same number of steps on batches of the same size with
the same rates, in the same layout of memory: a shuffling DataLoader, masks multiplied onto ``.grad`` tensor by tensor, a copied
teacher that runs beside the student, torch's optimizers as they come. Orders of rows differ, so final losses are compared,
not bits. Images are real where ``EXPUNGE_DATA`` has them, else synthetic.
Run from the repository root: ``python bench/unlearning_methods.py [--smoke] [--json]``.
"""

from __future__ import annotations

import copy
import functools
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from comparison import Case, Growth, main
from expunge import planning
from expunge.core.errors import InputError
from expunge.core.request import Request, Target
from expunge.data.cifar import cifar10
from expunge.data.digits import digits
from expunge.data.idx import mnist
from expunge.data.rows import Rows
from expunge.methods.registry import make
from expunge.tasks.classification import Classification
from expunge.tasks.convolutional import conv_bn_net, small_cnn
from expunge.tasks.networks import mlp
from expunge.training.stochastic import Stochastic

GOAL = 1.5
CLASSES = 10
# Not the published rates of SalUn, which are for a ResNet: with the momentum of forget steps they would wreck these small
# networks, and where a wrecked network ends is chance. Rates do not change the time.
RATES: dict[str, dict[str, float]] = {
    "salun": {"lr": 1e-3, "retain_lr": 1e-3},
    "scrub": {"lr": 1e-4, "retain_lr": 1e-4},
}


@dataclass(frozen=True)
class Ended:
    """Steps made, and the final losses on forgotten and retained rows."""

    steps: int
    losses: tuple[float, float]


# --- the authors' way ---------------------------------------------------------------------------------------------------


def loaders(forget: Rows, retain: Rows, batch_size: int) -> tuple[DataLoader, DataLoader]:
    both = [TensorDataset(rows.x, rows.y) for rows in (forget, retain)]
    return DataLoader(both[0], batch_size, shuffle=True), DataLoader(both[1], batch_size, shuffle=True)


def common_salun(model: nn.Module, forget: Rows, retain: Rows, method: Any) -> int:
    """Masks on gradients alone, as published; ours also puts masked weights back after each step."""
    forget_loader, retain_loader = loaders(forget, retain, method.batch_size)
    criterion, steps = nn.CrossEntropyLoss(), 0

    model.eval()
    saliency = {name: torch.zeros_like(param) for name, param in model.named_parameters()}
    for x, y in forget_loader:
        model.zero_grad()
        (-criterion(model(x), y)).backward()
        for name, param in model.named_parameters():
            assert param.grad is not None
            saliency[name] += param.grad
    flat = torch.cat([tensor.abs().flatten() for tensor in saliency.values()])
    kept = torch.zeros_like(flat)
    kept[flat.argsort(descending=True)[: int(method.density * len(flat))]] = 1
    parts = kept.split([tensor.numel() for tensor in saliency.values()])
    mask = {name: part.view_as(tensor) for (name, tensor), part in zip(saliency.items(), parts, strict=True)}

    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=method.retain_lr, momentum=0.9, weight_decay=5e-4)

    def update(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        for name, param in model.named_parameters():
            if param.grad is not None:
                param.grad *= mask[name]
        optimizer.step()

    for _ in range(method.epochs):
        optimizer.param_groups[0]["lr"] = method.lr
        for x, y in forget_loader:
            update(criterion(model(x), torch.randint(0, CLASSES, y.shape)))
            steps += 1
        optimizer.param_groups[0]["lr"] = method.retain_lr
        for x, y in retain_loader:
            update(criterion(model(x), y))
            steps += 1
    return steps


def common_scrub(model: nn.Module, forget: Rows, retain: Rows, method: Any) -> int:
    """A copied teacher that says its logits anew for every batch."""
    forget_loader, retain_loader = loaders(forget, retain, method.batch_size)
    criterion, distance, steps = nn.CrossEntropyLoss(), nn.KLDivLoss(reduction="batchmean"), 0
    teacher = copy.deepcopy(model).eval()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=method.retain_lr, weight_decay=0.05)

    def apart(logits: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            target = nn.functional.softmax(teacher(x) / method.temperature, dim=1)
        return distance(nn.functional.log_softmax(logits / method.temperature, dim=1), target) * method.temperature**2

    def update(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for _ in range(method.epochs):
        for x, _y in forget_loader:
            update(-apart(model(x), x))
            steps += 1
        for x, y in retain_loader:
            logits = model(x)
            update(method.alpha * apart(logits, x) + method.gamma * criterion(logits, y))
            steps += 1
    return steps


COMMON: dict[str, Callable[[nn.Module, Rows, Rows, Any], int]] = {"salun": common_salun, "scrub": common_scrub}


# --- both ways on a set-up ----------------------------------------------------------------------------------------------


def case(
    label: str, factory: Callable[[], nn.Module], rows: Rows, recipe: Stochastic, forget: int, epochs: int, name: str
) -> Case:
    trained = planning.train(Classification(factory), rows, recipe)
    layout = torch.channels_last if rows.x.ndim == 4 else torch.contiguous_format
    method: Any = make(name, {"epochs": epochs, **RATES[name]})
    request = Request("somebody", (Target("samples", {"ids": trained.data.ids[:forget].tolist()}),))
    deletion = planning.plan(trained, request, method).context.deletion
    gone, kept = (laid_out(part, layout) for part in (deletion.forget, deletion.after))

    def ended(model: nn.Module, steps: int) -> Ended:
        return Ended(steps, (mean_loss(model, gone), mean_loss(model, kept)))

    def authors() -> Ended:
        torch.manual_seed(0)
        model: Any = trained.task.build(trained.artifact.tensors).to(memory_format=layout)
        return ended(model, COMMON[name](model, gone, kept, method))

    def ours(epochs: int) -> Callable[[], Ended]:
        method: Any = make(name, {"epochs": epochs, **RATES[name]})

        def run() -> Ended:
            outcome = planning.plan(trained, request, method, key=b"bench").run()
            steps: Any = outcome.details["steps"]
            return ended(trained.task.build(outcome.after.artifact.tensors), sum(steps.values()))

        return run

    grown = (
        Growth(what="epochs", ways={n: ours(n) for n in (1, 2, 3, 4)}) if layout == torch.contiguous_format else None
    )
    return Case(
        name=f"{name}, {label}, {len(kept):,} + {len(gone):,} rows", baselines={f"{name} as its authors write it": authors},
        ours=ours(epochs), agree=agree, growth=grown, rounds=3, goal=GOAL,
    )  # fmt: skip


def laid_out(rows: Rows, layout: torch.memory_format) -> Rows:
    return Rows(rows.x.contiguous(memory_format=layout), rows.y, rows.ids)


@torch.no_grad()
def mean_loss(model: nn.Module, rows: Rows) -> float:
    model.eval()
    parts = [
        nn.functional.cross_entropy(model(x), y, reduction="sum")
        for x, y in zip(rows.x.split(1000), rows.y.split(1000), strict=True)
    ]
    return float(torch.stack(parts).sum()) / len(rows)


def agree(expected: Ended, found: Ended) -> None:
    """Both ways did the same work: as many steps, and losses that end within a quarter of each other."""
    near = all(
        math.isclose(a, b, rel_tol=0.25, abs_tol=0.1) for a, b in zip(expected.losses, found.losses, strict=True)
    )
    if expected.steps != found.steps or not near:
        raise SystemExit(f"{expected} and {found}: the two ways did not do the same work.")


# --- set-ups -------------------------------------------------------------------------------------------------------------


def synthetic(n: int, shape: tuple[int, ...]) -> Rows:
    """Images of ten classes: a pattern each, and noise."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, CLASSES, (n,), generator=generator)
    patterns = torch.randn(CLASSES, *shape, generator=generator)
    return Rows.of(0.3 * patterns[y] + torch.randn(n, *shape, generator=generator), y)


def images(read: Callable[..., tuple[Rows, Rows]], n: int, shape: tuple[int, ...]) -> Rows:
    if os.environ.get("EXPUNGE_DATA"):
        try:
            return read(limit=n, test_limit=10)[0]
        except InputError as error:
            print(f"synthetic images: {error}")
    return synthetic(n, shape)


def cases(smoke: bool) -> Iterable[Case]:
    rows, forget, epochs = (synthetic(60, (64,)), 6, 1) if smoke else (digits()[0], 144, 20)
    trained, image = Stochastic(epochs=epochs, lr=0.05, momentum=0.9), Stochastic(epochs=1, lr=0.02, momentum=0.9)
    for name in COMMON:
        yield case("mlp 64-32-10", functools.partial(mlp, 64, 10, (32,)), rows, trained, forget, epochs, name)
    for name in () if smoke else COMMON:
        digit, object_ = images(mnist, 4_000, (1, 28, 28)), images(cifar10, 2_000, (3, 32, 32))
        yield case("small_cnn 28 x 28", functools.partial(small_cnn, 1, 10), digit, image, 400, 2, name)
        yield case("conv_bn_net 32 x 32", functools.partial(conv_bn_net, 3, 10), object_, image, 200, 2, name)


if __name__ == "__main__":
    main(__doc__, cases)
