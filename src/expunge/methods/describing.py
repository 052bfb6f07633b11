"""What a person should know of a method before using it: what it does, what it promises, and each of its settings."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from expunge.core.allowed import hints_of, words
from expunge.methods import registry

_NAMES = re.compile(r"(?:^|(?<=[;.])\s)\s*((?:\w+, )*\w+): ", re.MULTILINE)

_ROLE = re.compile(r":\w+:`~?([^`]+)`")  # of Sphinx: :data:`~package.NAME` is read as NAME


def described(name: str) -> dict[str, Any]:
    """The entry of ``registry.table`` and besides ``summary``, ``guarantee`` and ``settings``.

    Args:
        name: of a method; of ``salun+dual`` the method before the sign, whose setting ``dual`` is the variant.

    Returns:
        each of ``settings`` has ``name``, ``allowed`` (in words), ``default`` as a record has it (``None`` also where nothing
        is set), ``required`` and ``meaning``, from the docstrings of the class and of those that it is built from.

    Raises:
        InputError: for an unknown method.
    """
    name = name.partition("+")[0]
    kind = registry.load(name)
    row = next(row for row in registry.table() if row["name"] == name)
    module = inspect.getdoc(sys.modules[kind.__module__]) or ""
    hints, meanings = hints_of(kind), _meanings(kind)
    settings = [
        {
            "name": field.name,
            "allowed": words(hints[field.name]),
            "default": registry.as_json(_default(field), f"{name}'s {field.name}"),
            "required": field.default is MISSING and field.default_factory is MISSING,
            "meaning": meanings.get(field.name, ""),
        }
        for field in fields(kind)
        if field.init
    ]
    return {**row, "summary": _paragraph(module), "guarantee": _guarantee(module), "settings": settings}


def _default(field: Any) -> Any:
    if field.default is not MISSING:
        return field.default
    return None if field.default_factory is MISSING else field.default_factory()


def _meanings(kind: type) -> Mapping[str, str]:
    """Setting → what its class, or the nearest one that it is built from, says of it under ``Attributes:``."""
    found: dict[str, str] = {}
    known = {field.name for field in fields(kind)}
    for each in kind.__mro__:
        section = (
            inspect.cleandoc(each.__dict__.get("__doc__") or "").partition("Attributes:\n")[2].partition("\n\n")[0]
        )
        marks = [mark for mark in _NAMES.finditer(section) if known >= set(mark.group(1).split(", "))]
        ends = [*(mark.start() for mark in marks), len(section)][1:]
        for mark, end in zip(marks, ends, strict=False):
            text = _ROLE.sub(lambda role: role.group(1).rpartition(".")[2], " ".join(section[mark.end() : end].split()))
            text = text.replace("``", "").rstrip(";")
            for setting in mark.group(1).split(", "):
                found.setdefault(setting, text)
    return found


def _paragraph(text: str) -> str:
    """The first one, on one line, without the marks of code."""
    return " ".join(text.split("\n\n")[0].split()).replace("``", "") if text else ""


def _guarantee(module: str) -> str:
    """What the module says after "Formal guarantee:"; empty where it says nothing."""
    return _paragraph(module.partition("Formal guarantee:")[2])
