"""What a method's class declares, read in its source: a table of all methods imports none of them, and no torch."""

from __future__ import annotations

import ast
import re
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from expunge.core.capabilities import Capabilities, Paper

_MADE = {"Capabilities": Capabilities, "Paper": Paper}


def declared(target: str, attribute: str) -> Any:
    """The value that the class ``module:name``, or the nearest class above it, gives to ``attribute``.

    Raises:
        LookupError: where the value is anything but literals, ``Capabilities(…)`` and ``Paper(…)``: import the class then.
    """
    module, _, name = target.partition(":")
    source = _source(module)
    statement = _statement(source, name)
    for line in statement.body:
        names = isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.target.id == attribute
        if names and line.value is not None:
            return _value(line.value)
    for base in statement.bases:
        if isinstance(base, ast.Name):
            with suppress(LookupError):
                return declared(f"{_imports(source).get(base.id, module)}:{base.id}", attribute)
    raise LookupError(f"{target} does not write down its {attribute}.")


@cache
def _source(module: str) -> str:
    source = find_spec(module)
    if source is None or source.origin is None or not source.origin.endswith(".py"):
        raise LookupError(f"There is no source of {module}.")
    return Path(source.origin).read_text(encoding="utf-8")


@cache
def _statement(source: str, name: str) -> ast.ClassDef:
    """The class statement as far as its first method: what is below is code, and most of the time that reading takes."""
    found = re.search(
        rf"^class {re.escape(name)}\b.*?(?=^    @|^    (?:async )?def |^\S|\Z)", source, re.DOTALL | re.MULTILINE
    )
    if found is None:
        raise LookupError(f"There is no class statement for {name}.")
    try:
        (statement,) = ast.parse(found[0]).body
    except SyntaxError as error:
        raise LookupError(f"The class statement for {name} cannot be read on its own.") from error
    assert isinstance(statement, ast.ClassDef)
    return statement


@cache
def _imports(source: str) -> dict[str, str]:
    """Name → the module that it is imported from."""
    lines = re.findall(r"^from ([\w.]+) import (\([^)]*\)|.*)", source, re.MULTILINE)
    return {name: module for module, names in lines for name in re.findall(r"\w+", names)}


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _MADE:
        named = {each.arg: _value(each.value) for each in node.keywords if each.arg}
        return _MADE[node.func.id](*map(_value, node.args), **named)
    if isinstance(node, ast.Tuple):
        return tuple(map(_value, node.elts))
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise LookupError(f"line {node.lineno} is no literal") from error
