"""Screening a request for a language model: does its wording differ from benign traffic?

A mitigation of ours against requests that make everyday words part of what is unlearned (``attacks.stealthy``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scipy import special

from expunge.core.errors import InputError
from expunge.core.texts import Record, check_records, units
from expunge.data.texts import read_records
from expunge.screening.rows import BROAD
from expunge.screening.templates import Template, find_templates, longest, strip
from expunge.screening.words import THRESHOLD, Word, exact_p, generic_words, tokens, unspaced_share

DUPLICATES = 0.05  # share of items that repeat an earlier one, above which a person should look; UNKNOWN, ours
SUBJECT = "subject"  # key of a record that names whom it is about; not needed
UNSPACED = 0.1  # share of the request's letters in scripts without spaces, above which words say nothing; UNKNOWN, ours
TOP = 10  # words that are listed
LONGEST = 1_000_000  # characters of one text, some 200,000 words: more than any model reads at once; ours


@dataclass(frozen=True)
class LanguageScreening:
    """What screening the wording came to.

    Attributes:
        words: the generic words with the largest z, and all that stand out.
        flagged_words: those that stand out, the largest z first.
        templates: beginnings and endings that too many items share, with every length that :func:`strip` may take off.
        excess: sum over generic words of max(0, request's share - benign share): rises where a budget is spread over many
            triggers. It depends on the size of the request (honest ones on TOFU: 0.3 to 0.8 with 400 items, up to 2.7
            with 20; SA with p = 0.05: 0.9), so it decides nothing.
        duplicates: share of items that repeat an earlier one, templates and case aside.
        breadth: records of the request over all the model was trained on; ``None`` where that is not known.
        items, benign: questions and sentences on either side.
        threshold: of z.
        unspaced: share of the request's letters that belong to scripts without spaces between words.
    """

    words: tuple[Word, ...]
    flagged_words: tuple[str, ...]
    templates: tuple[Template, ...]
    excess: float
    duplicates: float
    breadth: float | None
    items: int
    benign: int
    threshold: float
    unspaced: float = 0.0

    @property
    def flags(self) -> tuple[str, ...]:
        """Reasons for a second look, in words; empty when there are none."""
        found = []
        if self.flagged_words:
            some = ", ".join(repr(word) for word in self.flagged_words[:5])
            found.append(f"generic words stand out against benign traffic: {some}")
        if shown := longest(self.templates):
            some = ", ".join(f"{t.text.strip()!r} ({t.items} items)" for t in shown[:3])
            found.append(f"items share templates that benign traffic lacks: {some}")
        if self.duplicates > DUPLICATES:
            found.append(f"{self.duplicates:.0%} of the items repeat an earlier one, above {DUPLICATES:.0%}")
        if self.breadth is not None and self.breadth > BROAD:
            found.append(f"the request covers {self.breadth:.0%} of all records, above {BROAD:.0%}")
        return tuple(found)

    @property
    def decision(self) -> dict[str, Any]:
        """The decision to record: grant, or quarantine for a person to look at."""
        if self.flags:
            return {"decision": "quarantine", "reason": "; ".join(self.flags), "by": "screening"}
        blind = f": {self.why_blind}" if self.blind else ""
        reason = f"screening found nothing unusual ({self.items} items against {self.benign} benign ones{blind})"
        return {"decision": "grant", "reason": reason, "by": "screening"}

    @property
    def blind(self) -> bool:
        """Whether not being flagged says nothing, because no word could have stood out; :attr:`why_blind` says why."""
        return bool(self.why_blind)

    @property
    def why_blind(self) -> str:
        """Why no word could stand out: too few items, so that not even a word that all of the request has and no benign item
        would, or a script without spaces; empty where words are compared.
        """
        if exact_p(self.items, self.items, 0, self.benign) >= float(special.ndtr(-self.threshold)):
            return "too few for any word to stand out"
        if self.unspaced > UNSPACED:
            return (
                f"{self.unspaced:.0%} of the letters belong to a script without spaces, whose words are not told apart"
            )
        return ""

    def to_json(self) -> dict[str, Any]:
        """JSON-like form; ``tokens`` are the words that stand out."""
        return {
            "flagged": bool(self.flags),
            "tokens": list(self.flagged_words),
            "reasons": list(self.flags),
            "blind": self.blind,
            "why_blind": self.why_blind,
            "words": [asdict(word) for word in self.words],
            "templates": [asdict(template) | {"words": list(template.words)} for template in longest(self.templates)],
            "excess": self.excess,
            "duplicates": self.duplicates,
            "breadth": self.breadth,
            "items": self.items,
            "benign": self.benign,
            "threshold": self.threshold,
        }


def screen_language(
    request: Sequence[Record], benign: Sequence[Record], *, total: int | None = None, threshold: float = THRESHOLD
) -> LanguageScreening:
    """Compare the prompts of a request with benign ones, item by item; an item is a question, or a sentence of a text.

    Args:
        request: records with answers, or plain texts. Where all name a ``subject``, words that are spread over at least
            half of four or more subjects count as generic too.
        benign: prompts of ordinary traffic, or earlier honest requests; the retained data alone are a poor choice, as
            nobody says "please" in them. Answers are not needed.
        total: records that the model was trained on.
        threshold: z above which a word stands out, if the exact p is as small.

    Raises:
        InputError: for records that are neither form or longer than :data:`LONGEST`, an empty side, or a threshold or total
            that cannot be.

    Formal guarantee: none. An attacker who knows the benign corpus and the threshold stays below it; on TOFU we
    see SA down to p = 0.05. Synonyms that no list has, misspellings and scripts without spaces may go unseen.

    Source: ours; measured in docs/screening.md.
    """
    asked = check_records(request, "record of the request")
    ordinary = check_records(benign, "benign record", answer=False)
    if not threshold > 0 or (total is not None and total < 1):
        raise InputError(f"Expected a threshold above 0 and a total of at least 1; got {threshold} and {total}.")
    for what, records in (("the request", asked), ("the benign records", ordinary)):
        _must_be_prompts(what, records)
    texts = [(unit, record.get(SUBJECT)) for record in asked for unit in units(record)]
    asked_units = [unit for unit, _ in texts]
    ordinary_units = [unit for record in ordinary for unit in units(record)]
    split, split_benign = [tokens(unit) for unit in asked_units], [tokens(unit) for unit in ordinary_units]
    subjects = [subject for _, subject in texts]
    known = None if any(subject is None for subject in subjects) else [str(subject) for subject in subjects]
    words = generic_words(split, split_benign, known)
    standing = frozenset(word.word for word in words if word.stands_out(threshold))
    templates = find_templates(asked_units, split, split_benign, standing, threshold)
    if carried := frozenset(word for template in templates for word in template.words) - {w.word for w in words}:
        words = generic_words(split, split_benign, known, carried)
    flagged = tuple(word.word for word in words if word.stands_out(threshold))
    return LanguageScreening(
        words=tuple(words[: max(TOP, len(flagged))]),
        flagged_words=flagged,
        templates=templates,
        excess=sum(max(0.0, word.request - word.benign) for word in words),
        duplicates=_duplicates(asked_units, templates),
        breadth=None if total is None else len(asked) / total,
        items=len(asked_units),
        benign=len(ordinary_units),
        threshold=threshold,
        unspaced=unspaced_share(asked_units),
    )


def screen_file(request: Path, benign: Path, total: int | None = None) -> dict[str, Any]:
    """:func:`screen_language` on files, one JSON object a line; what ``expunge screen --json`` prints. Writes nothing.

    Raises:
        InputError: for a file that cannot be used.

    Formal guarantee: none.
    """
    return screen_language(read_records(request), read_records(benign, answer=False), total=total).to_json()


def _must_be_prompts(what: str, records: Sequence[Record]) -> None:
    """Raise InputError for a text that is no prompt: reading its words would take minutes."""
    for number, record in enumerate(records, 1):
        if (length := max(len(text) for text in record.values() if isinstance(text, str))) > LONGEST:
            raise InputError(
                f"Expected texts of at most {LONGEST:,} characters; number {number} of {what} has {length:,}. Split it into "
                "passages: no model reads so much at once."
            )


def _duplicates(items: Sequence[str], templates: Sequence[Template]) -> float:
    """Share of items whose words, templates aside, are those of an earlier item."""
    distinct = {tuple(token.word for token in tokens(strip(item, templates))) for item in items}
    return 1 - len(distinct) / len(items)
