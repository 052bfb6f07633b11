"""Names that stand where nobody thinks of them: in a job's title, a file's name, a column. Records carry hashes instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from expunge.core.digest import keyed_hash

_WORD = re.compile(r"[^\W_]+")
_LEAST_DIGITS = 3  # a number below 100 stands in too many harmless texts to tell who is meant
_LEAST_LETTERS = 2
_GENERAL = """
person people patient customer client user author subject member employee student doctor nurse someone class node edge
the and for mr mrs ms dr
"""  # what people are called by their part, not by their name


@dataclass(frozen=True)
class Names:
    """Words by which a reader would know whom a request is about.

    Attributes:
        words: the names, lower case, each as its words in order.
        key: secret of the hashes that stand for them.
    """

    words: frozenset[tuple[str, ...]] = field(repr=False)
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, subject: str, values: Iterable[Any], key: bytes) -> Names:
        """The subject as a whole, its capitalised words, and each value of a target; "Patient 7" is not named by "patient"."""
        names = {tuple(_words(text)) for text in (subject, *(str(value) for value in values))}
        names |= {(word.casefold(),) for word in _WORD.findall(subject) if word[0].isupper()}
        return cls(frozenset(name for name in names if name and _says_who(name)), key)

    def hide(self, text: str) -> str:
        """``text`` with a keyed hash in place of each name, whole words only, upper or lower case."""
        found = [(match.start(), match.end(), match.group().casefold()) for match in _WORD.finditer(text)]
        pieces, done, at = [], 0, 0
        while at < len(found):
            name = max((n for n in self.words if self._at(found, at, n)), key=len, default=None)
            if name is None:
                at += 1
                continue
            first, last = found[at][0], found[at + len(name) - 1][1]
            pieces += [text[done:first], f"(name {keyed_hash(self.key, list(name))[:8]})"]
            done, at = last, at + len(name)
        return "".join([*pieces, text[done:]])

    def hide_in(self, content: Any) -> Any:
        """``content`` (JSON-like) with every text in it, keys included, as :meth:`hide` leaves it."""
        if isinstance(content, str):
            return self.hide(content)
        if isinstance(content, Mapping):
            return {self.hide(str(name)): self.hide_in(value) for name, value in content.items()}
        if isinstance(content, list | tuple):
            return [self.hide_in(value) for value in content]
        return content

    @staticmethod
    def _at(found: list[tuple[int, int, str]], at: int, name: tuple[str, ...]) -> bool:
        return tuple(word for *_, word in found[at : at + len(name)]) == name


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _says_who(name: tuple[str, ...]) -> bool:
    """Whether the words say who is meant: not general words alone, nor one small number or one letter."""
    if set(name) <= set(_GENERAL.split()):
        return False
    alone = name[-1]
    return len(name) > 1 or len(alone) >= (_LEAST_DIGITS if alone.isdigit() else _LEAST_LETTERS)
