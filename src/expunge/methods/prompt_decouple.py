"""Forget answers about a picture, and go on answering harmless questions about the same picture.

Formal guarantee: none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from expunge.core.allowed import Count, NonNegative, Positive
from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, SmallScale
from expunge.core.texts import Record
from expunge.data.pictures import IMAGE
from expunge.data.texts import Texts
from expunge.descent.schedule import Turn
from expunge.descent.streams import generator_for
from expunge.descent.work import Work
from expunge.methods.by_language import Balanced, without_questions
from expunge.objectives.language import REFUSALS, Base, prefixed, refused, token_mean, without_prefix

SAFE = "safe_"


@dataclass(frozen=True, kw_only=True)
class PromptDecouple(Balanced):
    """``gamma × (forget + decouple × loss of a harmless answer about the same picture) + alpha × retain loss``.

    Unlearning on pictures alone makes a model refuse whatever is asked about them; the second term is what keeps it from that.
    In the paper's code: ascent with 0.5 (alpha 0), ascent and descent with 0.5 and alpha 0.5 (the default here), ascent and a
    divergence with 1 and alpha 1 (``retain: kl``), refusals with 1 (``forgotten: refusal``, alpha 0).

    Attributes:
        forgotten: ``ascent`` on forgotten answers, or learning a ``refusal``.
        decouple: weight of the harmless answers.
        safe: pairs of a harmless question and its answer, of which each forgotten picture gets one. Empty: retained records
            with the same picture; where a picture has none, retained questions without a picture, put to the forgotten one
            (our choice: the paper's were written by a language model).
        refusals: as for ``idk``.
        alpha, epochs, lr, batch_size, lora: as in the paper's code; rank 32, alpha 256.
    """

    name: ClassVar[str] = "prompt_decouple"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("samples", "user", "concept"), tasks=("vision_language",), needs=("forgotten data", "retained data")
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "SafeEraser: enhancing safety in multimodal large language models through multimodal machine unlearning",
            "Chen et al., Findings of ACL 2025",
            "2502.12520",
        ),
    )
    small: ClassVar[SmallScale] = SmallScale(
        quick={"steps": 2, "lr": 1e-3, "batch_size": 6},
        visible={"steps": 12, "lr": 1e-2, "batch_size": 6, "gamma": 6.0},
    )
    answers_beside: ClassVar[int] = 1  # the harmless answers
    forgotten: Literal["ascent", "refusal"] = "ascent"
    decouple: NonNegative = 0.5
    safe: tuple[tuple[str, str], ...] = ()
    refusals: tuple[str, ...] | str = REFUSALS
    alpha: NonNegative = 0.5
    epochs: Count | None = 10
    lr: Positive | None = 1e-4
    batch_size: Count = 16
    lora: Mapping[str, Any] | None = field(default_factory=lambda: {"r": 32, "lora_alpha": 256})

    def __post_init__(self):
        super().__post_init__()
        if any(len(pair) != 2 or not all(text.strip() for text in pair) for pair in self.safe):
            raise InputError(f"Expected safe as pairs of a question and its answer; got {list(self.safe)!r:.100}.")

    def columns(self, work: Work, base: Base) -> Batch:
        """Forgotten answers, or refusals, with a harmless answer about the same picture beside each."""
        forget = work.deletion.forget
        first = refused(work, self.refusals) if self.forgotten == "refusal" else forget
        beside = self.harmless(forget.records, work.deletion.after.records, work.seed)
        return work.task.batch(first).with_columns(**prefixed(work.task.batch(Texts.of(beside)), SAFE))

    def harmless(self, forget: Sequence[Record], retained: Sequence[Record], seed: int) -> list[Record]:
        """For each forgotten record a harmless question with its picture, drawn by the run's seed.

        Raises:
            InputError: where a record has no picture, or nothing harmless can be asked about it.
        """
        same: dict[Any, list[Record]] = {}
        for record in retained:
            same.setdefault(record.get(IMAGE), []).append(record)
        words = [record for record in same.pop(None, []) if "question" in record]
        own: list[Record] = [{"question": question, "answer": answer} for question, answer in self.safe]
        found, draw = [], generator_for(seed, self.name, 0)
        for i, record in enumerate(forget, 1):
            if IMAGE not in record:
                raise InputError(
                    f"Forgotten record {i} has no picture, so that there is nothing to decouple. Take grad_diff."
                )
            asked = own or same.get(record[IMAGE]) or words
            if not asked:
                raise InputError(
                    f"Nothing harmless is known about the picture of forgotten record {i}: no retained record has it, and none "
                    "is without a picture. Give safe: pairs of a question and its answer."
                )
            chosen: Any = asked[int(torch.randint(len(asked), (1,), generator=draw))]
            found.append({IMAGE: record[IMAGE], "question": chosen["question"], "answer": chosen["answer"]})
        return found

    def forget(self, work: Work, base: Base, batch: Batch, turn: Turn) -> Tensor:
        """Up on the answers or down on refusals, and down on the harmless answers."""
        loss = lambda part: token_mean(  # noqa: E731
            *work.language.token_losses(work.model, work.params, part), together=work.processes
        )
        forgotten = loss(batch) if self.forgotten == "refusal" else -loss(batch)
        return forgotten + self.decouple * loss(without_prefix(batch, SAFE)) if self.decouple else forgotten

    def check(self, context: Context) -> Estimate | Refusal:
        """Refuses also pictures that nothing harmless can be asked about."""
        if (refusal := without_questions(context.deletion.forget)) is not None:
            return refusal
        try:
            self.harmless(context.deletion.forget.records, context.deletion.after.records, context.generator_seed)
        except InputError as error:
            return Refusal(str(error), "See docs/vision_language.md.")
        return super().check(context)
