"""What settings name: objects in the user's code, devices, methods."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError

from expunge.core.errors import InputError
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


def must_exist(device: str) -> None:
    """Raise InputError if there is no such device here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"There is no device {device!r} here ({str(error).splitlines()[0]}). Take cpu.") from None


def named_method(where: str, name: str, settings: Mapping[str, Any]) -> Any:
    """The method ``name``, ``+dual`` included, with settings of the types that it declares; ``where`` is for messages.

    Raises:
        InputError: for an unknown method or setting, or a value that it cannot have.
    """
    settings = dict(settings)
    hints = get_type_hints(registry.load(name.partition("+")[0]))
    for setting in settings.keys() & hints.keys():
        try:
            settings[setting] = TypeAdapter(hints[setting]).validate_python(settings[setting])
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise InputError(f"{where}.{setting}: {problem} (got {settings[setting]!r:.60}).") from None
    method = registry.make(name, settings)
    for setting in settings:
        _must_make_sense(f"{where}.{setting}", setting, getattr(method, setting, None))
    return method


def _must_make_sense(where: str, setting: str, value: Any) -> None:
    """Refuse, before anything is trained, numbers that no method can use: what the method itself checks may come later.

    Raises:
        InputError: for NaN, a learning rate that is not a finite number above 0, or fewer than one epoch, step or row.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if math.isnan(value):
        raise InputError(f"{where}: expected a number; got NaN.")
    if (setting == "lr" or setting.endswith("_lr")) and not 0 < value < math.inf:
        raise InputError(f"{where}: expected a finite learning rate above 0; got {value}.")
    if setting in ("epochs", "steps", "batch_size") and value < 1:
        raise InputError(f"{where}: expected at least 1; got {value}.")
