"""The half page that a privacy officer reads: what was asked, done, proven, measured, and what is not known.

Pure functions from the evidence record to sentences. The rule above all others: no sentence claims more than the
verdict. The word *certified* stands alone only where the verdict is ``certified``; for declared constants it is always
followed by its condition; for every other verdict it does not occur.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.certificate import UNCERTIFIED, UNCHANGED, Verdict
from expunge.core.measurement import AT, FORBIDDEN, OWN_PROBES, UNDECIDABLE
from expunge.core.trained import Origin
from expunge.report import numbers as say
from expunge.report import views
from expunge.report.asked import asked
from expunge.report.forgetting import forgetting, probed
from expunge.report.guarantee import certificates, pair, told_apart, weakest_certificate
from expunge.report.headline import headline
from expunge.report.outcome import is_held, person_of, speaks_against
from expunge.report.vocabulary import UNRECORDED, acts, is_attack, key, label, status_of

Record = Mapping[str, Any]

ASKED, DONE, PROVEN, MEASURED, UNKNOWN = (
    "What was asked", "What was done", "What is proven", "What is measured", "What is not known",
)  # fmt: skip
_SHOWN = 3  # assumptions in a sentence
RETRAIN = "retrain"  # the method that is no alternative to retraining
MOST = 4  # numbers of a run on the half page
# Times within this factor, or this many seconds, are equal to who chooses: single timed steps on a busy machine vary by as
# much (prices of milliseconds were seen to differ by factors of 1.5 to 5 from run to run). Our choice.
NEAR, SOON = 1.5, 1.0


@dataclass(frozen=True)
class Paragraph:
    """A few sentences; ``lead`` names the run they are about, empty where they are about all."""

    text: str
    lead: str = ""


@dataclass(frozen=True)
class Section:
    """One of the five questions and its answer."""

    heading: str
    paragraphs: tuple[Paragraph, ...]


def half_page(record: Record) -> tuple[Section, ...]:
    """The five sections for the whole record, each run with its name where there are several."""
    runs = record["runs"]

    def each(sentences: Any) -> tuple[Paragraph, ...]:
        return tuple(Paragraph(" ".join(sentences(run)), _lead(record, run)) for run in runs)

    return (
        Section(ASKED, (Paragraph(" ".join(asked(record))),)),
        Section(DONE, each(lambda run: [*done(run), *views.held(run)])),
        Section(PROVEN, each(proven)),
        Section(
            MEASURED,
            each(
                lambda run: [*forgetting(run, person_of(record), is_held(record)), *measured(run), *views.at_peers(run)]
            ),
        ),
        Section(UNKNOWN, unknown(record)),
    )


def _lead(record: Record, run: Record) -> str:
    return say.initial(run["name"]) if len(record["runs"]) > 1 else ""


def done(run: Record) -> list[str]:
    """The method and what it cost."""
    method = run["method"]
    settings = settings_in_words(method.get("settings") or {})
    what = f"{method['name']} ({settings})" if settings else method["name"]
    if run["status"] == UNCHANGED:
        return [f"Nothing was changed: {what} is a control that releases the model as it was."]
    cost = say.seconds(run["cost"].get("seconds"))
    retraining = (run["evidence"]["cost"].get("seconds") or {}).get("retrain")
    if method["name"] == RETRAIN:
        retraining = None  # the same once more, to measure: no alternative
    beside = f"; retraining once took {say.seconds(retraining)}" if retraining is not None else ""
    own, cheaper = run["cost"].get("seconds"), ""
    if own is not None and retraining is not None and own > max(NEAR * retraining, retraining + SOON):
        cheaper = " Retraining would have been faster."
    return [f"The method {what} made a new model in {cost}{beside}.{cheaper}"]


def settings_in_words(settings: Record, prefix: str = "") -> str:
    """Settings that did something, in one line; those of a group, which repeat its name, in brackets: lora (alpha 32, r 16)."""
    said = []
    for name, item in settings.items():
        called = name.removeprefix(f"{prefix}_").replace("_", " ")
        if acts(item):
            value = f"({settings_in_words(item, name)})" if isinstance(item, Mapping) else say.text(item)
            said.append(f"{called} {value}")
    return ", ".join(said)


def proven(run: Record) -> list[str]:
    """What the verdict lets one say, and on which assumptions it rests."""
    verdict, certificate = run["verdict"], weakest_certificate(run)
    if verdict == UNCHANGED:
        return ["Nothing is proven, and nothing was forgotten: this run is a control."]
    if verdict == UNCERTIFIED or certificate is None:
        return [f"Nothing is proven: {run['method']['name']} promises nothing, whatever is measured."]
    items = certificate["assumptions"]
    if verdict == Verdict.CERTIFIED:
        return [
            "Certified.",
            *told_apart(certificate),
            f"All {len(items)} assumptions of the theorem were proved, or enforced by the code that ran.",
        ]
    if verdict == Verdict.UNDER_DECLARED:
        open_ = [
            item for item in items if item["status"] != "holds" or item["origin"] in (Origin.DECLARED, Origin.CLAIMED)
        ]
        return [
            "Certified under declared constants, that is: only if the following is true, which somebody declared and "
            f"nobody checked here: {_statements(open_)}. Then, and only then:",
            *told_apart(certificate),
            *_publish_first(items),
        ]
    if verdict == Verdict.AS_CLAIMED:
        claimed = [item for item in items if item["origin"] == Origin.CLAIMED]
        return [
            f"Nothing is proven here. A publication claims ({pair(certificate)}), but that rests on statements which nobody "
            f"here proved again: {_statements(claimed)}."
        ]
    if verdict == Verdict.HEURISTIC:
        return [
            "Nothing is proven. Noise was added, but what it is worth rests on values that were sampled or picked by hand; "
            f"a sampled maximum may be too small. The computed pair ({pair(certificate)}) is nominal, no promise."
        ]
    if verdict == Verdict.UNREPLAYED:
        return [
            "Nothing is proven: a plug-in made this model, and nothing here did its steps again. The pair that it claims "
            f"({pair(certificate)}) is its author's word."
        ]
    said = {"violated": "Violated", UNRECORDED: "Unknown"}
    apart = {word: [item for item in items if status_of(item) == status] for status, word in said.items()}
    reason = "".join(f" {word}: {_statements(found)}." for word, found in apart.items() if found)
    return [f"Nothing is proven: the theorem does not apply.{reason} Its numbers mean nothing here."]


def _publish_first(items: Any) -> list[str]:
    """What would have shown that the promise came first, where its absence is part of the condition."""
    if not any(item["name"] == "release_ledger" and item["status"] == "unchecked" for item in items):
        return []
    return [
        "A model that was published first (expunge publish), with its ledger beside it, needs nobody's word for that."
    ]


def measured(run: Record) -> list[str]:
    """The numbers that matter most, beside retraining, and what they come to."""
    evidence = run["evidence"]
    found = {key(item): item for item in evidence["measurements"]}
    if not found:
        return ["Nothing was measured."]
    open_ = [item for item in found.values() if not item.get("withheld")]
    chosen = [item for item in headline(open_) if item["set"] != OWN_PROBES][:MOST] if open_ else []
    sentences = [say.initial("; ".join(_one(item, first=item is chosen[0]) for item in chosen)) + "."] if chosen else []
    if hidden := [item for item in found.values() if item.get("withheld")]:
        said = "is private" if len(hidden) == 1 else "are private"
        sentences.append(f"{say.plural(len(hidden), 'value')} {said} ({hidden_kinds(hidden)}).")
    sentences += [probed(item) for item in open_ if item["metric"] == FORBIDDEN]
    for item in [item for of in ("test", "retain") for item in found.values() if key(item)[:2] == ("accuracy", of)]:
        if item["agrees"] is False and None not in (item["value"], item["ideal"]) and item["value"] < item["ideal"]:
            where = label(item)
            sentences.append(
                f"The model became less useful: {where[0].lower()}{where[1:]} is below that of retrained models."
            )
            break
    return [*sentences, *_comes_to(run, evidence)]


def sees_the_original(evidence: Record) -> bool | None:
    """Whether what is measured on forgotten rows would tell the model *before* unlearning from a retrained one.

    Each value before stands in for the released one, with the same interval width. ``None`` where nothing can be said.
    Measurements that cannot see the original cannot see that it was forgotten either.
    """
    told = []
    for item in evidence["measurements"]:
        if not (is_attack(item) or item["set"] == "forget") or None in (item["ideal"], item["original"]):
            continue
        low, high = item["interval"] or (item["value"], item["value"])
        told.append(abs(item["original"] - item["ideal"]) > (high - low) / 2 + (item["null"] or 0.0))
    return any(told) if told else None


def is_the_reference(run: Record) -> bool:
    """Whether the released model is itself what the reference is: retrained, and equal to it in every value that both have."""
    compared = [item for item in run["evidence"]["measurements"] if None not in (item["value"], item["ideal"])]
    return (
        run["method"]["name"] == RETRAIN and bool(compared) and all(item["value"] == item["ideal"] for item in compared)
    )


def withheld(record: Record) -> str:
    """What a page that may be shown leaves out, in a sentence; empty for the whole record and for records of old."""
    if "private_below" not in record:
        return ""
    return (
        "This page may be shown. Values on the forgotten and the retained rows of a request for fewer than "
        f"{record['private_below']} of them, values of the model before, and distances of weights are not on it, nor whether "
        "they agree with retraining. Whoever made this has them in review.html, in a private folder."
    )


def _comes_to(run: Record, evidence: Record) -> list[str]:
    verdict = evidence["verdict"]
    if run["status"] == UNCHANGED:
        return []
    if verdict == UNDECIDABLE:
        return [
            "There is no retrained model to compare with, so whether it has forgotten is undecidable from these numbers."
        ]
    if verdict == "refuted":
        failed = [check["name"].replace("_", " ") for check in evidence["checks"] if check["passed"] is False]
        sentences = [f"Refuted by {say.joined(failed)}."]
        if run["verdict"] in (Verdict.CERTIFIED, Verdict.UNDER_DECLARED):
            sentences.append("That contradicts what is said to be proven: trust neither until it is explained.")
        return sentences
    if verdict == "differs from retraining":
        agreeing = [item["agrees"] for item in evidence["measurements"] if item["agrees"] is not None]
        apart, compared = (
            agreeing.count(False),
            say.plural(len(agreeing), "measurement that was", "measurements that were"),
        )
        return [f"It differs from retraining in {apart} of {compared} compared with it."]
    if is_the_reference(run):
        return [
            "Every value equals that of the retrained model: the released model is a retraining itself, by the same recipe on "
            "the same examples. The comparison could not have come out otherwise and says nothing about forgetting."
        ]
    if speaks_against(run):
        return [
            "No single value that is shown here differs from a retrained model's by more than chance. That is weaker than the "
            "outcome, which was judged by how far the model went, and the outcome stands."
        ]
    if hides_comparisons(evidence):
        if all(item["agrees"] is None for item in evidence["measurements"]):
            return [
                "Whether it differs from a retrained model is private: no value that was compared with one is shown here."
            ]
        sentences = [
            "No measurement that is shown here tells it from a retrained model; others are private. That is an observation, "
            "not a proof."
        ]
    else:
        sentences = ["No measurement tells it from a retrained model; that is an observation, not a proof."]
    if sees_the_original(evidence) is False and run["status"] != UNCHANGED:
        sentences.append(
            "The same measurements would not tell the model before either: they have too little power here."
        )
    return sentences


def hidden_kinds(hidden: list[Record]) -> str:
    """What values are about that a page which may be shown withholds."""
    sets = {(item["set"] or "").partition(AT)[0] for item in hidden}
    attacks = any(is_attack(item) for item in hidden)
    kinds = ["forgotten rows"] if "forget" in sets or attacks else []
    kinds += ["retained rows"] if "retain" in sets else []
    kinds += ["other rows"] if sets - {"forget", "retain", ""} else []
    kinds += ["distances of weights"] if any(not item["set"] and not is_attack(item) for item in hidden) else []
    return say.joined(kinds)


def hides_comparisons(evidence: Record) -> bool:
    """Whether values that could be compared with a retrained model are private: what the others come to is not all."""
    return any(item.get("withheld") and item["direction"] == "match" for item in evidence["measurements"])


def unknown(record: Record) -> tuple[Paragraph, ...]:
    """What nobody knows: short, for the half page; each run's own section has the full lists."""
    paragraphs = []
    for run in record["runs"]:
        own = [*_unchecked(run), *_undecided(run), *_base(run)]
        if run["remains"]:
            own.append(
                f"The forgotten records are still held, directly or in their effect, by {_several(run['remains'])}."
            )
        if own:
            paragraphs.append(Paragraph(" ".join(own), _lead(record, run)))
    sentences = []
    excluded = [
        item for run in record["runs"] for _, found in certificates(run) for item in (found or {}).get("excludes", ())
    ]
    if excluded:
        sentences.append(f"No certificate covers {excluded[0]}. All exclusions are listed with each certificate.")
    sentences.append(
        "Backups, exports and caches elsewhere, and people who received copies, are outside of this record. Closeness to a "
        "retrained model proves nothing by itself; the signature shows that the record is unchanged, not that it is honest."
    )
    return (*paragraphs, *(Paragraph(sentence) for sentence in sentences))


