"""What a user brings to ``examples/jobs/heart.yaml``: a network, and a SYNTHETIC table of clinic visits.

``python -m examples.heart`` writes the table again. Nobody in it exists; the numbers come from a random generator and
mean nothing medically.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from torch import nn

DATA = Path(__file__).parent / "data"
COLUMNS = ("patient", "age", "pressure", "cholesterol", "heart_rate", "pain", "disease")
PAINS = ("none", "typical", "atypical", "other")


def network(features: int, hidden: int) -> nn.Module:
    """A small perceptron for two classes."""
    return nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, 2))


def visits(patients: range, seed: int) -> list[list[object]]:
    """Four visits of each patient; whoever is older and has higher values is ill more often."""
    generator = np.random.default_rng(seed)
    rows: list[list[object]] = []
    for patient in patients:
        risk = generator.normal()
        age = int(np.clip(55 + 12 * risk + generator.normal(0, 6), 20, 90))
        for _ in range(4):
            pressure = int(np.clip(130 + 15 * risk + generator.normal(0, 8), 90, 200))
            cholesterol = int(np.clip(220 + 40 * risk + generator.normal(0, 25), 100, 400))
            heart_rate = int(np.clip(140 - 15 * risk + generator.normal(0, 10), 60, 200))
            pain = PAINS[int(np.clip(round(1.5 + risk + generator.normal(0, 0.7)), 0, 3))]
            ill = "yes" if risk + generator.normal(0, 0.5) > 0 else "no"
            rows.append([f"P{patient:03d}", age, pressure, cholesterol, heart_rate, pain, ill])
    return rows


def write() -> None:
    """Write the training and the test table."""
    DATA.mkdir(exist_ok=True)
    for name, patients, seed in (("visits.csv", range(120), 0), ("visits_test.csv", range(900, 960), 1)):
        with (DATA / name).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerows([COLUMNS, *visits(patients, seed)])


if __name__ == "__main__":
    write()
