"""What follows from a record's own numbers, made again; each function returns what does not agree, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from expunge.core.certificate import UNCERTIFIED, UNCHANGED, Status, Verdict, weakest
from expunge.core.digest import digest_json
from expunge.core.measurement import Check, Evidence, Measurement
from expunge.core.trained import Budget, Fact, Origin
from expunge.metrics.outcomes import Word
from expunge.report.measurement_names import keyed, recorded_name
from expunge.report.outcome import PRIVATE, accepted_by_certificate, measurement_of, outcome_of
from expunge.report.record import FORMAT, plain
from expunge.report.shown import are_many, shows_original
from expunge.report.verify.pages import other_version
from expunge.requests_book import END

Record = Mapping[str, Any]
# Of a record besides the examples that matched. Ours have some 2,000 values and 30,000 letters, 254 at most in one text; and of
# a network some 350 values and 2,200 letters for each different model, whose file lies in the folder; at most 580 values and
# 6,700 letters more for the certificate of one.
MOST_SHOWN, MOST_LETTERS, LONGEST_TEXT = 300_000, 2_000_000, 50_000
OF_A_MODEL, LETTERS_OF_A_MODEL = 500, 3_000
OF_A_CERTIFICATE, LETTERS_OF_A_CERTIFICATE = 800, 9_000
FORMAT_1, FORMAT_2 = "expunge-evidence/1", "expunge-evidence/2"


def certificate_problems(record: Record, run: Record) -> list[str]:
    """Every certificate of a run against the one that is made again from the record, and the run's own verdict."""
    from expunge.evidence.refutation import left_out, refuting
    from expunge.privacy.again import differences, made_again, without_lists
    from expunge.privacy.theorems import ADDED_SINCE_FORMAT_1, ADDED_SINCE_FORMAT_2

    old, problems, verdicts = record["format"] != FORMAT, [], []
    unknown = {FORMAT_1: ADDED_SINCE_FORMAT_1, FORMAT_2: ADDED_SINCE_FORMAT_2}.get(record["format"])
    if unknown is None and other_version(record):
        unknown = ()
    facts = {name: Fact(fact["value"], Origin(fact["origin"]), fact["note"]) for name, fact in run["facts"].items()}
    budget = run["budget"] and Budget(**{name: value for name, value in run["budget"].items() if name != "used"})
    checks = [Check(**check) for check in run["evidence"]["checks"]]
    others = {view["view"]: view for view in run["other_views"]}
    first = run.get("view") or next((c.view for c in checks if c.view and c.view not in others), "model")
    views = [(run, first), *((view, name) for name, view in others.items())]
    for each, view in views:
        if (certificate := each["certificate"]) is None:
            continue
        certificate = without_lists(certificate, 0 if old else run["removed"]["before"])  # not recorded before
        again = made_again(certificate, facts, budget, checks, view)
        problems += differences(certificate, plain(again.to_json()), unknown=unknown)
        problems += _bound_to(record, certificate, each["model"])
        own = [check for check in checks if check.view in (None, view)]
        if not old and not any(check.passed is False for check in checks):
            problems += left_out(again, own)
        for check in own:
            if check.detail and "salt" not in record and not old:
                problems.append(f"{check.name} tells numbers that are private; no folder of this version does")
            elif check.passed and refuting(check, again):
                problems.append(f"{check.name} says that it passed; its own numbers refute the certificate")
        if not old:
            problems += _counted(record, run, certificate) + _together(run, certificate)
        verdicts.append(Verdict(certificate["verdict"]))
    whole = UNCERTIFIED if len(verdicts) < len(views) else weakest(verdicts).value
    whole = UNCHANGED if run["status"] == UNCHANGED else whole
    if run["verdict"] != whole:
        problems.append(f"the run's verdict says {run['verdict']}, its certificates amount to {whole}")
    return problems


