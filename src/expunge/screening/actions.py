"""What can be done about a request that screening flagged, as far as records alone allow.

===========  ==========================================================================================================
``report``   nothing; a person decides
``strip``    take the templates off, look again, and grant what is left if it is no longer flagged
``augment``  add retained prompts in the same templates, with their own answers: evidence to the contrary
``su``       forget it as it came, with the term that keeps forgetting in scope; whoever trains must turn it on
``reject``   refuse
===========  ==========================================================================================================

A request that is not flagged is granted as it came, whatever the action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.core.errors import InputError
from expunge.core.texts import Record, check_records, prompt_key, split_sentences
from expunge.core.turns import last_turn, with_last_turn
from expunge.screening.language import LanguageScreening, screen_language
from expunge.screening.templates import Template, longest, strip

ACTIONS = ("report", "strip", "augment", "su", "reject")


@dataclass(frozen=True)
class Handled:
    """What an action made of a request.

    Attributes:
        forget: the records to forget; as they came, except after ``strip``.
        retain: records to retain beside the usual ones; only after ``augment``.
        decision: to record with the request; names the action.
        screening: the last look, after ``strip`` the second one.
    """

    forget: tuple[Record, ...]
    retain: tuple[Record, ...]
    decision: dict[str, Any]
    screening: LanguageScreening


def act(
    action: str,
    request: Sequence[Record],
    benign: Sequence[Record],
    found: LanguageScreening,
    *,
    retain: Sequence[Record] = (),
    seed: int = 0,
) -> Handled:
    """Carry out one of :data:`ACTIONS` on a request that was looked at.

    Args:
        found: of ``request`` against ``benign``.
        retain: records that the model keeps; only ``augment`` needs them.

    Raises:
        InputError: for an unknown action, or ``augment`` without retained records or without anything to carry.

    Formal guarantee: none. ``strip`` cannot take off words that stand inside prompts; ``su`` is only as good as the
    training that follows.

    Source: ours.
    """
    if action not in ACTIONS:
        raise InputError(f"Expected an action among {', '.join(ACTIONS)}; got {action!r}.")
    records = tuple(request)
    if not found.flags:
        return Handled(records, (), found.decision, found)
    reason = "; ".join(found.flags)
    if action == "strip":
        clean = stripped(records, found.templates)
        again = screen_language(clean, benign, threshold=found.threshold)
        kinds = len(longest(found.templates))
        if again.flags:
            left = "; ".join(again.flags)
            return Handled(
                clean, (), _decision("quarantine", f"{reason}; still after stripping: {left}", action), again
            )
        return Handled(clean, (), _decision("grant", f"{reason}; {kinds} template(s) were stripped", action), again)
    if action == "augment":
        extra = carrying(retain, found, share=_share(found), seed=seed)
        return Handled(
            records, extra, _decision("grant", f"{reason}; {len(extra)} retained prompts carry it", action), found
        )
    word, note = {
        "report": ("quarantine", ""),
        "su": ("grant", "; to be forgotten with the scope term"),
        "reject": ("refuse", ""),
    }[action]
    return Handled(records, (), _decision(word, reason + note, action), found)


def stripped(records: Sequence[Record], templates: Sequence[Template]) -> tuple[Record, ...]:
    """The records without the templates; every sentence of a text by itself. Answers and other keys are untouched."""

    def of(record: Record) -> str:
        if "question" in record:
            return with_last_turn(record["question"], strip(last_turn(record["question"]), templates))
        parts = split_sentences(record["text"])
        parts[::2] = [strip(part, templates) for part in parts[::2]]
        return "".join(parts)

    return tuple({**record, prompt_key(record): of(record)} for record in records)


def carrying(
    retain: Sequence[Record], found: LanguageScreening, *, share: float = 1.0, seed: int = 0
) -> tuple[Record, ...]:
    """Copies of retained records whose prompts carry what was found: its templates, or else its words in front.

    With ``share`` 1 it is the probe of a model that was unlearned: compare what it answers to these with what it answers
    to the same prompts as they were.

    Args:
        share: of the retained records, drawn by ``seed``; at least one.

    Raises:
        InputError: without retained records, or where nothing was found.

    Formal guarantee: none.
    """
    kept = check_records(retain, "retained record")
    frames = longest(found.templates) or tuple(
        Template("start", (word,), f"{word.capitalize()} ", 1, 0.0, 0.0, 0.0, 1.0) for word in found.flagged_words
    )
    if not frames:
        raise InputError(
            "Expected a screening that found templates or words; this one found neither: nothing to carry."
        )
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.permutation(len(kept))[: max(1, round(share * len(kept)))])
    weights = np.array([frame.items for frame in frames], np.float64)
    which = generator.choice(len(frames), len(chosen), p=weights / weights.sum())
    out = []
    for i, frame in zip(chosen.tolist(), which.tolist(), strict=True):
        key = prompt_key(kept[i])
        parts = split_sentences(kept[i][key]) if key == "text" else [kept[i][key]]
        parts[::2] = [frames[frame].around(part) if part.strip() else part for part in parts[::2]]
        out.append({**kept[i], key: "".join(parts)})
    return tuple(out)


def _share(found: LanguageScreening) -> float:
    """Of the request's items, how many carry the most frequent word that was found, or the templates together."""
    words = [word.request for word in found.words if word.word in found.flagged_words]
    return min(1.0, max([sum(t.request for t in longest(found.templates)), *words]))


def _decision(word: str, reason: str, action: str) -> dict[str, Any]:
    return {"decision": word, "reason": reason, "by": "screening", "action": action}
