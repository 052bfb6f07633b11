"""Which tasks and modules compute what their type says and nothing else: exact types, without hooks or parametrisations.

A subclass may compute anything, and a hook may change anything. Constants are proved, and derivatives written out by hand,
only for what these functions recognise.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from expunge.core.task import Task
from expunge.tasks.classification import Classification
from expunge.tasks.networks import SoftmaxHead


def plain_classification(task: Task) -> bool:
    """Whether ``task`` is our classification under cross-entropy, with no attribute that stands before a method."""
    return type(task) is Classification and vars(task).keys() <= {field.name for field in fields(task)}


def plain_softmax_head(task: Task, model: nn.Module) -> bool:
    """Whether ``model`` is our softmax head under our cross-entropy, and nothing stands in between."""
    if not plain_classification(task) or type(model) is not SoftmaxHead:
        return False
    return type(model.linear) is nn.Linear and not any(altered(module) for module in (model, model.linear))


def altered(module: nn.Module) -> bool:
    """Whether hooks, a parametrisation or an attribute of its own stand between a module and what its type computes.

    Hooks of every kind count: of the module and of every module there is, on its tensors, on reading and writing its state;
    so does a tensor of somebody's own type, and a mode under which PyTorch calls other functions than its own. What cannot be
    seen is a hook on the node of the graph that accumulates a gradient.
    """
    own, fresh = vars(module), vars(nn.Module())
    hooked = any(own.get(name) for name in fresh if name.endswith("_hooks") or "_hooks_" in name)
    # a dictionary of somebody's own type answers as it likes
    odd = any(type(own.get(name)) is not type(fresh[name]) for name in fresh if name != "_is_full_backward_hook")
    shadows = any(hasattr(type(module), name) for name in own.keys() - fresh.keys())
    tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)] if not (odd or shadows) else []
    return (
        hooked
        or odd
        or shadows
        or hasattr(module, "parametrizations")
        or not all(map(_plain, tensors))
        or _everywhere()
    )


def _plain(tensor: Tensor) -> bool:
    """Whether a parameter or buffer is PyTorch's own and nothing is called when a gradient reaches it."""
    hooks = (getattr(tensor, name, None) for name in ("_backward_hooks", "_post_accumulate_grad_hooks"))
    return type(tensor) in (nn.Parameter, Tensor) and tensor.is_leaf and not vars(tensor) and not any(hooks)


def _everywhere() -> bool:
    """Whether hooks on every module are registered, or a mode is on that replaces PyTorch's functions."""
    hooks = [value for name, value in vars(nn.modules.module).items() if name.startswith("_global_")]
    modes = [*_get_current_function_mode_stack(), *_get_current_dispatch_mode_stack()]
    return any(isinstance(each, dict) and each for each in hooks) or any(type(m) is not DeviceContext for m in modes)


# Settings that decide shapes, or which of a few written-out formulas is computed. No others may differ from their defaults.
_SHAPES = frozenset([
    "in_features", "out_features", "in1_features", "in2_features", "in_channels", "out_channels", "kernel_size", "stride",
    "padding", "dilation", "groups", "output_padding", "transposed", "padding_mode", "_reversed_padding_repeated_twice",
    "num_features", "num_groups", "num_channels", "normalized_shape", "affine", "elementwise_affine",
    "track_running_stats", "num_embeddings", "embedding_dim", "padding_idx", "start_dim", "end_dim", "dim",
    "unflattened_size", "output_size", "upscale_factor", "downscale_factor", "inplace", "approximate", "ceil_mode",
    "count_include_pad", "return_indices", "sparse", "scale_grad_by_freq", "mode", "include_last_offset",
    "num_parameters", "embed_dim", "kdim", "vdim", "num_heads", "head_dim", "batch_first", "add_zero_attn",
    "_qkv_same_embed_dim", "before", "after",
])  # fmt: skip
_NAMES = frozenset([
    "zeros", "reflect", "replicate", "circular", "same", "valid", "none", "tanh", "nearest", "bilinear", "mean", "sum",
    "max",
])  # fmt: skip
_CONSTANTS: dict[type, dict[str, float]] = {
    nn.ReLU6: {"min_val": 0.0, "max_val": 6.0},
    nn.ZeroPad1d: {"value": 0.0}, nn.ZeroPad2d: {"value": 0.0}, nn.ZeroPad3d: {"value": 0.0},
}  # fmt: skip


def holds_no_values(module: nn.Module) -> bool:
    """Whether nothing of a module but its tensors can hold a number that was read from data; its children are not looked at.

    So it is for types of PyTorch and of ours, exactly, not altered, with no attribute beyond those of the type, and whose
    settings are sizes, switches and names, or what the type sets by default. A slope of 0.37 may be somebody's pixel.
    """
    if not _known(type(module)) or altered(module):
        return False
    if module._non_persistent_buffers_set:
        return False
    settings = {name: value for name, value in vars(module).items() if name not in vars(nn.Module())}
    constants = {
        name: item.default for name, item in inspect.signature(type(module).__init__).parameters.items()
    } | _CONSTANTS.get(type(module), {})
    return all(
        (type(value) is type(constants.get(name)) and value == constants.get(name))
        or (name in _SHAPES and _is_shape(value))
        for name, value in settings.items()
    )


def _known(kind: type) -> bool:
    """Whether ``kind`` is a module of ``torch.nn`` or of ours, and not one that only says so."""
    if kind.__module__.startswith("torch.nn.modules."):
        return getattr(nn, kind.__qualname__, None) is kind
    home = sys.modules.get(kind.__module__)
    return kind.__module__.startswith("expunge.tasks.") and getattr(home, kind.__qualname__, None) is kind


def _is_shape(value: Any) -> bool:
    if type(value) in (tuple, list, torch.Size):
        return all(type(item) is int for item in value)
    return value is None or type(value) in (int, bool) or (type(value) is str and value in _NAMES)
