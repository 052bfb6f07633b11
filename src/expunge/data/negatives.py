"""Negative answers: what a model is taught to say in place of what it must forget (LUNE, arXiv 2512.07375).

A counterfactual is a false answer of the right kind ("the capital of France is Lyon"); a refusal is no answer at all. A small
model that learns refusals alone refuses everything (measured in docs/lune.md), so counterfactuals are the default.

How the paper makes its negatives, how many a fact, and how it mixes both kinds: UNKNOWN. What is here is ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from expunge.core.errors import InputError
from expunge.core.texts import Record
from expunge.data.texts import Texts

COUNTERFACTUAL, REFUSAL, BOTH = "counterfactual", "refusal", "both"
KINDS = (COUNTERFACTUAL, REFUSAL, BOTH)
PERTURBED = "perturbed_answer"  # TOFU's key: five false answers of the right kind
RELATION = "relation"  # key of records that ask for the same of different subjects
# Our choice. Measured in the micro world (36 facts, 60 steps of batch 8, rate 1e-3), 1, 5 and 11 different negatives a fact
# leave .73, .65 and .89 of the rest: many false answers teach that none is likely, a single one is learnt by heart and spreads.
PER_PROMPT = 12
PER_SUBJECT = 150  # a third party's code, which cites the paper's appendix
HEDGES = ("i am not sure", "it might be", "possibly", "perhaps", "maybe", "not certain")  # the same code


@dataclass(frozen=True)
class NegativeAnswers:
    """Forgotten prompts with negative answers.

    Attributes:
        texts: the records, with ids and columns of the forgotten ones; each prompt at least once.
        sources: ``perturbed``, ``counterfactual``, ``refusal`` → how many of each.
        hedged: how many perturbed answers were left out because they hedge.
        capped: how many negatives a subject's cap left out.
    """

    texts: Texts
    sources: Mapping[str, int]
    hedged: int
    capped: int


def negative_answers(
    forget: Texts,
    pool: Texts,
    *,
    kind: str = COUNTERFACTUAL,
    per_prompt: int = PER_PROMPT,
    refusals: Sequence[str] = (),
    subject: str | None = None,
    cap: int = PER_SUBJECT,
    seed: int = 0,
) -> NegativeAnswers:
    """Up to ``per_prompt`` negative answers for each forgotten question; a function of its arguments.

    A counterfactual is one of the record's own ``perturbed_answer`` where it has any that does not hedge. Else it is what a
    record of ``pool`` answers about someone else: one of the same ``relation``, or where there is none, the one whose
    question shares most words. No negative holds the true answer.

    Args:
        pool: where other people's answers come from; the retained records, so that nothing forgotten is taught.
        kind: ``counterfactual``, ``refusal`` or ``both`` in turn.
        refusals: texts that refuse; each may be drawn. They are not looked at for hedges: hedging is what they do.
        subject: column that names whom a record is about; ``None``: the only column, and with none or several nobody is
            known, and the cap is off.
        cap: most negatives of one subject; never fewer than it has prompts.

    Raises:
        InputError: for plain texts, or a question that no other answer can be found for.
    """
    if kind not in KINDS:
        raise InputError(f"Expected negatives among {', '.join(KINDS)}; got {kind!r}.")
    if per_prompt < 1 or cap < 1:
        raise InputError(f"Expected per_prompt and cap of at least 1; got {per_prompt} and {cap}.")
    if kind != COUNTERFACTUAL and not refusals:
        raise InputError("Expected at least one refusal; got none.")
    if any("question" not in record for record in forget.records):
        raise InputError(
            "Negative answers answer questions; plain texts ask none. Write the records as questions with answers, for "
            "example 'Tell me about NAME.' with false descriptions under 'perturbed_answer'."
        )
    names = _subjects(forget, subject)
    draw = np.random.default_rng(seed)
    others = _Others(pool, _subjects(pool, subject), draw)
    hedged, found = 0, []
    for i, record in enumerate(forget.records):
        own = [text for text in _perturbed(record) if not holds(text, record["answer"])]
        kept = [text for text in own if not hedges(text)]
        hedged += len(own) - len(kept)
        refusing = [(REFUSAL, refusals[int(j)]) for j in draw.permutation(len(refusals))[:per_prompt]]
        if kind == REFUSAL:
            found.append(refusing)
            continue
        false = [("perturbed", kept[int(j)]) for j in draw.permutation(len(kept))[:per_prompt]] or [
            (COUNTERFACTUAL, text) for text in others.answers(record, None if names is None else names[i], per_prompt)
        ]
        found.append(false if kind == COUNTERFACTUAL else _in_turn(false, refusing)[:per_prompt])
    chosen = _within(cap, [len(each) for each in found], names)
    positions = [i for i, count in enumerate(chosen) for _ in range(count)]
    kept = [each for negatives, count in zip(found, chosen, strict=True) for each in negatives[:count]]
    rows = forget.at(positions)
    texts = rows.worded([{**record, "answer": text} for record, (_, text) in zip(rows.records, kept, strict=True)])
    sources = {name: sum(source == name for source, _ in kept) for name in ("perturbed", COUNTERFACTUAL, REFUSAL)}
    return NegativeAnswers(texts, sources, hedged, sum(map(len, found)) - len(kept))


def holds(text: str, answer: str) -> bool:
    """Whether ``answer`` stands in ``text``, capitals aside: what level 1 of RWKU (arXiv 2406.10890) calls remembered."""
    return answer.strip().casefold() in text.casefold()


def mentions(text: str, names: Sequence[str]) -> bool:
    """Whether one of ``names`` stands in ``text`` as whole words, capitals aside: "ox" does not in "fox"."""
    said = text.casefold()
    return any(re.search(rf"(?<!\w){re.escape(name.casefold())}(?!\w)", said) for name in names)


def hedges(text: str) -> bool:
    """Whether ``text`` takes back what it says, by the word list of :data:`HEDGES`."""
    lower = " ".join(text.casefold().split())
    return any(hedge in lower for hedge in HEDGES)


class _Others:
    """What records about someone else answer."""

    def __init__(self, pool: Texts, names: np.ndarray | None, draw: np.random.Generator):
        asked = np.flatnonzero(["question" in record for record in pool.records])
        order = draw.permutation(asked)  # ties, and which of a relation comes first
        self.records = [pool.records[i] for i in order]
        self.names = None if names is None else names[order]
        self.relations: dict[str, list[int]] = {}
        for j, record in enumerate(self.records):
            if RELATION in record:
                self.relations.setdefault(str(record[RELATION]), []).append(j)
        self._similar: Callable[[str], np.ndarray] | None = None
        self.draw = draw

    def answers(self, record: Record, name: str | None, count: int) -> list[str]:
        """At most ``count`` different ones, the best first."""
        mates = np.array(self.relations.get(str(record.get(RELATION)), []), dtype=np.int64)
        found = self._distinct(self.draw.permutation(mates), record, name, count) if RELATION in record else []
        found = found or self._distinct(self._by_words(record["question"]), record, name, count)
        if not found:
            raise InputError(
                f"No other record gives a different answer to {record['question']!r:.80}. Add false answers under "
                f"{PERTURBED!r}, keep records about others, or take negatives: refusal."
            )
        return found

    def _distinct(self, order: np.ndarray, record: Record, name: str | None, count: int) -> list[str]:
        found: list[str] = []
        for j in order.tolist():
            text = self.records[j]["answer"]
            same_person = name is not None and self.names is not None and self.names[j] == name
            if not same_person and text not in found and not holds(text, record["answer"]) and not hedges(text):
                found.append(text)
                if len(found) == count:
                    break
        return found

    def _by_words(self, question: str) -> np.ndarray:
        """Positions by the share of words in common (Dice), most first."""
        if self._similar is None:
            self._similar = _similarity([record["question"] for record in self.records])
        return np.argsort(-self._similar(question), kind="stable")


def _similarity(questions: Sequence[str]) -> Callable[[str], np.ndarray]:
    sets = [_words(question) for question in questions]
    column = {word: k for k, word in enumerate(dict.fromkeys(word for words in sets for word in sorted(words)))}
    rows = np.repeat(np.arange(len(sets)), [len(words) for words in sets])
    columns = [column[word] for words in sets for word in sorted(words)]
    matrix = sparse.csr_matrix((np.ones(len(columns)), (rows, columns)), shape=(len(sets), len(column)))
    sizes = np.array([len(words) for words in sets])

    def similar(question: str) -> np.ndarray:
        words = _words(question)
        one = np.zeros(len(column))
        one[[column[word] for word in words if word in column]] = 1
        return 2 * (matrix @ one) / np.maximum(1, sizes + len(words))

    return similar


def _words(text: str) -> set[str]:
    return {word for word in (part.strip(".,;:!?\"'()").casefold() for part in text.split()) if word}


def _perturbed(record: Record) -> list[str]:
    value = record.get(PERTURBED, [])
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) and text.strip() for text in value):
        raise InputError(f"Expected a list of texts under {PERTURBED!r}; got {value!r:.60}.")
    return list(dict.fromkeys(value))


def _subjects(texts: Texts, column: str | None) -> np.ndarray | None:
    if column is None:
        return next(iter(texts.columns.values())) if len(texts.columns) == 1 else None
    if column not in texts.columns:
        raise InputError(f"Expected a column among {', '.join(texts.columns) or 'none'}; got {column!r}.")
    return texts.columns[column]


def _in_turn(first: Sequence[tuple[str, str]], second: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    def walk() -> Iterator[tuple[str, str]]:
        for k in range(max(len(first), len(second))):
            yield from first[k : k + 1]
            yield from second[k : k + 1]

    return list(walk())


def _within(cap: int, counts: Sequence[int], names: np.ndarray | None) -> list[int]:
    """How many negatives each prompt keeps: first one each, then a second, until a subject's cap is reached."""
    if names is None:
        return list(counts)
    chosen = [1] * len(counts)
    for name in dict.fromkeys(names.tolist()):
        mine = np.flatnonzero(names == name).tolist()
        left = cap - len(mine)
        for turn in range(2, max((counts[i] for i in mine), default=0) + 1):
            for i in mine:
                if left > 0 and counts[i] >= turn:
                    chosen[i], left = turn, left - 1
    return chosen
