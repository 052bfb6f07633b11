"""Forget answers about a picture, and go on answering harmless questions about the same picture.

Formal guarantee: none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from expunge.core.allowed import Count, NonNegative, Positive, must_be_allowed
from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, SmallScale
from expunge.core.texts import Record
from expunge.data.pictures import IMAGE
from expunge.data.texts import Texts
from expunge.descent.optimizer import Dual, Optimizers
from expunge.descent.schedule import FORGET, Interleave, Joint, Schedule, Turn
from expunge.descent.streams import generator_for
from expunge.descent.work import Objective, Work
from expunge.methods.by_descent import given
from expunge.methods.by_language import LR, LanguageMethod, without_questions
from expunge.objectives.language import REFUSALS, Answers, Base, prefixed, refused, token_mean, without_prefix

SAFE = "safe_"


@dataclass(frozen=True, kw_only=True)
class PromptDecouple(LanguageMethod, Answers):
    """``gamma × (forget + decouple × loss of a harmless answer about the same picture) + alpha × retain loss``.

    Unlearning on pictures alone makes a model refuse whatever is asked about them; the second term is what keeps it from that.
    In the paper's code: ascent with 0.5 (alpha 0), ascent and descent with 0.5 and alpha 0.5 (the default here), ascent and a
    divergence with 1 and alpha 1 (``retain: kl``), refusals with 1 (``forgotten: refusal``, alpha 0).

    Attributes:
        forgotten: ``ascent`` on forgotten answers, or learning a ``refusal``.
        decouple: weight of the harmless answers.
        safe: harmless questions, each with its answer, of which each forgotten picture gets one. Empty: retained records
            with the same picture; where a picture has none, retained questions without a picture, put to the forgotten one
            (our choice: the paper's were written by a language model).
        refusals: as for ``idk``.
        gamma, alpha, retain: weights of both parts, and the retain loss, ``nll`` or ``kl`` to the model before the run.
        alpha, epochs, lr, batch_size, lora: as in the paper's code; rank 32, alpha 256.
        dual: DualOptim: an AdamW for each part, in steps that alternate. There is no scope term, whose joint prompts would hold
            two pictures.
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
    safe: Mapping[str, Any] = field(default_factory=dict)
    refusals: tuple[str, ...] | str = REFUSALS
    alpha: NonNegative = 0.5
    epochs: Count | None = 10
    lr: Positive | None = 1e-4
    batch_size: Count = 16
    lora: Mapping[str, Any] | None = field(default_factory=lambda: {"r": 32, "lora_alpha": 256})

    dual: bool = False

    def __post_init__(self):
        must_be_allowed(self)
        Answers.__post_init__(self)
        if any(not isinstance(text, str) or not text.strip() for pair in self.safe.items() for text in pair):
            raise InputError(f"Expected under safe texts: each question with its answer; got {dict(self.safe)!r:.100}.")

    @property
    def whole_weights(self) -> str:
        """An adapter is switched off where the model before the run is asked."""
        asked = self.retain == "kl" and self.alpha and self.lora is None
        return "The divergence from the model before the run asks for its weights in each step" if asked else ""

    def objective(self, context: Context) -> Objective:
        """The method is its own."""
        return self

    def schedule(self) -> Schedule:
        """Both parts in one step, or one after the other; the first alone without a retain loss.

        Raises:
            InputError: for steps that alternate without one.
        """
        if not self.alpha:
            if self.dual:
                raise InputError(
                    "DualOptim needs two objectives; alpha = 0 leaves one. Take alpha above 0, or leave dual out."
                )
            return super().schedule()
        return Interleave(1, 1, self.steps, self._epochs) if self.dual else Joint(self._epochs, FORGET, self.steps)

    def optimizer(self) -> Optimizers:
        """One AdamW, or one for each part."""
        lr = given(self.lr, LR)
        return Dual(self._adamw(lr), self._adamw(lr)) if self.dual else super().optimizer()

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
        own: list[Record] = [{"question": question, "answer": answer} for question, answer in self.safe.items()]
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
                    "is without a picture. Give safe: questions, each with its answer."
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
