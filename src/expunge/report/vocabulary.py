"""What verdicts, origins, statuses and measurements are called in front of people."""

from __future__ import annotations

from collections.abc import Mapping

from expunge.core.certificate import UNCERTIFIED, UNCHANGED, Status, Verdict
from expunge.core.measurement import UNDECIDABLE
from expunge.core.trained import Origin
from expunge.report import numbers as say

VERDICTS: Mapping[str, tuple[str, str]] = {  # verdict → how it is called, and in one line what that means
    Verdict.CERTIFIED: ("Certified", "every assumption of the theorem was proved, or enforced by the code that ran"),
    Verdict.UNDER_DECLARED: ("Certified under declared constants", "holds if what somebody declared is true"),
    Verdict.AS_CLAIMED: ("As claimed by a publication", "rests on claims that nobody here proved again"),
    Verdict.HEURISTIC: ("Heuristic noise", "the size of the noise rests on sampled or hand-picked values: no promise"),
    Verdict.UNREPLAYED: ("Unreplayed plug-in", "a plug-in's own word: nothing here did its steps again"),
    Verdict.VOID: ("Void", "the theorem does not apply: nothing is proven"),
    UNCERTIFIED: ("No certificate", "the method promises nothing"),
    UNCHANGED: ("Unchanged", "a control: the model was released as it was, nothing was forgotten"),
}
MEASURED_VERDICTS: Mapping[str, str] = {
    UNDECIDABLE: "Undecidable: there is no retrained model to compare with",
    "refuted": "Refuted: a check failed",
    "differs from retraining": "Differs from retraining",
    "not told from retraining": "Not told from retraining",
}
ORIGINS: Mapping[str, str] = {
    Origin.PROVED: "proved",
    Origin.ENFORCED: "enforced by the code",
    Origin.DECLARED: "declared by the user",
    Origin.CLAIMED: "claimed by a publication",
    Origin.ESTIMATED: "estimated or picked",
    Origin.UNREPLAYED: "a plug-in's word",
}
STATUSES: Mapping[str, tuple[str, str]] = {
    Status.HOLDS: ("✓", "holds"),
    Status.UNCHECKED: ("?", "unchecked"),
    Status.VIOLATED: ("✗", "violated"),
}
SYMBOLS: Mapping[str, str] = {  # beside the word, never instead of it
    Verdict.CERTIFIED: "✓",
    Verdict.UNDER_DECLARED: "◐",
    Verdict.AS_CLAIMED: "○",
    Verdict.HEURISTIC: "○",
    Verdict.UNREPLAYED: "○",
    Verdict.VOID: "✗",
    UNCERTIFIED: "–",
    UNCHANGED: "=",
}


def label(name: str) -> str:
    """A measurement's name for people."""
    base, _, view = name.partition("@")
    what, _, of = base.replace("_", " ").partition("/")
    if what == "membership":
        text = f"Membership attack by {_ATTACKS.get(of, of)}"
    elif of:
        text = f"{what.capitalize()} on {_SETS.get(of, of)} rows"
    else:
        text = say.initial(what)
    return f"{text} ({view})" if view else text


_SETS = {"retain": "retained", "forget": "forgotten", "wording": "forgotten, as the request words them,"}
_ATTACKS = {"lira": "likelihood ratio"}
