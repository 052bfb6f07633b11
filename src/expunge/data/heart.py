"""UCI Heart Disease (Janosi, Steinbrunn, Pfisterer, Detrano 1989): patients of four hospitals, four natural clients."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import torch

from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.data.places import located
from expunge.data.rows import Rows, by_reader

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
# Column of the files → its range, or its values (one-hot). Ranges hold every value of the files; no row decides them.
_SEEN: dict[int, tuple[str, tuple[float, float] | list[float]]] = {
    0: ("age", (20, 80)), 1: ("sex", [0, 1]), 2: ("pain", [1, 2, 3, 4]), 3: ("pressure", (80, 200)),
    4: ("cholesterol", (80, 610)), 5: ("sugar", [0, 1]), 6: ("ecg", [0, 1, 2]), 7: ("rate", (60, 210)),
    8: ("angina", [0, 1]), 9: ("depression", (-3, 7)), 10: ("slope", [1, 2, 3]), 11: ("vessels", [0, 1, 2, 3]),
    12: ("thal", [3, 6, 7]),
}  # fmt: skip
_ZERO_IS_MISSING = (
    3,
    4,
)  # nobody has a pressure or a cholesterol of 0: how two hospitals wrote what they did not measure
_DIAGNOSIS, _COLUMNS = 13, 14
FEATURES = sum(2 if isinstance(kind, tuple) else len(kind) for _, kind in _SEEN.values()) + 1
LONGEST = sum(2 if isinstance(kind, tuple) else 1 for _, kind in _SEEN.values()) + 1  # of squared norms
EVERY = 5  # the fifth patient of each hospital is held out, and so on: no draw, and each hospital has test rows


def heart_disease(root: str | Path | None = None) -> tuple[Rows, Rows]:
    """Training and test rows; columns ``hospital`` and ``patient`` (``va 17``, numbered from 1 in the hospital's file).

    A number is mapped from its range to [0, 1] beside an indicator that it was measured; a category is one-hot, all zero where
    missing; the last feature is 1. Rows are divided by the square root of 19, the most that their squares can add up to: no
    norm is above 1. The label is 0 without and 1 with a diagnosis.

    Args:
        root: a folder of data sets (``EXPUNGE_DATA`` by default) with ``heart_disease``, or this folder.

    Shapes:
        x: (n, 34) float32.

    Raises:
        InputError: where files are missing, or hold something else.
    """
    names = [f"processed.{hospital}.data" for hospital in HOSPITALS]
    folder = located(
        root,
        ["heart_disease"],
        names,
        "Get the processed files of UCI Heart Disease (CC BY 4.0), one for each hospital.",
    )
    x, y, hospitals, patients = [], [], [], []
    for hospital, name in zip(HOSPITALS, names, strict=True):
        with (folder / name).open(newline="", encoding="utf-8") as stream:
            lines = [line for line in csv.reader(stream) if line]
        for number, line in enumerate(lines, 1):
            if len(line) != _COLUMNS:
                raise InputError(f"{name}, line {number}: expected {_COLUMNS} values; got {len(line)}.")
            try:
                values = [math.nan if text.strip() == "?" else float(text) for text in line]
                x.append(_features(values))
            except ValueError as error:
                raise InputError(f"{name}, line {number}: {error}.") from None
            y.append(int(values[_DIAGNOSIS] > 0))
            hospitals.append(hospital)
            patients.append(f"{hospital} {number}")
    rows = Rows.of(
        torch.tensor(x), y, {"hospital": hospitals, "patient": patients}, names=("healthy", "ill"),
        preprocessing=by_reader("fixed", "declared ranges and categories; what is missing is zero"),
    )  # fmt: skip
    held_out = np.array([int(patient.split()[1]) % EVERY == 0 for patient in patients])
    ids = Ids.rows(rows.ids[held_out])
    return rows.without(ids), rows.only(ids)


def _features(values: list[float]) -> list[float]:
    found: list[float] = []
    for at, (name, kind) in _SEEN.items():
        value = math.nan if at in _ZERO_IS_MISSING and values[at] == 0 else values[at]
        if isinstance(kind, tuple):
            low, high = kind
            if value < low or value > high:
                raise ValueError(f"expected {name} from {low} to {high}, got {value:g}")
            found += [0.0, 0.0] if math.isnan(value) else [(value - low) / (high - low), 1.0]
        else:
            if not math.isnan(value) and value not in kind:
                raise ValueError(f"expected {name} among {', '.join(map(str, kind))}, got {value:g}")
            found += [float(value == each) for each in kind]
    return [each / math.sqrt(LONGEST) for each in (*found, 1.0)]
