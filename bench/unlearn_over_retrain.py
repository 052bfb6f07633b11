"""Time of unlearning over time of retraining, against (K/T)(n-m)/n: R2D does K of T steps and nothing else that costs.

Both run in this process, in turn, on the same rows; the ratio of medians is compared with the expected share (our
goal: within 10 %). Run: python bench/unlearn_over_retrain.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time

import torch

from expunge.core.data import Ids
from expunge.data.digits import digits
from expunge.tasks.classification import Classification
from expunge.tasks.networks import SoftmaxHead, perceptron
from expunge.training.descent import Step, descend


def measure(task: Classification, steps: int, rewinds: list[float], repeats: int) -> list[dict]:
    rows, _ = digits()
    after = rows.without(Ids.rows(range(170, 180)))
    model, step = task.build(), Step(0.5, 1e-3)
    start = dict(model.state_dict())
    full, kept = task.batch(rows), task.batch(after)
    times: dict[float, list[float]] = {rewind: [] for rewind in [0.0, *rewinds]}
    for _ in range(repeats):
        for rewind in times:  # 0.0 stands for the training on all rows
            batch, count = (full, steps) if rewind == 0.0 else (kept, round(rewind * steps))
            begun = time.perf_counter()
            descend(task, model, start, batch, step, count)
            times[rewind].append(time.perf_counter() - begun)
    train = statistics.median(times[0.0])
    found = []
    for rewind in rewinds:
        expected = rewind * len(after) / len(rows)
        ratio = statistics.median(times[rewind]) / train
        found.append({"rewind": rewind, "expected": expected, "measured": ratio, "off": ratio / expected - 1})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    repeats, steps = (3, 200) if arguments.quick else (7, 600)
    cases = {
        "softmax head": Classification(functools.partial(SoftmaxHead, 64, 10), dtype=torch.float64),
        "perceptron 64-32-10": Classification(functools.partial(perceptron, (64, 32, 10))),
    }
    result = {name: measure(task, steps, [0.1, 0.25, 0.5, 0.75, 1.0], repeats) for name, task in cases.items()}
    for name, rows in result.items():
        print(f"\n{name}, T = {steps}\n{'K/T':>6} {'expected':>9} {'measured':>9} {'off by':>8}")
        for row in rows:
            print(f"{row['rewind']:6.2f} {row['expected']:9.3f} {row['measured']:9.3f} {row['off']:+8.1%}")
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