def _counted(record: Record, run: Record, certificate: Record) -> list[str]:
    """How many records went and stayed: certificate, request, data, budget and facts speak of the same ones."""
    given, data, request = certificate["given"], record["data"], record["request"]
    before, now = run["removed"]["before"], run["removed"]["now"]
    matched = request.get("matched") or {}
    says = {
        "the certificate counts as removed in all": (given["removed"], before + now),
        "the request lists as matched": (len(matched.get("ids", ())), now),
        "the request counts as matched": (matched.get("count", 0) + matched.get("along", 0), now),
    }
    excerpt = record["ledger"] or {}
    given_up = sum(
        entry.get("kind") == END for entry in excerpt.get("entries", ())
    )  # the model is not what came of them
    earlier = given["earlier"]
    if earlier["releases"]:
        says["the release that the model came of counts as removed"] = (earlier["removed"], before)
        says["of the releases since, those that nobody gave up number"] = (max(0, earlier["since"] - given_up), 0)
    if any(a["name"] == "retained_rows" and a["status"] == Status.HOLDS for a in certificate["assumptions"]):
        says["the data count as forgotten"] = (data["forgotten"], now)
        says["the data count as gone"] = (data["rows"] - data["retained"], now)
        if "rows" in run["facts"]:
            says["training counts as rows"] = (run["facts"]["rows"]["value"], data["rows"] + before)
    if run["budget"] and run["budget"]["used"]:
        says["the budget counts as used"] = (run["budget"]["used"], before + now)
    return [
        f"{what} {one}, the rest of the record comes to {other}" for what, (one, other) in says.items() if one != other
    ]


def _together(run: Record, certificate: Record) -> list[str]:
    """Whoever sees all released models sees as many as there are different ones: what noise was composed for."""
    models = [each["model"] for each in (run, *run["other_views"])]
    different = {(model["digest"], (model.get("adapter") or {}).get("digest")) for model in models}
    counted = certificate["given"]["together"]
    if counted == len(different):
        return []
    return [f"the certificate counts {counted} released model(s), the record holds {len(different)} different one(s)"]


def measurement_problems(evidence: Record) -> list[str]:
    """Whether each value agrees with its ideal, and what all of them come to."""
    items, problems = [], []
    for found in map(keyed, evidence["measurements"]):
        item = measurement_of(found)
        if found.get("withheld"):  # only whether it agreed is written down: numbers that say the same stand in
            item = _said(item, found["agrees"])
        items.append(item)
        if found["name"] != recorded_name(item.key):
            problems.append(f"{found['name']} is {recorded_name(item.key)} by its metric, set and view")
        if item.value is not None and item.agrees != found["agrees"]:
            problems.append(f"{item.name} says agrees = {found['agrees']}, its numbers say {item.agrees}")
    checks = tuple(Check(**check) for check in evidence["checks"])
    again = Evidence(None, tuple(items), checks, evidence["cost"], evidence["reference"])
    if again.verdict != evidence["verdict"]:
        problems.append(f"the verdict says {evidence['verdict']!r}, the measurements amount to {again.verdict!r}")
    return problems


def outcome_problems(record: Record, run: Record) -> list[str]:
    """The outcome of a run against what its measurements amount to, as far as the record has them."""
    written, evidence = run["outcome"], run["evidence"]
    word, reason = written["word"], written["reason"]
    if word == PRIVATE:
        if not accepted_by_certificate(run):
            return ["the outcome is kept private, and no certificate accepts the result without it"]
        return [] if reason is None else ["the outcome is kept private, and its reason is not"]
    if word not in {each.value for each in Word}:
        return [f"the outcome {word!r} is none of the five"]
    if evidence["reference"] is None and word not in (Word.UNDECIDABLE, Word.UTILITY_COLLAPSE):
        return [f"the outcome is {word!r}, and there is no retrained model that it could rest on"]
    if outcome_is_private(record, run):
        return [] if reason is None else ["the outcome's reason tells values that are private"]
    again = outcome_of(evidence)
    if written != again:
        return [
            f"the outcome says {word!r} ({reason}), the measurements amount to {again['word']!r} ({again['reason']})"
        ]
    return []


def outcome_is_private(record: Record, run: Record) -> bool:
    """Whether the outcome rests on values that are not in a record that may be shown, so that it cannot be derived again."""
    if "private_below" not in record:  # a whole record
        return False
    return not shows_original(run, are_many(record["data"], record["private_below"]))


