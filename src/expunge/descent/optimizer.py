"""One optimizer for both objectives, or one for each: the whole of DualOptim is the choice between two words.

``Shared`` keeps one state that forget and retain steps both move. ``Dual`` (Zhong, Luo and Liu, NeurIPS 2025, arXiv
2504.15827, Algorithm 1) gives each objective an optimizer of its own: moments and step counters are never shared, only the
weights are. Nothing else changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from expunge.core.errors import InputError
from expunge.descent.members import Member
from expunge.descent.processes import norm_of
from expunge.descent.schedule import FORGET, JOINT, MIXED, RETAIN
from expunge.training.optimizers import Masters, Optimizer, laid_out_like

# The settings of DualOptim's released image code (CityU-MLO/DualOptim): AdamW forgets with decay 0.05, the optimizer that
# trained the model retains.
FORGET_DECAY = 0.05
MOMENTUM, RETAIN_DECAY = 0.9, 5e-4
MASTER = "master"  # of a stored state: whose tensors are the master weights


class NonFiniteError(ArithmeticError):
    """A gradient or a loss was not finite; no weight and no state was touched."""


class Optimizers(Protocol):
    """A choice of optimizers for a method."""

    def build(self, parameters: Mapping[str, Tensor], clip: Mapping[str, float] | None = None) -> Stepper:
        """Fresh state over named ``parameters``."""
        ...

    def check(self, roles: frozenset[str]) -> None:
        """Raise InputError where a schedule's roles cannot be served."""
        ...


@dataclass(frozen=True)
class Shared:
    """One optimizer, one state, whoever's turn it is.

    Attributes:
        member: the optimizer; its ``lr`` is for retain, joint and mixed steps.
        forget_lr: step size of forget steps (the same state); ``None``: the member's.
    """

    member: Member
    forget_lr: float | None = None

    def __post_init__(self):
        if self.forget_lr is not None:
            replace(self.member, lr=self.forget_lr)  # raises where this is no learning rate

    def check(self, roles: frozenset[str]) -> None:
        """Serves every schedule."""

    def build(self, parameters: Mapping[str, Tensor], clip: Mapping[str, float] | None = None) -> Stepper:
        """One optimizer under every role."""
        optimizer = self.member.build(parameters.values())
        rates = {RETAIN: self.member.lr, FORGET: self.member.lr if self.forget_lr is None else self.forget_lr}
        rates |= {JOINT: self.member.lr, MIXED: self.member.lr}
        return Stepper(parameters, dict.fromkeys(rates, optimizer), rates, clip or {})


@dataclass(frozen=True)
class Dual:
    """DualOptim: ``forget`` steps on the forget loss, ``retain`` on the retain loss, each with a state of its own.

    Source: Zhong, Luo, Liu, "DualOptim" (NeurIPS 2025, arXiv 2504.15827), Algorithm 1. Published effect: a smaller gap to
    retraining in 14 of 15 settings (our count of its tables). It promises nothing about the spread over seeds, and equal
    nominal learning rates are not a fair comparison: a momentum that both losses share makes longer steps (derived by us).

    Formal guarantee: none. The paper's Theorem 3.5 compares upper bounds of the variance of the weights.
    """

    forget: Member
    retain: Member

    def check(self, roles: frozenset[str]) -> None:
        """Serves schedules that alternate.

        Raises:
            InputError: for a schedule that adds both losses in one step, or has a single objective.
        """
        if together := sorted(roles & {JOINT, MIXED}):
            raise InputError(
                f"Two optimizers need forget and retain steps that alternate; this schedule has {', '.join(together)} "
                "steps. Split the loss: take Passes or Interleave."
            )
        if missing := sorted({FORGET, RETAIN} - roles):
            raise InputError(f"Two optimizers need two objectives; this schedule has no {', '.join(missing)} steps.")

    def build(self, parameters: Mapping[str, Tensor], clip: Mapping[str, float] | None = None) -> Stepper:
        """Two optimizers over the same parameters."""
        members = {FORGET: self.forget, RETAIN: self.retain}
        built = {role: member.build(parameters.values()) for role, member in members.items()}
        return Stepper(parameters, built, {role: member.lr for role, member in members.items()}, clip or {})


class Stepper:
    """The optimizers of a run at work: steps by role, and a state that can be stored and taken up.

    Args:
        parameters: name → leaf tensor.
        optimizers: role → optimizer; one object may serve several roles.
        rates: role → learning rate.
        clip: role → largest L2 norm of its gradient over all parameters.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        optimizers: Mapping[str, Optimizer],
        rates: Mapping[str, float],
        clip: Mapping[str, float],
    ):
        self.parameters = parameters
        self.optimizers = optimizers
        self.rates = rates
        self.clip = clip
        self.masters = Masters(parameters.values())
        for optimizer in optimizers.values():
            optimizer.masters = self.masters

    def step(self, role: str, gradients: Sequence[Tensor], factor: float = 1.0, size: float | None = None) -> None:
        """One step of ``role``'s optimizer along ``gradients``, in the order of the parameters.

        Args:
            factor: what annealing makes of the learning rate.
            size: L2 norm of the whole gradient where these are parts of it.

        Raises:
            NonFiniteError: if a gradient is not finite; weights and states of all roles are then as they were.
        """
        size = float(norm_of(gradients)) if size is None else size
        if not size < float("inf"):  # NaN too
            raise NonFiniteError(f"the {role} gradient is not finite")
        if (limit := self.clip.get(role)) is not None and size > limit:
            torch._foreach_mul_(list(gradients), limit / size)  # pyright: ignore[reportPrivateImportUsage]
        optimizer = self.optimizers[role]
        for group in optimizer.param_groups:
            group["lr"] = self.rates[role] * factor
        for parameter, gradient in zip(self.parameters.values(), gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        optimizer.zero_grad()

    @property
    def _own(self) -> dict[str, Optimizer]:
        """Each optimizer once, under the first role that it serves."""
        own: dict[str, Optimizer] = {}
        for role, optimizer in self.optimizers.items():
            if all(optimizer is not other for other in own.values()):
                own[role] = optimizer
        return own

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, as flat named tensors; references, not copies."""
        found = {}
        for name, parameter in self.parameters.items():
            if parameter in self.masters.places:
                found[f"{MASTER}/weight/{name}"] = self.masters.of(parameter)
        for role, optimizer in self._own.items():
            for name, parameter in self.parameters.items():
                for key, value in optimizer.state.get(self.masters.of(parameter), {}).items():
                    if value is not None:
                        found[f"{role}/{key}/{name}"] = torch.as_tensor(value)
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up a stored state."""
        entries: dict[str, dict[str, dict[str, Tensor]]] = {}  # owner → name → key → value
        for path, tensor in state.items():
            owner, key, name = path.split("/", 2)
            parameter = self.parameters[name]
            kept = tensor.clone() if key == "step" else laid_out_like(parameter, tensor.clone().to(parameter.device))
            entries.setdefault(owner, {}).setdefault(name, {})[key] = kept
        for name, kept in entries.pop(MASTER, {}).items():
            self.masters.of(self.parameters[name]).copy_(kept["weight"])
        for role, optimizer in self._own.items():
            for name, kept in entries.get(role, {}).items():
                optimizer.state[self.masters.of(self.parameters[name])] = dict(kept)

    @property
    def state_bytes(self) -> int:
        """Memory that the states take now."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.state().values())
