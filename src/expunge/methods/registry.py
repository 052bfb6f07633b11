"""Names of methods and where they live; other packages add theirs by the entry point group ``expunge.methods``."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from expunge.core.allowed import UNRECORDED_IF_NONE
from expunge.core.capabilities import Capabilities, Paper, SmallScale
from expunge.core.digest import digest_json
from expunge.core.errors import InputError
from expunge.methods.declared import declared

GROUP = "expunge.methods"
# What can stand after a method's name, in the order of row names: the setting of that name, and what it is then set to. 5:
# the paper's eta of SU for NPO and IDK on TOFU (arXiv 2506.00359).
VARIANTS: Mapping[str, Any] = {"su": 5.0, "dual": True, "alternate": True}
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
    "selective_amnesia": "expunge.methods.selective_amnesia:SelectiveAmnesia",
    "negative_guidance": "expunge.methods.negative_guidance:NegativeGuidance",
    "boundary_shrink": "expunge.methods.boundary_shrink:BoundaryShrink",
    "manif_smc": "expunge.methods.manif_smc:ManifSMC",
    "ga": "expunge.methods.ga:GA",
    "grad_diff": "expunge.methods.grad_diff:GradDiff",
    "npo": "expunge.methods.npo:NPO",
    "simnpo": "expunge.methods.simnpo:SimNPO",
    "idk": "expunge.methods.idk:IDK",
    "idk_ap": "expunge.methods.idk_ap:IDKAP",
    "me": "expunge.methods.me:ME",
    "lune": "expunge.methods.lune:LUNE",
    "dpo": "expunge.methods.dpo:DPO",
    "rmu": "expunge.methods.rmu:RMU",
    "undial": "expunge.methods.undial:Undial",
    "wga": "expunge.methods.wga:WGA",
    "satimp": "expunge.methods.satimp:SatImp",
    "siu": "expunge.methods.siu:SIU",
    "mmunlearner": "expunge.methods.mmunlearner:MMUnlearner",
    "prompt_decouple": "expunge.methods.prompt_decouple:PromptDecouple",
    "multi_delete": "expunge.methods.multi_delete:MultiDelete",
    "newton": "expunge.methods.newton:Newton",
    "network_newton": "expunge.methods.network_newton:NetworkNewton",
    "rr_du": "expunge.methods.rr_du:RRDU",
    "masked_rr_du": "expunge.methods.masked_rr_du:MaskedRRDU",
    "certified_removal": "expunge.methods.certified_removal:CertifiedRemoval",
    "descent_to_delete": "expunge.methods.descent_to_delete:DescentToDelete",
    "noisy_fine_tune": "expunge.methods.noisy_fine_tune:NoisyFineTune",
    "langevin": "expunge.methods.langevin:Langevin",
    "gnn_delete": "expunge.methods.gnn_delete:GNNDelete",
    "gif": "expunge.methods.gif:GIF",
    "idea": "expunge.methods.idea:IDEA",
    "graph_editor": "expunge.methods.graph_editor:GraphEditor",
    "graph_eraser": "expunge.methods.graph_eraser:GraphEraser",
    "cgu": "expunge.methods.cgu:CGU",
    "ceu_graph": "expunge.methods.ceu_graph:CEUGraph",
    "other_seed": "expunge.methods.other_seed:OtherSeed",
    "utu": "expunge.methods.utu:UtU",
    "no_op": "expunge.methods.no_op:NoOp",
}


@cache
def targets() -> dict[str, str]:
    """Name → ``module:class`` of every method at hand, ours first; a name cannot be taken twice."""
    found = dict(BUILTIN)
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, point.value)
    return found


def target_of(name: str) -> str:
    """``module:class`` of the method called ``name``; raises InputError listing the known names."""
    known = targets()
    if name not in known:
        raise InputError(f"Expected a method among {', '.join(sorted(known))}; got {name!r}.")
    return known[name]


def load(name: str) -> Any:
    """The method class called ``name``; raises InputError listing the known names."""
    module, _, attribute = target_of(name).partition(":")
    return getattr(importlib.import_module(module), attribute)


def is_own(method: Any) -> bool:
    """Whether ``method`` is one of expunge's own implementations: by its exact type, never by what it calls itself."""
    place = BUILTIN.get(getattr(method, "name", ""), "")
    module, _, attribute = place.partition(":")
    kind = type(method)
    if (kind.__module__, kind.__qualname__) != (module, attribute) or kind is not load(method.name):
        return False
    # an attribute put on the instance may stand in for any part of the class; R2D narrows its own capabilities
    return vars(method).keys() <= {*(field.name for field in fields(method)), "capabilities"}


def settings_names(name: str) -> list[str]:
    """Names of the settings of the method called ``name``."""
    return [field.name for field in fields(load(name)) if field.init]


def variants_of(name: str) -> tuple[str, ...]:
    """Which of :data:`VARIANTS` the method called ``name`` has."""
    known = settings_names(name)
    return tuple(variant for variant in VARIANTS if variant in known)


