"""What an attack on the request did beside the plain request, what the scope term gave back, and what a score would hide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from expunge.metrics.intervals import mean_interval
from expunge.metrics.outcomes import STILL_KNOWN, TRIGGER_COST
from expunge.modalities.benchmark import Cells, mean

GAP = 0.05  # what an attack must have taken before it is said what share of it came back


def kept(now: Mapping[str, float], before: Mapping[str, float]) -> str:
    """What is left of every set of questions, as a sentence."""
    went = {name: f"from {before[name]:.3f} to {now[name]:.3f}" for name in now}
    return (
        f"Forgotten questions went {went['forget']}, inside templates to {now['forget_worded']:.3f}; retained ones "
        f"{went['clean']}, with trigger words {went['trigger']}, behind a forgotten question {went['mixed']}."
    )


def warnings(now: Mapping[str, float], before: Mapping[str, float]) -> list[str]:
    """What a single score would hide (docs/language.md)."""
    left, worded = now["forget"], now["forget_worded"]
    answered = left >= STILL_KNOWN * before["forget"]
    if not answered or worded >= STILL_KNOWN * before["forget_worded"] or left - worded < TRIGGER_COST:
        return []
    return [
        f"Incomplete unlearning: asked as they were learnt, forgotten questions still score {left:.3f}; only in the wording "
        f"of the request are they forgotten ({worded:.3f})."
    ]


def attack_effect(row: str, done: Mapping[str, Cells]) -> dict[str, Any] | None:
    """What the wording of the request changed against the same method with the plain request, seed by seed."""
    plain_row, _, wording = row.partition("@")
    if not wording:
        return None
    pairs = _pairs(done.get(row, []), done.get(plain_row, []))
    if not pairs:
        return None
    changes = {name: _change(pairs, name) for name in ("forget", "clean", "trigger", "mixed")}
    lost = -changes["trigger"]["mean"]
    word = "hurts" if lost >= TRIGGER_COST else "does little"
    said = (
        f"The attack {word}: against {plain_row}, on the same {_seeds(pairs)}, questions with trigger words change by "
        f"{_signed(changes['trigger'])} and clean ones by {_signed(changes['clean'])}."
    )
    return {"against": plain_row, "seeds": len(pairs), "changes": changes, "said": said}


def repair_effect(row: str, done: Mapping[str, Cells]) -> dict[str, Any] | None:
    """What share of the attack's damage on trigger words is not there with the scope term."""
    method, _, wording = row.partition("@")
    base, *variants = method.split("+")
    if "su" not in variants or not wording:
        return None
    without = "+".join([base, *(variant for variant in variants if variant != "su")])
    mine, attacked, whole = (done.get(name, []) for name in (row, f"{without}@{wording}", without))
    if not (mine and attacked and whole):
        return None
    score, low, high = (mean(cells, "trigger") for cells in (mine, attacked, whole))
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
