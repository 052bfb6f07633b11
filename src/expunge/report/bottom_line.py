"""What a report comes to: forgotten, not forgotten or not known; whether to ship; what else holds the data; a draft reply.

Pure functions of the record. Nothing here says more than verdict and outcome do, and the reply to the person makes no technical
claim: it says what was done, how it was looked at, and what may still hold the data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.core.certificate import UNCHANGED, Verdict
from expunge.metrics.outcomes import Word
from expunge.report import numbers as say
from expunge.report.forgetting import before_and_now, better_known, hides_forgotten, still_known, warned
from expunge.report.guarantee import is_weak, weakest_certificate
from expunge.report.outcome import (
    CERTIFICATE,
    OUTCOME,
    PERSON,
    accepted_by,
    is_accepted,
    is_held,
    person_of,
    speaks_against,
)

Record = Mapping[str, Any]
Row = dict[str, Any]
FORGOTTEN, NOT, UNKNOWN = "Forgotten", "Not forgotten", "Not known"
IF_DECLARED = "Forgotten, if what was declared is true"
NOWHERE = "not stated"
# What else may hold the data of a model; the job says of each whose it is and what became of it (``copies``).
_RETRAIN = (
    "Give the job a recipe that can retrain (training.kind: user names a training function of your own; language, with path or "
    "adapter, keeps a language model that was tuned elsewhere), leaving evidence.reference at retrained"
)
COPIES: Mapping[str, str] = {
    "weights": "The model of before, which learnt them",
    "adapters": "Adapters that were trained on the model", "exports": "Merged and quantised exports of the model",
    "descendants": "Models that were fine-tuned or distilled from it", "embeddings": "Embeddings and vector stores",
    "caches": "Caches of answers and of features", "backups": "Backups of data and of models", "deployments": "Deployments",
    "data": "The data themselves",
}  # fmt: skip
RETRAINED = "retrained"  # kept because the job asks for it
_CALLED = {**COPIES, RETRAINED: "The retrained model, in the private folder: it knows whoever is forgotten next"}
_INSTEAD: Mapping[str, str] = {
    Word.UNDER_FORGETS: "Take another method or stronger settings (expunge advise names them, with prices), or retrain.",
    Word.OVER_FORGETS: "Take milder settings: failing where a model that never knew the examples does not gives them away.",
    Word.UTILITY_COLLAPSE: "Take milder settings or retrain: the model lost too much of what it is used for.",
    Word.UNDECIDABLE: f"There was no retrained model to compare with. {_RETRAIN}; take a method with a certificate, or let a "
    "person accept it as it is (accept in the job).",
}
# Where what was measured points the wrong way already, nobody is asked to accept it.
_SEEN = (
    "Take stronger settings or another method (expunge advise names them, with prices). How much of it a model that never knew "
    f"the examples would answer is not known: there was no retrained model to compare with. {_RETRAIN}."
)
_IN_PRIVATE = (
    "Before anybody accepts it: whether the forgotten examples are answered as before stands in review.html, in the private "
    "folder."
)
# Steps between rates to try: narrower than the rates at which NPO forgets and keeps, a factor of four (docs/language.md).
_FACTOR: Mapping[str, float] = {Word.UNDER_FORGETS: 3.0, Word.OVER_FORGETS: 1 / 3, Word.UTILITY_COLLAPSE: 1 / 3}


def bottom_line(run: Record, person: Record | None = None, held: bool = False) -> Row:
    """Of one run: ``state`` (forgotten, forgotten under a condition, not forgotten, not known), ``ship``, ``advice`` (in words)
    and ``why``, a few sentences.

    Args:
        person: who accepts a result that measuring cannot decide, where the job names one.
        held: whether nothing of it has left, because a certificate is void.
    """
    if held and run["verdict"] == Verdict.VOID:
        why = "The certificate is void, so nothing bounds what the model tells of who left; the assumptions say why. Nothing "
        why += "was delivered. Mend the job, or let a person accept the result all the same (accept in the job)."
        return {"state": UNKNOWN, "ship": False, "advice": "Held back.", "why": why}
    line = _line(run, person)
    return {"advice": "Ship it." if line["ship"] else "Do not ship it.", **line}


def _line(run: Record, person: Record | None) -> Row:
    by, verdict = accepted_by(run, person), run["verdict"]
    word = str((run.get("outcome") or {}).get("word", ""))
    if verdict == UNCHANGED:
        return {"state": NOT, "ship": False, "why": "The model was left as it is: this was a control."}
    if by == CERTIFICATE:
        return _by_certificate(run, word)
    if by == OUTCOME:
        why = "The measurement that decides went at least half of the way to a retrained model, and not far past it. "
        if run["evidence"]["verdict"] == "differs from retraining":
            why += "Single values differ from a retrained model's all the same. "
        why += "That is no proof: attacks that were not run may find more."
        return {"state": FORGOTTEN, "ship": True, "why": why}
    if by == PERSON:
        assert person is not None
        void = "the certificate is void (see the assumptions)" if verdict == Verdict.VOID else "nothing is proven"
        near = "the measurement that decides went at least half of the way to a retrained model"
        found = near if word == Word.FORGETS else "what was measured cannot tell whether it forgets"
        why = f"By {person['by']}: {person['reason'].rstrip('.')}. {say.initial(void)}, and {found}. "
        why = " ".join([why.strip(), *_measured(run)])
        return {"state": UNKNOWN, "ship": True, "advice": "Accepted as it is.", "why": why}
    if verdict == Verdict.VOID and not word:
        return {"state": UNKNOWN, "ship": False, "why": "The certificate is void, and no outcome was recorded."}
    if word == Word.UNDECIDABLE and run["evidence"]["reference"]:
        why = "Compared with a retrained model, these numbers cannot tell. Take a method with a certificate, or let a person "
        why += "accept it as it is (accept in the job)."
        return {"state": UNKNOWN, "ship": False, "why": " ".join([why, *_measured(run)])}
    if word == Word.UNDECIDABLE and (seen := warned(run)):
        return {"state": UNKNOWN, "ship": False, "why": f"{seen} {_SEEN}"}
    if word == Word.UNDECIDABLE:
        seen = _measured(run, reason=False) or ([_IN_PRIVATE] if hides_forgotten(run) else [])
        return {"state": UNKNOWN, "ship": False, "why": " ".join([_INSTEAD[word], *seen])}
    states: Mapping[str, str] = {Word.UNDER_FORGETS: NOT, Word.OVER_FORGETS: FORGOTTEN}
    state = states.get(word, UNKNOWN)
    return {"state": state, "ship": False, "why": _INSTEAD.get(word, "No outcome was recorded.") + _rate(run, word)}


def _by_certificate(run: Record, word: str) -> Row:
    """A result that its certificate accepts: a weak bound does not say that anything was forgotten, and what was measured is
    said where the record has it, whatever it is."""
    certified, certificate = run["verdict"] == Verdict.CERTIFIED, weakest_certificate(run)
    within = "" if run["budget"] is None else " within the published budget"
    why = [
        f"The certificate holds{within}, and no check refuted it."
        if certified
        else f"The guarantee holds{within} if what was declared is true (see the assumptions), and no check refuted it."
    ]
    weak = certificate is None or is_weak(certificate)
    if weak:
        why.append("That is a weak bound, which rules out little.")
    if word == Word.FORGETS and not certified:
        why.append("The measurement that decides went at least half of the way to a retrained model.")
    elif word == Word.UNDECIDABLE:
        why.append("What was measured cannot tell whether it forgets.")
    elif speaks_against(run):
        why.append(f"What was measured speaks against it: {word}.")
    state = UNKNOWN if weak else FORGOTTEN if certified or word == Word.FORGETS else IF_DECLARED
    advice = {"advice": "Accepted by its certificate."} if weak else {}
    return {"state": state, "ship": True, **advice, "why": " ".join(why)}


def _measured(run: Record, reason: bool = True) -> list[str]:
    """Of an outcome that cannot be told: why, and what was measured, with a warning where that points the wrong way."""
    why = (run.get("outcome") or {}).get("reason") if reason else None
    return [said for said in (why, warned(run) or before_and_now(run)) if said]


def _rate(run: Record, word: str) -> str:
    """The learning rate to try next, where the method has one and the outcome says in which direction."""
    lr, factor = (run["method"].get("settings") or {}).get("lr"), _FACTOR.get(word)
    return f" The next rate to try: method.lr {factor * lr:.2g} (this run had {lr:.2g})." if lr and factor else ""


def sentence(line: Row) -> str:
    """A bottom line in words."""
    return f"{line['state']}. {line['advice']} {line['why']}"


def copies(record: Record) -> list[list[str]]:
    """What else may hold the data: each with its owner, what became of it, and when; kinds that the job does not name too."""
    named = record.get("copies") or []
    rows = [
        [_CALLED.get(item["kind"], item["kind"]), item["name"] or say.NOTHING, item["owner"] or NOWHERE, item["state"],
         item["date"] or say.NOTHING]
        for item in named
    ]  # fmt: skip
    known = {item["kind"] for item in named}
    return rows + [[COPIES[kind], say.NOTHING, NOWHERE, NOWHERE, say.NOTHING] for kind in COPIES if kind not in known]


def _found(record: Record, records: str) -> list[str]:
    """What was found of the person, as far as the record has it; that later training leaves it out only where it was marked."""
    if not record["data"]["member"]:
        return ["Your request names what the model must no longer know, and no records that it was trained on."]
    found = f"We found {records} in the data that the model concerned was trained on."
    if not (record["request"].get("matched") or {}).get("marks"):
        return [found]
    return [f"{found} They are excluded from the training of later versions by a list that does not contain your name."]


def reply(record: Record) -> str:
    """A draft of the answer to the person: to be read, completed and sent by somebody who answers for it."""
    request = record["request"]
    matched = request.get("matched") or {}
    count, talks = say.plural(matched.get("count", 0), "record"), matched.get("conversations")
    from_ = f", from {say.plural(talks, 'conversation')}," if talks else ""
    states = [bottom_line(run, person_of(record), is_held(record)) for run in record["runs"]]
    open_ = [row for row in copies(record) if row[3] not in ("removed", "replaced") and row[0] != _CALLED[RETRAINED]]
    unchanged = {run["status"] for run in record["runs"]} == {UNCHANGED}
    lines = [
        "DRAFT. Read it, complete what stands in brackets, and check that every sentence is true where you are.", "",
        "Dear [name],", "",
        f"We received your request on {request.get('received') or '[date]'}. Our reference is {request['id']}.", "",
        *_found(record, f"{count} of yours{from_}"), "",
    ]  # fmt: skip
    made = "We made a new version of the model from which they were to be removed"
    if is_accepted(record) and all(line["ship"] for line in states):
        sure = {line["state"] for line in states} <= {FORGOTTEN, IF_DECLARED}
        by_person = any(accepted_by(run, person_of(record)) == PERSON for run in record["runs"])
        lines += [f"{made}, and put it in the place of the former version on [date].", ""]
        lines += [
            "Our examination of the new version did not find that it still depends on your data. No examination can exclude it "
            "completely."
            if sure
            else "Our examination could not decide whether it still depends on your data; [name and role] decided to use it."
            if by_person
            else "What we can guarantee of it is little, and our examination does not say if it still depends on your data.",
            "",
        ]
        if any(better_known(run) for run in record["runs"]):
            lines += [
                "[Before you send this: the new version answers the person's records better than the former one.]",
                "",
            ]
        elif any(still_known(run) for run in record["runs"]):
            lines += [
                "[Before you send this: the new version answers the person's records about as well as the former one.]",
                "",
            ]
    else:
        lines += [
            "We have not made a new version of the model yet."
            if unchanged
            else f"{made}. Our examination did not satisfy us, and we do not use it.",
            f"We will [retrain the model / take it out of use] by {request.get('due') or '[date]'}.",
            "",
        ]
    if open_:
        kinds = dict.fromkeys(row[0] for row in open_)
        which = "; ".join(f"{kind[0].lower()}{kind[1:]} ([until when])" for kind in kinds)
        lines += [f"The following may still hold your data and are dealt with separately: {which}.", ""]
    lines += [
        "If you do not agree with this answer, you may lodge a complaint with a supervisory authority and seek a judicial",
        "remedy.",
        "",
        "[name, role, contact]",
    ]
    return "\n".join(lines) + "\n"
