"""expunge: make a trained model forget, and show what is proven, what is measured and what is not known.

Importing the package is cheap: every name below loads what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_HOMES = {
    "Budget": "expunge.core.trained",
    "Kind": "expunge.core.request",
    "Request": "expunge.core.request",
    "Target": "expunge.core.request",
    "Rows": "expunge.data.rows",
    "Classification": "expunge.tasks.classification",
    "GradientDescent": "expunge.training.recipes",
    "Stochastic": "expunge.training.recipes",
    "UserFit": "expunge.training.recipes",
    "Recorder": "expunge.training.recorder",
    "Ledger": "expunge.ledger",
    "adopt": "expunge.planning",
    "measure": "expunge.measuring",
    "plan": "expunge.planning",
    "publish": "expunge.planning",
    "train": "expunge.planning",
    "write_report": "expunge.report.folder",
    "methods": "",
}
__all__ = [
    "Budget",
    "Classification",
    "GradientDescent",
    "Kind",
    "Ledger",
    "Recorder",
    "Request",
    "Rows",
    "Stochastic",
    "Target",
    "UserFit",
    "__version__",
    "adopt",
    "measure",
    "methods",
    "plan",
    "publish",
    "train",
    "write_report",
]

if TYPE_CHECKING:
    from expunge import methods as methods
    from expunge.core.request import Kind as Kind
    from expunge.core.request import Request as Request
    from expunge.core.request import Target as Target
    from expunge.core.trained import Budget as Budget
    from expunge.data.rows import Rows as Rows
    from expunge.ledger import Ledger as Ledger
    from expunge.measuring import measure as measure
    from expunge.planning import adopt as adopt
    from expunge.planning import plan as plan
    from expunge.planning import publish as publish
    from expunge.planning import train as train
    from expunge.report.folder import write_report as write_report
    from expunge.tasks.classification import Classification as Classification
    from expunge.training.recipes import GradientDescent as GradientDescent
    from expunge.training.recipes import Stochastic as Stochastic
    from expunge.training.recipes import UserFit as UserFit
    from expunge.training.recorder import Recorder as Recorder


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'expunge' has no attribute {name!r}")
    if name == "methods":
        return importlib.import_module("expunge.methods")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
