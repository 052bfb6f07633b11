"""Explain what a deletion did to a graph network: replay, structure, published metrics and attacks, from files to a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from expunge.core.cache import Cache
from expunge.core.data import Deletion
from expunge.core.errors import InputError
from expunge.core.method import Watch
from expunge.data.graphs.links import graph_of
from expunge.evidence.explanations.explainers import SALIENCY, Explainer
from expunge.evidence.explanations.explainers import explainer as explainer_of
from expunge.evidence.explanations.fidelity import agreement, logit_distance
from expunge.evidence.explanations.kept import KEPT, KNOWING, shares_kept
from expunge.evidence.explanations.neighbourhood import neighbourhood
from expunge.evidence.explanations.replay import DECIDING, Played, Scene, divergence, played, scores_of
from expunge.evidence.explanations.structure import structure
from expunge.metrics.prediction_band import FEWEST, Band, verified
from expunge.modalities.graph import MODALITY, explained_links, explained_nodes
from expunge.modalities.graph.config import GraphJob
from expunge.modalities.graph.recipes import NULLS
from expunge.tasks.graphs.nodes import NodeClassification
from expunge.training.retrainings import retrain_all
from expunge.training.store import load_checkpoint

NULL_SEEDS = 1_000  # of retrained models, added to the job's own: its model is none of them
KNOWING_SEEDS = 100_000  # of models that are trained on everything
Tensors = Mapping[str, Tensor]


def explain(
    job: Any, before: Path, after: Path, *, nulls: int = NULLS, explainer: str = SALIENCY.name, cache: Cache | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What the weights in ``after`` still know of what the job's request names, next to retrained models.

    Args:
        job: a checked job for a graph network: its graph, model, training and request.
        before, after: files of weights, before and after the deletion.
        nulls: retrained models that the bands rest on; each is trained once and found again by content.
        explainer: where attributions come from (``evidence.explanations.explainers``).

    Returns:
        A JSON-like record with ``finding``, ``reason``, ``decided_by``, the groups ``replay``, ``fidelity``, ``structure``,
        ``legacy`` and ``attack``, and a ``neighbourhood`` to draw. It is about single nodes and edges: private.

    Raises:
        InputError: for another kind of job, weights that do not fit, or a model that comes from disk without a recipe.
    """
    if not isinstance(job, GraphJob):
        raise InputError(f"Expected a job for a graph network (task: graph); got task: {getattr(job, 'task', None)}.")
    way = explainer_of(explainer)
    if nulls < FEWEST:
        raise InputError(f"Expected at least {FEWEST} retrained models; got {nulls}.")
    opened = MODALITY.open(job)
    if opened.recipe is None:
        raise InputError("The job's model comes from disk: say how it is trained (training: {kind: whole_graph}).")
    asked = MODALITY.ask(job, opened)
    deletion = Deletion.of(opened.data, asked.request, opened.probes)
    task: NodeClassification = opened.task
    original, unlearned = (dict(task.released(task.build(load_checkpoint(path)))) for path in (before, after))
    heldout = opened.probes.get("test")
    if heldout is None:
        raise InputError(
            "Replay compares with examples that nobody trained on; the split of this job leaves none to test on."
        )
    scene = Scene.of(deletion, heldout, job.seed)
    # before hours of training: it may be refused
    plays = [played(task, each, scene, way) for each in (original, unlearned)]
    seeds = [job.seed + NULL_SEEDS + i for i in range(nulls)]
    retrained = retrain_all(
        task, [(deletion.after, seed) for seed in seeds], opened.recipe, cache=cache or Cache(), watch=watch
    )
    models: list[Tensors] = [original, unlearned, *(model.tensors for model in retrained)]
    plays += [played(task, each, scene, way) for each in models[2:]]
    if len(plays[0].scores):
        knowing = knowing_models(task, deletion.before, opened.recipe, job.seed, cache or Cache(), watch)
        plays = with_kept(plays, np.mean([scores_of(task, each, scene) for each in knowing], 0))
    found = verified(plays[1].statistics, plays[0].statistics, [each.statistics for each in plays[2:]], DECIDING)
    more: Any = explained_links if job.predict == "links" else explained_nodes
    return {
        "finding": str(found.finding),
        "outcome": str(found.judgement.word),
        "decided_by": found.statistic,
        "reason": found.reason,
        "nulls": nulls,
        "explainer": way.name,
        "forgotten": {unit: len(ids) for unit, ids in deletion.ids.of.items()},
        "replay": _replay(plays, found),
        "fidelity": _fidelity([more.answers(task, each, deletion, heldout) for each in models]),
        "structure": _structure(deletion),
        "legacy": more.published(task, models, deletion, heldout),
        "attack": more.attacks(task, models, deletion, heldout, job.seed),
        "neighbourhood": _around(task, way, models[:3], deletion),
    }


