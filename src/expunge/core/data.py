"""Data that can lose a part of itself, and the deletion that says exactly which part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from expunge.core.digest import digest_arrays, keyed_hash
from expunge.core.errors import InputError
from expunge.core.request import Request, Target


@dataclass(frozen=True, eq=False)
class Ids:
    """Persistent names of what is removed, by what they name: ``{"row": [...]}``, ``{"edge": [...], "node": [...]}``.

    Ids keep their meaning after a deletion: row 7 is row 7 however many rows went before it.
    """

    of: Mapping[str, np.ndarray]

    def __post_init__(self):
        of = {unit: _ascending(np.asarray(ids, dtype=np.int64)) for unit, ids in self.of.items()}
        object.__setattr__(self, "of", {unit: ids for unit, ids in sorted(of.items()) if len(ids)})

    @classmethod
    def rows(cls, ids: Iterable[int] | np.ndarray) -> Ids:
        """Ids of rows."""
        return cls({"row": np.fromiter(ids, dtype=np.int64) if not isinstance(ids, np.ndarray) else ids})

    @classmethod
    def none(cls) -> Ids:
        """No ids."""
        return cls({})

    @classmethod
    def union(cls, parts: Iterable[Ids]) -> Ids:
        """All that is in any of ``parts``; of many at once, where ``|`` one after another would sort everything each time."""
        arrays: dict[str, list[np.ndarray]] = {}
        for part in parts:
            for unit, ids in part.of.items():
                arrays.setdefault(unit, []).append(ids)
        return cls({unit: np.concatenate(several) for unit, several in arrays.items()})

    def __len__(self) -> int:
        return sum(len(ids) for ids in self.of.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ids) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __or__(self, other: Ids) -> Ids:
        units = {*self.of, *other.of}
        return Ids({unit: np.concatenate([self[unit], other[unit]]) for unit in units})

    def __sub__(self, other: Ids) -> Ids:
        return Ids({unit: np.setdiff1d(ids, other[unit]) for unit, ids in self.of.items()})

    def __getitem__(self, unit: str) -> np.ndarray:
        return self.of.get(unit, np.empty(0, dtype=np.int64))

    def __and__(self, other: Ids) -> Ids:
        return Ids({unit: np.intersect1d(ids, other[unit]) for unit, ids in self.of.items()})

    @property
    def digest(self) -> str:
        """Content digest of the ids."""
        return digest_arrays(self.of)

    def hashed(self, key: bytes) -> list[str]:
        """Each id as a keyed hash: the form in which matched ids may be recorded."""
        return [keyed_hash(key, [unit, int(item)])[:20] for unit, ids in self.of.items() for item in ids]


def _ascending(ids: np.ndarray) -> np.ndarray:
    """Each of ``ids`` once, in order; most are so already, and looking is many times as fast as sorting."""
    return ids.copy() if ids.ndim == 1 and bool((ids[1:] > ids[:-1]).all()) else np.unique(ids)


@runtime_checkable
class Data(Protocol):
    """Rows, documents, a graph or a partition by owner; immutable, and named by its content."""

    @property
    def digest(self) -> str:
        """Content digest."""
        ...

    def __len__(self) -> int: ...

    def select(self, target: Target) -> Ids:
        """Ids of what ``target`` names; raises InputError where the target cannot be read on this kind of data."""
        ...

    def without(self, ids: Ids) -> Data:
        """The data after ``ids`` are gone."""
        ...

    def only(self, ids: Ids) -> Data:
        """What goes with ``ids``."""
        ...

    def touched(self, ids: Ids) -> Ids:
        """Retained rows whose content changes when ``ids`` go (neighbours in a graph); none for independent rows."""
        ...


@runtime_checkable
class NamesOneByOne(Protocol):
    """Data that can say which of several values of one target they do not have."""

    def unmatched(self, target: Target) -> tuple[str, ...]:
        """Each value that ``target`` names and nothing has, in words; none where everything is there."""
        ...


@runtime_checkable
class Recognisable(Data, Protocol):
    """Data whose examples can be recognised in other data, whatever ids they have there."""

    @property
    def ids(self) -> np.ndarray:
        """Persistent ids, one an example."""
        ...

    def named(self) -> Mapping[str, Sequence[Sequence[str]]]:
        """What targets may call each example, one or several texts, by kind and column (``user patient``, ``concept name``,
        ``class``)."""
        ...

    def contents(self, at: Sequence[int] | None = None) -> Sequence[str]:
        """A content digest of each example, or of those at the positions ``at``; without its id."""
        ...


@runtime_checkable
class OfFiles(Data, Protocol):
    """Data whose examples were each read from a file of their own."""

    def files_at(self, at: Sequence[int]) -> list[str]:
        """Paths of the files of the examples at the positions ``at``; none where they have none of their own."""
        ...

    def file_contents(self, at: Sequence[int]) -> list[str]:
        """What these files are recognised by."""
        ...


@runtime_checkable
class Signed(Data, Protocol):
    """Data of several units (nodes, edges, features), each of which can be recognised in other data, whatever its id there."""

    @property
    def units(self) -> Sequence[str]:
        """Of which ids are made, those with the fewest members first."""
        ...

    def signs(self, unit: str) -> tuple[np.ndarray, Sequence[str]]:
        """Ids of all members of ``unit`` that there are, (n,), and of each a text that is equal wherever the same thing is."""
        ...


@runtime_checkable
class CountsExamples(Protocol):
    """Data whose ids name more than examples: edges and features go too."""

    def examples_in(self, ids: Ids) -> int:
        """How many examples go with ``ids``."""
        ...


def examples_in(data: Any, ids: Ids) -> int:
    """How many examples of ``data`` go with ``ids``: the ids of rows, unless the data count otherwise."""
    return data.examples_in(ids) if isinstance(data, CountsExamples) else len(ids["row"])


@runtime_checkable
class OfConversations(Protocol):
    """Data of which several examples may come from one conversation, as whoever sent it counts."""

    def conversations_in(self, ids: Ids | None = None) -> int | None:
        """Of how many conversations the examples ``ids`` are, or all; ``None`` where every example is one of its own."""
        ...


def conversations_in(data: Any, ids: Ids | None = None) -> int | None:
    """Of how many conversations the examples ``ids`` of ``data`` are, or all; ``None`` for data of no conversations."""
    return data.conversations_in(ids) if isinstance(data, OfConversations) else None


def ids_of(data: Any) -> Ids | None:
    """Ids of everything that ``data`` holds; ``None`` for data that name nothing one by one."""
    ids = getattr(data, "ids", None)
    return ids if ids is None or isinstance(ids, Ids) else Ids.rows(np.asarray(ids))


def selected(data: Data, request: Request) -> Ids:
    """Ids of everything that some target of ``request`` names; see :meth:`Deletion.of` for whether each names something."""
    return Ids.union(data.select(target) for target in request.targets)


@dataclass(frozen=True)
class Deletion:
    """What a request comes to on given data.

    Attributes:
        before, after: the data with and without the forgotten part.
        forget: the forgotten part, or authored material that stands for it.
        ids: persistent ids of what goes.
        along: those of ``ids`` that go for earlier requests, which the model had not been made to forget yet.
        touched: retained rows that change too (a graph's neighbours).
        member: False where ``forget`` was authored rather than trained on.
        absent: ids that the retrained model is trained without, and ``after`` lacks, though no example of them is shown to a
            method, which forgets through authored material: every picture of a concept, for example.
        probes: named sets to be measured on besides retained and forgotten, for example ``{"test": ...}``.
    """

    before: Any
    after: Any
    forget: Any
    ids: Ids
    touched: Ids = field(default_factory=Ids.none)
    member: bool = True
    probes: Mapping[str, Any] = field(default_factory=dict)
    along: Ids = field(default_factory=Ids.none)
    absent: Ids = field(default_factory=Ids.none)

    @classmethod
    def of(
        cls, data: Data, request: Request, probes: Mapping[str, Data] | None = None, gone: Ids | None = None,
        along: Ids | None = None, gone_for: str = "",
    ) -> Deletion:  # fmt: skip
        """Match ``request`` on ``data``: every target, and every id and value of a target, must name something.

        Args:
            gone: ids that the model does not know (any more). They count as matched, and neither go again nor are
                retained, whether ``data`` still hold them or not.
            along: ids of earlier requests that the model still knows: they go together with what this request matches.
            gone_for: the earlier requests behind ``gone``, for messages.

        Raises:
            InputError: naming what matches nothing; or if everything matches, or only what is gone already.
        """
        gone = gone or Ids.none()
        lost = []
        selected_of = [data.select(target) for target in request.targets]
        for number, (target, found) in enumerate(zip(request.targets, selected_of, strict=True), 1):
            if missing := _unmatched(data, target, found, gone):
                lost.append((number, target, missing))
        ids = Ids.union(selected_of)
        if lost:
            raise InputError(_matches_not(lost, request, bool(len(ids))))
        before = data.without(gone) if len(gone) else data
        ids = ids - gone
        if not len(ids):
            raise InputError(
                f"The request matches only what was removed already{f' (by {gone_for})' if gone_for else ''}: nothing is left "
                "to forget for it."
            )
        along = (along or Ids.none()) - gone - ids
        ids = ids | along
        after = before.without(ids)
        if not len(after):
            raise InputError(
                f"The request matches everything ({len(before)} rows): nothing would be retained to learn from. "
                "Withdraw the model instead, or narrow the request."
            )
        return cls(before, after, before.only(ids), ids, before.touched(ids), True, dict(probes or {}), along)

    @classmethod
    def authored(
        cls, data: Any, material: Data, probes: Mapping[str, Data] | None = None, absent: Ids | None = None
    ) -> Deletion:
        """Forgetting through material that was written for the purpose (SIU): no trained example is shown to a method.

        Args:
            data: what the model was trained on; ``None``: unknown.
            absent: ids of ``data`` that a model which never knew what is forgotten would lack. None of them is retained, and
                retraining leaves them out; without any, nothing says what retraining would be.

        Raises:
            InputError: for absent ids of unknown data, or if everything is absent.
        """
        absent, after = absent or Ids.none(), data
        if len(absent):
            if data is None:
                raise InputError(
                    "Expected the training data beside ids that are absent from them; the data are unknown."
                )
            after = data.without(absent)
            if not len(after):
                raise InputError(
                    f"All {len(data)} training examples belong to what is to be forgotten: nothing would be retained. Withdraw "
                    "the model instead, or narrow the request."
                )
        return cls(data, after, material, Ids.none(), member=False, probes=dict(probes or {}), absent=absent)

    def worded(self, wording: Any) -> Deletion:
        """The same deletion with the forgotten rows as a request words them.

        Raises:
            InputError: unless ``wording`` holds the ids that go, in their order.
        """
        ids = np.asarray(wording.ids)
        if not np.array_equal(ids, self.forget.ids):
            raise InputError(
                f"Expected the wording of the {len(self.forget)} records that go, by their ids; got {len(ids)} others."
            )
        return replace(self, forget=wording)

    @property
    def size(self) -> int:
        """How many ids go."""
        return len(self.ids)

    @property
    def matched(self) -> Ids:
        """Ids that go for this request itself."""
        return self.ids - self.along


_UNITS = {"samples": "row"}  # what ids of a kind name, where it is not the kind itself
_SHOWN = 10  # ids of a message


def _unmatched(data: Data, target: Target, found: Ids, gone: Ids) -> tuple[str, ...]:
    """What ``target`` names and nothing has, in words; ``found`` is what was selected."""
    if set(target.where) == {"ids"} and target.kind in ("samples", "node", "edge"):
        unit = _UNITS.get(target.kind, str(target.kind))
        wanted = np.unique(np.asarray(target.where["ids"]).ravel())
        missing = np.setdiff1d(wanted, np.concatenate([found[unit], gone[unit]]))
        if missing.size:
            more = f" and {missing.size - _SHOWN} more" if missing.size > _SHOWN else ""
            shown = ", ".join(map(str, missing[:_SHOWN].tolist()))
            return (f"ids {shown}{more} ({missing.size} of {wanted.size})",)
        return ()
    missing = data.unmatched(target) if isinstance(data, NamesOneByOne) else ()
    return missing or (() if len(found) else (", ".join(f"{name} {value!r}" for name, value in target.where.items()),))


def _matches_not(lost: list[tuple[int, Target, tuple[str, ...]]], request: Request, some: bool) -> str:
    """The message: which targets, and what of them."""
    named = "; ".join(f"target {number} ({target.kind}): {', '.join(missing):.600}" for number, target, missing in lost)
    if some:
        head = f"Expected every target of the request to match, value by value; {len(lost)} of {len(request.targets)} do not"
    else:
        head = f"The request matches nothing: no {' or '.join(request.kinds)} of these data fits its targets"
    return (
        f"{head}: {named}. Nothing was forgotten. Check the column and the value, leave out what is not there, or look "
        "whether an earlier request already removed it."
    )
