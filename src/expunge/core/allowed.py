"""Which values a setting of a method may have, written in its type: one check for all methods, before anything is trained.

A field says it as ``density: Share = 0.5``, ``lr: Positive | None = None`` or ``mask: Literal["forget", "difference"]``, and
numbers are finite. What ``bench --tune`` searches is another matter (:data:`~expunge.core.capabilities.Ranges`): a part of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from expunge.core.errors import InputError

# Of a field: a setting that records and their digests hold only where it is set.
UNRECORDED_IF_NONE = "unrecorded if None"
MOST = 10**9  # of a count: more steps, epochs or rows of a batch than any run has; our choice


@dataclass(frozen=True)
class Allowed:
    """Bounds of the finite numbers that a setting may be; each bound ``None`` where there is none.

    Attributes:
        above, least: bounds from below, without and with the bound itself.
        below, most: bounds from above, without and with the bound itself.
    """

    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None

    def holds(self, value: float) -> bool:
        """Whether ``value`` is one of them."""
        return (
            (self.above is None or value > self.above)
            and (self.least is None or value >= self.least)
            and (self.below is None or value < self.below)
            and (self.most is None or value <= self.most)
        )

    def __str__(self) -> str:
        bounds = [("above", self.above), ("at least", self.least), ("below", self.below), ("at most", self.most)]
        return " and ".join(f"{word} {bound:,}" for word, bound in bounds if bound is not None)


Finite = Annotated[float, Allowed()]
Positive = Annotated[float, Allowed(above=0)]
NonNegative = Annotated[float, Allowed(least=0)]
Share = Annotated[float, Allowed(above=0, most=1)]
Fraction = Annotated[float, Allowed(least=0, most=1)]
Probability = Annotated[float, Allowed(above=0, below=1)]
Count = Annotated[int, Allowed(least=1, most=MOST)]
Whole = Annotated[int, Allowed(least=0, most=MOST)]


@cache
def hints_of(kind: type) -> Mapping[str, Any]:
    """Setting → its type with what it may be, of a method's class."""
    return get_type_hints(kind, include_extras=True)


def not_allowed(hint: Any, value: Any) -> bool:
    """Whether ``value`` may not stand for a setting of type ``hint``."""
    return not _fits(hint, value)


def unlike(hint: Any, value: Any) -> str:
    """What was expected of a setting of type ``hint``, and what came."""
    return f"expected {words(hint)}; got {value!r:.60}."


def must_be_allowed(method: Any) -> None:
    """Refuse a method, a dataclass, one of whose settings may not be what it is: the last line of ``__post_init__``.

    Raises:
        InputError: naming the setting, what was expected and what came.
    """
    hints = hints_of(type(method))
    for field in fields(method):
        if field.init and not_allowed(hints[field.name], value := getattr(method, field.name)):
            expected = words(hints[field.name])
            raise InputError(f"Expected {expected} as {field.name} of {method.name}; got {value!r:.60}.")


def _fits(hint: Any, value: Any) -> bool:
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Annotated:
        bounds = [mark for mark in inner[1:] if isinstance(mark, Allowed)]
        return _fits(inner[0], value) and all(mark.holds(value) for mark in bounds)
    if kind in (Union, UnionType):
        return any(_fits(each, value) for each in inner)
    if kind is Literal:
        return value in inner
    if kind is tuple and isinstance(value, tuple):
        each = inner[:1] * len(value) if inner[1:] == (...,) else inner
        return len(each) == len(value) and all(map(_fits, each, value))
    if hint is Any:
        return True
    if hint in (int, float):
        number = isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
        return number and math.isfinite(value)
    return isinstance(value, NoneType if hint is None else kind or hint)


def words(hint: Any) -> str:
    """What a setting of type ``hint`` may be, in words.

    >>> words(Positive | None)
    'a finite number above 0 or null'
    """
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Annotated:
        bounds = " and ".join(str(mark) for mark in inner[1:] if isinstance(mark, Allowed))
        return f"{words(inner[0])} {bounds}".strip()
    if kind in (Union, UnionType):
        return " or ".join(words(each) for each in inner)
    if kind is Literal:
        return " or ".join(map(str, inner))
    if kind is tuple:
        return f"a list, each {words(inner[0])}"
    named = {int: "a whole number", float: "a finite number", str: "a text", bool: "true or false", NoneType: "null"}
    return named.get(hint, "settings by name" if kind is not None else getattr(hint, "__name__", str(hint)))
