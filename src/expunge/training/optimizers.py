"""SGD, Adam and AdamW as ``torch.optim`` has them, bit for bit, without the seconds that its first step costs.

The first use of any ``torch.optim.Optimizer`` imports ``torch._dynamo`` and SymPy, for a compiler that is not used here. The
arithmetic is that of the same fused kernels, so the weights are the same ones. Objects have the members of theirs that loops
use (``param_groups``, ``state``, ``step``, ``zero_grad``), and either can be handed to ``training.stochastic.run_epochs``.

Weights in half precision are moved as ``torch.optim`` does not move them: see :class:`Masters`.
"""

# torch._fused_* is what torch.optim itself is built on.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from expunge.tasks.half_precision import is_half, rounded


def laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """``tensor`` in the parameter's order of memory where it has its shape: fused kernels take no other."""
    if tensor.shape != parameter.shape or tensor.stride() == parameter.stride():
        return tensor
    return torch.empty_like(parameter).copy_(tensor)


def state_bytes(parameters: Iterable[Tensor]) -> int:
    """What is stored of a run of Adam at a time: each weight and two moments, and in half precision masters too."""
    each = ((p.numel(), p.element_size() + 12 if is_half(p) else 3 * p.element_size()) for p in parameters)
    return sum(count * size for count, size in each)


def _dense(parameter: Tensor) -> Tensor:
    """The parameter, or a copy without gaps: fused kernels walk through memory and would fill a slice's gaps."""
    if parameter.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(parameter):
        return parameter
    return torch.empty_like(parameter).copy_(parameter)


class Masters:
    """Master weights: a float32 copy of each weight in half precision, which steps move instead of the weight.

    After a step the weight is the master, rounded by :func:`~expunge.tasks.half_precision.rounded`, so that steps far below its
    spacing count. Weights in single or double precision are their own masters.

    Args:
        parameters: all weights, in an order that is the same whenever the run is started again.

    Source: Micikevicius et al. 2017, arXiv 1710.03740, section 3.1 (master weights); stochastic rounding of bfloat16 weights:
    Zamirai et al. 2020, arXiv 2010.06192.
    """

    def __init__(self, parameters: Iterable[Tensor]):
        self.places = {parameter: place for place, parameter in enumerate(parameters) if is_half(parameter)}
        self.wide: dict[Tensor, Tensor] = {}  # made on first use: weights may be loaded until then

    def of(self, parameter: Tensor) -> Tensor:
        """What a step moves."""
        if parameter not in self.places:
            return parameter
        if parameter not in self.wide:
            self.wide[parameter] = parameter.detach().float()
        return self.wide[parameter]

    @torch.no_grad()
    def settle(self, parameters: Iterable[Tensor]) -> None:
        """Round the masters of ``parameters`` into them."""
        for parameter in parameters:
            if parameter in self.places:
                parameter.copy_(rounded(self.of(parameter), parameter.dtype, self.places[parameter]))