def _unchecked(run: Record) -> list[str]:
    assumptions = [item for _, found in certificates(run) for item in (found or {}).get("assumptions", ())]
    open_ = list(dict.fromkeys(item["statement"] for item in assumptions if item["status"] == "unchecked"))
    if open_ and run["verdict"] == Verdict.UNDER_DECLARED:  # which are named with what is proven
        return ["Whether what was declared is true."]
    more = f"; and {len(open_) - _SHOWN} more, in the table of assumptions" if len(open_) > _SHOWN else ""
    return [f"Whether these assumptions hold: {'; '.join(open_[:_SHOWN])}{more}."] if open_ else []


def _base(run: Record) -> list[str]:
    start = run["facts"].get("start", {}).get("value")
    if start != "pretrained":
        return []
    return [
        "Whether the pretrained weights that training began with know the forgotten examples: a retrained model begins with "
        "the same weights, and would know them too."
    ]


def _undecided(run: Record) -> list[str]:
    evidence = run["evidence"]
    if evidence["verdict"] == UNDECIDABLE and run["status"] != UNCHANGED:
        return ["What a retrained model would score: whether this one has forgotten cannot be told by measuring."]
    checks = [check["name"].replace("_", " ") for check in evidence["checks"] if check["passed"] is None]
    return [f"Undecided checks: {say.joined(checks)}."] if checks else []


def _several(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{len(items)} things, for example the {items[0]}"


def _one(item: Record, first: bool) -> str:
    name, metric = label(item), item["metric"]
    kind = "95 % interval " if first else ""
    spread = f" ({kind}{say.interval(metric, item['interval'])})" if item["interval"] else ""
    beside = "" if item["ideal"] is None else f", retrained {say.value(metric, item['ideal'])}"
    return f"{name[0].lower()}{name[1:]} {say.value(metric, item['value'])}{spread}{beside}"


def _statements(items: Any) -> str:
    texts = [
        item["statement"] + (f" (value {say.number(item['value'])})" if isinstance(item["value"], float) else "")
        for item in items
    ]
    return "; ".join(texts) or "see the table of assumptions"
