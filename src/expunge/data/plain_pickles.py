"""Plain data from pickles, read without running anything that a pickle may hold.

A pickle is a program: it names callables, and reading runs them. Here every name is refused but those that arrays and a few
containers need, and even these lead to stand-ins of ours that check what they are given; NumPy's own reconstruction, which
would unpickle the members of an object array, is never called.
"""

from __future__ import annotations

import functools
import io
import math
import pickle
import pickletools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from expunge.core.errors import InputError, foreign
from expunge.data.damage import PICKLE

BYTES = ("u1",)
NUMBERS = ("u1", "i4", "i8", "f4", "f8")
Known = Mapping[
    tuple[str, str], Callable[..., Any]
]  # (module, name) → what takes the room, then its arguments; or a class of ours


def read_pickle(path: Path, otherwise: str, *, types: tuple[str, ...] = BYTES, known: Known | None = None) -> Any:
    """Dicts, lists, text, bytes, numbers and arrays of ``types`` from a pickle; anything else is refused.

    Args:
        path: an existing file.
        otherwise: what a damaged file is besides damaged, for the message.
        types: of the arrays that may be there, as NumPy writes them.
        known: further names, and stand-ins for them.

    Raises:
        InputError: where the file is damaged, or asks for anything else.
    """

    def words(error: Exception) -> str:
        return f"{path.name} is damaged or {otherwise} ({type(error).__name__}: {error!s:.80}). Get the file anew."

    content = path.read_bytes()
    try:
        with foreign(words, *PICKLE):
            _bounded(content)
            found = _Reader(io.BytesIO(content), types, known or {}).load()
        return {key: settled(value) for key, value in found.items()} if isinstance(found, dict) else settled(found)
    except Refused as refused:
        raise InputError(
            f"{path.name} was refused: {refused}. A pickle may run code when it is read; nothing in it was executed."
        ) from None


def _bounded(content: bytes) -> None:
    """Refuse what would take memory out of proportion: lengths beyond the file's end and far places in the memo."""
    for opcode, argument, _ in pickletools.genops(content):  # itself refuses lengths beyond the end
        if "PUT" in opcode.name and isinstance(argument, int) and argument > len(content):
            raise Refused(f"it claims place {argument} in a file of {len(content)} bytes")


class Refused(Exception):
    """The pickle asked for something that is not plain data."""


class Room:
    """How many bytes a pickle may still come to beyond its own: what it remembers could be copied without an end."""

    def __init__(self, most: int, types: tuple[str, ...]):
        self.left, self.types = most, types

    def take(self, size: int) -> None:
        """Count ``size`` bytes; raises Refused where there is no room for them."""
        self.left -= size
        if self.left < 0:
            raise Refused("it copies its content over and over")


class _Array:
    """Stands in for ``numpy.ndarray`` while reading: keeps shape and bytes, if they are numbers of a known type."""

    __slots__ = ("found", "room")

    def __init__(self, room: Room):
        self.found: np.ndarray | None = None
        self.room = room

    def __setstate__(self, state: Any) -> None:
        match state:
            case (1, tuple() as shape, _Type() as kind, bool() as columns_first, str() | bytes() as raw) if all(
                type(side) is int and side >= 0 for side in shape
            ):
                self.room.take(len(raw))
                raw = raw.encode("latin1") if isinstance(raw, str) else raw
                code = np.dtype(kind.order + kind.code)
                if math.prod(shape) * code.itemsize != len(raw) or (columns_first and len(shape) > 1):
                    raise Refused(f"an array of shape {shape} with {len(raw)} bytes")
                self.found = np.frombuffer(raw, dtype=code).reshape(shape)
            case _:
                raise Refused("an array of something else than numbers of a known type")


class _Type:
    """Stands in for ``numpy.dtype``: numbers without fields, or nothing."""

    __slots__ = ("code", "order")

    def __init__(self, code: str):
        self.code, self.order = code, "|" if code == "u1" else "<"

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subtype, field names, fields, size, alignment, flags); all but the order empty for numbers
        orders = ("|",) if self.code == "u1" else ("<", ">")
        if not isinstance(state, tuple) or tuple(state[2:5]) != (None, None, None) or state[7:8] not in ((0,), ()):
            raise Refused("an array with fields or objects")
        if state[1] not in orders:
            raise Refused(f"numbers in the order {state[1]!r:.10}")
        self.order = state[1]


class _Maker:
    """Stands in for a callable that the pickle names. Has no attribute that a pickle could set."""

    __slots__ = ("_make",)

    def __init__(self, make: Any):
        object.__setattr__(self, "_make", make)

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise Refused("a changed callable")

    def __setstate__(self, state: Any) -> None:
        raise Refused("a changed callable")


def _new_array(room: Room, *_: Any) -> _Array:
    return _Array(room)


def _new_type(room: Room, code: Any, *_: Any) -> _Type:
    name = code.decode("latin1") if isinstance(code, bytes) else code
    if not isinstance(name, str) or name.removeprefix("|") not in room.types:
        raise Refused(f"an array of type {code!r:.20}")
    return _Type(name.removeprefix("|"))


def _encoded(room: Room, text: Any, encoding: Any = "latin1") -> bytes:
    """What Python 3 writes for bytes in an old protocol."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refused("an encoding other than latin1")
    room.take(len(text))
    return text.encode("latin1")


class _Reader(pickle.Unpickler):
    """An unpickler that knows a few names."""

    _KNOWN: Known = {  # noqa: RUF012 - read only
        ("numpy.core.multiarray", "_reconstruct"): _new_array,
        ("numpy._core.multiarray", "_reconstruct"): _new_array,
        ("numpy", "ndarray"): _new_array,
        ("numpy", "dtype"): _new_type,
        ("_codecs", "encode"): _encoded,
    }

    def __init__(self, stream: io.BytesIO, types: tuple[str, ...], known: Known):
        super().__init__(stream, encoding="latin1")
        self.room = Room(2 * stream.getbuffer().nbytes, types)
        self.known = {**self._KNOWN, **known}

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for one of the known names; never anything that exists."""
        if (module, name) not in self.known:
            raise Refused(f"it asks for {module}.{name}")
        stands_in = self.known[module, name]
        return stands_in if isinstance(stands_in, type) else _Maker(functools.partial(stands_in, self.room))


def settled(value: Any) -> Any:
    """An array in place of its stand-in; everything else must be plain."""
    if isinstance(value, _Array):
        if value.found is None:
            raise Refused("an array without content")
        return value.found
    if isinstance(value, _Type | _Maker):
        raise Refused("a name in place of a value")
    return value
