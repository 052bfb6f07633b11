"""Whether a concept is still recognised, from what a model says and how likely right answers are: the numbers of MMUBench."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.measurement import OWN_PROBES, PART, Check
from expunge.core.task import Task, autoregressive
from expunge.core.texts import Record
from expunge.data.texts import Texts
from expunge.evidence.comparison import Score
from expunge.evidence.language.answer_scores import AnswerScores
from expunge.evidence.membership import FORGET
from expunge.metrics import language_memory, recognition
from expunge.metrics.intervals import mean_interval, share_interval, wilson
from expunge.metrics.language_text import rouge_l
from expunge.modalities.language.speaking import spoken
from expunge.modalities.vision_language.questions import (
    PAIR,
    SHOWN_PICTURE,
    asks_by_name,
    is_open,
    names_in,
    positions,
    recognises,
)
from expunge.objectives.concept import occurrences

MOST = 256  # questions of a set about the concept that are answered in whole sentences; our choice
OTHERS = 64  # questions of a set about anything else; our choice
OF_EACH = ("unseen", "yes_no")  # sets that are asked of each of several concepts by itself too
BLANK = 0.1  # share of answers that say nothing from which on a model is told apart from no blank one; our choice
LEAST = 1e-30  # probability below which a name counts as having that one


@dataclass(frozen=True, eq=False)
class Heard:
    """What one model says to questions of a set. Private.

    Attributes:
        records, said: the questions, and what is generated.
        scores: of the right answers of ``records``; ``None`` where some of them cannot be scored.
        name: which tokens of each right answer belong to the concept's name, as vectors beside those of ``scores``.
        vocabulary: how many tokens there are.
    """

    records: Sequence[Record]
    said: Sequence[str]
    scores: AnswerScores | None
    name: Sequence[np.ndarray]
    vocabulary: int

    @property
    def open(self) -> list[int]:
        """Positions of open questions about pictures of the concept."""
        return positions(self.records, is_open)

    @property
    def by_name(self) -> list[int]:
        """Positions of questions whether a picture shows the concept."""
        return positions(self.records, asks_by_name)

    def naming(self) -> tuple[list[int], np.ndarray]:
        """Open questions whose right answer has the tokens of the name, and the log-probability of these together.

        Shapes:
            n positions, (n,).
        """
        if self.scores is None:
            return [], np.array([])
        at = [i for i in self.open if self.name[i].any()]
        return at, np.array([float(self.scores.log_probs[i][self.name[i]].sum()) for i in at])

    def min_k(self) -> np.ndarray:
        """Min-40 % of each right answer without its end token, (n,)."""
        assert self.scores is not None
        before = language_memory.before_end(self.scores.log_probs, self.scores.labels, self.scores.end)
        return language_memory.min_k(before).values


def heard(
    task: Task, tensors: Mapping[str, Tensor], sets: Mapping[str, Texts], scores: Mapping[str, AnswerScores]
) -> dict[str, Heard]:
    """What the model says to questions that mention a concept or ask one fact in both modalities, and to some others of each
    set but the retained records. Nothing where no set mentions a concept.
    """
    if not any(names_in(record) for texts in sets.values() for record in texts.records):
        return {}
    tokenizer, found = autoregressive(task).prompts.tokenizer, {}
    for name, texts in sets.items():
        whole_set, part, _ = name.partition(PART)
        if whole_set in ("retain", "wording", OWN_PROBES) or (part and whole_set not in OF_EACH):
            continue
        own = positions(texts.records, lambda r: bool(names_in(r)) or PAIR in r)[:MOST]
        rest = positions(texts.records, lambda r: "question" in r and not names_in(r) and PAIR not in r)
        rest = rest[:: -(-len(rest) // OTHERS)] if rest else rest  # spread over the set, which may be in an order
        chosen = sorted(own + rest)
        if not chosen:
            continue
        records, whole = [texts.records[i] for i in chosen], scores[name]
        place = {int(at): i for i, at in enumerate(whole.kept)}
        scored = whole.at([place[int(i)] for i in chosen]) if all(int(i) in place for i in chosen) else None
        masks = [] if scored is None else name_tokens(tokenizer, records, scored)
        found[name] = Heard(records, spoken(task, tensors, records), scored, masks, len(tokenizer))
    return found


def scores_of(name: str, of: Heard) -> list[Score]:
    """Every number that one set gives of one model."""
    found = _of_answers(name, of, of.said)
    at, log_p = of.naming()
    if len(at):
        found.append(Score.of("name_probability", name, share_interval(mean_interval(np.exp(log_p)), len(at)), len(at)))
    if len(of.open) and of.scores is not None:
        losses = [-of.scores.log_probs[i] for i in of.open]
        value = recognition.fluency(losses, [of.name[i] for i in of.open], of.vocabulary)
        found.append(Score("fluency", name, value, None, len(losses)))
    return [*found, *_aligned(name, of)]


def _of_answers(name: str, of: Heard, said: Sequence[str]) -> list[Score]:
    """What answers alone give, whoever said them."""
    n, found = len(said), []
    if len(of.open):
        answers, questions = [said[i] for i in of.open], [str(of.records[i]["question"]) for i in of.open]
        names = [names_in(of.records[i]) for i in of.open]
        hits = sum(recognises(text, of.records[i], own) for text, i, own in zip(answers, of.open, names, strict=True))
        found.append(Score.of("recognition", name, wilson(hits, len(answers)), len(answers)))
        judged = [recognition.by_rule(q, a, own) for q, a, own in zip(questions, answers, names, strict=True)]
        marks = np.array([float(each) for each in judged if each != recognition.BLANK])
        if len(marks):
            found.append(Score.of("rule_judge", name, mean_interval(marks), len(marks)))
        different, share = recognition.diversity(answers)
        found.append(Score("diversity", name, share, None, len(answers)))
        found.append(Score("unique_words", name, float(different), None, len(answers)))
    if len(of.by_name):
        yes = int(recognition.affirmed([said[i] for i in of.by_name]).sum())
        found.append(Score.of("affirmed", name, wilson(yes, len(of.by_name)), len(of.by_name)))
    return [*found, Score.of("degeneration", name, wilson(int(recognition.degenerate(said).sum()), n), n)]


def contrasts(name: str, of: Heard, original: Heard) -> list[Score]:
    """C-Dis, and the Min-K rule: where both models score questions alike, how alike their answers are."""
    (at, after), (_, before) = of.naming(), original.naming()
    if not len(at):
        return []
    p, q = (np.clip(np.exp(each), LEAST, 1.0) for each in (before, after))
    found = [Score.of("c_dis", name, mean_interval(p * np.log(p / q)), len(at))]
    alike = recognition.suspicious(original.min_k()[at], of.min_k()[at])
    found.append(Score.of("min_k_alike", name, wilson(int(alike.sum()), len(at)), len(at)))
    pairs = [
        (original.said[i], of.said[i])
        for i, same in zip(at, alike, strict=True)
        if same and any(c.isalnum() and c.isascii() for c in original.said[i])
    ]
    if pairs:
        value = rouge_l([a for a, _ in pairs], [b for _, b in pairs], "f1")
        found.append(Score.of("min_k_rouge_l", name, share_interval(mean_interval(value), len(pairs)), len(pairs)))
    return found


def specificity(sets: Mapping[str, Texts], right: Mapping[str, np.ndarray]) -> list[Score]:
    """Mean over named sets of the share right among questions that mention no concept, each set alike (as the paper has it)."""
    shares, n = [], 0
    for name, own in right.items():
        if name.partition(PART)[0] in ("retain", FORGET, "wording", OWN_PROBES, SHOWN_PICTURE):
            continue
        at = positions(sets[name].records, lambda r: not names_in(r) and PAIR not in r)
        if len(at):
            shares.append(float(own[at].mean()))
            n += len(at)
    return [Score("specificity", None, float(np.mean(shares)), None, n)] if shares else []


CONTROLS: Mapping[str, Callable[[int], list[str]]] = {
    "always says no": lambda n: ["no ."] * n,
    "says nothing": lambda n: [""] * n,
}


def controls(heard: Mapping[str, Heard]) -> list[Check]:
    """What a model that always says no, and one that says nothing, would score on the same questions; the check fails for a
    model whose answers say nothing (a tenth of them) or are the same to all questions.
    """
    if not heard:
        return []
    parts = []
    for who, answers in CONTROLS.items():
        found = [s for name, of in heard.items() for s in _of_answers(name, of, answers(len(of.said)))]
        worth = [
            f"{words} {100 * np.average([s.value for s in own], weights=[s.n for s in own]):.0f} %"
            for metric, words in (("recognition", "named"), ("affirmed", "affirmed"), ("degeneration", "empty"))
            if (own := [s for s in found if s.metric == metric])
        ]
        other = [r["answer"] for of in heard.values() for r in of.records if not names_in(r) and PAIR not in r]
        if other:
            hits = sum(_bare(text) == _bare(right) for text, right in zip(answers(len(other)), other, strict=True))
            worth.append(f"right elsewhere {100 * hits / len(other):.0f} %")
        parts.append(f"a model that {who} would score {', '.join(worth)}")
    said = [text for of in heard.values() for text in of.said]
    blank, same = float(recognition.degenerate(said).mean()), len({*said}) == 1 and len(said) > 1
    now = f"{100 * blank:.1f} % of the answers of this model say nothing" + (", all are the same" if same else "")
    text = f"{'; '.join(parts)}. {now}."
    return [Check("controls", not same and blank < BLANK, text[0].upper() + text[1:])]


def _bare(text: str) -> str:
    return text.casefold().strip(" .!")


def _aligned(name: str, of: Heard) -> list[Score]:
    """Facts that are asked in words and with a picture (UMU-Bench); of what mentions the concept and of the rest."""
    places: dict[str, list[int]] = {}
    for i, record in enumerate(of.records):
        if PAIR in record:
            places.setdefault(str(record[PAIR]), []).append(i)  # type: ignore[typeddict-item]
    found = []
    whole = [pair for pair in places.values() if len(pair) == 2]
    about = [any(names_in(of.records[i]) for i in pair) for pair in whole]
    for metric, which in (("aligned_retained", False), ("aligned_forgotten", True)):
        chosen = [pair for pair, own in zip(whole, about, strict=True) if own == which]
        if not chosen:
            continue
        scored = [
            rouge_l([of.records[pair[k]].get("answer", "") for pair in chosen], [of.said[pair[k]] for pair in chosen])
            for k in (0, 1)
        ]
        values = recognition.aligned(*scored)[int(which)]
        found.append(Score.of(metric, name, share_interval(mean_interval(values), len(values)), len(values)))
    return found


def name_tokens(tokenizer: Any, records: Sequence[Record], scores: AnswerScores) -> list[np.ndarray]:
    """Which tokens of each right answer belong to a name of the concept; none where its spelling is cut by other tokens."""
    masks = []
    for record, labels in zip(records, scores.labels, strict=True):
        mask = np.zeros(len(labels), dtype=bool)
        answer = record.get("answer", "")
        for name in names_in(record):
            start = answer.casefold().find(name.casefold())
            if start < 0:
                continue
            try:
                mask |= np.array(
                    occurrences(tokenizer, labels.tolist(), [answer[start : start + len(name)]]), dtype=bool
                )
            except InputError:
                continue
        masks.append(mask)
    return masks
