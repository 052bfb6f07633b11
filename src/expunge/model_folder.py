"""A published model on disk, with the ledger of its releases beside it: what a certificate about releases rests on.

::

    MODEL/ledger.sqlite       when it was published with which promise; every request and release since
    MODEL/trained.json, …     the published model, its un-noised weights and its trail (private, mode 0700)
    MODEL/after-req-…/        the same after a request; what was before it is deleted once the request is fulfilled

The ledger says which of these is the model now, so a request can neither be served twice nor from a model that an earlier
request has replaced. What it cannot show: that nobody copied the whole folder and releases from the copy as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from expunge.core.digest import digest_file, keyed_hash
from expunge.core.errors import InputError, RefusedError, TamperedError
from expunge.core.files import private_folder, sweep
from expunge.core.keys import subject_key
from expunge.core.task import Task
from expunge.core.trained import Spent, Trained
from expunge.ledger import Entry, Ledger
from expunge.requests_book import CLOSED, Granted, RequestBook
from expunge.training.store import load_trained, save_trained

LEDGER, RECORD, MODEL = "ledger.sqlite", "trained.json", "model"
PUBLISHED = "published"  # kind of the entry that holds the promise
_AFTER = "after-"


class ModelLedger:
    """The book of one model in a ledger on disk; see :class:`~expunge.core.trained.ReleaseBook`.

    Args:
        path: the ledger; it is opened and verified at each use.
        model: the model's name in it: a ledger may hold several.

    Raises:
        InputError, TamperedError: as :class:`~expunge.ledger.Ledger`, at each use.
    """

    beside_model = True

    def __init__(self, path: Path, model: str = MODEL):
        self.path, self.model = Path(path), model

    def spent(self) -> tuple[Spent, ...]:
        """All releases since the model was last trained from scratch, in order."""
        with Ledger(self.path) as ledger:
            return spent_on(ledger, self.model)

    def published_before(self, request: str) -> bool:
        """Whether the entry with the promise stands before that of the request. Dates that somebody typed play no part."""
        with Ledger(self.path) as ledger:
            promise = [entry for entry in ledger.entries(PUBLISHED, self.model) if entry.key == self.model]
            filed = [entry for entry in ledger.entries("request", request) if entry.key == request]
            return bool(promise) and (not filed or promise[0].sequence < filed[0].sequence)

    def last_released(self, but: str) -> str:
        """Digest of the model that was released last, requests ``but`` left out; empty where nothing was."""
        with Ledger(self.path) as ledger:
            given_up, back = RequestBook(ledger).given_up(), RequestBook(ledger).rolled_back(self.model)
            found = [
                item.get("digest", "")
                for entry in ledger.entries("release")
                if entry.key != but and entry.key not in given_up
                for item in entry.payload.get("releases", ())
                if item.get("model") == self.model
            ]
        return back or (found[-1] if found else "")

    def promised(self, budget: Any) -> bool:
        """Whether ``budget`` is the one that the ledger holds; another one was made up after it was published."""
        with Ledger(self.path) as ledger:
            promise = [entry.payload for entry in ledger.entries(PUBLISHED, self.model) if entry.key == self.model]
        return bool(promise) and promise[0].get("budget") == (None if budget is None else asdict(budget))

    def granted(self, but: Mapping[str, Any]) -> list[Granted]:
        """Requests that were granted on this ledger; see :meth:`~expunge.requests_book.RequestBook.granted`."""
        with Ledger(self.path) as ledger:
            return RequestBook(ledger).granted(but)

    def shown(self, request: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The excerpt that evidence of ``request`` shows, and the last decision about it, without what was matched."""
        with Ledger(self.path) as ledger:
            decisions = [entry.payload for entry in ledger.entries("decision", f"{request}/")]
            last = {name: value for name, value in decisions[-1].items() if name != "matched"} if decisions else None
            return ledger.excerpt([request, self.model, *RequestBook(ledger).given_up().values()]), last

    def void(self, request: str) -> None:
        """Measuring refuted what was released for ``request``: from now on that release has spent everything."""
        with Ledger(self.path) as ledger:
            ledger.append("void", request, {"model": self.model})

    def begin(self, record: Mapping[str, Any]) -> None:
        """File a request and grant it, where nobody did.

        Raises:
            RefusedError: if it was released already: a second release would be a second draw of noise on one state.
        """
        with Ledger(self.path) as ledger:
            book = RequestBook(ledger)
            filed = {name: value for name, value in record.items() if name not in ("matched", "decision")}
            book.file_request(filed)
            if (status := book.status_of(record["id"])) in ("released", *CLOSED, "abandoned", "superseded"):
                raise RefusedError(
                    f"Request {record['id']} is {status} already: this model is released once for each request. Continue with "
                    "the model that came of it; or file a request that supersedes it."
                )
            if status == "received":
                granted = {"decision": "grant", "reason": "planned and run in Python", "by": "whoever ran it"}
                book.decide(record["id"], {**granted, "matched": record.get("matched")})

    def add(
        self, release: Spent, *, afresh: bool = False, digest: str = "", made_from: str = "",
        views: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Record a release; a second one for the same request is refused.

        Raises:
            RefusedError: if another process released from the model since: this release was not composed with that one.
        """
        item = release_item(self.model, release, afresh=afresh, digest=digest, views=views)
        with Ledger(self.path) as ledger, ledger.transaction():
            last = self.last_released(release.request)
            if made_from and last and last != made_from:
                raise RefusedError(
                    "Another request was released from this model meanwhile: this one is not counted with it and must not "
                    "leave. Continue with the model that came of that one."
                )
            RequestBook(ledger).release(release.request, {"releases": [item]})


def release_item(
    model: str, release: Spent, *, afresh: bool, digest: str, views: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What a ledger says of one release: enough to compose the next one, nothing about anyone.

    Args:
        digest: of what was released; of a network, of its first view.
        views: of a network, the digest of what each view was given.
    """
    return {
        **({"views": dict(views)} if views else {}),
        "model": model, "digest": digest, "removed": release.removed, "theorem": release.theorem, "afresh": afresh,
        "mu": release.mu if math.isfinite(release.mu) else None,
    }  # fmt: skip


def spent_on(ledger: Ledger, model: str, before: float = math.inf) -> tuple[Spent, ...]:
    """Releases of ``model`` since it was last trained from scratch, in order, of entries with numbers below ``before``."""
    found: list[Spent] = []
    void = {entry.key for entry in ledger.entries("void") if entry.sequence < before}
    for entry in ledger.entries("release"):
        for item in entry.payload.get("releases", ()) if entry.sequence < before else ():
            if item.get("model") == model:
                spent = _spent(entry, item)
                found.append(replace(spent, mu=math.inf) if entry.key in void else spent)
                if item.get("afresh"):
                    found.clear()
    return tuple(found)


def _spent(entry: Entry, item: Mapping[str, Any]) -> Spent:
    mu = math.inf if item.get("mu") is None else float(item["mu"])
    return Spent(entry.key, int(item["removed"]), mu, item.get("theorem", ""))


class ModelFolder:
    """A folder that ``expunge publish`` wrote.

    Args:
        path: the folder.
        ledger: where its releases are recorded; ``ledger.sqlite`` in it where not given.
        name: the model's name in the ledger.
    """

    def __init__(self, path: Path, *, ledger: Path | None = None, name: str = MODEL):
        self.path = Path(path)
        self.book = ModelLedger(ledger or self.path / LEDGER, name)

    @property
    def published(self) -> bool:
        """Whether there is a ledger that holds this model's promise."""
        if not self.book.path.is_file():
            return False
        with Ledger(self.book.path) as ledger:
            return any(entry.key == self.book.model for entry in ledger.entries(PUBLISHED))

    def publish(self, trained: Trained, method: Mapping[str, Any]) -> Trained:
        """Write the model and, as the ledger's next entry, its promise: from now on noise and settings are fixed.

        Raises:
            InputError: if the folder holds a model already, or the recipe has no form on disk.
        """
        if (self.path / RECORD).exists():
            raise InputError(f"{self.path} holds a model already; name a new folder: what is published stays as it is.")
        private_folder(self.path)
        save_trained(self.path, trained)
        promise = {
            "budget": None if trained.budget is None else asdict(trained.budget), "method": dict(method),
            "content": _content(self.path),
        }  # fmt: skip
        with Ledger(self.book.path, create=True) as ledger:
            ledger.append(PUBLISHED, self.book.model, promise)
        return replace(trained, book=self.book)

    def load(self, task: Task, data: Any, request: str | None = None) -> Trained:
        """The model as it is now.

        Args:
            request: whose unfinished release may be taken up; any other one must be finished first.

        Raises:
            RefusedError: if another request's release was not finished.
            TamperedError: if what lies here is not what the ledger recorded.
        """
        place, content = self._now(request)
        if _content(place) != content:
            raise TamperedError(
                f"{place / RECORD} is not the one that {self.book.path} recorded. Restore the folder from a backup."
            )
        return replace(load_trained(place, task, data), book=self.book)

    def keep(self, after: Trained, request: str) -> str:
        """Store the model that ``request`` leaves; returns what the fulfilment must say of it.

        A repetition writes the same files again.
        """
        place = self.path / f"{_AFTER}{request}"
        save_trained(place, after)
        return _content(place)

    def purge(self) -> None:
        """Delete whatever the model now has replaced, and files that a killed run did not finish: un-noised weights and
        iterates hold what was removed.

        Raises:
            RefusedError: while a request is released and not finished, whose run may be writing here.
        """
        place, _ = self._now(None)
        sweep(self.path)
        others = [path for path in self.path.glob(f"{_AFTER}*") if path != place and path.is_dir()]
        for folder in [*others, *([self.path] if place != self.path else [])]:
            for path in [folder / RECORD, *folder.glob("*.safetensors")]:
                path.unlink(missing_ok=True)
            if folder != self.path and not any(folder.iterdir()):
                folder.rmdir()

    def must_hold(self, request: str) -> None:
        """Raise RefusedError unless the model that ``request`` left is still here: it is deleted once another replaced it."""
        if not (self.path / f"{_AFTER}{request}" / RECORD).is_file():
            raise RefusedError(
                f"{self.path} does not hold the model that {request} left any more: what a later release replaced is deleted. "
                "Restore the folder from a backup of that time, or publish anew."
            )

    def _now(self, request: str | None) -> tuple[Path, str]:
        """Where the model lies now, and what the ledger says of its content."""
        if not self.published:
            raise InputError(
                f"{self.path} holds no published model; write one with expunge publish JOB --to {self.path}."
            )
        with Ledger(self.book.path) as ledger:
            promise = next(e for e in ledger.entries(PUBLISHED, self.book.model) if e.key == self.book.model)
            releases, fulfilments = ledger.entries("release"), ledger.entries("fulfilment")
            given_up, back = RequestBook(ledger).given_up(), RequestBook(ledger).rolled_back(self.book.model)
        place, content = self.path, promise.payload["content"]
        released = [
            entry.key
            for entry in releases
            if any(item.get("model") == self.book.model for item in entry.payload.get("releases", ()))
            and entry.key not in given_up
        ]
        left = {entry.key: entry.payload.get("models", {}) for entry in fulfilments}
        for key in released:
            if key not in left:
                if key == request:
                    continue
                raise RefusedError(
                    f"Request {key} was released from this model and is not finished. Run its job again with its folder first. "
                    f"Where that cannot be done, end it: expunge requests abandon {key} --ledger {self.book.path}."
                )
            if self.book.model not in left[key]:
                raise RefusedError(
                    f"Request {key} was served from this model outside of expunge run, and the model it left is not here. "
                    "Continue with the model that came of it, or publish anew."
                )
            place, content = self.path / f"{_AFTER}{key}", left[key][self.book.model]
        if back is not None:
            key = next(e.key for e in releases if any(item.get("digest") == back for item in e.payload["releases"]))
            place, content = self.path / f"{_AFTER}{key}", left[key][self.book.model]
        return place, content


def _content(place: Path) -> str:
    """Names the stored model in the ledger: keyed, since its un-noised weights are a function of rows that may go."""
    if not (place / RECORD).is_file():
        raise InputError(f"There is no stored model in {place}.")
    return keyed_hash(subject_key(), digest_file(place / RECORD))
