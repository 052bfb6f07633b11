"""One model read on one set of records, everything once: texts it generates, scores of right, reworded and wrong answers.

A reading is found again by what it was made from: weights, architecture, records, prompts and limits, never by a file's
name (OpenUnlearning's issue 161 took one model's numbers for another's). It holds answers word for word: private.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from expunge.core.cache import Cache
from expunge.core.digest import digest_arrays, digest_json
from expunge.core.errors import InputError
from expunge.core.texts import Record
from expunge.data.texts import Texts
from expunge.evidence.language.answer_scores import AnswerScores, answer_scores, gradient_norms
from expunge.metrics.language_text import rouge_l
from expunge.tasks.generation import generate, with_room
from expunge.tasks.language import Language
from expunge.tasks.passes import ANSWERS
from expunge.tasks.prompts import BEFORE, Prompts

PARAPHRASE, WRONG = "paraphrased_answer", "perturbed_answer"  # keys of TOFU's perturbed splits
MAX_NEW_TOKENS = 200  # TOFU, arXiv 2401.06121
_FORMAT = "expunge/language-reading/2"
_WORD = re.compile("[a-z0-9]")  # what ROUGE-L counts


@dataclass(frozen=True)
class Limits:
    """How a model is asked.

    Attributes:
        max_new_tokens: most tokens of a generated answer; TOFU's 200.
        batch_size: decides memory and speed, no number beyond rounding.
        gradients: also each answer's gradient norm, a backward pass for every record.
    """

    max_new_tokens: int = MAX_NEW_TOKENS
    batch_size: int = ANSWERS
    gradients: bool = False


@dataclass(frozen=True, eq=False)
class Reading:
    """What one model says about the records of one set that could be used, in their order.

    Shapes:
        ids, nll, rouge, paraphrase_nll, gradients (n,); perturbed_nll (n, k); the tuples have n entries.

    Attributes:
        answers: the right ones; ``generated``: the model's, empty for plain texts, which ask nothing.
        scores: of the right answers, with distributions.
        paraphrase_nll: N of the right answer in other words; ``None`` where records have none.
        perturbed_nll: N of the wrong answers; ``None`` where records have none.
        dropped: by reason, how many records could not be used.
        reworded_cut: how many of the other answers lost their end to the context.
    """

    ids: np.ndarray
    answers: tuple[str, ...]
    generated: tuple[str, ...]
    rouge: np.ndarray | None
    scores: AnswerScores
    paraphrase_nll: np.ndarray | None
    perturbed_nll: np.ndarray | None
    gradients: np.ndarray | None
    dropped: Mapping[str, int]
    reworded_cut: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def exact(self) -> np.ndarray:
        """Where the generated text is the answer word for word, case and white space aside, (n,) bool."""
        return np.array([_plain(a) == _plain(g) for a, g in zip(self.answers, self.generated, strict=True)], dtype=bool)

    def counts(self) -> dict[str, Any]:
        """How many records it rests on, and what was left out or cut."""
        dropped = {reason: count for reason, count in self.dropped.items() if count}
        return {"n": len(self), "dropped": dropped, "cut": self.scores.cut, "reworded_cut": self.reworded_cut}


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads sets with one model.

    Attributes:
        tensors: the model's weights, which stay as they are.
        cache: where readings are kept, ``None``: nowhere. A set's digest is among an entry's tags, and so are ``tags``:
            whoever purges removed data by digest removes the answers too.
    """

    task: Language
    tensors: Mapping[str, Tensor]
    limits: Limits = Limits()
    cache: Cache | None = None
    tags: tuple[str, ...] = ()
    _made: dict[str, Any] = field(default_factory=dict, repr=False)

    def read(self, name: str, texts: Texts) -> Reading:
        """Everything about one set, from the cache where the same was read before.

        Args:
            name: how messages call the set.

        Raises:
            InputError: if none of its records can be used, questions and plain texts are mixed, or wrong answers differ
                in number; see also :func:`~expunge.evidence.language.answer_scores.answer_scores`.
        """
        end = self.task.prompts.end_token
        if self.cache is None:
            return _unpacked(_packed(self._read(name, texts)), end)
        key = {
            "format": _FORMAT, "texts": texts.digest, **self._identity(), "new_tokens": self.limits.max_new_tokens,
            "gradients": self.limits.gradients,
        }  # fmt: skip
        content = self.cache.get_or_compute(key, lambda: _packed(self._read(name, texts)), {texts.digest, *self.tags})
        return _unpacked(content, end)

    @property
    def model(self) -> nn.Module:
        """The module, built when first needed."""
        if "model" not in self._made:
            self._made["model"] = self.task.build(self.tensors, share=True)
        return self._made["model"]

    def _identity(self) -> dict[str, Any]:
        if "identity" not in self._made:
            config = json.loads(self.model.config.to_json_string())  # type: ignore[operator]
            config.pop("_name_or_path", None)  # a folder's name
            self._made["identity"] = {
                "weights": digest_arrays(self.tensors), "architecture": config, "dtype": str(self.task.dtype),
                "prompts": prompts_identity(self.task.prompts),
            }  # fmt: skip
        return self._made["identity"]

    def _read(self, name: str, texts: Texts) -> Reading:
        asks = {"question" in record for record in texts.records}
        if len(asks) != 1:
            raise InputError(
                f"Expected questions or plain texts in the set {name}; it holds both. Make two sets of it."
            )
        if asks == {False}:
            texts = texts.worded(
                [{key: record[key] for key in ("text", BEFORE) if key in record} for record in texts.records]
            )
        kept, dropped = self._usable(texts.records) if asks == {True} else (list(range(len(texts))), {})
        right = self._scores([texts.records[i] for i in kept], distribution=True)
        kept = [kept[i] for i in right.kept]
        others, cut = self._others(name, [texts.records[i] for i in kept])
        whole = np.flatnonzero(~np.isnan(others).any(1))
        dropped |= {
            "empty answer": right.empty, "no room for the answer": right.no_room,
            "a reworded or wrong answer is empty or has no room": len(kept) - len(whole),
        }  # fmt: skip
        if not len(whole):
            why = ", ".join(f"{reason}: {count}" for reason, count in dropped.items() if count)
            raise InputError(f"None of the {len(texts)} records of the set {name} can be used ({why}).")
        used = texts.at([kept[i] for i in whole])
        others, reworded = others[whole], PARAPHRASE in used.records[0]
        answers = tuple(record.get("answer", record.get("text")) for record in used.records)
        generated = self._generated(used) if asks == {True} else ()
        return Reading(
            ids=used.ids,
            answers=answers,
            generated=generated,
            rouge=rouge_l(answers, generated) if generated else None,
            scores=right.at(whole),
            paraphrase_nll=others[:, 0] if reworded else None,
            perturbed_nll=others[:, int(reworded) :] if WRONG in used.records[0] else None,
            gradients=gradient_norms(self.task, self.model, used) if self.limits.gradients else None,
            dropped=dropped,
            reworded_cut=cut,
        )

    def _usable(self, records: Sequence[Record]) -> tuple[list[int], dict[str, int]]:
        """Positions of the questions that can be asked and scored; an empty answer is counted where it is scored."""
        scorable = [
            i
            for i, record in enumerate(records)
            if not record["answer"].strip() or _WORD.search(record["answer"].lower())
        ]
        fit = with_room(self.task, [records[i]["question"] for i in scorable], self.limits.max_new_tokens)
        return [scorable[i] for i in fit], {
            "answer without a letter a–z or digit": len(records) - len(scorable),
            "no room to generate": len(scorable) - len(fit),
        }

    def _others(self, name: str, records: Sequence[Record]) -> tuple[np.ndarray, int]:
        """N of the right answer in other words, if there is one, then of the wrong ones; NaN where one cannot be scored.

        Shapes:
            (n, answers beside the right one), and how many of them were cut.
        """
        answers = [[*([r[PARAPHRASE]] if PARAPHRASE in r else []), *r.get(WRONG, [])] for r in records]
        shapes = {(PARAPHRASE in r, WRONG in r, len(row)) for r, row in zip(records, answers, strict=True)}
        if len(shapes) > 1:
            raise InputError(
                f"Expected as many wrong answers ({WRONG!r}) for each record of the set {name}, and a {PARAPHRASE!r} for "
                "all or none; they differ. Make two sets of it."
            )
        table = np.full((len(records), len(answers[0]) if answers else 0), np.nan)
        if not table.size:
            return table, 0
        flat = [
            {"question": r["question"], "answer": text} for r, row in zip(records, answers, strict=True) for text in row
        ]
        scored = self._scores(flat)
        table.flat[scored.kept] = scored.nll
        return table, scored.cut

    def _generated(self, used: Texts) -> tuple[str, ...]:
        questions, most = [record["question"] for record in used.records], self.limits.max_new_tokens
        found = generate(self.task, self.model, questions, max_new_tokens=most, batch_size=self.limits.batch_size)
        return tuple(found)

    def _scores(self, records: Sequence[Record], distribution: bool = False) -> AnswerScores:
        size = self.limits.batch_size
        return answer_scores(self.task, self.model, records, batch_size=size, distribution=distribution)


