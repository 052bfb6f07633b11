"""A step of each choice of optimizers against torch's own AdamW, and the words of state that each keeps a weight.

Words: SGD with momentum 1, AdamW 2, DualOptim (AdamW and SGD) 3, with 8-bit moments 1.5; counters and scales come on top.
Run from the repository root: ``python bench/optimizer_steps.py [--smoke] [--json]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from comparison import Case, Growth, main
from expunge.descent.members import Member
from expunge.descent.optimizer import FORGET_DECAY, Dual, Optimizers, Shared
from expunge.methods.by_descent import dual, sgd

CHOICES: dict[str, tuple[Optimizers, float]] = {
    "shared SGD with momentum": (Shared(sgd(0.01)), 1.0),
    "shared AdamW": (Shared(Member("adamw", 1e-4)), 2.0),
    "dual AdamW + SGD": (dual(1e-4, 0.01), 3.0),
    "dual 8-bit AdamW + SGD": (Dual(Member("adamw", 1e-4, weight_decay=FORGET_DECAY, bits=8), sgd(0.01)), 1.5),
}  # words a weight


def weights(width: int) -> dict[str, torch.Tensor]:
    return {f"layer {i}": torch.randn(width, 64).requires_grad_() for i in range(4)}


def ours(choice: Optimizers, width: int, words: float) -> Callable[[], None]:
    parameters = weights(width)
    gradients = [torch.randn_like(tensor) * 1e-3 for tensor in parameters.values()]
    stepper = choice.build(parameters)

    def step() -> None:
        for role in ("forget", "retain"):
            stepper.step(role, [gradient.clone() for gradient in gradients])

    step()
    kept = stepper.state_bytes / 4 / sum(tensor.numel() for tensor in parameters.values())
    if not words <= kept <= 1.2 * words:
        raise SystemExit(f"Expected about {words} words of state a weight; {kept:.2f} are kept.")
    return step


def torch_adamw(width: int) -> Callable[[], None]:
    parameters = list(weights(width).values())
    for tensor in parameters:
        tensor.grad = torch.randn_like(tensor) * 1e-3
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)

    def step() -> None:
        for _ in range(2):
            optimizer.step()

    return step


def cases(smoke: bool) -> Iterable[Case]:
    width = 64 if smoke else 1024
    for name, (choice, words) in CHOICES.items():
        grown = {size: ours(choice, size, words) for size in (width, 2 * width, 4 * width, 8 * width)}
        yield Case(
            name=f"{name}, two steps", baselines={"torch.optim.AdamW": torch_adamw(width)}, ours=ours(choice, width, words),
            growth=Growth(what="weights", ways=grown),
        )  # fmt: skip


if __name__ == "__main__":
    main(__doc__, cases)
