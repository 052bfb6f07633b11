"""How classifiers are measured: accuracy, loss and membership attacks, all from the logits of one pass over each set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from expunge.core.data import Ids
from expunge.core.measurement import OWN_PROBES
from expunge.core.task import Task
from expunge.data.pictures import stretched
from expunge.evidence.comparison import Models, Score
from expunge.evidence.membership import MembershipAttack
from expunge.evidence.outputs import ExampleOutputs, example_outputs
from expunge.metrics.intervals import mean_interval, wilson
from expunge.metrics.membership import log_odds

Readings = Mapping[str, ExampleOutputs]
SHOWN = 12  # images of each set on the private page; as many as answers of language models


def read(task: Task, tensors: Mapping[str, Tensor], sets: Mapping[str, Any]) -> Readings:
    """Losses and logits of each example, by set.

    Raises:
        InputError: as ``evidence.outputs.example_outputs``.
    """
    return example_outputs(task, tensors, sets)


def score(readings: Readings) -> list[Score]:
    """Accuracy (Wilson's interval) of every set, then mean loss (Student's), and how many own probes get their label."""
    accuracies = {name: wilson(int(each.correct.sum()), len(each.labels)) for name, each in readings.items()}
    losses = {name: mean_interval(each.losses) for name, each in readings.items()}
    found = [
        Score.of(metric, name, interval, len(readings[name].labels))
        for metric, intervals in (("accuracy", accuracies), ("loss", losses))
        for name, interval in intervals.items()
    ]
    return [*found, *([Score.forbidden(readings[OWN_PROBES].correct)] if OWN_PROBES in readings else [])]


def said(task: Task, models: Models[Any], sets: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each model takes the first images of each set for; empty for rows that are no images. See
    ``evidence.comparison.Speaks``.
    """
    images = {name: rows for name, rows in sets.items() if rows.x.ndim == 4 and rows.x.shape[1] in (1, 3)}
    shown = {name: rows.only(Ids.rows(rows.ids[:SHOWN])) for name, rows in images.items()}
    if not shown:
        return []

    def called(rows: Any, labels: Any) -> list[str]:
        return [rows.names[label] if rows.names else str(label) for label in labels]

    def answers(tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
        read_ = example_outputs(task, tensors, shown)
        return {name: called(shown[name], each.logits.argmax(-1).tolist()) for name, each in read_.items()}

    by = models.each(answers)
    return [
        {"set": name, "image": stretched(rows.x[i]), "question": "", "right": called(rows, rows.y.tolist())[i],
         "before": None if by.original is None else by.original[name][i], "after": by.unlearned[name][i],
         "retrained": None if by.retrained is None else by.retrained[name][i]}
        for name, rows in shown.items() for i in range(len(rows))
    ]  # fmt: skip


def small_loss(readings: Readings, of: str) -> np.ndarray:
    """Minus the loss: examples with a small one are taken for members.

    Source: Yeom et al. 2018 (arXiv 1709.01604).
    """
    return -readings[of].losses


def confidence(readings: Readings, of: str) -> np.ndarray:
    """Log-odds of the most probable class: examples on which the model is sure of *some* class are taken for members.

    They order examples as the largest probability does, without saturating at 1; labels are not needed.

    Source: Salem et al. 2019 (arXiv 1806.01246).
    """
    logits = readings[of].logits
    return log_odds(logits, logits.argmax(-1))


def true_log_odds(readings: Readings, of: str) -> np.ndarray:
    """Log-odds of the true class: what the likelihood-ratio attack compares with shadow models.

    Source: Carlini et al. 2022 (arXiv 2112.03570).
    """
    return log_odds(readings[of].logits, readings[of].labels)


ATTACKS = (
    MembershipAttack("loss", small_loss),
    MembershipAttack("confidence", confidence),
    MembershipAttack("lira", true_log_odds, shadows=True),
)
