"""What a user brings to ``examples/jobs/adult_curves.yaml``: UCI Adult (Becker and Kohavi 1996) as a map-style dataset.

The folder that ``EXPUNGE_DATA`` names holds ``adult/adult.data`` and ``adult/adult.test`` as UCI gives them out (CC BY 4.0).
"""

from __future__ import annotations

import csv
import itertools
import math
import os
from pathlib import Path

import torch
from torch import Tensor

# Column of the files → its largest value, or its categories; what is not named (missing values too) has none. Declared here
# and not taken from the rows, so that no row decides what another one looks like.
NUMBERS = {0: 90.0, 4: 16.0, 12: 99.0}
AMOUNTS = {10: 99_999.0, 11: 4356.0}  # most are 0, few are large: on a logarithmic scale
CATEGORIES = {
    1: ("Private", "Self-emp-not-inc", "Self-emp-inc", "Federal-gov", "Local-gov", "State-gov"),
    5: ("Married-civ-spouse", "Never-married", "Divorced", "Separated", "Widowed", "Married-spouse-absent"),
    6: ("Adm-clerical", "Craft-repair", "Exec-managerial", "Farming-fishing", "Handlers-cleaners", "Machine-op-inspct",
        "Other-service", "Prof-specialty", "Protective-serv", "Sales", "Tech-support", "Transport-moving"),
    7: ("Husband", "Not-in-family", "Own-child", "Unmarried", "Wife"),
    8: ("White", "Black", "Asian-Pac-Islander"),
    9: ("Male",),
    13: ("United-States",),
}  # fmt: skip
FEATURES = len(NUMBERS) + len(AMOUNTS) + sum(map(len, CATEGORIES.values()))
COLUMNS = 15


class Adult:
    """One person a row: numbers from 0 to 1, and whether the income is above 50,000 dollars.

    Args:
        split: ``train`` or ``test``. limit: so many of the first rows.
    """

    def __init__(self, split: str = "train", limit: int | None = None):
        file = Path(os.environ["EXPUNGE_DATA"]) / "adult" / ("adult.data" if split == "train" else "adult.test")
        with file.open(newline="", encoding="ascii") as stream:
            rows = (row for row in csv.reader(stream, skipinitialspace=True) if len(row) == COLUMNS)
            self.rows = list(itertools.islice(rows, limit))
        self.ids = list(range(len(self.rows)))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        row = self.rows[i]
        numbers = [float(row[at]) / most for at, most in NUMBERS.items()]
        numbers += [math.log1p(float(row[at])) / math.log1p(most) for at, most in AMOUNTS.items()]
        numbers += [float(row[at] == name) for at, names in CATEGORIES.items() for name in names]
        return torch.tensor(numbers), int(row[-1].startswith(">50K"))
