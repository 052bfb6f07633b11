"""What became of the forgotten examples, and whether the result is accepted, in sentences that stand first in a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.core.certificate import UNCHANGED
from expunge.core.measurement import FORBIDDEN
from expunge.evidence.outcome import LEADING, LOSS, SHARES
from expunge.metrics.outcomes import Word
from expunge.report import numbers as say
from expunge.report.headline import headline
from expunge.report.outcome import CERTIFICATE, OUTCOME, PERSON, PRIVATE, accepted_by
from expunge.report.vocabulary import label

Record = Mapping[str, Any]
CALLED: Mapping[str, str] = {
    Word.FORGETS: "Forgotten, as far as was measured",
    Word.UNDER_FORGETS: "Not forgotten, or only in part",
    Word.OVER_FORGETS: "Forgotten beyond what retraining would do, which can itself give away who left",
    Word.UTILITY_COLLAPSE: "The model lost much of what it is used for",
    Word.UNDECIDABLE: "Whether anything was forgotten cannot be told from these measurements",
    PRIVATE: "The outcome of the measurements is private, as it depends on the original model",
}
_ACCEPTED: Mapping[str | None, str] = {
    CERTIFICATE: "The result is accepted by its certificate; no check refuted it.",
    OUTCOME: "The result is accepted by what was measured; nothing is proven.",
    PERSON: "The result is accepted as it is by a person, who is named above.",
    None: (
        "The result was delivered and is not accepted: neither a certificate nor what was measured shows that it does what "
        "was asked. The request is not fulfilled; its examples stay out of later training all the same."
    ),
}
_LEFT = "Nothing was forgotten: the model is that of before"
_HELD = "The result is held back: nothing was delivered, and the request is not fulfilled."
_SAME = 1.15  # from this factor on two probabilities are called different in words; our choice
_AS_BEFORE = 0.98  # of the original's share of right answers: from here on little was forgotten, in words; our choice
_COUNTS = ("", "once", "twice", "three times", "four times", "five times", "six times", "seven times", "eight times",
           "nine times", "ten times")  # fmt: skip


def outcome_row(run: Record, person: Record | None, held: bool = False) -> tuple[str, str]:
    """Outcome and acceptance for a table."""
    word = run["outcome"]["word"]
    if held:
        return word, "held back"
    by = accepted_by(run, person)
    return word, "not accepted" if by is None else f"accepted by {'a person' if by == PERSON else f'its {by}'}"


def forgetting(run: Record, person: Record | None, held: bool = False) -> list[str]:
    """The outcome for people, with the number it is easiest to see by where that is in the record; and the acceptance."""
    if (found := run.get("outcome")) is None:  # a record of before outcomes were judged
        return []
    word = found["word"]
    lead, beside = CALLED.get(word, word), _beside_retraining(run)
    if word == Word.UNDER_FORGETS and _moved(run):
        lead = "Partly forgotten"
    sentence = f"{lead}: {beside}." if beside and word != PRIVATE else f"{lead}."
    reason = [found["reason"]] if found["reason"] else []
    warning = [said] if (said := warned(run)) else []
    if run["status"] == UNCHANGED:
        sentence, reason = f"{_LEFT}: {beside}." if beside and word != PRIVATE else f"{_LEFT}.", []
    return [sentence, *reason, *warning, _HELD if held else _acceptance(run, person)]


def _acceptance(run: Record, person: Record | None) -> str:
    """Whether the result is accepted, by what, and what does not stand behind that."""
    by = accepted_by(run, person)
    if by == PERSON and run["outcome"]["word"] != Word.FORGETS:
        return f"{_ACCEPTED[by]} Neither a certificate nor what was measured shows that it forgets."
    return f"{_ACCEPTED[by]} No certificate shows that it forgets." if by == PERSON else _ACCEPTED[by]


def better_known(run: Record) -> str:
    """A warning where the released model answers the forgotten examples better than the original one did, by more than what
    two retrained models differ by; empty where it does not, where that is not known, and where a certificate accepts."""
    item = _forgotten(run)
    if item is None or item["original"] is None or run["verdict"] == UNCHANGED or accepted_by(run) == CERTIFICATE:
        return ""
    metric, value, before = item["metric"], item["value"], item["original"]
    if metric not in LEADING:
        return ""
    gain = before - value if metric == LOSS else value - before
    if gain <= max(item["null"] or 0.0, 1e-9 * abs(before)):
        return ""
    return (
        f"Warning: the released model answers the forgotten examples better than the original did ({label(item).lower()}: "
        f"{say.value(metric, before)} before, {say.value(metric, value)} now): what was to be forgotten is known better now."
    )


def still_known(run: Record) -> str:
    """A warning where no retrained model decides and the forgotten examples are answered as before: in 98 % of the original's
    share of right answers (our choice), or word for word in most of the answers that were written out for the review; empty
    elsewhere, and where a certificate accepts.
    """
    if (run.get("outcome") or {}).get("word") != Word.UNDECIDABLE or run["verdict"] == UNCHANGED:
        return ""
    item = _forgotten(run)
    if accepted_by(run) == CERTIFICATE or (item is not None and item["ideal"] is not None):
        return ""
    found = []
    given, of = _word_for_word(run)
    if 2 * given > of:
        found.append(f"{given:,} of {of:,} forgotten answers that were asked for are still given word for word")
    if item is not None and item["original"] and item["metric"] in SHARES:
        metric, value, before = item["metric"], item["value"], item["original"]
        if value >= _AS_BEFORE * before:
            found.append(
                f"{label(item).lower()} was {say.value(metric, before)} before and is {say.value(metric, value)} now"
            )
    if not found:
        return ""
    return f"Warning: {'; '.join(found)}: what was to be forgotten is known about as well as before."


def hides_forgotten(run: Record) -> bool:
    """Whether what was measured on forgotten examples is private, or what the original model scored on them."""
    of = [item for item in run["evidence"]["measurements"] if item["set"] == "forget"]
    return any(item.get("withheld") or item["original"] is None for item in of)


def warned(run: Record) -> str:
    """What can be seen without a retrained model and speaks against a result; empty where there is nothing of that kind."""
    return better_known(run) or still_known(run)


def _word_for_word(run: Record) -> tuple[int, int]:
    """How many forgotten answers are given word for word, as far as the original model gave them too, and of how many that
    were asked for. An answer that was cut off counts where the original's was cut off at the same place."""
    asked = [item for item in run.get("answers") or () if item["set"] == "forget" and item["right"]]
    given = [
        item["after"].strip() == item["right"].strip()
        or (item["after"] == item["before"] and item["right"].strip().startswith(item["after"].strip()))
        for item in asked
        if (item["after"] or "").strip()
    ]
    return sum(given), len(asked)