def knowing_models(
    task: Any, data: Any, recipe: Any, seed: int, cache: Cache, watch: Watch | None = None
) -> list[Mapping[str, Tensor]]:
    """Weights of ``KNOWING`` further models that were trained on everything; the same for every request on ``data``."""
    jobs = [(data, seed + KNOWING_SEEDS + i) for i in range(KNOWING)]
    return [each.tensors for each in retrain_all(task, jobs, recipe, cache=cache, watch=watch)]


def with_kept(plays: Sequence[Played], known: np.ndarray) -> list[Played]:
    """The original, the model that is judged and the retrained ones, also with what each keeps (``kept``), in percent."""
    placed = shares_kept(known, *(np.stack([each.scores for each in part]) for part in (plays[2:], plays[:2])))
    if placed is None:
        return list(plays)
    shares = np.concatenate([placed[1], placed[0]]).tolist()
    return [
        replace(each, statistics={**each.statistics, KEPT: 100 * share})
        for each, share in zip(plays, shares, strict=True)
    ]


def _replay(plays: Sequence[Played], found: Any) -> dict[str, Any]:
    original, unlearned, *others = plays
    record: dict[str, Any] = {}
    for name, value in unlearned.statistics.items():
        null = np.array([each.statistics[name] for each in others])
        band = Band.of(null.tolist())
        reach = band.limit * band.spread
        record[name] = {
            "original": original.statistics[name], "unlearned": value, "retrained": float(null.mean()),
            "std": float(null.std(ddof=1)), "z": found.z.get(name), "moved": found.moved.get(name), "decides": name in DECIDING,
            "nulls": null.tolist(), "band": [band.mean - reach, band.mean + reach],
        }  # fmt: skip
    if len(unlearned.probabilities):
        null = np.stack([each.probabilities for each in others])
        left_out = [divergence(np.delete(null, i, 0), null[i]) for i in range(len(null))]
        record["replay_kl"] = {
            "original": divergence(null, original.probabilities), "unlearned": divergence(null, unlearned.probabilities),
            "retrained": float(np.mean(left_out)), "std": float(np.std(left_out, ddof=1)), "z": None, "moved": None,
            "decides": False,
        }  # fmt: skip
    return record


def _fidelity(answers: Sequence[np.ndarray]) -> dict[str, Any]:
    """How alike retrained models answer, from logits of the original, the unlearned and the retrained models.

    Of a retrained model, it is against all others.
    """
    before, mine, *null = answers
    record = {}
    for name, likeness in (("agreement", agreement), ("logit_distance", logit_distance)):
        left_out = [likeness(each, [*null[:i], *null[i + 1 :]]) for i, each in enumerate(null)]
        record[name] = {
            "original": likeness(before, null), "unlearned": likeness(mine, null), "retrained": float(np.mean(left_out)),
            "std": float(np.std(left_out, ddof=1)), "z": None, "moved": None, "decides": False,
        }  # fmt: skip
    return record


def _around(task: NodeClassification, way: Explainer, models: Sequence[Tensors], deletion: Deletion) -> dict[str, Any]:
    """A neighbourhood of the request with the share of attribution of each node, in percent, of three models."""
    graph = graph_of(deletion.before)
    found = [way.nodes(task, each, deletion.before, None) for each in models]
    part = neighbourhood(deletion, found[0])
    called = graph.nodes if graph.called is None else graph.called
    shares = [100 * each[part.places] / max(float(each.sum()), 1e-12) for each in found]
    return {
        "nodes": called[part.places].tolist(), "named": part.named.tolist(), "gone": part.gone.tolist(),
        "edges": part.edges.tolist(), "cut": part.cut.tolist(), "centres": part.centres, "of": part.of,
        "attribution": dict(zip(("before", "after", "retrained"), (each.tolist() for each in shares), strict=True)),
    }  # fmt: skip


def _structure(deletion: Deletion) -> dict[str, Any]:
    found = structure(deletion)
    return {
        "edit_distance": found.distance, "nodes": found.nodes, "edges": found.edges, "features": found.features,
        "as_asked": found.as_asked,
    }  # fmt: skip
