"""What must go: targets, the request that carries them, and the record of it that names nobody."""

from __future__ import annotations

import calendar
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum
from typing import Any

from expunge.core.digest import keyed_hash
from expunge.core.errors import InputError
from expunge.core.names import Names

ONE_DAY = timedelta(days=1)


class Kind(StrEnum):
    """What a target names. Methods declare the kinds they serve; a request may mix kinds."""

    SAMPLES = "samples"
    USER = "user"
    CLASS = "class"
    CONCEPT = "concept"
    NODE = "node"
    EDGE = "edge"
    FEATURE = "feature"
    CLIENT = "client"


@dataclass(frozen=True)
class Target:
    """One thing to forget.

    Attributes:
        kind: one of :class:`Kind`.
        where: how it is found in the data, for example ``{"ids": [3, 5]}`` for samples, ``{"patient": 17}`` (a column and
            its value) for a user, ``{"label": 3}`` for a class. A list means each of its values: ``{"patient": [17, 18]}``
            are two people. It may identify a person: it stays in memory and is recorded only through a keyed hash.

    Raises:
        InputError: for an unknown kind, or a ``where`` that is empty, or holds a value that can name nothing (``None``,
            NaN, an empty list, text that is no Unicode).
    """

    kind: str
    where: Mapping[str, Any] = field(repr=False)

    def __post_init__(self):
        known = [kind.value for kind in Kind]
        if self.kind not in known:
            raise InputError(f"Expected a target kind among {', '.join(known)}; got {self.kind!r}.")
        if not self.where:
            raise InputError(f"A {self.kind} target needs to say where: for example {{'ids': [0, 1]}}; it is empty.")
        object.__setattr__(self, "kind", Kind(self.kind))
        object.__setattr__(self, "where", dict(self.where))
        for name, value in self.where.items():
            _check_value(value, f"{self.kind} target: {name}")

    def values(self, name: str) -> tuple[Any, ...]:
        """What ``where`` says under ``name``, one by one: a list means each of its values."""
        value = self.where[name]
        if hasattr(value, "tolist"):  # NumPy, torch or pandas
            value = value.tolist()
        return tuple(value) if isinstance(value, list | tuple | set | frozenset) else (value,)

    @property
    def rule(self) -> str:
        """The matching rule in words, without the value that identifies someone."""
        names = ", ".join(sorted(map(str, self.where)))
        return f"{self.kind} target: rows whose {names} equal(s) the hashed value"


def _check_value(value: Any, where: str, depth: int = 0) -> None:
    """Raise InputError for a value that nothing in any data can equal."""
    if depth > 4:
        raise InputError(f"{where}: expected a value or a list of values; got lists inside lists without an end.")
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        for name, item in value.items():
            _check_value(item, f"{where}.{name}", depth + 1)
        return
    if isinstance(value, list | tuple | set | frozenset):
        if not value:
            raise InputError(f"{where}: expected at least one value; got an empty list. Name what is to be forgotten.")
        for item in value:
            _check_value(item, where, depth + 1)
        return
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        came = "nothing (null)" if value is None else str(value)
        raise InputError(
            f"{where}: expected a text, a number or a list of them; got {came}, which names nobody. Quote it if the data "
            "have it as a text."
        )
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InputError(f"{where}: expected text; got {value!r:.60}, which holds half a character.") from None


def one_month_after(day: date) -> date:
    """The same day of the next month, or its last day where there is none (GDPR Art. 12(3): one month to reply)."""
    year, month = (day.year + 1, 1) if day.month == 12 else (day.year, day.month + 1)
    return date(year, month, min(day.day, calendar.monthrange(year, month)[1]))


@dataclass(frozen=True)
class Request:
    """A deletion request as it arrives. It is personal data itself: only :meth:`record` may be stored.

    Attributes:
        subject: who asks, or on whose behalf; never written down.
        targets: what must go.
        ground: the legal or operational reason, free text without names ("Art. 17(1)(b) consent withdrawn").
        received: the day it arrived.
        due: the day an answer is owed; one month after ``received`` where not given (GDPR Art. 12(3)).
        model: tells apart the models that one ledger knows, where the same request is made of a second one; else empty.
        supersedes: id of the same request as it was made before and did not end as it should; else empty.
    """

    subject: str = field(repr=False)
    targets: tuple[Target, ...]
    ground: str = "not stated"
    received: date = field(default_factory=date.today)
    due: date | None = None
    model: str = field(default="", repr=False)
    supersedes: str = ""

    def __post_init__(self):
        targets = (self.targets,) if isinstance(self.targets, Target) else tuple(self.targets)
        if not targets:
            raise InputError("A request needs at least one target; it has none. Add Target('user', {'patient': 17}).")
        if not self.subject:
            raise InputError(
                "A request needs a subject (who asks); it is empty. Any stable name will do: it is hashed."
            )
        _check_value(self.subject, "A request's subject")
        if self.received > date.today() + ONE_DAY:  # somewhere it may be tomorrow already
            raise InputError(f"Expected a day received of today or earlier; got {self.received}. Correct the date.")
        object.__setattr__(self, "targets", targets)
        due = self.due or one_month_after(self.received)
        if due < self.received:
            raise InputError(f"Expected a due date on or after the day received ({self.received}); got {due}.")
        object.__setattr__(self, "due", due)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the targets, each once, in order."""
        return tuple(dict.fromkeys(str(target.kind) for target in self.targets))

    def id(self, key: bytes) -> str:
        """The name of the request: equal subject, targets, model and predecessor give an equal id, so asking twice is asking
        once."""
        content = [self.subject, sorted([[t.kind, _plain(t.where)] for t in self.targets], key=str)]
        parts = [keyed_hash(key, text)[:8] for text in (self.model, self.supersedes) if text]
        return "-".join(["req", keyed_hash(key, content)[:20], *parts])

    def names(self, key: bytes) -> Names:
        """What names whoever the request is about, for texts that go into records. Row ids name nobody."""
        values = [value for t in self.targets for name in t.where if name != "ids" for value in t.values(name)]
        return Names.of(self.subject, values, key)

    def record(self, key: bytes) -> dict[str, Any]:
        """The form that may be stored: names and values only as keyed hashes.

        Formal guarantee: none by itself; whoever lacks ``key`` cannot test a guessed name (HMAC-SHA-256).
        """
        assert self.due is not None
        names = self.names(key)
        return {
            "id": self.id(key),
            "subject": keyed_hash(key, self.subject),
            "kind": "+".join(self.kinds),
            "targets": [
                {"kind": t.kind, "rule": names.hide(t.rule), "where": keyed_hash(key, _plain(t.where))}
                for t in self.targets
            ],
            "ground": names.hide(self.ground),
            "received": self.received.isoformat(),
            "due": self.due.isoformat(),
            **({"supersedes": self.supersedes} if self.supersedes else {}),
        }


def _plain(value: Any) -> Any:
    """``value`` as JSON types, so that a NumPy 17 and a Python 17 are one request."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [_plain(item) for item in value]
        return sorted(items, key=str) if isinstance(value, set | frozenset) else items
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return value if isinstance(value, str | int | float | bool | None) else str(value)
