"""Judging how a request for texts is worded, before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from expunge.core.data import Deletion
from expunge.core.errors import RefusedError
from expunge.core.request import Request
from expunge.core.texts import Record
from expunge.data.texts import Texts
from expunge.screening.actions import Handled, act
from expunge.screening.language import DUPLICATES, LanguageScreening, screen_language
from expunge.screening.result import ScreeningResult, screen_breadth
from expunge.screening.templates import longest

BENIGN, RETAINED = "benign prompts", "the retained records"


@dataclass(frozen=True)
class Wording:
    """What the wording of a request is judged with.

    Attributes:
        action: what is done about a flagged one; see ``screening.actions``.
        asked: the forgotten records in the request's words; ``None``: as they were trained on.
        benign: ordinary prompts to compare with; ``None``: the retained records stand in for them.
        seed: of which retained prompts carry what was found.
    """

    action: str = "report"
    asked: Texts | None = None
    benign: Sequence[Record] | None = field(default=None, repr=False)
    seed: int = 0

    def screen(self, request: Request, deletion: Deletion) -> ScreeningResult:
        """How broad the request is and how it is worded, and what becomes of it.

        Raises:
            RefusedError: for a flagged request where the action is ``reject``.
            InputError: where retained records that carry what was found cannot be made.

        Formal guarantee: none; see ``screening.language``.

        Source: ours; measured in docs/screening.md.
        """
        broad = screen_breadth(request, deletion)
        forget = deletion.forget if self.asked is None else self.asked
        retained = deletion.after.records
        ordinary = self.benign or retained
        found = screen_language(forget.records, ordinary)
        done = act(self._action(found), forget.records, ordinary, found, retain=retained, seed=self.seed)
        decision = self._decision(found, done)
        if decision["decision"] == "refuse":
            raise RefusedError(
                f"The request was rejected by its wording: {'; '.join(found.flags)}. Nothing was written. Ask for plain "
                "wording, or set request.on_screening to report, strip, augment or su."
            )
        held = broad.held
        if decision["decision"] == "quarantine":
            held = (*held, decision["reason"])
        if held:
            decision |= {"decision": "quarantine", "reason": "; ".join(held)}
        wording = forget.worded(done.forget)
        changed = wording.digest != deletion.forget.digest
        beside = _beside(deletion, done.retain) if done.retain else None
        scope = bool(found.flags) and self.action == "su"
        return ScreeningResult(held, decision, wording if changed else None, beside, scope)

    def _action(self, found: LanguageScreening) -> str:
        """Nothing can be carried where only repetitions were found: a person decides."""
        carries = found.flagged_words or found.templates
        return "report" if self.action == "augment" and found.flags and not carries else self.action

    def _decision(self, found: LanguageScreening, done: Handled) -> dict[str, Any]:
        """The decision with what was found: words that stand out, none of which names anybody, and templates."""
        decision = dict(done.decision)
        if decision.get("action") == "su" and found.duplicates <= DUPLICATES:
            decision["decision"] = "grant"  # whoever decides here also turns the term on
        against = RETAINED if self.benign is None else BENIGN
        decision["reason"] += f"; compared with {against}"
        decision["screening"] = {
            "action": self.action,
            "flagged": bool(found.flags),
            "against": against,
            "items": found.items,
            "reference_items": found.benign,
            "threshold": found.threshold,
            "words": [
                {"word": word.word, "items": round(word.request * found.items), "share": word.request,
                 "reference_share": word.benign, "z": word.z}
                for word in found.words if word.word in found.flagged_words
            ],
            "templates": [
                {"side": item.side, "text": item.text.strip(), "items": item.items, "z": item.z}
                for item in longest(found.templates)
            ],
            "duplicates": found.duplicates,
            "excess": found.excess,
            "flagged_after": bool(done.screening.flags),
        }  # fmt: skip
        return decision


def _beside(deletion: Deletion, extra: Sequence[Record]) -> Texts:
    """The retained records and ``extra`` ones, whose ids no record of the data has."""
    after, new = deletion.after, int(deletion.before.ids.max()) + 1 + np.arange(len(extra), dtype=np.int64)
    return Texts((*after.records, *extra), np.concatenate([after.ids, new]), {}, after.preprocessing)
