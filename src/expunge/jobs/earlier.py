"""Who was forgotten stays forgotten: examples of earlier requests are kept out of every later run on their ledger."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from expunge.core.data import Deletion, Ids, Signed, ids_of, selected
from expunge.core.keys import subject_key
from expunge.core.request import Request
from expunge.data.marks import recogniser
from expunge.ledger import Ledger
from expunge.modalities.modality import Asked
from expunge.requests_book import RequestBook

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Earlier:
    """What the ledgers of a job know of data.

    Attributes:
        by: ids of the data by the request that was granted for them.
        unmarked: granted requests of earlier versions of expunge, whose examples cannot be recognised.
        again: whether a result was delivered for a request in whose place the present one stands, which takes away the same.
    """

    by: Mapping[str, Ids]
    unmarked: tuple[str, ...] = ()
    again: bool = False

    @property
    def ids(self) -> Ids:
        """All of them together."""
        return Ids.union(self.by.values())

    def behind(self, ids: Ids) -> str:
        """The requests that were granted for some of ``ids``, for messages."""
        return ", ".join(request for request, of in self.by.items() if len(of & ids))

    @property
    def note(self) -> str:
        """A sentence for the report; empty where there is nothing to say."""
        parts = []
        if self.by:
            count = len(self.ids)
            parts.append(
                f"{count} example{'s' * (count != 1)} of {len(self.by)} earlier granted request{'s' * (len(self.by) != 1)} "
                "on the ledger are not among those retained."
            )
        if self.unmarked:
            parts.append(
                f"Not known: whether examples of {', '.join(self.unmarked)} are among those retained; an earlier version of "
                "expunge recorded no marks of them."
            )
        return " ".join(parts)


def earlier_requests(ledgers: Iterable[Path | None], data: Any, request: Request | None) -> Earlier:
    """Examples of ``data`` for which another request than ``request`` was granted on one of ``ledgers``.

    Raises:
        InputError, TamperedError: for a ledger that cannot be used.
    """
    key = subject_key()
    find = recogniser(data, key)
    own = {} if request is None else request.record(key)
    by: dict[str, Ids] = {}
    unmarked: list[str] = []
    again = False
    for path in dict.fromkeys(path for path in ledgers if path is not None and path.is_file() and path.stat().st_size):
        with Ledger(path) as ledger:
            book = RequestBook(ledger)
            again = again or (request is not None and book.delivered(request.supersedes))
            for item in book.granted(own):
                if not item.marked:
                    unmarked.append(item.request)
                elif len(ids := find(item.marks)):
                    by[item.request] = ids
    found = Earlier(by, tuple(unmarked), again)
    if found.unmarked:
        _LOG.warning(
            "Requests %s were granted under an earlier version of expunge, which left no marks: take their examples out of the "
            "data yourself, or they may be learnt again.", ", ".join(found.unmarked),
        )  # fmt: skip
    return found


def held_ids(held: Any) -> Ids:
    """Ids of everything in data of several units; none of other data."""
    return Ids({unit: held.signs(unit)[0] for unit in held.units}) if isinstance(held, Signed) else Ids.none()


def match(data: Any, asked: Asked, earlier: Earlier) -> Deletion:
    """The deletion on a model that is adopted, or trained in this run.

    Whatever the request itself matches goes, also where an earlier request on another model matched it too; what only
    earlier requests match is not trained on and not retained, and neither is what the model cannot be trained on.

    Raises:
        InputError: as :meth:`Deletion.of`.
    """
    if asked.material is not None:
        gone = earlier.ids | asked.lost
        kept = data.without(gone) if len(gone) else data
        return Deletion.authored(kept, asked.material, asked.probes, asked.absent - gone)
    own = selected(data, asked.request)
    return Deletion.of(data, asked.request, asked.probes, gone=(earlier.ids - own) | asked.lost)


def match_stored(data: Any, held: Any, asked: Asked, earlier: Earlier) -> Deletion:
    """The deletion on a stored model, which stands for the examples ``held`` of ``data``.

    What it does not stand for any more counts as matched and is gone, but for what a superseded request of the same person
    took away and was delivered: that is forgotten again. What earlier requests on the ledger were granted for and it still
    knows goes along.

    Raises:
        InputError: as :meth:`Deletion.of`.
    """
    request, probes = asked.request, asked.probes
    if asked.material is not None:  # who was forgotten earlier is not retained either
        known = ids_of(held)
        absent = asked.absent if known is None else asked.absent & known
        deletion = Deletion.authored(held, asked.material, probes, absent)
        return replace(deletion, after=deletion.after.without(earlier.ids)) if len(earlier.ids) else deletion
    every, kept = ids_of(data), ids_of(held)
    if every is None or kept is None:
        along = earlier.ids - selected(held, request)
        return Deletion.of(held, request, probes, along=along & held_ids(held) if len(along) else along)
    gone = every - kept
    own = selected(data, request)
    if earlier.again:
        gone = gone - (own - earlier.ids)
    behind = earlier.behind(own & gone)
    return Deletion.of(data, request, probes, gone=gone, along=earlier.ids - own, gone_for=behind)
