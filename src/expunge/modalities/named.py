"""What settings name: objects in the user's code, devices, methods."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError

from expunge.core.allowed import hints_of, not_allowed, unlike
from expunge.core.errors import InputError
from expunge.core.measurement import AT, OWN_PROBES, PART
from expunge.methods import registry


def resolve(name: str) -> Callable[..., Any]:
    """The object behind ``package.module:callable``; the working directory is importable, as for ``python -m``.

    Raises:
        InputError: saying whether the module or the name in it is missing.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not attribute:
        raise InputError(f"Expected package.module:callable; got {name!r}.")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(f"Cannot import {module_name!r}: {error}. Is it installed, or in this directory?") from error
    found = getattr(module, attribute, None)
    if not callable(found):
        raise InputError(f"{module_name} has no callable {attribute!r}.")
    return found


def module_factory(name: str, make: Callable[..., Any], settings: Mapping[str, Any]) -> Callable[[], torch.nn.Module]:
    """``make`` with the job's settings of the model; it is called once to see that it works.

    Args:
        name: what the job calls the model, for messages.

    Raises:
        InputError: where it does not take the settings, or makes no module.
    """
    factory = functools.partial(make, **settings)
    try:
        model = factory()
    except TypeError as error:
        raise InputError(f"{name} does not take model_settings {dict(settings)}: {error}.") from error
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"Expected {name} to return a torch module; it returned {type(model).__name__}.")
    return factory


def must_exist(device: str) -> None:
    """Raise InputError if there is no such device here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"There is no device {device!r} here ({str(error).splitlines()[0]}). Take cpu.") from None


def named_method(where: str, name: str, settings: Mapping[str, Any]) -> Any:
    """The method ``name``, ``+dual`` included, with settings of the types and in the ranges that it declares.

    Args:
        where: file and key, for messages.

    Raises:
        InputError: for an unknown method or setting, or a value that it may not have, before anything is trained.
    """
    kind, settings = registry.load(name.partition("+")[0]), dict(settings)
    plain = get_type_hints(kind)
    for setting in settings.keys() & {field.name for field in fields(kind) if field.init}:
        value, expected = settings[setting], hints_of(kind)[setting]
        try:
            settings[setting] = TypeAdapter(plain[setting]).validate_python(value)
        except ValidationError:
            raise InputError(f"{where}.{setting}: {unlike(expected, value)}") from None
        if not_allowed(expected, settings[setting]) or (isinstance(value, bool) and not_allowed(expected, value)):
            raise InputError(f"{where}.{setting}: {unlike(expected, value)}")
    try:
        return registry.make(name, settings)
    except InputError as error:  # what several settings come to together
        raise InputError(f"{where}: {error}") from None


RESERVED = ("retain", "forget", "touched", "wording", OWN_PROBES)  # names that evidence gives to sets of its own


def must_be_free(sets: Mapping[str, Any], also: Sequence[str] = ()) -> None:
    """Raise InputError where a named set of a job has the name of one that evidence makes itself, or of one of ``also``."""
    if taken := [name for name in sets if name in (*RESERVED, *also) or AT in name or PART in name or not name]:
        raise InputError(f"data.sets: {taken[0]!r} is what evidence calls a set of its own; take another name.")
