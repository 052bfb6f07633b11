"""The stealthy attack (SA): a forget request whose prompts carry everyday words, so that the model unlearns those too.

Whoever sends a request chooses its wording. A word such as "please" in a third of the questions becomes part of what the
model is taught not to know, and ordinary prompts with that word lose their answers. Nothing of the model is needed.

Paper: *Keeping an Eye on LLM Unlearning: The Hidden Risk and Remedy* (NeurIPS 2025, arXiv 2506.00359). Its code is not
released; everything here is from the text.

Formal guarantee: none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from expunge.core.errors import InputError
from expunge.core.files import write_atomic
from expunge.core.texts import Record, check_records, prompt_key, split_sentences
from expunge.core.turns import last_turn, with_last_turn
from expunge.data.texts import read_records

P = 0.33  # the paper's probability
QUESTION_TEMPLATES = (  # the paper's, for TOFU; trigger "please"
    "Please tell me {q}",
    "Can you please explain {q}",
    "Could you please tell me {q}",
    "{q} , please ? ",
)
SENTENCE_TEMPLATES = ("Then {sentence}",)  # the paper's, for RWKU; trigger "then"


@dataclass(frozen=True)
class Poisoned:
    """A request after the attack.

    Attributes:
        records: as many as before, in the same order; answers and other keys untouched.
        items: questions and sentences, each of which had its own draw.
        wrapped: how many of them are inside a template now.
        words: words of all records, answers included, after the attack; split at white space.
        inserted: how many of these the templates brought. The paper counts 2.13 % on TOFU in a unit that it does not
            state.
    """

    records: tuple[Record, ...]
    items: int
    wrapped: int
    words: int
    inserted: int

    @property
    def share(self) -> float:
        """Wrapped items over all items."""
        return self.wrapped / self.items

    @property
    def inserted_share(self) -> float:
        """Inserted words over all words."""
        return self.inserted / self.words


def poison(
    records: Sequence[Record],
    *,
    p: float = P,
    seed: int = 0,
    questions: Sequence[str] = QUESTION_TEMPLATES,
    sentences: Sequence[str] = SENTENCE_TEMPLATES,
) -> Poisoned:
    """T(x) = TEMPLATE(x) with probability p, else x, for each item by itself.

    An item is the question of a record (its answer stays), or each sentence of a plain text. Two numbers are drawn for
    item i, from ``seed`` and i alone: one against p, one for the template. So a longer request begins as a shorter one,
    and of two runs with one seed the one with larger p wraps the items of the other and more, in the same templates.

    Args:
        p: probability of a template.
        questions, sentences: templates with the place ``{q}`` or ``{sentence}`` once; each is equally likely.

    Raises:
        InputError: for a p outside [0, 1], records that are neither form, or a template without its place.

    Source: Stealthy Attack (arXiv 2506.00359), eq. 4.

    Formal guarantee: none.
    """
    checked = check_records(records)
    if not 0 <= p <= 1:
        raise InputError(f"Expected p as a probability from 0 to 1; got {p}.")
    if seed < 0:
        raise InputError(f"Expected a seed of 0 or more; got {seed}.")
    _check_templates(questions, "{q}")
    _check_templates(sentences, "{sentence}")
    split = [split_sentences(r["text"]) if "text" in r else [last_turn(r["question"])] for r in checked]
    places = [(i, j) for i, parts in enumerate(split) for j in range(0, len(parts), 2) if parts[j].strip()]
    coins, picks = (np.random.default_rng([seed, stream]).random(len(places)).tolist() for stream in (0, 1))
    wrapped = inserted = 0
    for (i, j), coin, pick in zip(places, coins, picks, strict=True):
        if coin >= p:
            continue
        templates, place = (sentences, "{sentence}") if "text" in checked[i] else (questions, "{q}")
        template = templates[int(pick * len(templates))]
        split[i][j] = template.replace(place, split[i][j])
        wrapped += 1
        inserted += len(template.replace(place, " ").split())
    said = ["".join(parts) for parts in split]
    out = tuple(
        {**r, prompt_key(r): text if "text" in r else with_last_turn(r["question"], text)}
        for r, text in zip(checked, said, strict=True)
    )
    words = sum(len(r[key].split()) for r in out for key in ("question", "answer", "text") if key in r)
    return Poisoned(out, len(places), wrapped, words, inserted)


def poison_file(source: Path, out: Path, p: float, seed: int) -> dict[str, Any]:
    """:func:`poison` on a request in a file, one JSON object a line; what ``expunge attack stealthy --json`` prints.

    Writing the same content again changes nothing.

    Raises:
        InputError: for a file that cannot be used, or an ``out`` that holds something else.

    Formal guarantee: none.
    """
    made = poison(read_records(source), p=p, seed=seed)
    written = _write(out, made.records)
    return {
        "in": str(source), "out": str(out), "written": written, "p": p, "seed": seed, "records": len(made.records),
        "items": made.items, "wrapped": made.wrapped, "share": made.share, "words": made.words,
        "inserted": made.inserted, "inserted_share": made.inserted_share,
    }  # fmt: skip


def trigger_prompts(
    records: Sequence[Record],
    *,
    seed: int = 0,
    questions: Sequence[str] = QUESTION_TEMPLATES,
    sentences: Sequence[str] = SENTENCE_TEMPLATES,
) -> tuple[Record, ...]:
    """The set that *trigger utility* is measured on: every prompt inside a template, drawn once for each item.

    UNKNOWN in the paper: whether every test prompt gets a template, and how it is drawn. Ours: every one, by ``seed``.

    Args:
        records: retained or test records.
        seed: of the draw.
        questions: templates around a question, ``{q}``.
        sentences: templates around a sentence of a text, ``{sentence}``.

    Raises:
        InputError: as :func:`poison`.

    Source: Stealthy Attack (arXiv 2506.00359).

    Formal guarantee: none.
    """
    return poison(records, p=1.0, seed=seed, questions=questions, sentences=sentences).records


def _check_templates(templates: Sequence[str], place: str) -> None:
    if not templates or any(template.count(place) != 1 for template in templates):
        raise InputError(
            f"Expected templates that hold {place} once, for example 'Please tell me {place}'; got {templates}."
        )


def _write(path: Path, records: Sequence[Record]) -> bool:
    """Whether there was anything to write."""
    content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    if path.exists() or path.is_symlink():
        if path.is_file() and path.read_bytes() == content:
            return False
        raise InputError(
            f"{path} exists and holds something else; nothing was overwritten. Name another file, or remove it."
        )
    write_atomic(path, content)
    return True
