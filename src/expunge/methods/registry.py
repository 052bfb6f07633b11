"""Names of methods and where they live; other packages add theirs by the entry point group ``expunge.methods``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from expunge.core.digest import digest_json
from expunge.core.errors import InputError

GROUP = "expunge.methods"
BUILTIN: Mapping[str, str] = {
    "r2d": "expunge.methods.r2d:R2D",
    "retrain": "expunge.methods.retrain:Retrain",
    "fine_tune": "expunge.methods.fine_tune:FineTune",
    "gradient_ascent": "expunge.methods.gradient_ascent:GradientAscent",
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
    """A method with settings from a job file; raises InputError on an unknown setting, naming the known ones."""
    cls = load(name)
    settings = dict(settings or {})
    known = [field.name for field in fields(cls) if field.init]
    if unknown := sorted(settings.keys() - set(known)):
        raise InputError(
            f"Method {name} has no setting {', '.join(unknown)}; its settings are {', '.join(known) or 'none'}."
        )
    return cls(**settings)


def settings_of(method: Any) -> dict[str, Any]:
    """Name and JSON-like settings of a method: what a record says it was, and what :func:`make` makes it from again."""
    values = {field.name: getattr(method, field.name) for field in fields(method) if field.init}
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
