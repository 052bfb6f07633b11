"""What settings name: objects in the user's code, devices, methods."""

from __future__ import annotations

import importlib
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
        InputError: as :func:`method_of`.
    """
    settings = dict(settings)
    hints = get_type_hints(registry.load(name.partition("+")[0]))
    for setting in settings.keys() & hints.keys():
        try:
            settings[setting] = TypeAdapter(hints[setting]).validate_python(settings[setting])
        except ValidationError as error:
            problem = error.errors()[0]["msg"]
            raise InputError(f"{where}.{setting}: {problem} (got {settings[setting]!r:.60}).") from None
    return registry.make(name, settings)
