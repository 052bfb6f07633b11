"""Which tasks and modules compute what their type says and nothing else: exact types, without hooks or parametrisations.

A subclass may compute anything, and a hook may change anything. Constants are proved, and derivatives written out by hand,
only for what these functions recognise.
"""

from __future__ import annotations

from dataclasses import fields

from torch import nn

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
    """Whether hooks, a parametrisation or an attribute of its own stand between a module and what its type computes."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    everywhere = (
        "_global_forward_hooks",
        "_global_forward_pre_hooks",
        "_global_backward_hooks",
        "_global_backward_pre_hooks",
    )
    own = any(getattr(module, name, None) for name in hooks) or "forward" in vars(module) or "__call__" in vars(module)
    return (
        own or any(getattr(nn.modules.module, name, None) for name in everywhere) or hasattr(module, "parametrizations")
    )
