"""Weights from a seed and nothing else: the one initialisation of which it is known that no row has influenced it.

A model's own code may have looked at anything before it returned a module. So every parameter is filled again here, after the
module was made, and every buffer is set to a constant; a module of a type whose initialisation is not written here is refused.

Formal guarantee: what :func:`fill` leaves in parameters and buffers is a function of names, shapes, types of modules and the
seed. What the module's own code does with its inputs is not looked at, except that it may hold no further tensors.

Scales: uniform in ±1/sqrt(fan_in) for linear layers and convolutions and their biases (LeCun et al. 1998; PyTorch's default
comes to the same), N(0, 1) for embeddings, 1 and 0 for norms, zeros for :class:`~expunge.tasks.networks.SoftmaxHead`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core.errors import InputError
from expunge.tasks.networks import SoftmaxHead

_FAN_IN = (
    nn.Linear, nn.Bilinear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
_NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.InstanceNorm1d,
    nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
# What a buffer of these norms counts from; no other module's buffers are known to be constants.
_BUFFERS = {"running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0.0}


def fill(model: nn.Module, seed: int) -> nn.Module:
    """``model`` with every parameter filled from ``seed`` and every buffer set to a constant, in place.

    Args:
        model: may be nested in any way; only modules with parameters or buffers of their own are looked at by type.
        seed: with a parameter's name it decides its values, so that adding a layer changes no other one's.

    Raises:
        InputError: naming the first module that cannot be filled, and why.
    """
    for name, module in model.named_modules():
        _must_hold_nothing_else(name, module)
        if type(module) is SoftmaxHead:
            continue
        own, buffers = dict(module.named_parameters(recurse=False)), dict(module.named_buffers(recurse=False))
        with torch.no_grad():
            for leaf, parameter in own.items():
                parameter.copy_(_values(name, module, leaf, parameter, seed))
            for leaf, buffer in buffers.items():
                if type(module) not in _NORMS or leaf not in _BUFFERS:
                    raise InputError(
                        f"{_called(name, module)} has a buffer {leaf!r} whose constant is not known; {_INSTEAD}"
                    )
                buffer.fill_(_BUFFERS[leaf])
    for module in model.modules():
        if type(module) is SoftmaxHead:  # after its linear layer was filled as any other: its weights start at zero
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.zero_()
    return model


def fillable(model: nn.Module) -> bool:
    """Whether :func:`fill` would take ``model``; nothing is changed."""
    try:
        for name, module in model.named_modules():
            _must_hold_nothing_else(name, module)
            for leaf, _ in module.named_parameters(recurse=False):
                _kind(name, module, leaf)
            if any(
                type(module) not in _NORMS or leaf not in _BUFFERS for leaf, _ in module.named_buffers(recurse=False)
            ):
                return False
    except InputError:
        return False
    return True


_INSTEAD = "use modules of torch.nn, or declare the start (it is then somebody's word)."


def _called(name: str, module: nn.Module) -> str:
    return f"Module {name or 'the model itself'!r} of type {type(module).__module__}.{type(module).__qualname__}"


def _kind(name: str, module: nn.Module, leaf: str) -> str:
    kind = type(module)
    if kind in _FAN_IN:
        return "fan in"
    if kind in _NORMS:
        return "norm"
    if kind in _EMBEDDINGS:
        return "embedding"
    raise InputError(f"{_called(name, module)} has a parameter {leaf!r} that no initialiser here knows; {_INSTEAD}")


def _values(name: str, module: nn.Module, leaf: str, parameter: Tensor, seed: int) -> Tensor:
    kind = _kind(name, module, leaf)
    if kind == "norm":
        return torch.full_like(parameter, 1.0 if leaf == "weight" else 0.0)
    drawn = _generator(f"{name}.{leaf}", seed)
    if kind == "embedding":
        values = drawn.standard_normal(tuple(parameter.shape))
        if (padding := getattr(module, "padding_idx", None)) is not None:
            values[padding] = 0.0
    else:
        bound = 1 / math.sqrt(max(1, _fan_in(module)))
        values = drawn.uniform(-bound, bound, tuple(parameter.shape))
    return torch.from_numpy(values).to(parameter.device, parameter.dtype)


def _fan_in(module: nn.Module) -> int:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return int(weight[0].numel())


def _generator(name: str, seed: int) -> np.random.Generator:
    """PCG64 from seed and name, the same on every machine and with any number of threads."""
    words = hashlib.sha256(f"expunge/initial/1 {seed} {name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(words, "little"))


def _must_hold_nothing_else(name: str, module: nn.Module) -> None:
    """Raise InputError for tensors that are no parameter and no stored buffer, and for state of its own making."""
    if module._non_persistent_buffers_set:
        held = ", ".join(sorted(module._non_persistent_buffers_set))
        raise InputError(f"{_called(name, module)} has buffers that are not stored with it ({held}); {_INSTEAD}")
    if type(module).get_extra_state is not nn.Module.get_extra_state or hasattr(module, "parametrizations"):
        raise InputError(f"{_called(name, module)} has state of its own making or a parametrisation; {_INSTEAD}")
    for attribute, value in vars(module).items():
        if attribute not in ("_parameters", "_buffers", "_modules") and any(_arrays(value)):
            raise InputError(
                f"{_called(name, module)} holds an array in its attribute {attribute!r}, which no seed made; {_INSTEAD}"
            )


def _arrays(value: Any, depth: int = 3) -> Iterator[bool]:
    """One truth for each tensor or array within ``value``."""
    if isinstance(value, Tensor | np.ndarray):
        yield True
    elif depth and isinstance(value, Mapping):
        for item in value.values():
            yield from _arrays(item, depth - 1)
    elif depth and isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _arrays(item, depth - 1)