def make(name: str, settings: Mapping[str, Any] | None = None) -> Any:
    """A method with settings from a job file or a record; ``name+su+dual`` is ``name`` with SU under DualOptim.

    Raises:
        InputError: on an unknown setting, naming the known ones; on a variant that the method does not have, that is named
            twice, or that the settings turn off.
    """
    name, *variants = name.split("+")
    if len(set(variants)) < len(variants):
        raise InputError(f"Expected each variant once; got {'+'.join([name, *variants])}.")
    cls, known = load(name), settings_names(name)
    chosen = {key: _frozen(value) for key, value in (settings or {}).items()}
    for variant in variants:
        if variant not in variants_of(name):
            raise InputError(_no_variant(name, variant))
        if not chosen.setdefault(variant, VARIANTS[variant]):
            raise InputError(f"{name}+{variant} has {variant} on; its settings turn it off. Leave one of the two out.")
    if unknown := sorted(chosen.keys() - set(known)):
        raise InputError(
            f"Method {name} has no setting {', '.join(unknown)}; its settings are {', '.join(known) or 'none'}."
        )
    return cls(**chosen)


def _no_variant(name: str, variant: str) -> str:
    if variant not in VARIANTS:
        return f"Expected {' or '.join(f'+{each}' for each in VARIANTS)} after a method's name; got {name}+{variant}."
    able = ", ".join(each for each in targets() if variant in variants_of(each))
    why = {
        "dual": "which have two objectives",
        "alternate": "which are language models' and otherwise add both losses in one step",
        "su": "which are language models' and have a retain loss that scope can be added to",
    }
    return f"Expected +{variant} after one of {able}, {why[variant]}; got {name}+{variant}."


def papers_of(name: str) -> tuple[Paper, ...]:
    """Where the method called ``name`` was published; empty for a control, and for a plug-in that does not say."""
    return getattr(load(name), "papers", ())


def small_settings(name: str, purpose: str) -> dict[str, Any]:
    """Settings of ``name``, ``name+dual``, … for a model of some hundred weights.

    Args:
        purpose: ``quick`` or ``visible``, as :class:`~expunge.core.method.SmallScale` has them.
    """
    name, *variants = name.split("+")
    small: SmallScale = getattr(load(name), "small", SmallScale())
    besides = [needed_under(name, variant) for variant in variants]
    return {key: value for part in (small.fit, getattr(small, purpose), *besides) for key, value in part.items()}


def needed_under(name: str, variant: str) -> Mapping[str, Any]:
    """What ``name`` needs besides in every run under ``variant``."""
    return getattr(load(name), "small", SmallScale()).variants.get(variant, {})


def row_name(method: Any) -> str:
    """What a row of results is called: the method's name, with ``+su``, ``+dual`` and ``+alternate`` where they are on."""
    return "+".join([method.name, *(variant for variant in VARIANTS if getattr(method, variant, False))])


def settings_of(method: Any) -> dict[str, Any]:
    """Name and JSON-like settings of a method: what a record says it was, and what :func:`make` makes it from again.

    Raises:
        InputError: on a setting that is infinite or not a number, or of a type that JSON does not have.
    """
    plain = {}
    for field in fields(method):
        value = getattr(method, field.name)
        if field.init and not (value is None and field.metadata.get(UNRECORDED_IF_NONE)):
            plain[field.name] = as_json(value, f"{method.name}'s {field.name}")
    return {"name": method.name, "settings": plain, "digest": digest_json([method.name, plain])}


def as_json(value: Any, where: str) -> Any:
    """``value`` as JSON has it: sequences are lists, keys are texts, a record (a method around another) is a mapping."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"Expected finite settings; got {where}={value}.")
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): as_json(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item, where) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(as_json(item, where) for item in value)
    if isinstance(value, str):
        return str(value)  # of an enumeration
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name), f"{where}.{field.name}") for field in fields(value)}
    raise InputError(f"Expected a number, a text, a list or a mapping as {where}; got {type(value).__name__}.")


def _frozen(value: Any) -> Any:
    """A list of a file as the tuple that a frozen setting is; what lies in mappings stays as JSON has it."""
    return tuple(value) if isinstance(value, list) else value


def table() -> list[dict[str, Any]]:
    """What each method needs, serves and promises; one row a method."""
    rows = []
    for name in targets():
        capabilities, papers = _declared(name)
        rows.append(
            {
                "name": name,
                "paper": "; ".join(map(str, papers)),
                "kinds": list(capabilities.kinds),
                "tasks": list(capabilities.tasks),
                "needs": list(capabilities.needs),
                "effect": capabilities.effect,
                "certified": capabilities.certified,
            }
        )
    return rows


def _declared(name: str) -> tuple[Capabilities, tuple[Paper, ...]]:
    """Capabilities and papers of the method called ``name``: as its source writes them down, or else from its class."""
    try:
        return declared(targets()[name], "capabilities"), declared(targets()[name], "papers")
    except LookupError:
        return load(name).capabilities, papers_of(name)
