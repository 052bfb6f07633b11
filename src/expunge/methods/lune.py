"""LUNE: a low-rank adapter learns negative answers, and nothing else is trained.

Paper: arXiv 2512.07375 (ACL Findings 2026). Its code is not released, and of its tables one row is known to us; symbols and
settings are those that a third party's code attributes to its appendices B.1 and B.2.

Formal guarantee: none. An adapter is not a removal: taken off again, the model knows what it knew (that is LUNE's point of
being reversible), and so whoever must erase keeps neither it nor the old weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from expunge.core.allowed import Count, Fraction, NonNegative, Positive
from expunge.core.data import Deletion
from expunge.core.errors import InputError
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, SmallScale, Unlearned
from expunge.core.texts import Record
from expunge.data.negatives import COUNTERFACTUAL, PER_PROMPT, PER_SUBJECT, NegativeAnswers, holds, negative_answers
from expunge.data.texts import Texts
from expunge.descent.descend import Descend
from expunge.descent.guard import Guard
from expunge.descent.schedule import FORGET, RETAIN, Joint, Schedule
from expunge.descent.streams import generator_for, mixed_seed
from expunge.descent.work import Objective, Work
from expunge.methods.by_language import LanguageMethod
from expunge.methods.trajectory import Remembering, remember
from expunge.objectives import language as losses
from expunge.objectives.language import REFUSALS
from expunge.tasks.generation import generate, with_room

LORA: Mapping[str, Any] = {"r": 16, "lora_alpha": 16, "lora_dropout": 0.05, "bias": "none"}  # the same third party
UTILITY = "utility"  # probe set that GUR is measured on
LOOKS = 20  # of the guard in a run counted in steps; ours


@dataclass(frozen=True, kw_only=True)
class LUNE(LanguageMethod):
    """Token-mean loss of negative answers on an adapter: no ascent, no reference model, no retain term.

    Learning rate, decay, batch (2 × 4), clipping, cosine and warm-up, r, alpha, dropout, and the tolerance are those of a
    third party's code, which attributes them to the paper's appendices B.1 and B.2. In our micro world (docs/lune.md) low rank
    does not localise: what keeps the rest of the model is the choice of negatives and the guard. The tolerance is finer than
    one of 64 probes: with so few, not one may be lost.

    Attributes:
        epochs: UNKNOWN in the paper; 40 in the third party's code.
        lora: settings of PEFT's ``LoraConfig``; what it leaves out is LUNE's (r 16, alpha 16, dropout 0.05, no bias), on every
            linear layer but the output.
        negatives: ``counterfactual``, ``refusal`` or ``both`` (UNKNOWN in the paper; see :mod:`expunge.data.negatives`).
        per_prompt, per_subject, subject, refusals: how many negatives, and which.
        alpha: weight of a retain loss; the paper has none.
        guard: look at USR and GUR from time to time and keep the state with the largest USR whose GUR is no more than
            ``tolerance`` below 1; a run without such a state that has forgotten anything fails. Without the guard the last
            state is released, whatever it has lost.
        look_every: steps between looks; ``None``: at the end of each epoch, or 20 looks in a run of ``steps``.
        probes: most probes of each kind for a look, drawn once (ours). The probe set ``utility`` is used whole.
        new_tokens: most tokens of a greedy answer; ``None``: twice the longest true answer (ours).
    """

    name: ClassVar[str] = "lune"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("samples", "user", "concept"), tasks=("language",), needs=("forgotten data",)
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper("LUNE: low-rank unlearning with negative examples", "ACL Findings 2026", "2512.07375"),
    )
    small: ClassVar[SmallScale] = LanguageMethod.small.but(
        quick={"guard": False}, visible={"guard": False, "lr": 1e-2, "steps": 30}
    )
    epochs: Count = 40
    lr: Positive = 2e-4
    batch_size: Count = 8
    warmup: Fraction = 0.05
    anneal: Literal["constant", "cosine", "linear"] = "cosine"
    lora: Mapping[str, Any] | None = field(default_factory=lambda: dict(LORA))
    negatives: Literal["counterfactual", "refusal", "both"] = COUNTERFACTUAL
    per_prompt: Count = PER_PROMPT
    per_subject: Count = PER_SUBJECT
    subject: str | None = None
    refusals: tuple[str, ...] | str = REFUSALS
    alpha: NonNegative = 0.0
    guard: bool = True
    tolerance: NonNegative = 0.005
    look_every: Count | None = None
    probes: Count = 64
    new_tokens: Count | None = None
    _seen: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)  # of one run

    def __post_init__(self):
        object.__setattr__(self, "lora", {**LORA, **(self.lora or {})})
        super().__post_init__()

    def negative_answers(self, deletion: Deletion, seed: int) -> NegativeAnswers:
        """What is learnt; false answers come from retained records, or where these are unknown, from each other."""
        return negative_answers(
            deletion.forget, deletion.forget if deletion.after is None else deletion.after, kind=self.negatives,
            per_prompt=self.per_prompt, refusals=losses.worded_refusals(self.refusals), subject=self.subject,
            cap=self.per_subject, seed=mixed_seed(seed, "negatives", 0) % 2**63,
        )  # fmt: skip

    def objective(self, context: Context) -> Objective:
        """The negatives' loss; what the guard sees is stored with the run."""
        return Remembering(
            losses.Negatives(
                gamma=1.0,
                alpha=self.alpha,
                negatives=lambda work: self.negative_answers(work.deletion, work.seed).texts,
            ),
            self._seen,
        )

    def schedule(self) -> Schedule:
        """Negatives alone, unless a retain loss is asked for."""
        if not self.alpha:
            return super().schedule()
        return Joint(self._epochs, FORGET, self.steps)

    def composition(self, context: Context) -> Descend:
        """Negatives, an adapter, AdamW, and the guard."""
        made = super().composition(context)
        return replace(made, guard=self._guard(context)) if self.guard else made

    def _guard(self, context: Context) -> Guard:
        every = self.look_every
        if self.steps is not None:
            every = min(every or max(1, self.steps // LOOKS), self.steps)
        looks = Looks(
            *probe_records(context.deletion, self.probes, context.generator_seed),
            self.tolerance,
            self._seen,
            self.new_tokens,
        )
        return Guard(
            looks, every, least=0.5 / len(looks.forget),
            unmet=f"No state had forgotten a probe and kept general utility (GUR) within {self.tolerance:g} of the model "
            "before; a score below 0 is minus the drop. Look more often (look_every), take a smaller learning rate or "
            "counterfactual negatives, give a retain weight alpha, or allow a larger tolerance.",
        )  # fmt: skip

    def check(self, context: Context) -> Estimate | Refusal:
        """Refuses what negatives cannot be made for, and a guard that has nothing to look at."""
        if (context.deletion.after is None) and (self.alpha or (self.guard and UTILITY not in context.deletion.probes)):
            return Refusal(
                "The retained records are unknown: general utility cannot be looked at, nor retained.",
                "Give a probe set 'utility', and no retain weight; or turn the guard off (guard: false).",
            )
        try:
            return super().check(context)
        except InputError as error:
            return Refusal(str(error))

    def sizes(self, context: Context) -> dict[str, int]:
        """Negatives, and retained rows where they are learnt."""
        rows = len(self.negative_answers(context.deletion, context.generator_seed).texts)
        return {**super().sizes(context), FORGET: rows, **({} if self.alpha else {RETAIN: 0})}

    def run(self, context: Context) -> Unlearned:
        """Descend, and tell what the guard saw."""
        own = replace(self)  # has a memory of its own
        done = super(LUNE, own).run(context)
        return replace(done, details={**done.details, "lune": own._told(context, done.details["guard"])})

    def _told(self, context: Context, scores: Sequence[tuple[int, float]]) -> dict[str, Any]:
        made = self.negative_answers(context.deletion, context.generator_seed)
        told: dict[str, Any] = {
            "negatives": {**made.sources, "hedged and left out": made.hedged, "above the cap": made.capped},
            "reversible": "the adapter, and whoever holds the weights before it, bring the answers back",
        }
        if not self.guard:
            return {**told, "guard": "turned off: the last state is released, whatever it lost elsewhere"}
        rates = success_and_retention(self._seen["looks"])
        steps = [step for step, _ in scores]
        forget, utility = probe_records(context.deletion, self.probes, context.generator_seed)
        kept = max(range(1, len(scores)), key=lambda i: scores[i][1])
        return {
            **told,
            "guard": "on",
            "tolerance": self.tolerance,
            "forget probes": len(forget),
            "utility probes": len(utility),
            "usr": [[step, usr] for step, (usr, _) in zip(steps, rates, strict=True)],
            "gur": [[step, gur] for step, (_, gur) in zip(steps, rates, strict=True)],
            "kept": {"step": steps[kept], "usr": rates[kept][0], "gur": rates[kept][1]},
        }


# --- what the guard looks at ----------------------------------------------------------------------------------------------


def unlearning_success(answers: Sequence[str], generated: Sequence[str]) -> float:
    """USR: share of forget probes whose true answer does not stand in the generated one, capitals aside.

    Raises:
        InputError: for no probes, or another number of texts.
    """
    return 1 - _held(answers, generated)


def utility_retention(answers: Sequence[str], generated: Sequence[str], before: Sequence[str]) -> float:
    """GUR: share of utility probes that are answered, over the share that the model before answered.

    Raises:
        InputError: for no probes, another number of texts, or a model before that answers none.
    """
    return _over(_held(answers, generated), _held(answers, before))


def success_and_retention(looks: Tensor) -> list[tuple[float, float]]:
    """(USR, GUR) of each look, from (USR, share of utility probes answered), the first of them before the run.

    Shapes:
        looks (n, 2).
    """
    return [(usr, _over(share, float(looks[0, 1]))) for usr, share in looks.tolist()]


def probe_records(deletion: Deletion, most: int, seed: int) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Forget probes and utility probes: questions, at most ``most`` of each, but the probe set ``utility`` whole.

    Forgotten questions are asked as they were trained on, not as the request words them: a request may be worded so that
    only its own wording is unlearnt (measured by us, docs/language.md).
    """
    forget = deletion.before.only(deletion.ids) if deletion.member else deletion.forget
    given = deletion.probes.get(UTILITY)
    utility = tuple(given.records) if given is not None else _sample(deletion.after, most, seed, "utility probes")
    return _sample(forget, most, seed, "forget probes"), utility


@dataclass(frozen=True)
class Looks:
    """The guard's score: USR where GUR is within ``tolerance`` of 1, else minus GUR's drop, which never wins.

    A state that has forgotten no more than the model before scores 0: keeping everything is no success.

    Attributes:
        forget, utility: probes.
        seen: holds ``looks``, (n, 2): USR and the share of utility probes answered, the first look before the run.
        new_tokens: see :class:`LUNE`.
    """

    forget: Sequence[Record]
    utility: Sequence[Record]
    tolerance: float
    seen: dict[str, Tensor]
    new_tokens: Count | None = None

    def __call__(self, work: Work) -> float:
        """Look at the model as it is.

        Raises:
            InputError: if a probe leaves no room for an answer, or the model before answers no utility probe.
        """
        texts = [*self.forget, *self.utility]
        most = self.new_tokens or 2 * max(len(ids) - start for ids, start in work.language.prompts.tokens(texts))
        room = set(with_room(work.language, texts, most))
        if len(room) < len(texts):
            raise InputError(
                f"{len(texts) - len(room)} probe(s) leave no room for {most} new tokens in a context of "
                f"{work.language.prompts.context}. Take a larger context, or fewer new_tokens."
            )
        said = generate(work.language, work.model, texts, max_new_tokens=most)
        answers, count = [record["answer"] for record in texts], len(self.forget)
        remember(self.seen, [unlearning_success(answers[:count], said[:count]), _held(answers[count:], said[count:])])
        rates = success_and_retention(self.seen["looks"])
        (usr, gur), (usr_before, _) = rates[-1], rates[0]
        if gur < 1 - self.tolerance - 1e-12:
            return gur - 1
        return usr if usr > usr_before else 0.0


def _sample(texts: Texts | None, most: int, seed: int, name: str) -> tuple[Record, ...]:
    asking = [record for record in texts.records if "question" in record] if texts is not None else []
    if not asking:
        raise InputError(
            f"Expected at least one question among the {name}; there is none. Turn the guard off, or add one."
        )
    chosen = torch.randperm(len(asking), generator=generator_for(seed, name, 0))[:most]
    return tuple(asking[i] for i in sorted(chosen.tolist()))


def _held(answers: Sequence[str], generated: Sequence[str]) -> float:
    if not answers or len(answers) != len(generated):
        raise InputError(
            f"Expected one generated text for each of at least one answer; got {len(answers)}, {len(generated)}."
        )
    return sum(holds(text, answer) for answer, text in zip(answers, generated, strict=True)) / len(answers)


def _over(share: float, before: float) -> float:
    if not before > 0:
        raise InputError(
            "The model before answers none of the utility probes: there is nothing to retain. Give a probe set 'utility' "
            "that it can answer."
        )
    return share / before