class Optimizer:
    """Weights that are moved in place, a step size that may change between steps, and a state for each weight.

    Args:
        parameters: the weights; or groups of them, as ``torch.optim`` takes them: mappings with the weights under ``params``,
            and settings that are a group's own.
        settings: ``lr`` and whatever else :meth:`update` reads, of every group that does not say otherwise.

    Attributes:
        masters: what moves in place of weights in half precision; optimizers of the same weights share one object.
        state: what is remembered of each weight, by its master.
    """

    def __init__(self, parameters: Iterable[Any], **settings: Any):
        moving = list(parameters)
        groups = moving if moving and isinstance(moving[0], Mapping) else [{"params": moving}]
        self.param_groups: list[dict[str, Any]] = [{**settings, **group} for group in groups]
        self.masters = Masters(parameter for group in self.param_groups for parameter in group["params"])
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)

    @torch.no_grad()
    def step(self) -> None:
        """One step along the gradients at hand; a weight without one stays."""
        for group in self.param_groups:
            alike: dict[Any, list[Tensor]] = {}
            half: list[Tensor] = []
            for parameter in group["params"]:
                if parameter.grad is not None:
                    moving = parameter
                    if is_half(parameter):
                        half.append(parameter)
                        moving = self.masters.of(parameter)
                        moving.grad = parameter.grad.float()
                    key = (moving.device, moving.dtype, bool(self.state.get(moving)))
                    alike.setdefault(key, []).append(moving)
            for (*_, begun), parameters in alike.items():
                self.update(parameters, group, begun)
            if half:
                self.masters.settle(half)
                for parameter in half:
                    self.masters.of(parameter).grad = None

    def update(self, parameters: list[Tensor], group: dict[str, Any], begun: bool) -> None:
        """Move weights (masters) of one device and type that all have a state already (``begun``), or none."""
        raise NotImplementedError

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients."""
        assert set_to_none
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def numbered(self) -> dict[int, dict[str, Any]]:
        """The states, by the place of their weight, group after group; those that there are."""
        everything = [self.masters.of(parameter) for group in self.param_groups for parameter in group["params"]]
        return {i: self.state[parameter] for i, parameter in enumerate(everything) if self.state.get(parameter)}


class SGD(Optimizer):
    """v <- momentum v + g + decay theta; theta <- theta - lr v. The first v is the gradient, as in ``torch.optim.SGD``."""

    def __init__(self, parameters: Iterable[Any], lr: float, momentum: float = 0.0, weight_decay: float = 0.0):
        super().__init__(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def update(self, parameters: list[Tensor], group: dict[str, Any], begun: bool) -> None:
        """See the class."""
        moved = [_dense(parameter) for parameter in parameters]
        if group["momentum"] and not begun:
            for parameter in parameters:
                self.state[parameter]["momentum_buffer"] = torch.empty_like(parameter)
        velocities = [self.state[parameter]["momentum_buffer"] for parameter in parameters if group["momentum"]]
        torch._fused_sgd_(
            moved, _gradients(parameters), velocities, weight_decay=group["weight_decay"], momentum=group["momentum"],
            lr=group["lr"], dampening=0.0, nesterov=False, maximize=False,
            is_first_step=bool(velocities) and not begun,
        )  # fmt: skip
        _put_back(parameters, moved)


class Adam(Optimizer):
    """Adam with coupled weight decay (Kingma and Ba, arXiv 1412.6980), as ``torch.optim.Adam``."""

    decoupled = False

    def __init__(
        self, parameters: Iterable[Any], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):  # fmt: skip
        super().__init__(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update(self, parameters: list[Tensor], group: dict[str, Any], begun: bool) -> None:
        """See the class."""
        moved = [_dense(parameter) for parameter in parameters]
        states = [self.state[parameter] for parameter in parameters]
        if not begun:
            for parameter, state in zip(parameters, states, strict=True):
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        steps, first, second = ([state[name] for state in states] for name in ("step", "exp_avg", "exp_avg_sq"))
        torch._foreach_add_(steps, 1)
        kernel = torch._fused_adamw_ if self.decoupled else torch._fused_adam_
        kernel(
            moved, _gradients(parameters), first, second, [], steps, amsgrad=False, lr=group["lr"],
            beta1=group["betas"][0], beta2=group["betas"][1], weight_decay=group["weight_decay"], eps=group["eps"],
            maximize=False,
        )  # fmt: skip
        _put_back(parameters, moved)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), as ``torch.optim.AdamW``."""

    decoupled = True


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [laid_out_like(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]


def _put_back(parameters: list[Tensor], moved: list[Tensor]) -> None:
    for parameter, copy in zip(parameters, moved, strict=True):
        if copy is not parameter:
            parameter.copy_(copy)


def cosine(rate: float, epoch: int, epochs: int) -> float:
    """The rate after ``epoch`` of ``epochs``, from the one before: as ``CosineAnnealingLR`` down to zero, bit for bit."""
    return (1 + math.cos(math.pi * epoch / epochs)) / (1 + math.cos(math.pi * (epoch - 1) / epochs)) * rate
