"""CIFAR-10 in the pickled layout that it was published in, read without running anything that a pickle may hold."""

from __future__ import annotations

import functools
import io
import math
import pickle
import pickletools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from expunge.core.errors import InputError
from expunge.data.pixels import normalised
from expunge.data.places import located
from expunge.data.rows import Rows
from expunge.data.splits import positions

CLASSES = 10
BATCH = 10_000  # images of a full batch file: what row ids count in
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of the 50,000 training images, as everybody uses them
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # what many pretrained networks expect
LARGEST = 2**28  # bytes; a batch file has 31 million


def cifar10(
    root: str | Path | None = None, *, mean: Sequence[float] = MEAN, std: Sequence[float] = STD,
    limit: int | None = None, per_class: int | None = None, test_limit: int | None = None, seed: int = 0,
) -> tuple[Rows, Rows]:  # fmt: skip
    """Training and test rows of CIFAR-10 (Krizhevsky 2009), from those of ``data_batch_1`` to ``5`` that are there.

    A row's id is its position in the full training set, also where other batches are missing: row 3 of batch 2 is 10,003.

    Args:
        root: a folder of data sets (``EXPUNGE_DATA`` by default) with ``cifar10/cifar-10-batches-py``, or one of these.
        mean, std: of the normalisation, a channel each; constants, whatever rows there are.
        limit: so many training rows, drawn from ``seed``. per_class: or so many of each class.
        test_limit: so many test rows.

    Shapes:
        x: (n, 3, 32, 32) float32.

    Raises:
        InputError: where the files are missing, damaged, hold something else, or a pickle asks for anything but arrays.
    """
    batches = [f"data_batch_{i}" for i in range(1, 6)]
    folder = located(
        root, ["cifar10/cifar-10-batches-py", "cifar-10-batches-py"], batches,
        "Get cifar-10-python.tar.gz from the data set's page and unpack it; one batch and test_batch are enough.",
    )  # fmt: skip
    parts = {i: _batch(folder / name) for i, name in enumerate(batches) if (folder / name).is_file()}
    pixels = np.concatenate([part[0] for part in parts.values()])
    labels = np.concatenate([part[1] for part in parts.values()])
    ids = np.concatenate([i * BATCH + np.arange(len(part[1])) for i, part in parts.items()])
    chosen = positions(labels, count=limit, per_class=per_class, seed=seed)
    test_pixels, test_labels = _batch(folder / "test_batch")
    tested = positions(test_labels, count=test_limit, seed=seed)
    return (
        _rows(pixels[chosen], labels[chosen], ids[chosen], mean, std),
        _rows(test_pixels[tested], test_labels[tested], tested, mean, std),
    )


def _rows(pixels: np.ndarray, labels: np.ndarray, ids: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Rows:
    x, fixed = normalised(pixels, mean, std)
    return replace(Rows.of(x, labels, preprocessing=fixed), ids=ids.astype(np.int64))


def _batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (n, 3, 32, 32) uint8 and labels (n,) int64 of one batch file."""
    content = read_plain_pickle(path)
    if not isinstance(content, dict) or not {"data", "labels"} <= content.keys():
        raise InputError(f"Expected data and labels in {path.name}; it holds something else. Get the file anew.")
    data, labels = content["data"], content["labels"]
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3 * 32 * 32 or len(data) > BATCH:
        shape = data.shape if isinstance(data, np.ndarray) else type(data).__name__
        raise InputError(f"Expected the data of {path.name} as bytes of shape (n, 3072), n up to {BATCH}; got {shape}.")
    if not isinstance(labels, list) or len(labels) != len(data):
        found = len(labels) if isinstance(labels, list) else type(labels).__name__
        raise InputError(f"Expected a list of {len(data)} labels in {path.name}; got {found}.")
    for row, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < CLASSES:
            raise InputError(
                f"Expected labels from 0 to {CLASSES - 1} in {path.name}; row {row} has {label!r:.40}. Get the file anew."
            )
    return data.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)


def read_plain_pickle(path: Path) -> Any:
    """Dicts, lists, text, bytes, numbers and arrays of unsigned bytes from a pickle; anything else is refused.

    A pickle is a program: it names callables, and reading runs them. Here every name but the four that an array needs is
    refused, and even these four lead to stand-ins of ours that check what they are given; NumPy's own reconstruction,
    which would unpickle the members of an object array, is never called.

    Raises:
        InputError: where the file is missing, damaged, or asks for anything else.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path.name} in {path.parent}; CIFAR-10's batch files belong there.")
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path.name} has {path.stat().st_size} bytes, a CIFAR-10 batch about 31 million.")
    try:
        content = path.read_bytes()
        _bounded(content)
        found = _Reader(io.BytesIO(content)).load()
        return {key: _settled(value) for key, value in found.items()} if isinstance(found, dict) else _settled(found)
    except _Refused as refused:
        raise InputError(
            f"{path.name} was refused: {refused}. A pickle may run code when it is read; nothing in it was executed."
        ) from None
    except Exception as error:  # a damaged stream may fail in any way, and none of them is ours
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path.name} is damaged or no batch of CIFAR-10 ({reason:.100}). Get the file anew."
        ) from None


