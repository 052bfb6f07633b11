"""A model trained from scratch, and its form in a cache: a line of JSON, then safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import load, save
from torch import Tensor

from expunge.core.digest import canonical_json
from expunge.core.trained import Fact, Facts, Trained

_STATE = "state:"  # before the names of secret tensors in an entry


@dataclass(frozen=True)
class Retraining:
    """A model trained from scratch.

    Attributes:
        tensors: its weights and buffers, un-noised, on the task's device.
        seconds: what training took when it was done, on one thread; of models trained together, its share.
        digest_of_rows, seed: what it was trained on and from.
        cached: whether it was read and not trained now.
        views: of a network, what each peer holds; one mapping for all that hold the same. Empty for one model.
        state, facts: what the recipe left besides the weights, where it was asked for: secret tensors, and circumstances.
    """

    tensors: Mapping[str, Tensor] = field(repr=False)
    seconds: float
    digest_of_rows: str
    seed: int
    cached: bool
    views: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict, repr=False)
    state: Mapping[str, Tensor] | None = field(default=None, repr=False)
    facts: Facts = field(default_factory=dict, repr=False)


@runtime_checkable
class LeavesState(Protocol):
    """A recipe whose models come with secret tensors that methods need: a perturbation, a closed form, shards of nodes."""

    leaves_state: bool


def as_entry(tensors: Mapping[str, Tensor], seconds: float, **more: Any) -> bytes:
    """An entry of the cache."""
    plain = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    return canonical_json({"seconds": seconds, **more}) + b"\n" + save(plain)


def packed(trained: Trained, seconds: float, keep: bool = False) -> bytes:
    """``trained`` as an entry: its weights, or of a network those of every view.

    Args:
        keep: with its secret state and its facts, where it is one model.
    """
    if trained.views:
        held = {id(view): view.tensors for view in trained.views.values()}
        place = {each: str(i) for i, each in enumerate(held)}
        tensors = {f"{place[each]}:{n}": t for each, of in held.items() for n, t in of.items()}
        return as_entry(tensors, seconds, views={peer: place[id(view)] for peer, view in trained.views.items()})
    if not keep:
        return as_entry(trained.artifact.tensors, seconds)
    state = {_STATE + name: tensor for name, tensor in (trained.state or {}).items()}
    facts = {name: fact.record for name, fact in trained.facts.items()}
    return as_entry({**trained.artifact.tensors, **state}, seconds, facts=facts)


def unpacked(content: bytes, cached: bool, digest_of_rows: str, seed: int, device: str) -> Retraining:
    """Undo of :func:`as_entry` and :func:`packed`."""
    head, _, body = content.partition(b"\n")
    tensors, told = {name: tensor.to(device) for name, tensor in load(body).items()}, json.loads(head)
    seconds = float(told["seconds"])
    if "views" in told:
        held: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            place, _, own = name.partition(":")
            held.setdefault(place, {})[own] = tensor
        views = {peer: held[place] for peer, place in told["views"].items()}
        return Retraining(next(iter(views.values())), seconds, digest_of_rows, seed, cached, views)
    state = {name.removeprefix(_STATE): tensor for name, tensor in tensors.items() if name.startswith(_STATE)}
    released = {name: tensor for name, tensor in tensors.items() if not name.startswith(_STATE)}
    facts = {name: Fact.of_record(record) for name, record in told.get("facts", {}).items()}
    return Retraining(released, seconds, digest_of_rows, seed, cached, {}, state or None, facts)
