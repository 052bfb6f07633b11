"""What may be recorded of a match: counts and keyed hashes, no more than whoever checks the record will read."""

from __future__ import annotations

from typing import Any

import numpy as np

from expunge.core.data import Deletion, OfFiles, Recognisable, conversations_in
from expunge.core.errors import RefusedError
from expunge.core.request import Request
from expunge.data.marks import marks_of, people_of

# Of one line in an entry of the ledger: of each example one for the hash of its id, one for its mark, and where it was read
# from a file of its own one for the mark of that.
_LINE = 38
_TIMES = 3  # in the record, in the ledger's decision, and in that of a request that was given up for this one
_SPARE = 2**20  # for all the rest of a record, of which examples have measured some 50 kB

# Models of one network that all differ. Of each a record has 5.7 to 6.2 kB; with a certificate of its own 12.9 kB where that
# is of the reference procedure, 21.7 kB where it is of noise, all measured: 24 and 26 MB of what verify reads.
MOST_APART, MOST_CERTIFIED = 4_000, 1_200


def matched_record(deletion: Deletion, request: Request, key: bytes) -> dict[str, Any]:
    """Counts, ids as keyed hashes, and marks by which later runs recognise the examples."""
    along = {"along": len(deletion.along)} if len(deletion.along) else {}
    people = people_of(deletion, request.targets, key) if isinstance(deletion.before, Recognisable) else []
    each = {"people": people} if people and deletion.member else {}
    return {
        "count": len(deletion.matched), **talks_of(deletion), **along, **each, "ids": deletion.ids.hashed(key),
        "marks": marks_of(deletion, request.targets, key) if deletion.member or len(deletion.absent) else [],
    }  # fmt: skip


def talks_of(deletion: Deletion) -> dict[str, int]:
    """How many conversations the request matches records of, where examples come from conversations: people count these."""
    count = conversations_in(deletion.before, deletion.matched) if deletion.member else None
    return {} if count is None else {"conversations": count}


def must_be_few_apart(peers: int, certified: bool = False) -> None:
    """Raise RefusedError for a network of so many different models that ``expunge verify`` would not read its evidence.

    Args:
        certified: whether each gets a certificate of its own.
    """
    most = MOST_CERTIFIED if certified else MOST_APART
    if peers > most:
        raise RefusedError(
            f"The {peers:,} peers of this network each keep a model of their own, of which the evidence holds every "
            f"measurement{' and a certificate' if certified else ''}; with more than {most:,} it would be larger than expunge "
            "verify reads. Let the network end with a consensus (mixing.consensus), or simulate fewer peers."
        )


def must_be_recordable(deletion: Deletion) -> None:
    """Raise RefusedError for so many examples that the evidence would be larger than ``expunge verify`` reads."""
    from expunge.report.verify.reading import LARGEST

    of_a_file = isinstance(deletion.before, OfFiles) and bool(deletion.before.files_at([0]))
    count, most = len(deletion.ids), (LARGEST - _SPARE) // (_TIMES * _LINE * (3 if of_a_file else 2))
    if count > most:
        raise RefusedError(
            f"The request matches {count:,} examples, each of which the evidence names by a hash; with more than {most:,} it "
            "would be larger than expunge verify reads. Ask for fewer at a time, and for the others in further requests."
        )


def files_of(deletion: Deletion) -> dict[str, list[str]]:
    """Paths of the files that the request matches, where examples are files; for people, who do not know ids."""
    data = deletion.before
    if not isinstance(data, OfFiles) or not isinstance(data, Recognisable) or not deletion.member:
        return {}
    at = np.flatnonzero(np.isin(np.asarray(data.ids), deletion.matched["row"])).tolist()
    return {"files": files} if (files := data.files_at(at)) else {}
