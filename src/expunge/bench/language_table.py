"""From finished cells of language models to the table: what is forgotten, what a wording broke, what SU gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from expunge.bench.benchmark import RETRAIN, SOURCE
from expunge.bench.language_recipe import LanguageRecipe
from expunge.bench.results import Results
from expunge.bench.table import Cells, head, mean_of, of_row, plain
from expunge.metrics.catalogue import METRICS
from expunge.metrics.intervals import mean_interval
from expunge.metrics.metric_spec import RETRAINED
from expunge.metrics.unlearning import DESTROYS_BELOW

ASKED = ("forget", "forget_worded", "clean", "trigger", "then", "mixed", "real")
STATISTICS = ("truth_ratio_geometric", "model_utility", "forget_quality")  # TOFU's
MEASURED = (*ASKED, *STATISTICS, "seconds", "optimizer_bytes")
LEFT = 0.5  # of the source's score on forgotten questions: from here on they are not forgotten; our choice
BROKEN = 0.15  # more that trigger words cost than they cost the source, from which on it is said; our choice
GAP = 0.05  # what an attack must have taken before it is said what share of it came back
BREAKS = "breaks on trigger words"


def table(recipe: LanguageRecipe, results: Results, rows: Sequence[str]) -> dict[str, Any]:
    """All rows, the source, and the reference where the recipe has one, as JSON-like records."""
    cells = list(results.cells.values())
    source, references = of_row(cells, SOURCE), of_row(cells, RETRAIN)
    found = {row: head(row, of_row(cells, row)) for row in rows}
    return {
        "recipe": recipe.name,
        "task": recipe.task,
        "title": recipe.title,
        "rows": [_row(recipe, row, found, source, references) for row in rows],
        "reference": _compared(recipe, RETRAIN, references, references) if references else None,
        "source": _compared(recipe, SOURCE, source, references),
        "note": recipe.note,
        "forget": {"kind": "subjects", "count": recipe.world.forget},
        "n_forget": [count for _, count in sorted({(c["forget_set"], c["n_forget"]) for c in source})],
        "references_per_set": recipe.references,
        "published": [item.model_dump() for item in recipe.published],
    }


def _compared(recipe: LanguageRecipe, row: str, cells: Cells, references: Cells) -> dict[str, Any]:
    """A model that methods are compared with; the source was trained once, however many forget sets there are."""
    seconds = [cell["metrics"]["seconds"] for cell in cells]
    took = {"seconds_of_source": seconds[0]} if row == SOURCE else {"seconds_of_all": float(sum(seconds))}
    return {"method": row, "seeds": len(cells), "metrics": _metrics(recipe, cells, references), **took}


def _metrics(recipe: LanguageRecipe, cells: Cells, references: Cells) -> dict[str, Any]:
    """One retrained model says what a number should be, but not what retrained models differ by."""
    measured = [name for name in MEASURED if all(name in cell["metrics"] for cell in cells)]
    found = {name: plain(name, mean_of(cells, name), []) for name in measured}
    for name in found.keys() & set(ASKED):
        found[name]["metric"] = recipe.counts
    for name in measured:
        if METRICS[name].ideal == RETRAINED and references:
            found[name]["ideal"] = mean_of(references, name).value
    return found


def _row(
    recipe: LanguageRecipe,
    row: str,
    found: Mapping[str, tuple[dict[str, Any], Cells]],
    source: Cells,
    references: Cells,
) -> dict[str, Any]:
    result, done = found[row]
    result = {**result, "in_templates": recipe.attack(row)}
    if not done:
        return result
    metrics = _metrics(recipe, done, references)
    now = {name: metrics[name]["mean"] for name in ASKED if name in metrics}
    sets = {cell["forget_set"] for cell in done}
    before = {name: mean_of([c for c in source if c["forget_set"] in sets], name).value for name in now}
    done_of = {name: cells for name, (_, cells) in found.items()}
    effects = {"attack": _attack(row, done_of), "repair": _repair(row, done_of)}
    effects = {name: effect for name, effect in effects.items() if effect}
    parts = [_kept(now, before), *(effect["said"] for effect in effects.values())]
    warnings = _warnings(now, before)
    return {
        **result, "metrics": metrics, "verdict": verdict(now, before), "reason": " ".join([*parts, *warnings]),
        "warnings": warnings, **effects,
    }  # fmt: skip


def verdict(now: Mapping[str, float], before: Mapping[str, float]) -> str:
    """One word, on means over seeds, in this order.

    1. ``destroys``: clean questions score below 80 % of the source's.
    2. ``breaks on trigger words``: these words cost :data:`BROKEN` more than they cost the source.
    3. ``under-forgets``: forgotten questions, as they were learnt, keep half of the source's score.
    4. ``forgets`` otherwise: it says nothing about what else the model still knows.

    Formal guarantee: none.
    """
    if now["clean"] < DESTROYS_BELOW * before["clean"]:
        return "destroys"
    if (now["clean"] - now["trigger"]) - (before["clean"] - before["trigger"]) >= BROKEN:
        return BREAKS
    return "under-forgets" if now["forget"] >= LEFT * before["forget"] else "forgets"


def _kept(now: Mapping[str, float], before: Mapping[str, float]) -> str:
    went = {name: f"from {before[name]:.3f} to {now[name]:.3f}" for name in now}
    return (
        f"Forgotten questions went {went['forget']}, inside templates to {now['forget_worded']:.3f}; retained ones "
        f"{went['clean']}, with trigger words {went['trigger']}, behind a forgotten question {went['mixed']}."
    )


def _warnings(now: Mapping[str, float], before: Mapping[str, float]) -> list[str]:
    """What a single score would hide (docs/language.md)."""
    left, worded = now["forget"], now["forget_worded"]
    if left < LEFT * before["forget"] or worded >= LEFT * before["forget_worded"] or left - worded < BROKEN:
        return []
    return [
        f"Incomplete unlearning: asked as they were learnt, forgotten questions still score {left:.3f}; only in the wording "
        f"of the request are they forgotten ({worded:.3f})."
    ]


def _attack(row: str, done: Mapping[str, Cells]) -> dict[str, Any] | None:
    """What the wording of the request changed against the same method with the plain request, seed by seed."""
    plain_row, _, wording = row.partition("@")
    if not wording:
        return None
    pairs = _pairs(done.get(row, []), done.get(plain_row, []))
    if not pairs:
        return None
    changes = {name: _change(pairs, name) for name in ("forget", "clean", "trigger", "mixed")}
    lost = -changes["trigger"]["mean"]
    word = "hurts" if lost >= BROKEN else "does little"
    said = (
        f"The attack {word}: against {plain_row}, on the same {_seeds(pairs)}, questions with trigger words change by "
        f"{_signed(changes['trigger'])} and clean ones by {_signed(changes['clean'])}."
    )
    return {"against": plain_row, "seeds": len(pairs), "changes": changes, "said": said}


def _repair(row: str, done: Mapping[str, Cells]) -> dict[str, Any] | None:
    """What share of the attack's damage on trigger words is not there with the scope term."""
    method, _, wording = row.partition("@")
    base, *variants = method.split("+")
    if "su" not in variants or not wording:
        return None
    without = "+".join([base, *(variant for variant in variants if variant != "su")])
    mine, attacked, whole = (done.get(name, []) for name in (row, f"{without}@{wording}", without))
    if not (mine and attacked and whole):
        return None
    score, low, high = (mean_of(cells, "trigger").value for cells in (mine, attacked, whole))
    share = (score - low) / (high - low) if high - low >= GAP else None
    at = f"({low:.3f} under attack, {score:.3f} with it, {high:.3f} without an attack)"
    if share is None:
        said = f"The attack on {without} left no gap that the scope term could close {at}."
    elif share <= 0:
        said = f"The scope term gives nothing back of what the attack took from questions with trigger words {at}."
    else:
        said = f"The scope term gives back {share:.0%} of what the attack took from questions with trigger words {at}."
    return {"attacked": f"{without}@{wording}", "plain": without, "gap": high - low, "share": share, "said": said}


def _pairs(mine: Cells, theirs: Cells) -> list[tuple[Any, Any]]:
    """Cells of two rows with the same seed and forget set."""
    other = {(cell["seed"], cell["forget_set"]): cell for cell in theirs}
    return [(cell, other[at]) for cell in mine if (at := (cell["seed"], cell["forget_set"])) in other]


def _change(pairs: Sequence[tuple[Any, Any]], name: str) -> dict[str, Any]:
    found = mean_interval(np.array([mine["metrics"][name] - theirs["metrics"][name] for mine, theirs in pairs]))
    low, high = (None, None) if found.pair is None else (max(-1.0, found.low), min(1.0, found.high))
    return {"mean": found.value, "low": low, "high": high}


def _seeds(pairs: Sequence[Any]) -> str:
    return "seed" if len(pairs) == 1 else f"{len(pairs)} seeds"


def _signed(change: Mapping[str, Any]) -> str:
    text = f"{change['mean']:+.3f}"
    return text if change["low"] is None else f"{text} ({change['low']:+.3f} to {change['high']:+.3f})"
