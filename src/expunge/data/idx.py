"""MNIST and Fashion-MNIST in the idx files that they were published in, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from expunge.core.errors import InputError, of_the_machine
from expunge.data.bounds import largest
from expunge.data.pixels import normalised
from expunge.data.places import located
from expunge.data.rows import Rows
from expunge.data.splits import positions

CLASSES = 10
SIDE = 28
LARGEST = 2**31  # bytes: a damaged header must not ask for more memory than there is
_UNSIGNED_BYTE = 0x08


def mnist(
    root: str | Path | None = None, *, limit: int | None = None, per_class: int | None = None,
    test_limit: int | None = None, seed: int = 0, mean: float = 0.1307, std: float = 0.3081,
) -> tuple[Rows, Rows]:  # fmt: skip
    """Training (60,000) and test (10,000) rows of MNIST (LeCun, Cortes, Burges).

    Pixels / 255, then ``mean`` and ``std``, the usual published ones: constants, so that no row's preparation depends
    on another's. Row ids are positions in the file, whatever subset is taken.

    Args:
        root: a folder of data sets (``EXPUNGE_DATA`` by default) with ``mnist/MNIST/raw``, or one of these folders.
        limit: so many training rows, drawn from ``seed``. per_class: or so many of each class.
        test_limit: so many test rows.
        mean, std: taken off and divided by; 0 and 1 leave pixels in [0, 1].

    Shapes:
        x: (n, 1, 28, 28) float32.

    Raises:
        InputError: where the files are missing, cut off, or hold something else.
    """
    folder = located(
        root, ["mnist/MNIST/raw", "MNIST/raw"], _names("train-images-idx3-ubyte"),
        "Get the four idx files of MNIST (train- and t10k-, images and labels; gzipped is fine), as torchvision "
        "downloads them.",
    )  # fmt: skip
    return _train_and_test(folder, mean, std, limit, per_class, test_limit, seed)


def fashion_mnist(
    root: str | Path | None = None, *, limit: int | None = None, per_class: int | None = None,
    test_limit: int | None = None, seed: int = 0, mean: float = 0.2860, std: float = 0.3530,
) -> tuple[Rows, Rows]:  # fmt: skip
    """Training (60,000) and test (10,000) rows of Fashion-MNIST (Xiao, Rasul, Vollgraf 2017).

    As :func:`mnist`, with mean 0.2860 and spread 0.3530, in ``fashion_mnist/FashionMNIST/raw``.

    Args:
        root: as for :func:`mnist`.
        limit, per_class, test_limit: how many training rows, training rows of each class, and test rows; all by default.
        seed: of the draw.
        mean, std: as for :func:`mnist`.
    """
    folder = located(
        root, ["fashion_mnist/FashionMNIST/raw", "FashionMNIST/raw"], _names("train-images-idx3-ubyte"),
        "Get the four idx files of Fashion-MNIST (train- and t10k-, images and labels; gzipped is fine), as "
        "torchvision downloads them.",
    )  # fmt: skip
    return _train_and_test(folder, mean, std, limit, per_class, test_limit, seed)


def read_idx(path: Path) -> np.ndarray:
    """An idx file of unsigned bytes, plain, or gzipped as ``path`` or ``path.gz``.

    The format: two zero bytes, one for the type (8: unsigned byte), one for the number of dimensions, then each dimension
    as a big-endian 32-bit number, then the values.

    Raises:
        InputError: where the file is missing, cut off, too long, or not of this format.
    """
    there = next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)
    if there is None:
        raise InputError(
            f"There is no file {path.name} (or {path.name}.gz) in {path.parent}; all four idx files belong there."
        )
    with there.open("rb") as plain:
        zipped = plain.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(there) if zipped else there.open("rb") as handle:
            magic = handle.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != _UNSIGNED_BYTE or magic[3] not in (1, 2, 3, 4):
                raise InputError(
                    f"{there.name} is not an idx file of unsigned bytes: it begins with {magic.hex(' ') or 'nothing'}."
                )
            header = handle.read(4 * magic[3])
            if len(header) < 4 * magic[3]:
                raise InputError(f"{there.name} ends inside its header. Get the file anew.")
            shape = struct.unpack(f">{magic[3]}I", header)
            size = math.prod(shape)
            stored = there.stat().st_size
            if size > (min(LARGEST, largest(stored)) if zipped else LARGEST):
                raise InputError(
                    f"{there.name} claims {size} values of shape {shape}, and has {stored} bytes; its header is damaged. Get "
                    "the file anew."
                )
            values = handle.read(size + 1 if zipped else min(size, stored) + 1)
    except (OSError, EOFError, zlib.error) as error:
        if of_the_machine(error):
            raise
        raise InputError(f"{there.name} cannot be read ({error}). Get the file anew.") from None
    if len(values) != size:
        found = f"{len(values)}" if len(values) < size else "more"
        raise InputError(
            f"{there.name} should hold {size} values of shape {shape}; it holds {found}. Get the file anew."
        )
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def _names(name: str) -> list[str]:
    return [name, name + ".gz"]


def _train_and_test(
    folder: Path, mean: float, std: float, limit: int | None, per_class: int | None, test_limit: int | None, seed: int
) -> tuple[Rows, Rows]:
    return (
        _rows(folder, "train", mean, std, limit, per_class, seed),
        _rows(folder, "t10k", mean, std, test_limit, None, seed),
    )


def _rows(
    folder: Path, part: str, mean: float, std: float, limit: int | None, per_class: int | None, seed: int
) -> Rows:
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte")
    images = read_idx(folder / f"{part}-images-idx3-ubyte")
    if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        raise InputError(f"Expected {part} images of shape (n, {SIDE}, {SIDE}) in {folder}; got {images.shape}.")
    if labels.ndim != 1 or len(labels) != len(images):
        raise InputError(
            f"Expected one {part} label an image in {folder}; got {labels.shape} for {len(images)} images."
        )
    if len(labels) and labels.max() >= CLASSES:
        first = int(np.flatnonzero(labels >= CLASSES)[0])
        raise InputError(
            f"Expected {part} labels from 0 to {CLASSES - 1} in {folder}; row {first} has {labels[first]}. Get the file anew."
        )
    chosen = positions(labels, count=limit, per_class=per_class, seed=seed)
    x, fixed = normalised(images[chosen][:, None], [mean], [std])
    rows = Rows.of(x, labels[chosen].astype(np.int64), preprocessing=fixed)
    return replace(rows, ids=chosen.astype(np.int64))
