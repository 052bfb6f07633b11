"""explained.html: what ``expunge explain`` found, drawn. It shows single nodes: for the private folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.core.files import private_folder, write_atomic
from expunge.modalities.graph import pictures
from expunge.report.html import environment_of, page_style

Record = Mapping[str, Any]
COLUMNS = {"original": "before", "unlearned": "after", "retrained": "retrained", "std": "spread", "z": "z"}
SHORT = {
    "replay_nll": "loss",
    "replay_ra": "attribution",
    "replay_auc": "membership",
    "replay_kept": "what was kept",
}  # in a sentence
PUBLISHED = {
    "ra_before": "RA before: share of attribution on what is deleted, on the graph as it was, %",
    "ra_after": "RA after: the same on the graph without it, %", "ra_delta": "RA delta: before less after",
    "hs": "HS: shift of the attributions of nodes", "esd": "ESD: shift of the attributions of deleted nodes",
    "ged": "GED: edges in one of the two subgraphs around the deletion and not in the other",
    "rules_removed": "rules of a decision tree that are no longer there",
    **{
        f"{name}_{when}": f"{what}, {when}"
        for name, what in (
            ("link_auc", "held-out edges against pairs that nothing joins, AUC"),
            ("deleted_auc", "retained edges against deleted ones, AUC"),
            ("deleted_probability", "mean probability of deleted edges, %"),
        )
        for when in ("before", "after")
    },
}  # fmt: skip
SAID = {
    "replay_nll": "loss of what was deleted", "replay_ra": "attribution on what was deleted, %",
    "replay_auc": "membership of what was deleted, AUC", "replay_probability": "probability of what was deleted, %",
    "replay_kept": "of what training on deleted edges does to them, kept, %",
    "replay_accuracy": "accuracy on what was deleted, %", "replay_kl": "divergence from retrained models, nats",
    "agreement": "answered as retrained models do, %",
    "logit_distance": "distance of logits from retrained models",
}  # fmt: skip


def write_explained(record: Record, folder: Path) -> list[Path]:
    """Write ``explained.html`` and ``explained.json`` into ``folder``, which only its owner may enter.

    Raises:
        InputError: if others may enter the folder, or it cannot be written.
    """
    folder = private_folder(folder)
    as_json = json.dumps(record, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    paths = [folder / "explained.html", folder / "explained.json"]
    for path, content in zip(paths, (page(record), as_json), strict=True):
        write_atomic(path, content.encode(), private=True)
    return paths


def page(record: Record) -> str:
    """One self-contained page, without scripts. A function of the record alone."""
    figures = [drawn for drawn in (pictures.bands(record), pictures.neighbours(record)) if drawn is not None]
    lines = [
        [
            SAID[name] + ("" if each["decides"] else " (decides nothing)"),
            *(_number(each[key]) for key in COLUMNS),
        ]
        for group in ("replay", "fidelity")
        for name, each in record[group].items()
    ]
    legacy = [
        [PUBLISHED.get(name, name), f"{value:.4g}"]
        for name, value in record["legacy"].items()
        if not isinstance(value, Mapping)
    ]
    return (
        environment_of("expunge.modalities.graph")
        .get_template("explained.html.j2")
        .render(
            record=record,
            reason=_in_words(record["reason"]),
            figures=figures,
            heads=COLUMNS.values(),
            lines=lines,
            legacy=legacy,
            style=page_style(),
        )
    )


def _in_words(reason: str) -> str:
    for name, word in SHORT.items():
        reason = reason.replace(name, word)
    return reason[:1].upper() + reason[1:]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
