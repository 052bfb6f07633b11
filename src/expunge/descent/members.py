"""Optimizers that a method can be given: SGD, Adam, AdamW, Lion, and AdamW with 8-bit state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from expunge.core.errors import InputError
from expunge.training.decay import matrices_alone
from expunge.training.optimizers import SGD, Adam, AdamW, Optimizer

KINDS = ("sgd", "adam", "adamw", "lion")
BLOCK = 256  # values that share one scale, as in DualOptim's released 8-bit variant
SMALLEST_8BIT = 4096  # tensors with fewer values keep 32-bit state (the same)


@dataclass(frozen=True)
class Member:
    """One ordinary optimizer.

    Attributes:
        kind: ``sgd``, ``adam``, ``adamw`` or ``lion``.
        lr: step size.
        momentum: of SGD; 0.9 in DualOptim's image code.
        betas, eps: of Adam, AdamW and Lion. (0.9, 0.999) and 1e-8 are DualOptim's (arXiv 2504.15827); Lion takes 0.9 and 0.99.
        weight_decay: coupled for SGD and Adam, decoupled for AdamW and Lion.
        decays: ``all`` weights, or ``matrices``: biases and weights of normalisation are left out, as trainers of language
            models do (:func:`~expunge.training.decay.matrices_alone`).
        bits: 32, or 8 for AdamW's moments in blocks of 256 values with a scale each.
    """

    kind: str
    lr: float
    momentum: float = 0.0
    betas: tuple[float, float] | None = None
    eps: float = 1e-8
    weight_decay: float = 0.0
    bits: int = 32
    decays: str = "all"

    def __post_init__(self):
        if self.kind not in KINDS:
            raise InputError(f"Expected an optimizer among {', '.join(KINDS)}; got {self.kind!r}.")
        if not self.lr > 0:
            raise InputError(
                f"Expected a learning rate above 0; got {self.lr}. A rate of 0 would leave the model as it is."
            )
        if self.weight_decay < 0 or not 0 <= self.momentum < 1:
            raise InputError(
                f"Expected weight_decay >= 0 and momentum in [0, 1); got {self.weight_decay} and {self.momentum}."
            )
        if self.decays not in ("all", "matrices"):
            raise InputError(f"Expected decays to be all or matrices; got {self.decays!r}.")
        if self.bits not in (8, 32) or (self.bits == 8 and self.kind != "adamw"):
            raise InputError(f"Expected 32 bits of state, or 8 with adamw; got {self.bits} with {self.kind}.")

    def build(self, parameters: Iterable[Tensor]) -> Optimizer:
        """A fresh optimizer over ``parameters``."""
        tensors, decay = list(parameters), self.weight_decay
        moving: list[Any] = tensors if self.decays == "all" else matrices_alone(tensors, decay)
        if self.kind == "sgd":
            return SGD(moving, self.lr, self.momentum, decay)
        if self.kind == "lion":
            return Lion(moving, self.lr, self.betas or (0.9, 0.99), decay)
        betas = self.betas or (0.9, 0.999)
        if self.bits == 8:
            return AdamW8bit(moving, self.lr, betas, self.eps, decay)
        return (Adam if self.kind == "adam" else AdamW)(moving, self.lr, betas, self.eps, decay)


class _Plain(Optimizer):
    """An optimizer whose step visits one parameter after another."""

    def update(self, parameters: list[Tensor], group: dict[str, Any], begun: bool) -> None:
        """One after another."""
        for parameter in parameters:
            assert parameter.grad is not None
            self.move(parameter, parameter.grad, self.state[parameter], group)

    def move(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Move one parameter."""
        raise NotImplementedError


class Lion(_Plain):
    """Sign of an interpolated momentum (Chen et al. 2023, arXiv 2302.06675); decoupled weight decay."""

    def __init__(self, parameters: Iterable[Any], lr: float, betas: tuple[float, float], weight_decay: float):
        super().__init__(parameters, lr=lr, betas=betas, weight_decay=weight_decay)

    def move(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """theta <- theta (1 - lr wd) - lr sign(b1 m + (1 - b1) g); m <- b2 m + (1 - b2) g."""
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter)
        fast, slow = group["betas"]
        direction = torch.lerp(gradient, state["exp_avg"], fast).sign_()
        parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"])
        state["exp_avg"].lerp_(gradient, 1 - slow)


class AdamW8bit(_Plain):
    """AdamW whose moments are kept as 8-bit codes with one 32-bit scale for 256 values (Dettmers et al. 2022).

    Codes are spaced decade by decade, so that small second moments are not rounded to zero and divided by. The second
    moment is kept as its root, which halves the range that the codes must span.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ):
        super().__init__(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def move(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """AdamW's step on moments that are unpacked before and packed after."""
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            for name, signed in (("exp_avg", True), ("exp_avg_sq", False)):
                _keep(state, name, torch.zeros_like(parameter), signed)
        state["step"] += 1
        first, second = group["betas"]
        step = float(state["step"])
        m = _unpacked(state, "exp_avg", parameter, signed=True).lerp_(gradient, 1 - first)
        root = _unpacked(state, "exp_avg_sq", parameter, signed=False)
        v = root.square_().mul_(second).addcmul_(gradient, gradient, value=1 - second)
        root = v.sqrt_()
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        denominator = (root / (1 - second**step) ** 0.5).add_(group["eps"])
        parameter.addcdiv_(m, denominator, value=-group["lr"] / (1 - first**step))
        _keep(state, "exp_avg", m, signed=True)
        _keep(state, "exp_avg_sq", root, signed=False)


@cache
def _levels(signed: bool) -> Tensor:
    """The 256 values a code can mean, ascending, as shares of the block's largest.

    Each decade below 1 has half as many evenly spaced levels as the one above it: fine where most values are, and never
    zero for what is merely small.
    """
    decades = 7 if signed else 8  # 64 + 32 + … + 1 = 127 and 128 + … + 1 = 255 levels above zero
    positive = torch.cat(
        [torch.linspace(10.0 ** -(e + 1), 10.0**-e, 2 ** (decades - 1 - e) + 1)[1:] for e in reversed(range(decades))]
    )
    if not signed:
        return torch.cat([torch.zeros(1), positive])
    return torch.cat([torch.tensor([-1.0]), -positive.flip(0), torch.zeros(1), positive])


@cache
def _borders(signed: bool) -> Tensor:
    levels = _levels(signed)
    return (levels[1:] + levels[:-1]) / 2


def _keep(state: dict[str, Any], name: str, value: Tensor, signed: bool) -> None:
    """Store ``value`` under ``name``: as codes and scales, or as it is where it is small."""
    if value.numel() < SMALLEST_8BIT:
        state[name] = value
        return
    flat = value.reshape(-1)
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    scale = padded.abs().amax(1)
    share = padded / scale.clamp_min(torch.finfo(padded.dtype).tiny)[:, None]
    codes = torch.bucketize(share, _borders(signed).to(share))
    state[f"{name}_codes"], state[f"{name}_scale"] = codes.to(torch.uint8), scale


def _unpacked(state: dict[str, Any], name: str, like: Tensor, signed: bool) -> Tensor:
    if f"{name}_codes" not in state:
        return state[name]
    levels = _levels(signed).to(like)
    values = levels[state[f"{name}_codes"].int()] * state[f"{name}_scale"][:, None]
    return values.view(-1)[: like.numel()].view(like.shape)
