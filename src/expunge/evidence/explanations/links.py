"""How a model that predicts edges answers for what was deleted, on the graph as it is. It describes and decides nothing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from expunge.core.data import Deletion
from expunge.data.graphs.links import Links
from expunge.evidence.explanations.replay import log_probabilities
from expunge.metrics.intervals import auc_interval
from expunge.tasks.graphs.nodes import NodeClassification


def answered(
    task: NodeClassification, tensors: Mapping[str, Tensor], graph: Links, deletion: Deletion, heldout: Links
) -> dict[str, float]:
    """Numbers of one model that reads ``graph``, as far as there are pairs to take them of.

    ``link_auc``: held-out edges against held-out pairs that nothing joins. ``deleted_auc``: retained edges against deleted,
    0.5 where the model does not tell them apart. ``deleted_probability``, ``absent_probability``: the mean probability of an
    edge, of deleted ones and of held-out pairs that nothing joins, in percent. ``link_stealing``: deleted edges against such
    pairs, by the model's own answer.

    Args:
        graph: what the model reads; its joined pairs are the retained edges.

    Source: GNNDelete (arXiv 2302.13406), section 5, for all but the last, its mean over draws of retained edges taken over all
    of them; stealing is attack 0 of arXiv 2005.02131, whose attacker asks here for pairs and not for nodes.
    """
    there = deletion.before.only(deletion.ids).within(graph)
    tests, retained = heldout.within(graph), deletion.after.within(graph)

    def scores(pairs: Links) -> np.ndarray:
        log_p = log_probabilities(task, tensors, pairs)
        return log_p[:, 1] - log_p[:, 0]

    test, deleted, kept = scores(tests), scores(there), scores(retained)[retained.joined]
    found, absent = {}, test[~tests.joined]
    if tests.joined.any() and len(absent):
        found["link_auc"] = auc_interval(test[tests.joined], absent).value
    if len(deleted):
        found["deleted_probability"] = 100 * float((1 / (1 + np.exp(-deleted))).mean())
    if len(absent):
        found["absent_probability"] = 100 * float((1 / (1 + np.exp(-absent))).mean())
    if len(deleted) and len(kept):
        found["deleted_auc"] = auc_interval(kept, deleted).value
    if len(deleted) and len(absent):
        found["link_stealing"] = auc_interval(deleted, absent).value
    return found