def _said(item: Measurement, agrees: bool | None) -> Measurement:
    """A measurement that agrees as ``agrees`` says."""
    ideal = {True: 0.0, False: 1.0, None: None}[agrees]
    return replace(item, value=0.0, interval=None, null=None, ideal=ideal)


def size_problems(record: Record, models: int) -> list[str]:
    """Whether pages of the record can be made again in little time and memory: they are set by libraries that nothing stops.

    Which examples a request matched stands on no page and does not count.

    Args:
        models: how many files of models the folder holds.
    """
    request = record["request"]
    hidden = {"matched": None, "decision": {**(request.get("decision") or {}), "look_alikes": None}}
    values, letters, longest = _extent({**record, "request": {**request, **hidden}})
    views = (view for run in record.get("runs", ()) for view in (run, *run.get("other_views", ())))
    certified = min(models, sum(view.get("certificate") is not None for view in views))
    counts = {
        "values": (values, MOST_SHOWN + OF_A_MODEL * models + OF_A_CERTIFICATE * certified),
        "letters": (letters, MOST_LETTERS + LETTERS_OF_A_MODEL * models + LETTERS_OF_A_CERTIFICATE * certified),
        "letters in one text": (longest, LONGEST_TEXT),
    }
    return [
        f"the record has {count:,} {what}, more than {most:,}: none of ours has"
        for what, (count, most) in counts.items()
        if count > most
    ]


def _extent(value: Any) -> tuple[int, int, int]:
    """How many values a JSON value holds, how many letters all its texts have, and the longest of them."""
    values = letters = longest = 0
    left = [value]
    while left:
        each = left.pop()
        values += 1
        if isinstance(each, str):
            letters, longest = letters + len(each), max(longest, len(each))
        elif isinstance(each, Mapping):
            left += [*each.keys(), *each.values()]
        elif isinstance(each, list):
            left += each
    return values, letters, longest


def record_problems(record: Record) -> list[str]:
    """Dates in an order in which they can have come, and one version that wrote everything."""
    problems, request = [], record["request"]
    if record["environment"]["expunge"] != record["expunge"]:
        problems.append("the record and its environment name two versions of expunge")
    created = datetime.fromisoformat(record["created"])
    received, due = (datetime.fromisoformat(f"{request[name]}T00:00:00+00:00") for name in ("received", "due"))
    if received > due:
        problems.append("an answer was due before the request came")
    if received - timedelta(days=1) > created:  # a day: dates are local, the time is not
        problems.append("the record was made before the request came")
    return problems


def config_problems(config: Any, record: Record) -> list[str]:
    """Whether the settings that lie beside the record are those of its runs, as far as both give numbers for the same."""
    if not isinstance(config, Mapping):
        return ["config.yaml holds no settings"]
    method, training = (_named(config.get(part)) for part in ("method", "training"))
    problems, runs = [], record["runs"]
    names = {run["method"]["name"] for run in runs}
    if "name" in method and method["name"] not in names:
        problems.append(f"config.yaml names the method {method['name']!r}, the record {', '.join(sorted(names))}")
    for run in runs:
        facts = {name: fact["value"] for name, fact in run["facts"].items()}
        own = _named(run["method"].get("settings")) if run["method"]["name"] == method.get("name") else {}
        for section, made in ((method, own), (training, facts)):
            problems += [
                f"config.yaml sets {key} = {section[key]!r}, the run {run['name']} was made with {made[key]!r}"
                for key in section.keys() & made.keys()
                if _is_number(section[key]) and _is_number(made[key]) and section[key] != made[key]
            ]
    return problems


def _named(part: Any) -> Record:
    """Settings of a part of a configuration; a name alone is one of them."""
    return part if isinstance(part, Mapping) else {} if part is None else {"name": part}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bound_to(record: Record, certificate: Record, model: Record) -> list[str]:
    """Digests that the certificate is bound to against what the record speaks of."""
    request = {name: value for name, value in record["request"].items() if name != "decision"}
    expected = {
        "release": model["digest"],
        "request": digest_json(request),
        "retained": record["data"]["retained_digest"],
    }
    binds = certificate["binds"]
    return [
        f"it is bound to another {name} than the record's" for name in expected if binds.get(name) != expected[name]
    ]
