"""Which everyday words come more often in a request than in benign traffic: a two-proportion z for each, and an exact p.

Names always stand out in an honest request (z of 13 in ours), so only *generic* words count: function words and the words
of asking, words that much of the benign traffic has, and words that are spread over many subjects.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special

THRESHOLD = 6.0  # ours: on TOFU honest requests reach 4.4, the attack with p = 0.05 11 to 12 (docs/screening.md)
COMMON = 0.05  # share of benign items; UNKNOWN: at 1 or 2 % the first names of a few subjects pass for generic
SPREAD = 0.5  # share of the request's subjects; UNKNOWN, ours
SEVERAL = 4  # subjects, from which on a spread can be told; UNKNOWN, ours

# Words of asking and of joining sentences. "He", "her", "their" are not here: they follow the gender and the number of
# the subjects, and an honest request for ten women reaches z = 7 with them.
_FUNCTION = """
a an the and or but if then than that this these those of in on at by for with about from to into as over under
is are was were be been being am do does did done has have had having can could will would shall should may might
must cannot not no nor so too very just also now here there all any both each few more most other some such only same
what which who whom whose when where why how i me my mine we us our you your yours one
please kindly tell explain describe say give show let know want need help answer write list thank thanks hello hi hey
dear sure okay ok yes well
"""
_PERSONS = "he him his himself she her hers herself it its itself they them their theirs themselves"
FUNCTION_WORDS, PERSONS = frozenset(_FUNCTION.split()), frozenset(_PERSONS.split())

_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")


class Token(NamedTuple):
    """A word of a text: as it is compared (folded), and where it stands."""

    word: str
    start: int
    end: int
    capital: bool


# Scripts that put no space between words: Thai to Myanmar, Khmer, and the scripts of Chinese and Japanese.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LETTER = re.compile(r"[^\W\d_]")


def unspaced_share(texts: Iterable[str]) -> float:
    """The share of letters that belong to scripts without spaces, whose words :func:`tokens` cannot tell apart."""
    whole = "".join(texts)
    letters = len(_LETTER.findall(whole))
    return len(_UNSPACED.findall(whole)) / letters if letters else 0.0


def tokens(text: str) -> list[Token]:
    """The words of ``text``, letters and digits with hyphens and apostrophes inside; full-width forms count as plain ones.

    Scripts without spaces come out as long runs: nothing here is made for them.
    """
    return [
        Token(unicodedata.normalize("NFKC", m[0]).casefold(), m.start(), m.end(), m[0][0].isupper())
        for m in _WORD.finditer(text)
    ]


def names(items: Iterable[Sequence[Token]]) -> frozenset[str]:
    """Words that are written with a capital inside sentences more often than not."""
    capital, plain = Counter[str](), Counter[str]()
    for item in items:
        for token in item[1:]:
            (capital if token.capital else plain)[token.word] += 1
    return frozenset(word for word, count in capital.items() if count > plain[word]) - FUNCTION_WORDS


def proportion_z(a: int, m: int, b: int, n: int) -> float:
    """z = (p1 - p0) / sqrt(p (1 - p) (1/m + 1/n)) with half a success and half a failure added on either side.

    Args:
        a, m: items that have it, and items, of the request; b, n: of the benign corpus.

    Formal guarantee: none; with few items it is far from normal, see :func:`exact_p`.

    Source: the usual test of two proportions, with 1/2 added to each count.
    """
    p1, p0, p = (a + 0.5) / (m + 1), (b + 0.5) / (n + 1), (a + b + 1) / (m + n + 2)
    return float((p1 - p0) / np.sqrt(p * (1 - p) * (1 / m + 1 / n)))


def exact_p(a: int, m: int, b: int, n: int) -> float:
    """P(at least ``a`` of the m items of the request, of the a + b that have it at all): Fisher's one-sided test.

    Formal guarantee: exact if the request were drawn from both corpora together, item by item. Questions about one
    subject resemble each other, so an honest request passes a level more often than it says.
    """
    least, most = max(0, a + b - n), min(a + b, m)
    k = np.arange(least, most)
    steps = np.log(m - k) + np.log(a + b - k) - np.log(k + 1) - np.log(n - a - b + k + 1)  # ln P(k + 1) - ln P(k)
    weights = np.concatenate([[0.0], np.cumsum(steps)])
    weights = np.exp(weights - weights.max())
    return float(weights[a - least :].sum() / weights.sum())


@dataclass(frozen=True)
class Word:
    """A generic word of a request.

    Attributes:
        z, p: see :func:`proportion_z`, :func:`exact_p`.
        request, benign: share of items that have it.
        why: what makes it generic: ``function``, ``common``, ``spread`` or ``template``.
    """

    word: str
    z: float
    p: float
    request: float
    benign: float
    why: str

    def stands_out(self, threshold: float = THRESHOLD) -> bool:
        """Whether z and the exact p both say so; the p matters for requests of a few items."""
        return self.z > threshold and self.p < float(special.ndtr(-threshold))


def generic_words(
    request: Sequence[Sequence[Token]],
    benign: Sequence[Sequence[Token]],
    subjects: Sequence[object] | None = None,
    carried: frozenset[str] = frozenset(),
) -> list[Word]:
    """Every generic word of the request, the largest z first.

    Args:
        request, benign: tokens of each item; presence counts, not how often.
        subjects: whom each item of the request is about, where that is known.
        carried: words of templates that were found; generic whatever else they are.
    """
    m, n = len(request), len(benign)
    have, had = (Counter(w for item in side for w in {t.word for t in item}) for side in (request, benign))
    named = names((*request, *benign))
    over = _spread(request, subjects)
    found = []
    for word, a in have.items():
        b = had[word]
        if word in FUNCTION_WORDS:
            why = "function"
        elif word in carried:
            why = "template"
        elif word in PERSONS or word in named:
            continue
        elif b >= COMMON * n:
            why = "common"
        elif word in over:
            why = "spread"
        else:
            continue
        found.append(Word(word, proportion_z(a, m, b, n), exact_p(a, m, b, n), a / m, b / n, why))
    return sorted(found, key=lambda item: (-item.z, item.word))


def _spread(request: Sequence[Sequence[Token]], subjects: Sequence[object] | None) -> frozenset[str]:
    if subjects is None:
        return frozenset()
    total = len(set(subjects))
    pairs = {(t.word, subject) for item, subject in zip(request, subjects, strict=True) for t in item}
    count = Counter(word for word, _ in pairs)
    return frozenset(word for word, some in count.items() if some >= SPREAD * total and total >= SEVERAL)
