"""The ledger's part of an evidence folder: its excerpt, the ledger itself where it is at hand, and a checkpoint of it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from expunge.core.certificate import UNCHANGED, Verdict
from expunge.core.digest import digest_bytes, digest_json
from expunge.core.errors import TamperedError
from expunge.ledger import Entry, Ledger
from expunge.model_folder import PUBLISHED, spent_on
from expunge.privacy.again import without_lists
from expunge.privacy.composition import compose_gaussian
from expunge.report import acceptance
from expunge.report.folder import as_json, models_of
from expunge.report.outcome import ACCEPTED_SINCE, is_accepted
from expunge.report.record import FORMAT
from expunge.report.shown import name_of
from expunge.requests_book import ACCEPTANCE, END, ROLLBACK, RequestBook

Record = Mapping[str, Any]
Item = Mapping[str, Any]
_SINCE = {"abandon": "abandoned", "supersede": "superseded"}
_DIGEST = re.compile(r"[0-9a-f]{64}")


def excerpt_problems(record: Record, entries: list[Entry]) -> list[str]:
    """What the ledger filed, decided and released against what the record says of it."""
    request = record["request"]
    own = [entry for entry in entries if entry.key.split("/")[0] == request["id"]]
    by_kind = {kind: [entry for entry in own if entry.kind == kind] for kind in ("request", "decision", "release")}
    problems = []
    filed = by_kind["request"][0].payload if by_kind["request"] else {}
    needed = request.keys() - {"decision", "matched"}
    if not needed <= filed.keys() or any(request.get(name) != value for name, value in filed.items()):
        problems.append("the request that the ledger filed is not the record's")
    if by_kind["decision"]:
        last = {**by_kind["decision"][-1].payload}
        matched = last.pop("matched", request.get("matched"))
        if last != request["decision"] or matched != request.get("matched"):
            problems.append("the last decision in the ledger is not the record's")
    digests = {model["digest"] for model in models_of(record)}
    released = [item for entry in by_kind["release"] for item in entry.payload.get("releases", ())]
    left = [digest for item in released for digest in (item.get("digest", ""), *item.get("views", {}).values())]
    if any(digest not in digests for digest in left):
        problems.append("the ledger released another model than the record's")
    if record["format"] != FORMAT:
        return problems
    counted = any(
        run["certificate"] and run["verdict"] != Verdict.VOID for run in record["runs"]
    )  # what nothing bounds is not
    if hidden := [kind for kind, found in by_kind.items() if not found and (counted or kind != "release")]:
        problems.append(f"the excerpt hides the entry of the {' and of the '.join(hidden)}")
    if digests - set(left) and by_kind["release"]:
        problems.append("the record speaks of a model that the ledger did not release")
    for entry in by_kind["release"]:
        if entry.payload.get("record", name_of(record)) != name_of(record):
            problems.append("the ledger released the model with another record than this one")
    numbers = [int(entry.key.partition("/")[2] or 0) for entry in by_kind["decision"]]
    if numbers != list(range(1, len(numbers) + 1)):
        problems.append("a decision is missing between those that are shown")
    created = datetime.fromisoformat(record["created"]) + timedelta(seconds=1)
    early = [e for e in entries if e.kind in ("request", PUBLISHED) and datetime.fromisoformat(e.time) > created]
    problems += [f"entry {entry.sequence} ({entry.kind}) is younger than the record" for entry in early]
    for run in record["runs"]:
        problems += _released_as_certified(run, released) + _published_first(run, released, entries, by_kind["request"])
    return problems


def _of(run: Record, released: Iterable[Item]) -> Item:
    """What the ledger released of this run; empty where it says nothing."""
    return next((item for item in released if item.get("digest") == run["model"]["digest"]), {})


def _released_as_certified(run: Record, released: Iterable[Item]) -> list[str]:
    """What later releases are composed with is what the certificate says."""
    item, certificate = _of(run, released), run["certificate"]
    if not item or certificate is None or run["status"] == UNCHANGED or run["verdict"] == Verdict.VOID:
        return []
    given = certificate["given"]
    together = math.sqrt(given["together"]) * (certificate["mu"] if certificate["mu"] is not None else math.inf)
    said = math.inf if item["mu"] is None else item["mu"]
    problems = []
    if item.get("verdict", run["verdict"]) != run["verdict"]:
        problems.append(f"the ledger released {run['name']} as {item['verdict']}, the record says {run['verdict']}")
    held = {view: each["model"]["digest"] for each in (run, *run["other_views"]) for view in each.get("views", ())}
    if len(held) > 1 and item.get("views") != held:
        problems.append(f"the ledger gave the peers of {run['name']} other models than the record's")
    if not item["afresh"] and (item["removed"] != given["removed"] or not math.isclose(said, together, rel_tol=1e-9)):
        problems.append(f"the ledger counts {run['name']} otherwise than its certificate")
    return problems


def _published_first(run: Record, released: Iterable[Item], entries: list[Entry], filed: list[Entry]) -> list[str]:
    """Where a certificate rests on the ledger, the ledger shows it: the promise, its budget, and that it came first."""
    given = [view["certificate"]["given"] for view in (run, *run["other_views"]) if view["certificate"] is not None]
    if not any(item["ledger"] or item["published_first"] for item in given):
        return []
    name = _of(run, released).get("model")
    promise = next((entry for entry in entries if entry.kind == PUBLISHED and entry.key == name), None)
    if promise is None:
        return [f"the certificate of {run['name']} rests on a promise that the excerpt does not show"]
    budget = run["budget"] and {key: value for key, value in run["budget"].items() if key != "used"}
    problems = []
    if promise.payload.get("budget") != budget:
        problems.append(f"{run['name']} was published with another budget than the record's")
    if any(item["published_first"] for item in given) and not (filed and promise.sequence < filed[0].sequence):
        problems.append(f"{run['name']} was not published before the request was filed")
    return problems


def needs_excerpt(record: Record) -> bool:
    """Whether something in the record rests on a ledger, so that an excerpt cannot be missing."""
    views = [view for run in record["runs"] for view in (run, *run["other_views"])]
    return record["format"] == FORMAT and any(
        view["certificate"]
        and (view["certificate"]["given"]["ledger"] or view["certificate"]["given"]["published_first"])
        for view in views
    )


def live_problems(
    record: Record, ledger: Ledger, evidence: Collection[str], here: bool, key: Ed25519PublicKey | None = None
) -> list[str]:
    """The ledger itself, verified already, against the excerpt and the record.

    Args:
        evidence: digests under which a fulfilment may name evidence.json. here: whether the ledger lies in the folder.
        key: the expected signer's, where it is known.
    """
    excerpt, identity = record["ledger"], record["request"]["id"]
    if excerpt is not None:
        ledger.extends(excerpt)
    own = [entry for entry in ledger.entries(prefix=identity) if entry.key.split("/")[0] == identity]
    problems = []
    closed = [entry.payload.get("evidence") for entry in own if entry.kind == "fulfilment"]
    problems += acceptance.problems(record, [entry.payload for entry in own if entry.kind == ACCEPTANCE], evidence, key)
    before = acceptance.as_delivered(record)
    # what a person accepted since was closed as it stood before
    named = [*evidence] if record.get(ACCEPTED_SINCE) is None else [digest_bytes(as_json(before)), digest_json(before)]
    by_a_job = any("record" in entry.payload for entry in own if entry.kind == "release")
    if (
        closed and _DIGEST.fullmatch(str(closed[0])) and closed[0] not in named
    ):  # whoever fulfils in Python may write words
        problems.append("the request was fulfilled with other evidence than this")
    if len(closed) > 1:
        problems.append("the request was fulfilled more than once")
    if excerpt is not None and record["format"] == FORMAT:
        later = [entry for entry in own if entry.sequence > excerpt["length"] and entry.kind == "decision"]
        problems += [f"entry {entry.sequence} decides the request anew, after this record" for entry in later]
    said = [entry.payload["accepted"] for entry in own if entry.kind == "fulfilment" and "accepted" in entry.payload]
    if said and (said[0] != is_accepted(before) or any("outcome" not in run for run in record["runs"])):
        problems.append("the ledger closed the request with another outcome than the record's")
    if not closed and record["format"] == FORMAT and (here or by_a_job):
        problems.append(
            "the ledger does not say that the request was fulfilled: it was cut back, or the run did not finish"
        )
    if excerpt is not None and record["format"] == FORMAT:
        shown = {item["sequence"] for item in excerpt["entries"]}
        hidden = [entry for entry in own if entry.sequence <= excerpt["length"] and entry.sequence not in shown]
        problems += [f"the excerpt hides entry {entry.sequence} ({entry.kind}) of this request" for entry in hidden]
    for entry in own:
        if entry.kind == "release" and record["format"] == FORMAT:
            items = entry.payload.get("releases", ())
            problems += [text for run in record["runs"] for text in _counted_before(run, items, entry.sequence, ledger)]
    if any(entry.kind == "void" for entry in own) and any(run["verdict"] != Verdict.VOID for run in record["runs"]):
        problems.append("the ledger says that what was released turned out to be void")
    return problems


def _counted_before(run: Record, released: Iterable[Item], sequence: int, ledger: Ledger) -> list[str]:
    """Where a certificate rests on the ledger: the releases that were on it before this one, against those that it counts."""
    item, certificate = _of(run, released), run["certificate"]
    if not item or item["afresh"] or certificate is None or not certificate["given"]["ledger"]:
        return []
    before = spent_on(ledger, item.get("model", ""), sequence)
    counted = without_lists(certificate, run["removed"]["before"])["given"]["earlier"]
    mu, said = compose_gaussian(each.mu for each in before), math.inf if counted["mu"] is None else counted["mu"]
    if counted["releases"] >= len(before) and said >= mu * (1 - 1e-9):
        return []
    return [
        f"the certificate of {run['name']} counts {counted['releases']} release(s) before it, mu {said:.6g}; the ledger has "
        f"{len(before)}, mu {mu:.6g}"
    ]


def since(record: Record, ledger: Ledger, key: Ed25519PublicKey | None = None) -> str | None:
    """What the ledger says of the request since the record was made, and how many entries were appended after the excerpt that
    the record shows: nothing in the folder vouches for them, but for an acceptance that ``key`` signed."""
    excerpt = record["ledger"]
    entries = RequestBook(ledger).entries_of(record["request"]["id"])
    words = [acceptance.in_words(record, entry.payload, key) for entry in entries if entry.kind == ACCEPTANCE]
    words += [
        f"the request was {_SINCE[entry.payload['decision']]} by {entry.payload['by']:.100}: {entry.payload['reason']:.300}"
        for entry in entries
        if entry.kind == END
    ]
    own = {model["digest"] for model in models_of(record)}
    for entry in ledger.entries(ROLLBACK):
        back = entry.payload
        if own & {back["from"], back["digest"]}:
            word = "put in use again" if back["digest"] in own else "taken out of use"
            words.append(f"its model was {word} by {back['by']:.100}: {back['reason']:.300}")
    if count := ledger.head()[0] - (excerpt["length"] if excerpt is not None else 0):
        words.insert(
            0, f"{count:,} of its entries came after the signed excerpt; only a later checkpoint speaks for them"
        )
    return "; ".join(words) or None


def checkpoint_problems(record: Record, ledger: Ledger | None, point: Record) -> str:
    """Check folder and ledger against a checkpoint; returns why that could not be done, where it could not.

    Raises:
        TamperedError: if ledger or excerpt are not of the history that the checkpoint fixed.
    """
    excerpt = record["ledger"]
    if ledger is not None:
        ledger.extends(point)
        return ""
    if excerpt is not None and "root" in excerpt and excerpt["length"] == point["length"]:
        if excerpt["root"] != point["root"]:
            raise TamperedError("the excerpt is of another ledger than the checkpoint, or of one that was rewritten")
        return ""
    if excerpt is None or "root" not in excerpt or (proof := point["proofs"].get(str(excerpt["length"]))) is None:
        return "only the ledger itself can be compared with a checkpoint of another length; give it with --ledger"
    from expunge.core import merkle

    steps = [bytes.fromhex(step) for step in proof]
    old, new = bytes.fromhex(excerpt["root"]), bytes.fromhex(point["root"])
    if not merkle.consistent(excerpt["length"], old, point["length"], new, steps):
        raise TamperedError("the excerpt is of another ledger than the checkpoint, or of one that was rewritten")
    return ""
