"""Going back to an earlier release, where it knows nobody whose request was released since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.core.errors import InputError, RefusedError
from expunge.ledger import Ledger
from expunge.model_folder import MODEL, ModelFolder
from expunge.requests_book import ROLLBACK, RequestBook

SHORT = 8  # hex digits that name a digest at least


@dataclass(frozen=True)
class Released:
    """One release of a model, as a ledger tells of it.

    Attributes:
        request, model, digest: whose it was, of which model, and what left.
        sequence: of its entry.
        lacks: requests whose examples it is known not to know.
    """

    request: str
    model: str
    digest: str
    sequence: int
    lacks: frozenset[str]


def releases_of(ledger: Ledger) -> list[Released]:
    """Every release on a ledger, in order, with the requests whose examples it lacks, as far as the ledger shows that.

    A release lacks its own request, what the release that it was made from lacks, and, where the model was trained in that
    run, everybody for whom a request was granted before it: they were kept out of training. Requests of the same person for
    the same targets (one superseded the other) are lacked together. What an entry of an earlier version does not say is not
    presumed.
    """
    person: dict[str, Any] = {}
    granted: dict[str, int] = {}
    for entry in ledger.entries():
        request = entry.key.split("/")[0]
        if entry.kind == "request":
            targets = [(item.get("kind"), item.get("where")) for item in entry.payload.get("targets", ())]
            person[request] = (entry.payload.get("subject"), tuple(targets))
        elif entry.kind == "decision" and entry.payload["decision"] == "grant" and "matched" in entry.payload:
            granted.setdefault(request, entry.sequence)
    found: list[Released] = []
    for entry in ledger.entries("release"):
        for item in entry.payload.get("releases", ()):
            lacks = {entry.key}
            earlier = [other for other in found if other.digest == item.get("made_from")]
            lacks |= set().union(*(other.lacks for other in earlier[-1:]))
            if item.get("trained") or item.get("afresh"):
                lacks |= {request for request, at in granted.items() if at < entry.sequence}
            lacks |= {
                each for each in person if person[each] in {person[lacked] for lacked in lacks if lacked in person}
            }
            digest, model = str(item.get("digest", "")), str(item.get("model", ""))
            found.append(Released(entry.key, model, digest, entry.sequence, frozenset(lacks)))
    return found


def roll_back(path: Path, digest: str, by: str, why: str) -> dict[str, Any]:
    """Record that the release ``digest`` is the model in use again.

    Args:
        path: the ledger. digest: of the release, or at least its first eight digits.
        by: who decided it. why: the reason, without names.

    Returns:
        ``model``, ``digest``, ``request``, ``from`` (the digest that was in use), ``by`` and ``reason``.

    Raises:
        InputError: for a digest that no release or several have, or the one that is in use.
        RefusedError: where that release knew somebody whose request was released since, with the releases that lack them all;
            or where the folder of a published model does not hold it any more.
    """
    with Ledger(path) as ledger:
        found, book = releases_of(ledger), RequestBook(ledger)
        chosen = _named(found, digest)
        line = [item for item in found if item.model == chosen.model]
        in_use = book.rolled_back(chosen.model) or line[-1].digest
        if chosen.digest == in_use:
            raise InputError(f"Release {chosen.digest[:12]} is in use already; there is nothing to go back to.")
        released = dict.fromkeys(item.request for item in line)
        if known := [request for request in released if request not in chosen.lacks]:
            able = [item.digest[:12] for item in line if item.lacks >= released.keys()]
            raise RefusedError(
                f"Release {chosen.digest[:12]} knows what was forgotten since for {', '.join(known)}, as far as the ledger "
                f"shows. Releases that lack all of it: {', '.join(able) or 'none'}."
            )
        folder = ModelFolder(path.parent)
        if chosen.model == MODEL and folder.book.path.resolve() == path.resolve() and folder.published:
            folder.must_hold(chosen.request)
        entry = {"model": chosen.model, "digest": chosen.digest, "from": in_use, "by": by, "reason": why}
        number = 1 + len(ledger.entries(ROLLBACK))
        ledger.append(ROLLBACK, f"{chosen.request}/rollback-{number}", entry)
    return {**entry, "request": chosen.request}


def _named(found: list[Released], digest: str) -> Released:
    """The release whose digest begins with ``digest``; the last one of those that are equal."""
    fits: Mapping[str, Released] = {item.digest: item for item in found if item.digest.startswith(digest)}
    if len(digest) < SHORT or len(fits) != 1:
        known = ", ".join(f"{item.digest[:12]} ({item.request})" for item in found) or "none"
        raise InputError(
            f"Expected the digest of one release, at least {SHORT} digits of it; got {digest!r:.80}. Releases: {known}."
        )
    return next(iter(fits.values()))
