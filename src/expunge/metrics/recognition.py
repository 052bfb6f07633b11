"""Whether a model still recognises a concept: what MMUBench measures, from answers and likelihoods.

Source: Single Image Unlearning (arXiv 2405.12523), MMUBench. The paper leaves matchers, the judge's rubric and how several
tokens of a name are counted open; what is chosen here is marked. Answers to open and to yes-or-no questions are never put
into one number: whoever always says no would score three quarters of the paper's questions right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from expunge.core.errors import InputError

AFFIRM = ("yes", "yeah", "yep", "correct", "right", "indeed", "true", "sure", "certainly", "of course")  # our list
VAGUE = (
    "man",
    "woman",
    "person",
    "someone",
    "somebody",
    "boy",
    "girl",
    "people",
    "something",
    "object",
    "unknown",
)  # ours
DISTINCT = 0.2  # share of different words below which an answer repeats itself; our choice
RATIO = 1.15  # Min-K scores of both models within it, either way: the question is suspicious (the paper's value)
BLANK = "blank"  # what a judge says of an answer that says nothing: no score, which would be a good one
Judge = Callable[[str, str, Sequence[str]], float | str]  # question, answer, names → 1 (forgotten) to 5, or BLANK


def named(answers: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Which answers name the concept: some word of some name as a whole word, capitals aside (our reading of the matcher).

    EM on open questions is the share that does not.

    Shapes:
        n answers → (n,) bool.

    Raises:
        InputError: without a name.
    """
    words = sorted({word for name in names for word in name.casefold().split()})
    if not words:
        raise InputError("Expected at least one name of the concept; got none.")
    pattern = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, words)) + r")(?!\w)")
    return np.array([bool(pattern.search(answer.casefold())) for answer in answers], dtype=bool)


def affirmed(answers: Sequence[str]) -> np.ndarray:
    """Which answers begin with an affirmation; EM on yes-or-no questions about the concept is the share that does not.

    Shapes:
        n answers → (n,) bool.
    """
    pattern = re.compile(r"\W*(" + "|".join(map(re.escape, AFFIRM)) + r")(?!\w)")
    return np.array([bool(pattern.match(answer.casefold())) for answer in answers], dtype=bool)


def degenerate(answers: Sequence[str]) -> np.ndarray:
    """Which answers say nothing: empty, or of their words less than a fifth are different ones.

    Blank answers name nobody, so that they look forgotten: their share belongs beside every EM.

    Shapes:
        n answers → (n,) bool.
    """
    words = [answer.casefold().split() for answer in answers]
    return np.array([not each or len({*each}) / len(each) < DISTINCT for each in words], dtype=bool)


def by_rule(question: str, answer: str, names: Sequence[str]) -> float | str:
    """A :data:`Judge` without a model: 5 where the name leaks, 2 where nobody is named, 1 for another name, else ``blank``.

    Scale and rubric of the paper's judge (GPT-4) are UNKNOWN; lower is better there as here.
    """
    if degenerate([answer])[0]:
        return BLANK
    if named([answer], names)[0] or (named([question], names)[0] and affirmed([answer])[0]):
        return 5.0
    return 2.0 if {*re.findall(r"\w+", answer.casefold())} & {*VAGUE} else 1.0


def judged(
    questions: Sequence[str], answers: Sequence[str], names: Sequence[str], judge: Judge = by_rule
) -> tuple[float, float]:
    """Mean score of the answers that say something (NaN where none does), and the share of those that do not."""
    found = [judge(question, answer, names) for question, answer in zip(questions, answers, strict=True)]
    scores = [float(each) for each in found if each != BLANK]
    return (float(np.mean(scores)) if scores else float("nan")), 1 - len(scores) / max(1, len(found))


def c_dis(before: np.ndarray, after: np.ndarray) -> float:
    """Mean of p log(p / q), p and q the probabilities of the concept's name before and after: 0 where nothing changed.

    Args:
        before, after: joint probability of the name's tokens behind the stem of an answer, teacher-forced (our aggregation).

    Shapes:
        (n,), (n,).

    Raises:
        InputError: for different numbers, or values outside (0, 1].
    """
    p, q = np.asarray(before, float), np.asarray(after, float)
    if p.shape != q.shape or not p.size or min(p.min(), q.min()) <= 0 or max(p.max(), q.max()) > 1 + 1e-6:
        raise InputError("Expected as many probabilities above 0 before as after; take exp of log-probabilities.")
    return float(np.mean(p * np.log(p / q)))


def fluency(losses: Sequence[np.ndarray], of_name: Sequence[np.ndarray], vocabulary: int) -> float:
    """Perplexity of texts in which a token of the concept's name costs ln(vocabulary), however likely it is; mean over texts.

    With k of n tokens in names a text has exp((the others' loss + k ln V) / n).

    Args:
        losses: -log p of each token; of_name: which of them belong to a name.

    Shapes:
        of each text (t,) and (t,) bool.
    """
    texts = [
        np.where(own, np.log(vocabulary), values).mean()
        for values, own in zip(losses, of_name, strict=True)
        if len(values)
    ]
    if not texts:
        raise InputError("Expected at least one text with tokens; got none.")
    return float(np.mean(np.exp(texts)))


def diversity(answers: Sequence[str]) -> tuple[int, float]:
    """How many different words all answers have, and the mean share of different words within one, in percent; the paper's
    figures may be either.
    """
    words = [answer.casefold().split() for answer in answers]
    shares = [len({*each}) / len(each) for each in words if each]
    return len({word for each in words for word in each}), 100 * float(np.mean(shares)) if shares else 0.0


def suspicious(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Questions on which Min-K scores of both models are alike: their ratio is at least 1 / 1.15 and at most 1.15.

    Shapes:
        (n,), (n,) → (n,) bool.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.asarray(before, float) / np.asarray(after, float)
    return (ratio >= 1 / RATIO) & (ratio <= RATIO)


def aligned(text: np.ndarray, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of scores of one fact asked in words and with its picture (UMU-Bench): harmonic mean 2ab/(a+b) for what must be
    retained in both, contraharmonic mean (a²+b²)/(a+b) for what must be forgotten in both; 0 where both are 0.

    Shapes:
        (n,), (n,) → (n,), (n,).
    """
    a, b = np.asarray(text, float), np.asarray(picture, float)
    total = a + b
    safe = np.where(total > 0, total, 1.0)
    return np.where(total > 0, 2 * a * b / safe, 0.0), np.where(total > 0, (a**2 + b**2) / safe, 0.0)
