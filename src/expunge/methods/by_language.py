"""What the descent methods for language models share: how long, how fast, which weights, and the wrappers around them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from expunge.core.errors import InputError
from expunge.core.method import Capabilities, Context, Estimate, Refusal, Unlearned
from expunge.core.trained import Artifact
from expunge.descent.descend import Descend
from expunge.descent.lora import LoRA
from expunge.descent.members import Member
from expunge.descent.optimizer import Dual, Shared
from expunge.descent.parameters import All
from expunge.descent.schedule import FORGET, JOINT, RETAIN, Alone, Interleave, Joint, Schedule
from expunge.descent.work import Objective, Work
from expunge.methods.by_descent import GradientMethod, given, on_cpu, told
from expunge.objectives.scope import SU
from expunge.tasks import adapters

TEXT_KINDS = ("samples", "user")
RETAIN_STEPS = 5  # retain steps for each forget step under DualOptim (LLM spec 3)


def language(paper: str, effect: str = "weights", retained: bool = True) -> Capabilities:
    """The capabilities of a descent method for language models."""
    needs = ("retained data", "forgotten data") if retained else ("forgotten data",)
    return Capabilities(TEXT_KINDS, ("language",), needs, effect, False, paper)


@dataclass(frozen=True, kw_only=True)
class LanguageMethod(GradientMethod):
    """A descent method for language models: subclasses add the symbols of their loss and say what it is.

    Defaults are the common TOFU setting (LLM spec 4): AdamW, effective batch 32, 10 epochs over the forget set, learning rate
    1e-5, decay 0.01, one epoch of warm-up, then linear; gradient norm 1 is the Trainer's default, which the papers' code keeps.

    Attributes:
        epochs: passes over the forget set; ``steps``: instead of epochs.
        lr: of AdamW; with ``dual`` of retain steps, and ``forget_lr`` of forget steps (``None``: the same).
        batch_size: forget and retain rows of a step, each.
        lora: settings of PEFT's ``LoraConfig`` (``{}``: PEFT's own); ``None``: all weights move.
        su: eta of the scope term (SU); 0: none. ``method+su`` sets 5.
        dual: DualOptim: two AdamW states, one forget step, then ``retain_steps`` retain steps.
    """

    single: ClassVar[bool] = False  # whether the method has one loss, and so neither retain steps nor wrappers
    epochs: int = 10
    steps: int | None = None
    lr: float = 1e-5
    forget_lr: float | None = None
    batch_size: int = 32
    weight_decay: float = 0.01
    warmup: float = 0.1
    anneal: str = "linear"
    clip: float | None = 1.0
    lora: Mapping[str, Any] | None = None
    su: float = 0.0
    dual: bool = False
    retain_steps: int = RETAIN_STEPS

    @abstractmethod
    def objective(self, context: Context) -> Objective:
        """What is minimised, without wrappers."""

    def schedule(self) -> Schedule:
        """Both losses in one step; one after the other under DualOptim; or the only one."""
        epochs = None if self.steps is not None else self.epochs
        if self.single:
            return Alone(epochs, FORGET, self.steps)
        if not self.dual:
            return Joint(epochs, FORGET, self.steps)
        steps = None if self.steps is None else self.steps * self.retain_steps
        return Interleave(1, self.retain_steps, steps, epochs)

    def composition(self, context: Context) -> Descend:
        """AdamW on all weights or an adapter."""
        if self.single and (self.su or self.dual):
            raise InputError(f"{self.name} has a single loss: neither su nor dual can be put around it.")
        objective = self.objective(context)
        forget = Member("adamw", given(self.forget_lr, self.lr), weight_decay=self.weight_decay)
        retain = Member("adamw", self.lr, weight_decay=self.weight_decay)
        return Descend(
            SU(objective, self.su) if self.su else objective,
            self.schedule(),
            Dual(forget, retain) if self.dual else Shared(retain, self.forget_lr),
            All() if self.lora is None else LoRA(self.lora),
            clip={} if self.clip is None else dict.fromkeys((JOINT, FORGET, RETAIN), self.clip),
            anneal=self.anneal,
            warmup=self.warmup,
        )

    def check(self, context: Context) -> Estimate | Refusal:
        """Refuses a request whose records are retained as well. An estimate of steps alone."""
        deletion = context.deletion
        retained = {_content(record) for record in deletion.after.records} if deletion.after is not None else set()
        if both := sum(_content(record) in retained for record in deletion.forget.records):
            return Refusal(
                f"{both} forgotten record(s) are retained as well, word for word: one loss would undo the other.",
                "Forget every copy, or take the copies out of the request.",
            )
        if self.batch_size < 1:
            raise InputError(f"Expected a batch_size of at least 1; got {self.batch_size}.")
        schedule, batches = self.composition(context).schedule, self.batch_sizes()
        sizes = {FORGET: len(deletion.forget), RETAIN: 0 if deletion.after is None else len(deletion.after)}
        rows = sum(min(batches[role], sizes[role]) for role in (FORGET, RETAIN))
        return Estimate(schedule.length(sizes, batches) * rows)

    def run(self, context: Context) -> Unlearned:
        """Descend; an adapter is released beside the merged weights."""
        base = context.trained.artifact.tensors
        model = context.task.build(base, share=self.lora is not None)
        work = Work(context.task, model, base, context.deletion, self.batch_sizes(), context.generator_seed)
        done = self.composition(context).run(work, context.journal, context.watch)
        if self.lora is None:
            return told(context, done, Artifact(on_cpu(context.task.released(model))))
        adapter, settings = adapters.adapter_tensors(model), adapters.adapter_settings(model)
        adapters.merge(model)
        artifact = Artifact(on_cpu(context.task.released(model)), extra={"adapter": settings}, adapter=adapter)
        return told(context, done, artifact, trainable=sum(tensor.numel() for tensor in adapter.values()))


def _content(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(record.get(key) for key in ("question", "answer", "text"))
