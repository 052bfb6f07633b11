"""What is measured on one model: a handful of numbers, and the margins that comparisons of many models need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from expunge.core.data import Deletion, Ids
from expunge.data.rows import Rows
from expunge.evidence.distance import trainable_distance
from expunge.metrics import klom
from expunge.metrics.membership_conventions import (
    entropy,
    entropy_member_percent,
    svc_nonmember_percent,
    true_label_confidence,
)
from expunge.metrics.unlearning import zrf

if TYPE_CHECKING:
    from expunge.bench.world import World

UNTRAINED_SEED = 999_983  # of the network that ZRF compares with


@dataclass(frozen=True, eq=False)
class Scores:
    """One model on one forget set.

    Attributes:
        metrics: name → number, names as in ``metrics.catalogue``.
        margins: set → margin of each row, (rows,) float32: ``forget`` and ``test``.
    """

    metrics: Mapping[str, float]
    margins: Mapping[str, np.ndarray]


def score(world: World, deletion: Deletion, tensors: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> Scores:
    """Accuracies in percent, both membership conventions, ZRF, and the distance to one retrained model.

    Where a whole class goes, test rows of that class are left out, as class-wise tables have it.
    """
    sets = {"forget": deletion.forget, "retain": deletion.after, "test": _test(world.test, deletion.after)}
    logits = {name: world.logits(tensors, rows).numpy() for name, rows in sets.items()}
    labels = {name: rows.y.cpu().numpy() for name, rows in sets.items()}
    shares = {name: torch.softmax(torch.from_numpy(values), 1).numpy() for name, values in logits.items()}
    accuracy = {name: 100 * float((logits[name].argmax(1) == labels[name]).mean()) for name in sets}
    confidence = {name: true_label_confidence(shares[name], labels[name]) for name in sets}
    entropies = {name: entropy(shares[name]) for name in sets}
    untrained = world.logits(world.task.build(seed=UNTRAINED_SEED).state_dict(), deletion.forget)
    metrics: dict[str, Any] = {
        "FA": accuracy["forget"],
        "UA": 100 - accuracy["forget"],
        "RA": accuracy["retain"],
        "TA": accuracy["test"],
        "mia_svc_nonmember": svc_nonmember_percent(
            confidence["retain"], confidence["test"], confidence["forget"]
        ).value.value,
        "mia_entropy_member": entropy_member_percent(
            entropies["retain"], entropies["test"], entropies["forget"]
        ).value.value,
        "zrf": zrf(shares["forget"], torch.softmax(untrained, 1).numpy()).value,
        "distance": trainable_distance(world.task.build(), tensors, reference),
    }
    margins = {name: klom.margins(logits[name], labels[name]).astype(np.float32) for name in ("forget", "test")}
    return Scores(metrics, margins)


def _test(test: Rows, after: Rows) -> Rows:
    """Test rows of the classes that stay."""
    known = torch.isin(test.y, after.y.unique().to(test.y.device))
    return test if bool(known.all()) else test.only(Ids.rows(test.ids[known.cpu().numpy()]))
