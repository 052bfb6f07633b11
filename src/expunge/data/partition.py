"""Rows that belong to clients: by a column of theirs, or shared out evenly or by label for experiments."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np

from expunge.core.data import Ids
from expunge.core.digest import digest_json, keyed_hash
from expunge.core.errors import InputError
from expunge.core.request import Kind, Target
from expunge.data.rows import Rows

CLIENT = "client"  # what a target may always call the column of owners, and its name where rows are shared out here


@dataclass(frozen=True, eq=False)
class Partition(Rows):
    """Rows, each of which belongs to one client.

    Besides samples, users and classes it can lose a whole client, ``Target("client", {"hospital": "Basel"})``, and a class at
    one client, ``Target("class", {"label": 3, "client": "Basel"})``.

    Attributes:
        by: the column that says whose a row is.
        labels: owner → what its peer is called in models, records and reports, where that is not the owner's name. Requests
            name owners, and messages do.
        drawn: whether rows were shared out here, for experiments. Whose a row is then follows from which others there are, the
            forgotten ones included: certificates say that somebody declares it does not.
    """

    by: str = CLIENT
    labels: Mapping[str, str] = field(default_factory=dict)
    drawn: bool = False

    @classmethod
    def of_rows(cls, rows: Rows, by: str, key: bytes | None = None) -> Partition:
        """``rows`` with the owners that their column ``by`` names.

        Args:
            key: secret of the labels that peers have in the place of their owners' names (:func:`label_of`); ``None``: peers
                have the names.

        Raises:
            InputError: if there is no such column, a row names several owners or none, or two owners read the same as text.
        """
        if by not in rows.columns:
            known = ", ".join(rows.columns) or "none"
            raise InputError(f"Expected a column that says whose each row is; {by!r} is not one. Columns: {known}.")
        values = rows.columns[by].tolist()
        for at, value in enumerate(values):
            if isinstance(value, list | tuple | set | frozenset) or value is None or value != value or value == "":
                raise InputError(
                    f"Expected one owner for each row; the row at position {at} has {value!r:.60} under {by!r}. A row that "
                    "several clients hold must be given to each of them as a row of its own."
                )
        if len({*values}) > len({str(value) for value in values}):
            raise InputError(f"Expected owners that differ as text; some under {by!r} do not (1 and '1').")
        fields = {
            name: getattr(rows, name) for name in ("x", "y", "ids", "columns", "preprocessing", "names", "as_read")
        }
        labels = {} if key is None else {str(value): label_of(str(value), by, key) for value in {*values}}
        if len({*labels.values()}) < len(labels):
            raise InputError(f"Two owners under {by!r} have one label. Rename one of them.")
        return cls(**fields, by=by, labels=labels)

    @cached_property
    def owners(self) -> np.ndarray:
        """The peer that holds each row, (n,)."""
        return np.array([self.labels.get(name, name) for name in self._names], dtype=object)

    @cached_property
    def _names(self) -> list[str]:
        """Whose each row is, as text."""
        return [str(value) for value in self.columns[self.by].tolist()]

    @cached_property
    def named_clients(self) -> tuple[str, ...]:
        """Every client that has a row, by name: numbers in order of size, texts by the alphabet."""
        return tuple(
            sorted({*self._names}, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else name))
        )

    @property
    def clients(self) -> tuple[str, ...]:
        """Every peer that has a row, in the order of the clients' names."""
        return tuple(self.labels.get(name, name) for name in self.named_clients)

    def name_of(self, peer: str) -> str:
        """The name of a peer's owner, for messages to whoever runs this: records hold the peer's label."""
        return self._owner_of.get(peer, peer)

    @cached_property
    def _owner_of(self) -> dict[str, str]:
        return {label: name for name, label in self.labels.items()}

    @cached_property
    def _held(self) -> dict[str, np.ndarray]:
        """Client → positions of its rows, ascending: one pass, however many clients there are."""
        names, which = np.unique(self.owners.astype(str), return_inverse=True)
        order = np.argsort(which, kind="stable")
        return dict(zip(names.tolist(), np.split(order, np.cumsum(np.bincount(which))[:-1]), strict=True))

    def at(self, client: str) -> np.ndarray:
        """Positions of the rows of ``client``; empty where it has none."""
        return self._held.get(client, np.empty(0, dtype=np.int64))

    def held_by(self, clients: Collection[str]) -> Partition:
        """The rows of ``clients`` alone."""
        return cast("Partition", self.only(Ids.rows(self.ids[np.isin(self.owners, list(clients))])))

    def of_content(self) -> str:
        """Digest of the rows and of whose they are: the same rows at other clients train another model."""
        return digest_json([super().of_content(), self.owners.tolist()])

    def select(self, target: Target) -> Ids:
        """Row ids that ``target`` names (kinds: samples, user, class, client; a class also at one client)."""
        if target.kind == Kind.CLIENT:
            wanted = {name for name, _ in self._named(target)}
            return Ids.rows(self.ids[[name in wanted for name in self._names]])
        if target.kind == Kind.CLASS and (keys := self._owner_keys(target)):
            rest, there = self._parted(target, keys)
            return super().select(rest) & self.select(there)
        return super().select(target)

    def unmatched(self, target: Target) -> tuple[str, ...]:
        """Each value that ``target`` names and no row has, in words."""
        if target.kind == Kind.CLIENT:
            return tuple(
                f"{self.by} {value!r} (clients: {', '.join(self.named_clients):.200})"
                for name, value in self._named(target)
                if name not in self.named_clients
            )
        if target.kind == Kind.CLASS and (keys := self._owner_keys(target)):
            rest, there = self._parted(target, keys)
            missing = (*super().unmatched(rest), *self.unmatched(there))
            if missing or len(self.select(target)):
                return missing
            return (
                f"class {rest.where.get('label')!r} at {self.by} {there.where[keys[0]]!r}, which holds no such row",
            )
        return super().unmatched(target)

    def _owner_keys(self, target: Target) -> list[str]:
        keys = [name for name in target.where if name in (self.by, CLIENT) and name != "label"]
        if CLIENT in keys and self.by != CLIENT and CLIENT in self.columns:
            raise InputError(
                f"Expected owners under {self.by!r}: these rows have a column {CLIENT!r} besides, and a target that says "
                f"{CLIENT!r} may mean either. Name {self.by!r}, or rename the column."
            )
        return keys

    def _named(self, target: Target) -> list[tuple[str, Any]]:
        """The clients that a target names, as text and as they were named."""
        keys = self._owner_keys(target)
        if len(keys) != 1 or len(target.where) != 1:
            raise InputError(
                f"A client target says where as {{{self.by!r}: …}} or {{'client': …}}; got {sorted(target.where)}."
            )
        return [(str(value), value) for value in target.values(keys[0])]

    def _parted(self, target: Target, keys: list[str]) -> tuple[Target, Target]:
        """A target for a class at a client as one for the class and one for the client."""
        rest = {name: value for name, value in target.where.items() if name not in keys}
        if not rest:
            raise InputError(f"A class target says which label; got {sorted(target.where)} alone.")
        return Target(Kind.CLASS, rest), Target(Kind.CLIENT, {name: target.where[name] for name in keys})

    def named(self) -> dict[str, list[tuple[str, ...]]]:
        """What targets may call each row: as :class:`Rows` says, and its client."""
        return {**super().named(), str(Kind.CLIENT): [(name,) for name in self._names]}


