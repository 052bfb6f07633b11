"""Scores of generated texts alone: overlap with the right answer (ROUGE-L), and whether they are still language.

Formal guarantee of all of them: none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from expunge.core.errors import ExtraMissingError, InputError

MEASURES = {"recall": "recall", "f1": "fmeasure"}


def rouge_l(answers: Sequence[str], generated: Sequence[str], measure: str = "recall") -> np.ndarray:
    """ROUGE-L of each generated text: the longest common subsequence of stemmed words over the words of the right answer.

    TOFU prints ``recall``, MUSE ``f1``. Words are runs of a–z and 0–9 after lower-casing, those above three letters in
    their Porter stem (the package ``rouge-score``, as both benchmarks use it): other scripts do not count. The caller
    cuts generations at the end token.

    Shapes:
        n texts each → (n,).

    Raises:
        InputError: for different numbers, none, an unknown measure, or an answer without a letter a–z or digit, which
            would score 0 whatever is generated. ``ExtraMissingError`` without the extra ``llm``.

    Source: Lin 2004; TOFU (Maini et al. 2024, arXiv 2401.06121).
    """
    if measure not in MEASURES:
        raise InputError(f"Expected a measure among {', '.join(MEASURES)}; got {measure!r}.")
    if len(answers) != len(generated) or not answers:
        raise InputError(
            f"Expected a generated text for each answer, at least one; got {len(generated)}, {len(answers)}."
        )
    for i, answer in enumerate(answers):
        if not re.search("[a-z0-9]", answer.lower()):
            raise InputError(
                f"Expected answers with a letter a–z or a digit; answer {i} is {answer!r}, on which ROUGE-L is always 0. "
                "Drop it, and say how many were dropped."
            )
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise ExtraMissingError("llm", "rouge-score") from None
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    found = [scorer.score(answer, text)["rougeL"] for answer, text in zip(answers, generated, strict=True)]
    return np.array([getattr(score, MEASURES[measure]) for score in found])


def ngram_entropy(texts: Sequence[str]) -> np.ndarray:
    """Fluency as RWKU has it: mean of 2/3 H2 and 4/3 H3, entropies in bits of a text's word pairs and triples.

    Low where a model repeats itself; gibberish of ever new words scores high. 0 for texts below two words. Words are
    split at white space.

    Shapes:
        n texts → (n,).

    Raises:
        InputError: without texts.

    Source: RWKU (Jin et al. 2024, arXiv 2406.10890).
    """
    words = _words(texts)
    return np.array([(2 / 3 * _entropy(_grams(w, 2)) + 4 / 3 * _entropy(_grams(w, 3))) / 2 for w in words])


def token_entropy(texts: Sequence[str]) -> np.ndarray:
    """Entropy of a text's words over the largest that as many words can have, log2 n; 0 for one word or none.

    Shapes:
        n texts → (n,), from 0 to 1.

    Raises:
        InputError: without texts.

    Source: "A Closer Look at Machine Unlearning for Large Language Models" (arXiv 2410.08109), whose metrics DualOptim uses.
    """
    return np.array([_entropy(w) / np.log2(len(w)) if len(w) > 1 else 0.0 for w in _words(texts)])


def _words(texts: Sequence[str]) -> list[list[str]]:
    if not texts:
        raise InputError("Expected at least one generated text; got none.")
    return [text.split() for text in texts]


def _grams(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[i:] for i in range(size)), strict=False))


def _entropy(items: Sequence[Any]) -> float:
    counts = np.array(list(Counter(items).values()), np.float64)
    share = counts / counts.sum() if len(counts) else counts
    return float(-(share * np.log2(share)).sum()) + 0.0