def prompts_identity(prompts: Prompts) -> dict[str, Any]:
    """What decides which tokens a record becomes; two models that differ in it are not asked the same."""
    tokenizer = prompts.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        words = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    else:
        words = {
            key: value for key, value in json.loads(backend.to_str()).items() if key not in ("padding", "truncation")
        }
    return {
        "template": tokenizer.chat_template if prompts.template is None else prompts.template,
        "rendered": prompts.rendered,  # with the system prompt and the date that a chat template writes
        "chat": prompts.template is None, "context": prompts.context, "end": prompts.end_token,
        "tokenizer": digest_json(words),
    }  # fmt: skip


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _packed(reading: Reading) -> bytes:
    scores = reading.scores
    return json.dumps(
        {
            "ids": reading.ids.tolist(), "answers": reading.answers, "generated": reading.generated,
            **{name: _list(getattr(reading, name)) for name in _VECTORS},
            "scores": {name: [row.tolist() for row in getattr(scores, name)] for name in _ROWS},
            "counts": {"kept": scores.kept.tolist(), **{name: getattr(scores, name) for name in _COUNTS}},
            "dropped": dict(reading.dropped), "reworded_cut": reading.reworded_cut,
        },
        allow_nan=False,
    ).encode()  # fmt: skip


def _unpacked(content: bytes, end: int) -> Reading:
    read = json.loads(content)
    rows = {name: tuple(np.array(row, kind) for row in read["scores"][name]) for name, kind in _ROWS.items()}
    counts = {**read["counts"], "kept": np.array(read["counts"]["kept"], np.int64)}
    vectors = {name: None if read[name] is None else np.array(read[name]) for name in _VECTORS}
    return Reading(
        ids=np.array(read["ids"], np.int64),
        answers=tuple(read["answers"]),
        generated=tuple(read["generated"]),
        scores=AnswerScores(**rows, **counts, end=end),
        dropped=read["dropped"],
        reworded_cut=read["reworded_cut"],
        **vectors,
    )


_VECTORS = ("rouge", "paraphrase_nll", "perturbed_nll", "gradients")
_ROWS = {
    "labels": np.int64,
    "predicted": np.int64,
    "log_probs": np.float32,
    "means": np.float32,
    "variances": np.float32,
}
_COUNTS = ("empty", "no_room", "cut")


def _list(array: np.ndarray | None) -> Any:
    return None if array is None else array.tolist()
