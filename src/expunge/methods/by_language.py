"""What the descent methods for language models share: how long, how fast, which weights, and the wrappers around them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

from torch import Tensor

from expunge.core.allowed import Count, Fraction, NonNegative, Positive, must_be_allowed
from expunge.core.digest import digest_json
from expunge.core.errors import InputError
from expunge.core.method import Capabilities, Context, Estimate, Refusal, SmallScale, Unlearned
from expunge.core.task import autoregressive
from expunge.core.trained import Artifact
from expunge.data.concepts import TARGET
from expunge.descent.descend import Descend
from expunge.descent.guard import Guard
from expunge.descent.lora import LoRA
from expunge.descent.members import Member
from expunge.descent.optimizer import Dual, Optimizers, Shared
from expunge.descent.parameters import All, Parameters
from expunge.descent.processes import processes
from expunge.descent.schedule import FORGET, JOINT, RETAIN, Alone, Interleave, Joint, Schedule
from expunge.descent.work import Objective, Work
from expunge.methods.by_descent import GradientMethod, given, on_cpu, told
from expunge.methods.trajectory import Remembering, Trajectory
from expunge.objectives.language import Answers
from expunge.objectives.scope import SU, too_long
from expunge.tasks import adapters
from expunge.tasks.language_cost import PRECISIONS, matmul_rate, run_cost, shape_of, step_seconds

_TIMED: dict[str, float] = {}  # model, records, rows and adapter → seconds of a step in this process
EPOCHS, LR = 10, 1e-5  # the common setting for TOFU (OpenUnlearning, arXiv 2506.12618)
RETAIN_STEPS = 5  # retain steps for each forget step in DualOptim's released code for language models


@dataclass(frozen=True, kw_only=True)
class LanguageMethod(GradientMethod):
    """A descent method for language models with a single loss: subclasses say what it is.

    Defaults are the common setting for TOFU (OpenUnlearning, arXiv 2506.12618): AdamW, effective batch 32, 10 epochs over the
    forget set, learning rate 1e-5, decay 0.01, one epoch of warm-up, then linear; gradient norm 1 is the default of the
    Trainer in transformers, which the papers' code keeps, and so is no decay of biases and norms.

    Attributes:
        epochs: passes over the forget set; ``steps``: instead of epochs.
        lr: of AdamW.
        batch_size: rows of a step, of each stream.
        warmup: share of the steps in which the rate rises from 0; ``None``: one epoch of ``epochs``.
        lora: settings of PEFT's ``LoraConfig`` (``{}``: PEFT's own); ``None``: all weights move.
        look_every: steps between looks at what is still answered (``details["trajectory"]``); ``None``: none. They choose
            nothing: the run is the same.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(kinds=("samples", "user", "concept"), tasks=("language",))
    small: ClassVar[SmallScale] = SmallScale(
        quick={"steps": 3, "lr": 3e-3, "batch_size": 6}, visible={"steps": 10, "lr": 2e-3, "batch_size": 6}
    )
    epochs: Count | None = EPOCHS
    steps: Count | None = None
    lr: Positive | None = LR
    batch_size: Count = 32
    weight_decay: NonNegative = 0.01
    warmup: Fraction | None = None
    anneal: Literal["constant", "cosine", "linear"] = "linear"
    clip: Positive | None = 1.0
    lora: Mapping[str, Any] | None = None
    look_every: Count | None = None

    @abstractmethod
    def objective(self, context: Context) -> Objective:
        """What is minimised."""

    def schedule(self) -> Schedule:
        """Every step on forgotten rows."""
        return Alone(self._epochs, FORGET, self.steps)

    @property
    def whole_weights(self) -> str:
        """Why every process needs all weights in each step; empty: it does not."""
        return ""

    @property
    def _epochs(self) -> int | None:
        return None if self.steps is not None else (self.epochs or EPOCHS)

    def optimizer(self) -> Optimizers:
        """AdamW."""
        return Shared(self._adamw(given(self.lr, LR)))

    def _adamw(self, lr: float) -> Member:
        return Member("adamw", lr, weight_decay=self.weight_decay, decays="matrices")

    def parameters(self) -> Parameters:
        """All weights, or an adapter."""
        return All() if self.lora is None else LoRA(self.lora)

    def composition(self, context: Context) -> Descend:
        """The four choices, with clipping and a warmed-up learning rate."""
        return Descend(
            self.objective(context),
            self.schedule(),
            self.optimizer(),
            self.parameters(),
            clip={} if self.clip is None else dict.fromkeys((JOINT, FORGET, RETAIN), self.clip),
            anneal=self.anneal,
            warmup=1 / (self.epochs or EPOCHS) if self.warmup is None else self.warmup,
        )

    def check(self, context: Context) -> Estimate | Refusal:
        """Refuses a request whose records are retained as well. An estimate of steps, and roughly of bytes and seconds."""
        if (refusal := self.contradiction(context)) is not None:
            return refusal
        if (needs := self.whole_weights) and processes().shares > 1:
            return Refusal(
                f"{needs}, and weights that are shared out among processes cannot be exchanged for others in a step.",
                "Share out rows only (accelerate without FSDP), or take npo with an adapter (lora).",
            )
        if self.keep_best is not None and processes().shares > 1:
            return Refusal("keep_best looks at the whole model, whose weights are shared out here.", "Leave it out.")
        if (refusal := self.cannot_keep(context)) is not None:
            return refusal
        if self.lora is not None:
            adapters.config_of(self.lora)
        sizes = self.sizes(context)
        made, batches = self.composition(context), self.batch_sizes()
        schedule, beside = made.schedule, getattr(made.objective, "beside", {})
        taken = {role: min(batches[role], sizes[role]) * (1 + beside.get(role, 0)) for role in (FORGET, RETAIN)}
        taken[JOINT] = sum(taken.values())
        rows, steps = max(taken[role] for role in schedule.roles), schedule.length(sizes, batches)
        if steps == 1 and made.warmup:
            raise InputError(
                "Expected more than one step, or no warm-up, whose first step has a rate of 0. Set warmup: 0."
            )
        return Estimate(steps * rows, cost=self.cost(context, steps, rows))

    def contradiction(self, context: Context) -> Refusal | None:
        """A refusal where a record is forgotten and retained at once, or says what is to be learnt in place of something."""
        deletion = context.deletion
        if any(TARGET in record for record in deletion.forget.records):
            return Refusal(
                "The material says what is to be learnt instead of a concept; this method forgets the answers that it gets.",
                "Give it the picture with its right name (data.concepts.recognition), or take siu.",
            )
        retained = {_content(record) for record in deletion.after.records} if deletion.after is not None else set()
        if both := sum(_content(record) in retained for record in deletion.forget.records):
            return Refusal(
                f"{both} forgotten record(s) are retained as well, word for word: one loss would undo the other.",
                "Forget every copy, or take the copies out of the request.",
            )
        return None

    def sizes(self, context: Context) -> dict[str, int]:
        """Rows of each stream."""
        after = context.deletion.after
        return {FORGET: len(context.deletion.forget), RETAIN: 0 if after is None else len(after)}

    def cost(self, context: Context, steps: int, rows: int) -> dict[str, Any]:
        """Bytes and operations of ``steps`` steps on ``rows`` rows from shapes, and seconds from one step, made and timed.

        Where several processes share the work, seconds are a lower bound, from the rate of a matrix product.
        """
        task = autoregressive(context.task)
        model = shape_of(task.factory)
        if self.lora is not None:
            adapters.inject(model, self.lora)
        length = min(
            task.prompts.context, max(len(ids) for ids, _ in task.prompts.tokens(context.deletion.forget.records))
        )
        found = run_cost(
            model, rows=rows, length=length, steps=steps, precision=PRECISIONS[task.dtype],
            checkpointing=task.checkpointing, rate=matmul_rate(task.device, task.dtype),
        )  # fmt: skip
        if processes().count > 1:
            return asdict(found)
        return asdict(replace(found, seconds=steps * self._step_seconds(context, rows)))

    def _step_seconds(self, context: Context, rows: int) -> float:
        """Seconds of one step, timed once for a model, a number of rows and an adapter."""
        task, artifact = autoregressive(context.task), context.trained.artifact
        place = digest_json([artifact.digest, context.deletion.forget.digest, rows, self.lora])
        if place not in _TIMED:
            model = task.build(artifact.tensors)
            if self.lora is not None:
                adapters.inject(model, self.lora)
            _TIMED[place] = step_seconds(task, model.train(), context.deletion.forget, rows)
        return _TIMED[place]

    def run(self, context: Context) -> Unlearned:
        """Descend; an adapter is released beside the merged weights."""
        base = context.trained.artifact.tensors
        model = autoregressive(context.task).build(base, share=self.lora is not None)
        work = Work(
            context.task, model, base, context.deletion, self.batch_sizes(), context.generator_seed, processes=processes()
        )  # fmt: skip
        method = self.kept_best(self.composition(context), work)
        seen: dict[str, Tensor] = {}
        watched = self.look_every is not None and method.guard is None
        if watched:
            looks = Trajectory.of(context.deletion.forget, context.deletion.after, context.generator_seed, seen)
            guard = Guard(looks, self.look_every, keep=False)
            method = replace(method, objective=Remembering(method.objective, seen), guard=guard)
        done = method.run(work, context.journal, context.watch)
        details: dict[str, Any] = self.told_of_kept(done)
        if watched:
            steps = [step for step, _ in done.scores]
            details["trajectory"] = [
                {"step": step, "forget": forget, "retain": None if math.isnan(retain) else retain}
                for step, (forget, retain) in zip(steps, seen["looks"].tolist(), strict=True)
            ]
            done = replace(done, scores=())
        if self.lora is None:
            return told(context, done, Artifact(on_cpu(context.task.released(model))), **details)
        adapter, settings = adapters.adapter_tensors(model), adapters.adapter_settings(model)
        adapters.merge(model)
        artifact = Artifact(on_cpu(context.task.released(model)), extra={"adapter": settings}, adapter=adapter)
        return told(context, done, artifact, trainable=sum(tensor.numel() for tensor in adapter.values()), **details)


