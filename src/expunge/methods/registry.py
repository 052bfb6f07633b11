"""Names of methods and where they live; other packages add theirs by the entry point group ``expunge.methods``."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from expunge.core.digest import digest_json
from expunge.core.errors import InputError

GROUP = "expunge.methods"
DUAL = "dual"
BUILTIN: Mapping[str, str] = {
    "r2d": "expunge.methods.r2d:R2D",
    "retrain": "expunge.methods.retrain:Retrain",
    "fine_tune": "expunge.methods.fine_tune:FineTune",
    "gradient_ascent": "expunge.methods.gradient_ascent:GradientAscent",
    "neg_grad_plus": "expunge.methods.neg_grad_plus:NegGradPlus",
    "random_labels": "expunge.methods.random_labels:RandomLabels",
    "l1_sparse": "expunge.methods.l1_sparse:L1Sparse",
    "scrub": "expunge.methods.scrub:Scrub",
    "bad_teacher": "expunge.methods.bad_teacher:BadTeacher",
    "ssd": "expunge.methods.ssd:SSD",
    "salun": "expunge.methods.salun:SalUn",
    "sfron": "expunge.methods.sfron:SFRon",
    "manif_smc": "expunge.methods.manif_smc:ManifSMC",
    "ga": "expunge.methods.ga:GA",
    "grad_diff": "expunge.methods.grad_diff:GradDiff",
    "npo": "expunge.methods.npo:NPO",
    "simnpo": "expunge.methods.simnpo:SimNPO",
    "idk": "expunge.methods.idk:IDK",
    "dpo": "expunge.methods.dpo:DPO",
    "rmu": "expunge.methods.rmu:RMU",
    "undial": "expunge.methods.undial:Undial",
    "wga": "expunge.methods.wga:WGA",
    "newton": "expunge.methods.newton:Newton",
    "certified_removal": "expunge.methods.certified_removal:CertifiedRemoval",
    "descent_to_delete": "expunge.methods.descent_to_delete:DescentToDelete",
    "noisy_fine_tune": "expunge.methods.noisy_fine_tune:NoisyFineTune",
    "langevin": "expunge.methods.langevin:Langevin",
    "no_op": "expunge.methods.no_op:NoOp",
}


@cache
def targets() -> dict[str, str]:
    """Name → ``module:class`` of every method at hand, ours first; a name cannot be taken twice."""
    found = dict(BUILTIN)
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, point.value)
    return found


def load(name: str) -> Any:
    """The method class called ``name``; raises InputError listing the known names."""
    known = targets()
    if name not in known:
        raise InputError(f"Expected a method among {', '.join(sorted(known))}; got {name!r}.")
    module, _, attribute = known[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def make(name: str, settings: Mapping[str, Any] | None = None) -> Any:
    """A method with settings from a job file; ``name+dual`` is ``name`` under DualOptim.

    Raises:
        InputError: on an unknown setting, naming the known ones, or ``+dual`` of a method with a single objective.
    """
    name, plus, variant = name.partition("+")
    cls = load(name)
    settings = dict(settings or {})
    known = [field.name for field in fields(cls) if field.init]
    if plus:
        if variant != DUAL or DUAL not in known:
            able = ", ".join(each for each in targets() if DUAL in {field.name for field in fields(load(each))})
            raise InputError(f"Expected +{DUAL} after one of {able}, which have two objectives; got {name}+{variant}.")
        settings[DUAL] = True
    if unknown := sorted(settings.keys() - set(known)):
        raise InputError(
            f"Method {name} has no setting {', '.join(unknown)}; its settings are {', '.join(known) or 'none'}."
        )
    return cls(**settings)


def row_name(method: Any) -> str:
    """What a row of results is called: the method's name, with ``+dual`` under DualOptim."""
    return f"{method.name}+{DUAL}" if getattr(method, DUAL, False) else method.name


def settings_of(method: Any) -> dict[str, Any]:
    """Name and JSON-like settings of a method: what a record says it was, and what :func:`make` makes it from again.

    Raises:
        InputError: on a setting that is infinite or not a number.
    """
    values = {field.name: getattr(method, field.name) for field in fields(method) if field.init}
    if endless := [f"{n}={v}" for n, v in values.items() if isinstance(v, float) and not math.isfinite(v)]:
        raise InputError(f"Expected finite settings of {method.name}; got {', '.join(endless)}.")
    plain = {n: v if isinstance(v, str | int | float | bool | None) else str(v) for n, v in values.items()}
    return {"name": method.name, "settings": plain, "digest": digest_json([method.name, plain])}


def table() -> list[dict[str, Any]]:
    """What each method needs, serves and promises; one row a method."""
    rows = []
    for name in targets():
        capabilities = load(name).capabilities
        rows.append(
            {
                "name": name,
                "paper": capabilities.paper,
                "kinds": list(capabilities.kinds),
                "tasks": list(capabilities.tasks),
                "needs": list(capabilities.needs),
                "effect": capabilities.effect,
                "certified": capabilities.certified,
            }
        )
    return rows
