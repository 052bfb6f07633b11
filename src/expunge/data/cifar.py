"""CIFAR-10 in the pickled layout that it was published in, read without running anything that a pickle may hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from expunge.core.errors import InputError
from expunge.data.pixels import normalised
from expunge.data.places import located
from expunge.data.plain_pickles import read_pickle
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
    """Dicts, lists, text, bytes, numbers and arrays of unsigned bytes from a pickle (``data.plain_pickles``).

    Raises:
        InputError: where the file is missing, damaged, or asks for anything else.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path.name} in {path.parent}; CIFAR-10's batch files belong there.")
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path.name} has {path.stat().st_size} bytes, a CIFAR-10 batch about 31 million.")
    return read_pickle(path, "no batch of CIFAR-10")
