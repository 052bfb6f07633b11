"""Tear forgotten pictures and texts apart: what a model makes of a pair becomes what it made of strangers.

Formal guarantee: none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from expunge.core.allowed import NonNegative
from expunge.core.batch import Batch
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, SmallScale
from expunge.core.texts import Record
from expunge.data.pictures import IMAGE
from expunge.data.texts import Texts
from expunge.descent.schedule import FORGET, RETAIN, Joint, Schedule, Turn
from expunge.descent.work import Objective, Prepared, Work
from expunge.methods.by_language import LanguageMethod
from expunge.objectives.language import Base, prefixed, without_prefix
from expunge.tasks.language import trimmed
from expunge.tasks.passes import ANSWERS, in_passes
from expunge.tasks.vision_language import image_token

TEXT = "text_"  # columns of the record without its picture
STRANGERS, ALONE = (
    "strangers",
    "alone",
)  # columns: what the original makes of re-paired records, and of each modality alone
LAST = -1  # the layer that is looked at
LEAST = 1e-12  # of a mean square that is divided by


@dataclass(frozen=True, kw_only=True)
class MultiDelete(LanguageMethod):
    """Three mean squared errors of hidden states, the other side always the model before the run.

    *Decoupling*: a forgotten pair → its picture with another text, and its text with another picture. *Multimodal retention*:
    retained pairs → the same. *Unimodal retention*: picture and text of a forgotten pair, each alone → the same.

    The paper has encoders (ALBEF, BLIP) with one vector of a pair. In a decoder we take states of the last layer: of the pair
    at its last token, which sees everything; of the picture at its last image token, which no word precedes but the prompt's
    beginning; of the text at its last token without the picture; each scaled to a mean square of 1. These are our choices,
    and so is that strangers are drawn once, among retained records with other pictures and other texts.

    Attributes:
        decoupling, multimodal, unimodal: weights of the terms; 1 each in the paper.
        epochs, lr, batch_size: of the common setting for language models; the paper's are for encoders.
    """

    name: ClassVar[str] = "multi_delete"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("samples", "user", "concept"), tasks=("vision_language",), needs=("forgotten data", "retained data")
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("MultiDelete for multimodal machine unlearning", "Cheng and Amiri, ECCV 2024", "2311.12047"),
    )
    small: ClassVar[SmallScale] = SmallScale(
        quick={"steps": 2, "lr": 1e-3, "batch_size": 6}, visible={"steps": 12, "lr": 3e-3, "batch_size": 6}
    )
    decoupling: NonNegative = 1.0
    multimodal: NonNegative = 1.0
    unimodal: NonNegative = 1.0

    @property
    def whole_weights(self) -> str:
        """An adapter is switched off where the model before the run is asked."""
        return "" if self.lora is not None else "The model before the run is asked for its weights in each step"

    def objective(self, context: Context) -> Objective:
        """The method is its own."""
        return self

    def schedule(self) -> Schedule:
        """All three terms in one step."""
        return Joint(self._epochs, FORGET, self.steps)

    def prepare(self, work: Work) -> Prepared:
        """Forgotten pairs with what the original makes of strangers and of each modality; retained records with pictures."""
        base, forget = Base(work), work.deletion.forget
        retained = with_pictures(work.deletion.after)
        pairs, texts = work.task.batch(forget), work.task.batch(without_pictures(forget))
        first, second = self.strangers(forget.records, retained.records, work.seed)
        said = lambda batch, at: base.says(  # noqa: E731
            lambda params: in_passes(lambda part: states(work, params, part, at), batch, ANSWERS), at_start=True
        )
        alone = torch.stack([said(pairs, "picture"), said(texts, "last")], 1)
        apart = torch.stack([said(work.task.batch(Texts.of(each)), "last") for each in (first, second)], 1)
        stream = pairs.with_columns(**prefixed(texts, TEXT), **{STRANGERS: apart, ALONE: alone})

        def loss(role: str, batch: Batch, turn: Turn) -> Tensor:
            if role == RETAIN:
                return self.multimodal * _apart(
                    work, states(work, work.params, batch, "last"), self._before(work, base, batch)
                )
            own = states(work, work.params, batch, "last")
            total = self.decoupling * (
                _apart(work, own, batch[STRANGERS][:, 0]) + _apart(work, own, batch[STRANGERS][:, 1])
            )
            if not self.unimodal:
                return total
            seen = states(work, work.params, batch, "picture")
            read = states(work, work.params, without_prefix(batch, TEXT), "last")
            kept = _apart(work, seen, batch[ALONE][:, 0]) + _apart(work, read, batch[ALONE][:, 1])
            return total + self.unimodal * kept

        return Prepared({FORGET: stream, RETAIN: work.task.batch(retained)}, loss, beside={FORGET: 1})

    def _before(self, work: Work, base: Base, batch: Batch) -> Tensor:
        return base.says(lambda params: states(work, params, batch, "last"))

    def strangers(
        self, forget: Sequence[Record], retained: Sequence[Record], seed: int
    ) -> tuple[list[Record], list[Record]]:
        """Each forgotten picture with a retained text, and each forgotten text with a retained picture, drawn by ``seed``."""
        draw = torch.Generator().manual_seed(seed)
        first, second = [], []
        for record in forget:
            others = [r for r in retained if r[IMAGE] != record[IMAGE] and _text(r) != _text(record)]  # type: ignore[typeddict-item]
            other: Any = others[int(torch.randint(len(others), (1,), generator=draw))]
            first.append({**_words(other), IMAGE: record[IMAGE]})  # type: ignore[typeddict-item]
            second.append({**_words(record), IMAGE: other[IMAGE]})
        return first, second

    def sizes(self, context: Context) -> dict[str, int]:
        """Forgotten pairs, and retained ones: records without pictures are not looked at."""
        return {FORGET: len(context.deletion.forget), RETAIN: len(with_pictures(context.deletion.after))}

    def check(self, context: Context) -> Estimate | Refusal:
        """Refuses records without pictures, and where there is no stranger to pair one with."""
        records = context.deletion.forget.records
        if blind := sum(IMAGE not in record for record in records):
            return Refusal(
                f"{blind} forgotten record(s) have no picture to tear from their text.", "Take npo or grad_diff."
            )
        retained = with_pictures(context.deletion.after).records
        for record in records:
            if not any(r[IMAGE] != record[IMAGE] and _text(r) != _text(record) for r in retained):  # type: ignore[typeddict-item]
                return Refusal(
                    "No retained record has another picture and another text than a forgotten one: nothing to re-pair it with.",
                    "Give more training data, or take npo.",
                )
        return super().check(context)


def states(work: Work, params: Mapping[str, Tensor], batch: Batch, at: str) -> Tensor:
    """State of the last layer at the last token (``last``), or at the last image token (``picture``), with a mean
    square of 1: the scale of a decoder's states is its own, and its last norm takes it off.

    Shapes:
        (b, width).
    """
    hidden = work.language.hidden(work.model, params, batch, LAST)
    part = trimmed(batch)
    if at == "last":
        places = part["lengths"] - 1
    else:
        seen = part["input_ids"] == image_token(work.model)
        places = seen.shape[1] - 1 - seen.flip(1).int().argmax(1)
    chosen = hidden[torch.arange(len(places), device=hidden.device), places]
    return chosen / chosen.square().mean(1, keepdim=True).clamp_min(LEAST).sqrt()


def with_pictures(data: Any) -> Any:
    """The records of ``data`` that have a picture."""
    return data.at([i for i, record in enumerate(data.records) if IMAGE in record])


def without_pictures(data: Any) -> Texts:
    """The same records as texts alone."""
    return Texts.of([_words(record) for record in data.records])


def _words(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in ("question", "answer") if name in record}


def _text(record: Mapping[str, Any]) -> tuple[Any, Any]:
    return record.get("question"), record.get("answer")


def _apart(work: Work, states: Tensor, others: Tensor) -> Tensor:
    """Mean squared error over rows and width."""
    return work.processes.mean((states - others).square().mean(1))
