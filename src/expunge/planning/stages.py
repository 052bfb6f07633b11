"""Stages of a journal that belong to one run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from expunge.core.digest import digest_json
from expunge.core.method import Once


class Scoped:
    """A journal whose stages belong to one run: another request on the same journal never finds them."""

    def __init__(self, journal: Once, content: list[Any]):
        self._journal, self._scope = journal, digest_json(content)[:16]

    def on(self, journal: Once) -> Scoped:
        """The stages of the same run on another journal."""
        other = Scoped(journal, [])
        other._scope = self._scope
        return other

    def once(self, name: str, compute: Callable[[], bytes]) -> bytes:
        """See :class:`~expunge.core.method.Once`."""
        return self._journal.once(f"{self._scope}.{name}", compute)