def _bounded(content: bytes) -> None:
    """Refuse what would take memory out of proportion: lengths beyond the file's end and far places in the memo."""
    for opcode, argument, _ in pickletools.genops(content):  # itself refuses lengths beyond the end
        if "PUT" in opcode.name and isinstance(argument, int) and argument > len(content):
            raise _Refused(f"it claims place {argument} in a file of {len(content)} bytes")


class _Refused(Exception):
    """The pickle asked for something that is not plain data."""


class _Room:
    """How many bytes a pickle may still come to beyond its own: what it remembers could be copied without an end."""

    def __init__(self, most: int):
        self.left = most

    def take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise _Refused("it copies its content over and over")


class _Array:
    """Stands in for ``numpy.ndarray`` while reading: keeps shape and bytes, if they are plain unsigned bytes."""

    __slots__ = ("found", "room")

    def __init__(self, room: _Room):
        self.found: np.ndarray | None = None
        self.room = room

    def __setstate__(self, state: Any) -> None:
        match state:
            case (1, tuple() as shape, _Type(code="u1"), False, str() | bytes() as raw) if all(
                type(side) is int and side >= 0 for side in shape
            ):
                self.room.take(len(raw))
                raw = raw.encode("latin1") if isinstance(raw, str) else raw
                if math.prod(shape) != len(raw):
                    raise _Refused(f"an array of shape {shape} with {len(raw)} bytes")
                self.found = np.frombuffer(raw, dtype=np.uint8).reshape(shape)
            case _:
                raise _Refused("an array of something else than unsigned bytes")


class _Type:
    """Stands in for ``numpy.dtype``: unsigned bytes or nothing."""

    __slots__ = ("code",)

    def __init__(self, code: str):
        self.code = code

    def __setstate__(self, state: Any) -> None:
        # (version, byte order, subtype, field names, fields, size, alignment, flags); all empty for plain bytes
        if not isinstance(state, tuple) or tuple(state[1:5]) != ("|", None, None, None) or state[7:8] not in ((0,), ()):
            raise _Refused("an array with fields or objects")


class _Maker:
    """Stands in for a callable that the pickle names. Has no attribute that a pickle could set."""

    __slots__ = ("_make",)

    def __init__(self, make: Any):
        object.__setattr__(self, "_make", make)

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise _Refused("a changed callable")

    def __setstate__(self, state: Any) -> None:
        raise _Refused("a changed callable")


def _new_array(room: _Room, *_: Any) -> _Array:
    return _Array(room)


def _new_type(_room: _Room, code: Any, *_: Any) -> _Type:
    if code not in ("u1", "|u1", b"u1"):
        raise _Refused(f"an array of type {code!r:.20}")
    return _Type("u1")


def _encoded(room: _Room, text: Any, encoding: Any = "latin1") -> bytes:
    """What Python 3 writes for bytes in an old protocol."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused("an encoding other than latin1")
    room.take(len(text))
    return text.encode("latin1")


class _Reader(pickle.Unpickler):
    """An unpickler that knows four names."""

    _KNOWN = {  # noqa: RUF012 - read only
        ("numpy.core.multiarray", "_reconstruct"): _new_array,
        ("numpy._core.multiarray", "_reconstruct"): _new_array,
        ("numpy", "ndarray"): _new_array,
        ("numpy", "dtype"): _new_type,
        ("_codecs", "encode"): _encoded,
    }

    def __init__(self, stream: io.BytesIO):
        super().__init__(stream, encoding="latin1")
        self.room = _Room(2 * stream.getbuffer().nbytes)

    def find_class(self, module: str, name: str) -> _Maker:
        """A stand-in for one of the four names; never anything that exists."""
        if (module, name) not in self._KNOWN:
            raise _Refused(f"it asks for {module}.{name}")
        return _Maker(functools.partial(self._KNOWN[module, name], self.room))


def _settled(value: Any) -> Any:
    """An array in place of its stand-in; everything else must be plain."""
    if isinstance(value, _Array):
        if value.found is None:
            raise _Refused("an array without content")
        return value.found
    if isinstance(value, _Type | _Maker):
        raise _Refused("a name in place of a value")
    return value
