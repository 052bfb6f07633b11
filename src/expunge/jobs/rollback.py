"""Going back to an earlier release, where it knows nobody whose request was released since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.core.errors import InputError, RefusedError
from expunge.jobs.handing_back import hand_back, kept_in, must_be_new
from expunge.ledger import Ledger
from expunge.metrics.outcomes import Word
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

    A release lacks its own request, what the release that it was made from lacks, and, where the model was trained in that run,
    everybody else for whom a request was granted before it: they were kept out of training. Requests of the same person for the
    same targets (one superseded the other) are lacked together. A result that was not accepted, for another reason than that
    measuring could not decide, does not show that it lacks its request. What an entry of an earlier version does not say is not
    presumed.
    """
    person: dict[str, Any] = {}
    granted: dict[str, int] = {}
    failed: set[str] = set()
    for entry in ledger.entries():
        request = entry.key.split("/")[0]
        if entry.kind == "request":
            targets = [(item.get("kind"), item.get("where")) for item in entry.payload.get("targets", ())]
            person[request] = (entry.payload.get("subject"), tuple(targets))
        elif entry.kind == "decision" and entry.payload["decision"] == "grant" and "matched" in entry.payload:
            granted.setdefault(request, entry.sequence)
        elif entry.kind == "fulfilment" and _failed(entry.payload):
            failed.add(request)
    found: list[Released] = []
    for entry in ledger.entries("release"):
        for item in entry.payload.get("releases", ()):
            lacks = {entry.key} - failed
            earlier = [other for other in found if other.digest == item.get("made_from")]
            lacks |= set().union(*(other.lacks for other in earlier[-1:]))
            if item.get("trained") or item.get("afresh"):
                own = () if item.get("afresh") else (person.get(entry.key),)  # trained with them, to forget them then
                lacks |= {each for each, at in granted.items() if at < entry.sequence and person.get(each) not in own}
            lacks |= {
                each for each in person if person[each] in {person[lacked] for lacked in lacks if lacked in person}
            }
            digest, model = str(item.get("digest", "")), str(item.get("model", ""))
            found.append(Released(entry.key, model, digest, entry.sequence, frozenset(lacks)))
    return found


def _failed(fulfilment: Mapping[str, Any]) -> bool:
    """Whether a result was not accepted, and not only because measuring could not decide."""
    outcomes = {*fulfilment.get("outcomes", {}).values()}
    return not fulfilment.get("accepted", True) and bool(outcomes - {Word.UNDECIDABLE})


def releases_to_json(path: Path) -> list[dict[str, Any]]:
    """Every release on a ledger, as ``--json`` prints it: ``digest``, ``model``, ``request``, ``in_use``, ``may_return``.

    ``may_return`` says whether the ledger shows that it knows nobody whose request was released for its model since.
    """
    with Ledger(path) as ledger:
        found, book = releases_of(ledger), RequestBook(ledger)
        lines = {model: [item for item in found if item.model == model] for model in {item.model for item in found}}
        used = {model: book.rolled_back(model) or line[-1].digest for model, line in lines.items()}
    return [
        {
            "digest": item.digest, "model": item.model, "request": item.request,
            "in_use": item.digest == used[item.model], "may_return": not _known(item, lines[item.model]),
        }
        for item in found
    ]  # fmt: skip


def roll_back(path: Path, digest: str, by: str, why: str, *, evidence: Path, out: Path) -> dict[str, Any]:
    """Make the release ``digest`` the model in use again, and hand its files back.

    Everything that could refuse does so first. Then the files are copied, and the entry is appended last.

    Args:
        path: the ledger. digest: of the release, or at least its first eight digits.
        by: who decided it. why: the reason, without names.
        evidence: the evidence folder of that release, which holds its model.
        out: new folder for the model, with ``release.json``, which says what it is.

    Returns:
        ``model``, ``digest``, ``request``, ``from`` and ``from_request`` (what was in use), ``by``, ``reason``; ``deploy``, the
        paths to load; ``next``, how a later request starts from this release: ``training`` of its job, or the folder ``model``
        of a published one; ``None`` where the private folder beside the evidence is not there.

    Raises:
        InputError: for a digest that no release or several have, or the one that is in use; for an evidence folder of another
            release, or a folder ``out`` that is there already.
        RefusedError: where that release knew somebody whose request was released since, with the releases that lack them all;
            or where the folder of a published model does not hold it any more.
        TamperedError: where the evidence folder does not verify.
    """
    with Ledger(path) as ledger:
        found, book = releases_of(ledger), RequestBook(ledger)
        chosen = _named(found, digest)
        line = [item for item in found if item.model == chosen.model]
        in_use = book.rolled_back(chosen.model) or line[-1].digest
        if chosen.digest == in_use:
            raise InputError(
                f"Release {chosen.digest[:12]} is in use already; there is nothing to go back to. Its model is in the evidence "
                f"folder of {chosen.request}."
            )
        if known := _known(chosen, line):
            able = [item.digest[:12] for item in line if not _known(item, line)]
            raise RefusedError(
                f"Release {chosen.digest[:12]} knows what was forgotten since for {', '.join(known)}, as far as the ledger "
                f"shows. Releases that lack all of it: {', '.join(able) or 'none'}."
            )
        folder = ModelFolder(path.parent)
        published = chosen.model == MODEL and folder.book.path.resolve() == path.resolve() and folder.published
        if published:
            folder.must_hold(chosen.request)
        number = 1 + len(ledger.entries(ROLLBACK))
    must_be_new(out)
    kept = kept_in(evidence, chosen.digest, path)
    before = next(item.request for item in reversed(line) if item.digest == in_use)
    entry = {"model": chosen.model, "digest": chosen.digest, "from": in_use, "by": by, "reason": why}
    said = {**entry, "request": chosen.request, "from_request": before}
    hand_back(kept, out, said | {"deploy": list(kept.deploy)})
    with Ledger(path) as ledger, ledger.transaction():
        if releases_of(ledger) != found:
            raise RefusedError(
                f"Another request was released meanwhile, so that nothing was put on record: delete {out} and try again."
            )
        ledger.append(ROLLBACK, f"{chosen.request}/rollback-{number}", entry)
    stored = None if kept.next is None else {"training": {"kind": "stored", "folder": str(kept.next)}}
    return said | {
        "deploy": [str(out / name) for name in kept.deploy],
        "next": {"model": str(folder.path)} if published else stored,
    }


def _known(chosen: Released, line: Sequence[Released]) -> list[str]:
    """Requests that were released for this model and of which the ledger does not show that ``chosen`` lacks them."""
    return [request for request in dict.fromkeys(item.request for item in line) if request not in chosen.lacks]


def _named(found: list[Released], digest: str) -> Released:
    """The release whose digest begins with ``digest``; the last one of those that are equal."""
    fits: Mapping[str, Released] = {item.digest: item for item in found if item.digest.startswith(digest)}
    if len(digest) < SHORT or len(fits) != 1:
        known = ", ".join(f"{item.digest[:12]} ({item.request})" for item in found) or "none"
        raise InputError(
            f"Expected the digest of one release, at least {SHORT} digits of it; got {digest!r:.80}. Releases: {known}."
        )
    return next(iter(fits.values()))