def before_and_now(run: Record) -> str:
    """The forgotten examples in the original and the released model, as a sentence; empty where the record has not both."""
    item = _forgotten(run)
    if item is None or item["original"] is None:
        return ""
    metric = item["metric"]
    return f"{label(item)}: {say.value(metric, item['original'])} before, {say.value(metric, item['value'])} now."


def probed(item: Record) -> str:
    """How many of the operator's own probes get the answer that they call forbidden, of each model that the record has."""
    models = (("the original model", "original"), ("the released model", "value"), ("a retrained model", "ideal"))
    counts = [
        f"{who} gives the forbidden answer to {say.value(FORBIDDEN, item[of])}"
        for who, of in models
        if item[of] is not None
    ]
    shorter = [text.replace(" gives the forbidden answer", "") for text in counts[1:]]
    return f"Of {say.plural(item['n'], 'probe')} of the operator's own, {say.joined([*counts[:1], *shorter])}."


def _forgotten(run: Record) -> Record | None:
    """The measurement on forgotten examples that a reader sees first, where the record has its value."""
    items = run["evidence"]["measurements"]
    first = next((item for item in (headline(items) if items else []) if item["set"] == "forget"), None)
    return None if first is None or first.get("withheld") or first["value"] is None else first


def _moved(run: Record) -> bool:
    """Whether the model went at least some of the way from the original to the retrained model."""
    item = _forgotten(run)
    if item is None or item["original"] is None or item["ideal"] is None:
        return False
    step = item["value"] - item["original"]
    return step * (item["ideal"] - item["original"]) > 0 and abs(step) > (item["null"] or 0.0)


def _beside_retraining(run: Record) -> str:
    """The forgotten examples in this model beside a retrained one, as half a sentence; empty where that is not known."""
    item = _forgotten(run)
    if item is None or item["ideal"] is None:
        return ""
    metric, value, ideal = item["metric"], item["value"], item["ideal"]
    before = "" if item["original"] is None else f"; the original model {say.value(metric, item['original'])}"
    if metric == "probability":
        return f"the forgotten answers are {_times(value, ideal)} as in a retrained model"
    if metric == "accuracy":
        return (
            f"the model gets {say.value(metric, value)} of the forgotten examples right, a retrained model "
            f"{say.value(metric, ideal)}{before}"
        )
    if metric == "loss":
        return (
            f"the loss on forgotten examples is {say.value(metric, value)}, that of a retrained model "
            f"{say.value(metric, ideal)}{before}"
        )
    return ""


def _times(value: float, ideal: float) -> str:
    """``three times as likely``, ``about as likely``, ``a tenth as likely``: one probability as a multiple of another."""
    if min(value, ideal) <= 0:
        return (
            "about as likely" if value == ideal else "beyond any factor more likely" if value > ideal else "less likely"
        )
    factor = value / ideal
    if 1 / _SAME <= factor <= _SAME:
        return "about as likely"
    if factor < 1:
        return f"less likely ({say.percent(factor)} as likely)"
    whole = round(factor)
    if 2 <= whole <= 10 and abs(factor - whole) < 0.15 * whole and abs(factor - whole) < 0.3:
        return f"{_COUNTS[whole]} as likely"
    return f"{say.number(factor)} times as likely"
