"""Forgetting a visual concept: the dual masked divergence of SIU, and which tokens and positions its masks leave out.

Source: Single Image Unlearning (arXiv 2405.12523). p are the probabilities of the model before the run, q those of the model
that is trained; a position is a token of an answer, K_S leaves positions out and K_V entries of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from expunge.core.errors import InputError
from expunge.descent.processes import ALONE, Processes

MODES = ("literal", "renorm")
LEAST_MASS = 1e-6  # below it nothing is left of p to renormalise by. Our choice
STOP_WORDS = frozenset((  # that no concept is known by; our list
    "a", "an", "the", "of", "and", "or", "in", "on", "at", "to", "for", "is", "are", "was", "with", "by", "from",
))  # fmt: skip


def dual_masked_divergence(
    logits: Tensor, base: Tensor, positions: Tensor, vocabulary: Tensor, mode: str = "literal", together: Processes = ALONE
) -> Tensor:  # fmt: skip
    """Mean over counted positions of the sum over entries outside the concept of p log(p / q); 0 where none is counted.

    ``literal`` is the printed formula. It is no divergence: with s the mass of p outside the concept its gradient is
    s q - K_V p, which pushes the concept's logits down, and its minimum s ln s is negative. ``renorm`` divides p and q by
    their mass outside the concept first: a divergence, 0 with no gradient at q = p, which leaves the mass of the concept
    alone. (Both derived here.)

    Args:
        logits, base: of the model that is trained, and of the one before the run.
        positions: K_S: True where a position counts.
        vocabulary: K_V: True for entries that count, of each row.
        mode: one of :data:`MODES`.
        together: the processes that have the other rows of the batch.

    Shapes:
        (b, t, v), (b, t, v), (b, t) bool, (b, v) bool → scalar.

    Raises:
        InputError: for another mode.

    Source: SIU (arXiv 2405.12523), the dual masked KL-divergence; sum over the vocabulary and mean over positions are our
    reading: the printed formula shows the realised token alone.
    """
    if mode not in MODES:
        raise InputError(f"Expected a mode among {', '.join(MODES)}; got {mode!r}.")
    keep = vocabulary[:, None, :].expand_as(logits)[positions]
    log_q, log_p = log_softmax(logits[positions], -1), log_softmax(base[positions], -1)
    if mode == "renorm":
        some = log_p.exp().mul(keep).sum(-1) > LEAST_MASS
        keep, log_q, log_p = keep[some], log_q[some], log_p[some]
        log_q, log_p = (x - x.masked_fill(~keep, -torch.inf).logsumexp(-1, keepdim=True) for x in (log_q, log_p))
    each = torch.where(keep, log_p.exp() * (log_p - log_q), 0.0).sum(-1)
    return each.sum() / max(1.0, float(together.total(len(each))))


def concept_mass(base: Tensor, vocabulary: Tensor) -> Tensor:
    """What the model before the run gives to the entries that ``vocabulary`` leaves out, at each position.

    Shapes:
        (b, t, v), (b, v) bool → (b, t).
    """
    return (base.softmax(-1) * ~vocabulary[:, None, :]).sum(-1)


@dataclass(frozen=True)
class ConceptTokens:
    """Tokens of a concept's name.

    Attributes:
        kept: token → the text it stands for.
        dropped: the same of those left out, with the reason.
    """

    kept: Mapping[int, str]
    dropped: Mapping[int, tuple[str, str]]

    @property
    def said(self) -> dict[str, Any]:
        """For records, JSON-like."""
        dropped = {text: reason for text, reason in self.dropped.values()}
        return {"kept": sorted(set(self.kept.values())), "dropped": dict(sorted(dropped.items()))}


def concept_tokens(tokenizer: Any, names: Sequence[str], used: Sequence[str] = ()) -> ConceptTokens:
    """Every token that a spelling of ``names`` is made of, but for those that say nothing of the concept.

    Spelled are each name and each of its words, as written, in lower case and capitalised, with and without a space before.
    Left out are pieces of one character, stop words, and pieces of a spelling that a text of ``used`` has in other words
    ("even" in "seven").

    Args:
        used: texts about other concepts, whose words must stay speakable.

    Raises:
        InputError: where nothing is left: every position would count as if there were no concept.
    """
    words = {word for name in names for word in (name, *name.split())}
    spelled = {form for word in words for form in (word, word.lower(), word.upper(), word.capitalize(), word.title())}
    unknown = getattr(tokenizer, "unk_token_id", None)
    pieces = [_tokens(tokenizer, before + word) for word in sorted(spelled) for before in ("", " ")]
    elsewhere = {token for text in used for token in _tokens(tokenizer, _without(text, words))}
    kept: dict[int, str] = {}
    dropped: dict[int, tuple[str, str]] = {}
    for tokens in pieces:
        for token in tokens:
            text = tokenizer.decode([token]).strip()
            if token == unknown:
                dropped[token] = (text, "not in the vocabulary")
            elif len(text) <= 1:
                dropped[token] = (text, "one character")
            elif text.lower() in STOP_WORDS:
                dropped[token] = (text, "stop word")
            elif token in elsewhere:
                dropped[token] = (text, "part of other words")
            else:
                kept[token] = text
    if not kept:
        why = ", ".join(f"{text!r} ({reason})" for text, reason in dropped.values())
        raise InputError(
            f"Expected a concept whose name the vocabulary holds in pieces of their own; of {', '.join(names)} nothing is "
            f"left: {why or 'no piece'}. Name it as the model does, or give concept_token_ids."
        )
    return ConceptTokens(kept, dropped)


def occurrences(tokenizer: Any, tokens: Sequence[int], texts: Sequence[str]) -> list[bool]:
    """Which of ``tokens`` belong to an occurrence of one of ``texts``, with or without a space before it.

    Raises:
        InputError: for a text that does not occur: a mask that leaves nothing out would go unnoticed.
    """
    found = [False] * len(tokens)
    for text in texts:
        there = False
        for form in {tuple(_tokens(tokenizer, text)), tuple(_tokens(tokenizer, " " + text))} - {()}:
            for start in range(len(tokens) - len(form) + 1):
                if tuple(tokens[start : start + len(form)]) == form:
                    found[start : start + len(form)] = [True] * len(form)
                    there = True
        if not there:
            raise InputError(
                f"Expected {text!r} in the answer whose tokens it names (specified); it is not there. Write it as the answer "
                "does."
            )
    return found


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return tokenizer([text], add_special_tokens=False)["input_ids"][0]


def _without(text: str, words: set[str]) -> str:
    """``text`` without the words of the concept, each as a whole."""
    own = {word.lower() for word in words}
    return " ".join(word for word in text.split() if word.strip(".,;:!?\"'").lower() not in own)
