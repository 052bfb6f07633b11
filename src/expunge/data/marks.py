"""Recognising what earlier requests removed in any later data, without keeping a name or a content.

A granted request leaves *marks*: keyed hashes of what its targets named. A user is known again by the columns and values
that named them, a class by its name, single examples by their content, a concept by its name and by the examples of it; a
graph's nodes, edges and features by their signs (``data.graphs.signs``).
Whoever lacks the key of the installation cannot test a guess against a mark.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from expunge.core.data import Deletion, Ids, OfFiles, Recognisable, Signed
from expunge.core.digest import keyed_hash
from expunge.core.errors import InputError
from expunge.core.request import Kind, Target
from expunge.data.values import said

_CONTENT = "content"
_DIGITS = 20  # hex digits of a hash: 80 bits, as of the hashed ids beside them


def marks_of(deletion: Deletion, targets: Sequence[Target], key: bytes) -> list[str]:
    """The marks that a granted request leaves; none for data whose examples cannot be recognised.

    Args:
        deletion: what the request matched.
        targets: of the request.
        key: secret of the hashes.

    Returns:
        One text a mark: a hash, or several joined by ``+`` where an example must have all of them.

    Formal guarantee: none by itself; whoever lacks ``key`` cannot test a guess (HMAC-SHA-256).
    """
    data = deletion.before
    if isinstance(data, Signed):
        return sorted(_signed(data, deletion.matched, key))
    if not isinstance(data, Recognisable):
        return []
    named, found = data.named(), set()
    ids, matched = np.asarray(data.ids), deletion.matched | deletion.absent
    order = np.argsort(ids, kind="stable")
    if len(
        deletion.absent
    ):  # forgotten through other material: each example by its content, whatever a target calls it
        at = np.flatnonzero(np.isin(ids, deletion.absent["row"])).tolist()
        found |= {_hash(key, _CONTENT, content) for content in data.contents(at)}
    for target in targets:
        if target.kind == Kind.CONCEPT and any(f"concept {name}" not in named for name in target.where):
            continue
        own = data.select(target)["row"]
        own = own[_among(own, matched["row"])]
        at = np.sort(order[np.searchsorted(ids, own, sorter=order)])
        if isinstance(data, OfFiles) and target.kind in (Kind.SAMPLES, Kind.USER):  # for folders that name nobody
            found |= {_hash(key, _CONTENT, content) for content in data.file_contents(at.tolist())}
        if target.kind == Kind.SAMPLES:
            found |= {_hash(key, _CONTENT, content) for content in data.contents(at.tolist())}
            continue
        kind = (
            "concept" if target.kind == Kind.CONCEPT else "user"
        )  # how ``named`` calls who or what an example is about
        columns = ["class"] if target.kind == Kind.CLASS else [f"{kind} {name}" for name in target.where]
        wanted = [None if column == "class" else _texts(target, column.removeprefix(f"{kind} ")) for column in columns]
        combinations = {
            combination
            for i in map(int, at)
            for combination in itertools.product(
                *(_meant(named[column][i], texts) for column, texts in zip(columns, wanted, strict=True))
            )
        }
        for combination in combinations:
            hashes = (_hash(key, column, text) for column, text in zip(columns, combination, strict=True))
            found.add("+".join(sorted(hashes)))
    return sorted(found)


def mark_of(target: Target, key: bytes) -> str:
    """The mark of one user or one class, named by single values.

    Raises:
        InputError: for another kind of target, or a list of values: each of them has a mark of its own.
    """
    if target.kind not in (Kind.USER, Kind.CLASS):
        raise InputError(f"Expected a user or a class, which are recognised by name; got a {target.kind} target.")
    hashes = []
    for name in target.where:
        if len(values := target.values(name)) != 1:
            raise InputError(f"Expected one value of {name}: each person has a mark of their own; got {len(values)}.")
        hashes.append(_hash(key, "class" if target.kind == Kind.CLASS else f"user {name}", said(values[0])))
    return "+".join(sorted(hashes))


def people_of(deletion: Deletion, targets: Sequence[Target], key: bytes) -> list[dict[str, Any]]:
    """A record of each person where one target names several: the person's mark, and how many examples matched.

    Empty where every target names one, whom the record of the whole request is about.
    """
    found = []
    for target in targets:
        several = [name for name in target.where if len(target.values(name)) > 1]
        if target.kind != Kind.USER or len(several) != 1:
            continue
        for value in target.values(several[0]):
            one = Target(target.kind, {**target.where, several[0]: value})
            examples = deletion.before.select(one) & deletion.matched
            found.append({"person": mark_of(one, key), "examples": len(examples)})
    return found


def recognised(data: object, marks: Iterable[str], key: bytes) -> Ids:
    """Ids of the examples of ``data`` that some mark names; none for data whose examples cannot be recognised."""
    return recogniser(data, key)(marks)


def recogniser(data: object, key: bytes) -> Callable[[Iterable[str]], Ids]:
    """What :func:`recognised` finds by the marks of one request after another: names and contents are hashed once for all.

    A content is hashed only where a single hash is not that of a name.
    """
    if isinstance(data, Signed):
        return _by_signs(data, key)
    if not isinstance(data, Recognisable):
        return lambda marks: Ids.none()
    return recogniser_of(np.asarray(data.ids), data.named, data.contents, key)


def _signed(data: Signed, matched: Ids, key: bytes) -> set[str]:
    found = set()
    for unit, ids in matched.of.items():
        every, texts = data.signs(unit)
        found |= {_hash(key, unit, texts[i]) for i in np.flatnonzero(np.isin(every, ids)).tolist()}
    return found


def _by_signs(data: Signed, key: bytes) -> Callable[[Iterable[str]], Ids]:
    """Unit after unit, as long as some mark was not found yet."""

    @cache
    def hashed(unit: str) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for item, text in zip(*data.signs(unit), strict=True):
            found.setdefault(_hash(key, unit, text), []).append(int(item))
        return found

    def find(marks: Iterable[str]) -> Ids:
        wanted, found = set(marks), Ids.none()
        for unit in data.units:
            here = wanted & hashed(unit).keys() if wanted else set()
            wanted -= here
            found |= Ids({unit: np.array([item for mark in here for item in hashed(unit)[mark]], dtype=np.int64)})
        return found

    return find


def recogniser_of(
    ids: np.ndarray, named: Callable[[], Mapping[str, Sequence[Sequence[str]]]], contents_of: Callable[[], Sequence[str]],
    key: bytes,
) -> Callable[[Iterable[str]], Ids]:  # fmt: skip
    """The same for examples of any origin: ``named`` and ``contents_of`` say of them what ``Recognisable`` data say."""

    @cache
    def names() -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for column, of_examples in named().items():
            places: dict[str, set[int]] = {}
            for i, texts in enumerate(of_examples):
                for text in texts:
                    places.setdefault(text, set()).add(i)
            for text, where in places.items():
                found.setdefault(_hash(key, column, text), set()).update(where)
        return found

    @cache
    def contents() -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for i, content in enumerate(contents_of()):
            found.setdefault(_hash(key, _CONTENT, content), set()).add(i)
        return found

    def find(marks: Iterable[str]) -> Ids:
        wanted = [mark.split("+") for mark in marks]
        positions: set[int] = set()
        for mark in wanted:
            here = [names().get(each, set()) for each in mark]
            if len(mark) == 1 and not here[0]:
                here = [contents().get(mark[0], set())]
            positions |= set.intersection(*here)
        return Ids.rows(ids[sorted(positions)])

    return find


def _among(some: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Which of ``some`` are in ``ascending``, by looking each of them up."""
    at = np.searchsorted(ascending, some)
    return (at < len(ascending)) & (ascending[np.minimum(at, len(ascending) - 1)] == some) if len(ascending) else at < 0


def _hash(key: bytes, column: str, text: str) -> str:
    return keyed_hash(key, [column, text])[:_DIGITS]


def _texts(target: Target, name: str) -> set[str]:
    """The forms in which a value that ``target`` names may stand in a cell with several people."""
    return {form for value in target.values(name) for form in (said(value), str(value))}


def _meant(cell: Sequence[str], wanted: set[str] | None) -> list[str]:
    """Which texts of a cell the target means: its only one, or those of several that it names."""
    return [text for text in cell if len(cell) == 1 or wanted is None or text in wanted]
