"""A training loop that expunge did not write, put on record: ``python -m examples.own_loop``.

The recorder keeps the iterates that a later deletion rewinds to. When the loop is done it descends once more itself and
compares, so that what the recipe says about the loop is a fact and not a promise.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch

import expunge

STEPS, LR, L2 = 1000, 3.9, 0.003


def train(folder: Path, steps: int = STEPS) -> None:
    """Train on the digits, record, check, and store the model with its trail in ``folder`` (private)."""
    rows, _ = expunge.digits()
    task = expunge.Classification(partial(expunge.SoftmaxHead, 64, 10), dtype=torch.float64)
    model = task.build(seed=0)
    recorder = expunge.Recorder(task, rows, expunge.GradientDescent(steps=steps, lr=LR, l2=L2)).start(model)

    x, y = rows.x.double(), rows.y
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(model(x), y) + L2 / 2 * sum(
            p.square().sum() for p in model.parameters()
        )
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= LR * p.grad
        recorder.step(model)

    expunge.save_trained(folder, recorder.finish(model))
    print(f"stored in {folder}")


if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "out" / "own-model"
    place.parent.mkdir(parents=True, exist_ok=True)
    train(place)