def label_of(owner: str, by: str, key: bytes) -> str:
    """What a peer is called in the place of its owner's name: the same under one ``key``, and no guess without it.

    Forty-eight bits of an HMAC-SHA-256: two of ten thousand owners share a label with probability 2e-7, and are refused then.
    """
    return f"peer-{keyed_hash(key, ['peer', by, owner])[:12]}"


def evenly(rows: Rows, clients: int, seed: int = 0) -> Partition:
    """``rows`` in random order, the same number for each client (up to one): identically distributed clients.

    Raises:
        InputError: for fewer than one row a client.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    owner = np.empty(len(rows), dtype=np.int64)
    owner[order] = np.arange(len(rows)) % clients
    return _shared_out(rows, owner, clients)


def by_label(rows: Rows, clients: int, alpha: float, seed: int = 0) -> Partition:
    """``rows`` of each class over clients in shares drawn from Dirichlet(``alpha``): the smaller, the less alike they are.

    Source: Hsu et al. 2019 (arXiv 1909.06335), Section 3, with shares drawn for each class.

    Raises:
        InputError: for a client without a row, or an ``alpha`` that is not positive.
    """
    if not alpha > 0:
        raise InputError(f"Expected alpha > 0 for Dirichlet shares; got {alpha}. Smaller makes clients less alike.")
    generator, labels = np.random.default_rng(seed), rows.y.cpu().numpy()
    owner = np.zeros(len(rows), dtype=np.int64)
    for label in np.unique(labels):
        places = generator.permutation(np.flatnonzero(labels == label))
        cuts = np.cumsum(generator.dirichlet(np.full(clients, alpha)))[:-1]
        for client, part in enumerate(np.split(places, (cuts * len(places)).round().astype(int))):
            owner[part] = client
    return _shared_out(rows, owner, clients)


def _shared_out(rows: Rows, owner: np.ndarray, clients: int) -> Partition:
    if clients < 1:
        raise InputError(f"Expected at least one client; got {clients}.")
    empty = sorted(set(range(clients)) - {*owner.tolist()})
    if empty:
        raise InputError(
            f"Expected a row for each of {clients} clients; {len(empty)} have none, client {empty[0]} first. Take fewer "
            "clients, more rows, a larger alpha or another seed."
        )
    columns: Mapping[str, np.ndarray] = {**rows.columns, CLIENT: owner}
    return replace(Partition.of_rows(replace(rows, columns=columns), CLIENT), drawn=True)