@dataclass(frozen=True, kw_only=True)
class Balanced(LanguageMethod, Answers):
    """``gamma × a loss on forgotten answers + alpha × a loss on retained ones``, and what can be put around two losses.

    The method is the objective: subclasses say in :meth:`forget` what their loss is, add its symbols, and restate a default
    where their paper has another one.

    Attributes:
        gamma, alpha: 1 and 1 (OpenUnlearning, arXiv 2506.12618).
        retain: ``nll``, or ``kl`` to the model before the run.
        su: eta of the scope term (SU); 0: none. ``method+su`` sets 5.
        dual: DualOptim: two AdamW states, one forget step, then ``retain_steps`` retain steps (arXiv 2504.15827).
        alternate: the same steps under one AdamW with one state: the third mode of that paper's Table 15.
        forget_lr: learning rate of forget steps where steps alternate, beside ``lr`` for retain steps; ``None``: the same.
    """

    small: ClassVar[SmallScale] = LanguageMethod.small.but(visible={"gamma": 6.0})
    su: NonNegative = 0.0
    dual: bool = False
    alternate: bool = False
    forget_lr: Positive | None = None
    retain_steps: Count = RETAIN_STEPS

    def __post_init__(self):
        must_be_allowed(self)
        Answers.__post_init__(self)

    @property
    def whole_weights(self) -> str:
        """An adapter is switched off where the model before the run is asked."""
        asked = self.retain == "kl" and self.alpha and self.lora is None
        return "The divergence from the model before the run asks for its weights in each step" if asked else ""

    def objective(self, context: Context) -> Objective:
        """The loss, under the scope term where there is one."""
        return SU(self, self.su) if self.su else self

    def schedule(self) -> Schedule:
        """Both losses in one step, or one after the other; the forget loss alone where nothing is retained.

        Raises:
            InputError: for steps that alternate without a retain loss.
        """
        alternate = self.dual or self.alternate
        if not self.alpha and not self.su:
            if alternate:
                raise InputError(
                    f"{'DualOptim' if self.dual else 'alternate'} needs two objectives; alpha = 0 leaves one. Take alpha above "
                    "0, or neither dual nor alternate."
                )
            return super().schedule()
        if not alternate:
            return Joint(self._epochs, FORGET, self.steps)
        steps = None if self.steps is None else self.steps * self.retain_steps
        return Interleave(1, self.retain_steps, steps, self._epochs)

    def optimizer(self) -> Optimizers:
        """One AdamW, or one for each loss.

        Raises:
            InputError: for a learning rate of forget steps where there are none.
        """
        if self.dual:
            lr = given(self.lr, LR)
            return Dual(self._adamw(given(self.forget_lr, lr)), self._adamw(lr))
        if self.alternate:
            return Shared(self._adamw(given(self.lr, LR)), self.forget_lr)
        if self.forget_lr is not None:
            raise InputError(
                "forget_lr needs forget steps of their own: it counts under dual and alternate. Set lr, or one of these."
            )
        return super().optimizer()

    def check(self, context: Context) -> Estimate | Refusal:
        """Refuses also joint prompts that cannot be made, before any step is."""
        forget, after = context.deletion.forget, context.deletion.after
        if self.su and after is not None and (reason := too_long(autoregressive(context.task), forget, after)):
            return Refusal(reason, "Load the model with a larger context, or take the method without su.")
        return super().check(context)


def without_questions(data: Any) -> Refusal | None:
    """A refusal where records of ``data`` ask nothing: a refusal needs a question."""
    if data is None or all("question" in record for record in data.records):
        return None
    return Refusal("Refusals answer questions, and a plain text asks none.", "Take npo or grad_diff.")


def _content(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(record.get(key) for key in ("question", "answer", "text", "image"))
