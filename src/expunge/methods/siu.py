"""Forget a visual concept from one picture: answers of four kinds are learnt, and the rest of what is said stays.

Formal guarantee: none. It needs material that was written for the purpose, and no example that the model was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from expunge.core.allowed import Count, Fraction, NonNegative, Positive, Share, Whole
from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.method import Capabilities, Context, Estimate, Paper, Refusal, SmallScale, Unlearned
from expunge.core.task import autoregressive
from expunge.data.concepts import AMONG, CONCEPT, OTHERS, SPECIFIED, TARGET, TARGETS, UNSEEN
from expunge.data.negatives import mentions
from expunge.data.pictures import IMAGE
from expunge.data.texts import Texts
from expunge.descent.schedule import FORGET, RETAIN, Turn
from expunge.descent.work import Objective, Prepared, Work
from expunge.methods.by_language import LanguageMethod
from expunge.objectives.concept import (
    ConceptTokens,
    concept_mass,
    concept_tokens,
    dual_masked_divergence,
    occurrences,
)
from expunge.objectives.language import Base, token_mean
from expunge.tasks.language import losses_of, trimmed
from expunge.tasks.passes import ANSWERS, in_passes
from expunge.tasks.prompts import NO_LABEL

OWN_TOKENS, SPOKEN, BEFORE = "siu_specified", "siu_spoken", "siu_before"  # columns of a batch
NAMED_AT, OTHER_NAMES = "siu_named_at", "siu_other_names"  # further ones, where names are learnt as ``spread``
LEAST = -1e4  # a logit that no probability is left of, at any temperature
# Bytes of what the model before the run says that are kept; above it is asked in each step. Our choice
REMEMBERED = 256 * 2**20


@dataclass(frozen=True, kw_only=True)
class SIU(LanguageMethod):
    """``alpha × cross-entropy of all items + beta × dual masked divergence`` from the model before the run, by Adam.

    Each record of the material says under ``target`` which of the paper's kinds it is: ``unseen`` (the picture, answered with
    a substitute name), ``description`` (the picture, described as it does not look), ``facts`` (of the concept, in words
    alone), ``others`` (other concepts, in words alone); under ``concept`` the names of the concept, a list; and under
    ``specified`` the parts of its answer that contradict what the model knew, a list.

    Attributes:
        alpha, beta: 0.9 and 0.75 in the paper.
        steps: 6 for one concept, 120 for twenty together in the paper; a small model needs more.
        lr, batch_size: 3e-4 and 4 in the paper; no decay, warm-up or annealing is mentioned there.
        lora: rank and modules are UNKNOWN in the paper; PEFT's defaults, in the part that reads text.
        mode: ``literal``, the printed formula, or ``renorm``; see ``objectives.concept``.
        positions: which positions K_S leaves out: ``spans`` (those of ``specified``), ``mass`` (where the model before the run
            gives the concept's tokens at least ``tau``), ``both`` (our reading: the paper describes either), or ``none``.
        tau: 0.5; the paper says "extremely high".
        instead: what is learnt where an item of ``unseen`` says the substitute: ``substitute``, as in the paper, or ``spread``:
            among all names that its item lists under ``among``, what the model before the run would say there, as a retrained
            model takes the concept for whatever a picture resembles. An alternative of ours (``docs/vision_language.md``).
        temperature: of these names' probabilities, above 1 more alike. 2: our choice, measured there.
        vocabulary: whether K_V leaves the concept's tokens out.
        retain_images: whether items of ``others`` may show pictures, which keeps other concepts recognised; an extension of
            ours, off as in the paper.
        targets: the kinds of items that are learnt; fewer than four are the paper's ablation.
        concept_token_ids: the tokens themselves instead of those that the names are made of; empty: these.
    """

    name: ClassVar[str] = "siu"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("concept",), tasks=("vision_language",), needs=("written items",)
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        Paper(
            "Single image unlearning: efficient machine unlearning in multimodal large language models",
            "Li et al., NeurIPS 2024",
            "2405.12523",
        ),
    )
    small: ClassVar[SmallScale] = SmallScale(quick={"steps": 2, "lr": 3e-3}, visible={"steps": 24, "lr": 3e-3})
    alpha: NonNegative = 0.9
    beta: NonNegative = 0.75
    steps: Count | None = 6
    lr: Positive = 3e-4
    batch_size: Count = 4
    weight_decay: NonNegative = 0.0
    warmup: Fraction | None = 0.0
    anneal: Literal["constant", "cosine", "linear"] = "constant"
    clip: Positive | None = None
    lora: Mapping[str, Any] | None = field(default_factory=dict)
    mode: Literal["literal", "renorm"] = "literal"
    positions: Literal["spans", "mass", "both", "none"] = "both"
    tau: Share = 0.5
    instead: Literal["substitute", "spread"] = "substitute"
    temperature: Positive = 2.0
    vocabulary: bool = True
    retain_images: bool = False
    targets: tuple[Literal["unseen", "description", "facts", "others"], ...] = (
        "unseen",
        "description",
        "facts",
        "others",
    )
    concept_token_ids: tuple[Whole, ...] = ()

    def __post_init__(self):
        super().__post_init__()
        if not self.targets:
            raise InputError(f"Expected at least one of the targets {', '.join(TARGETS)}; got none.")

    def objective(self, context: Context) -> Objective:
        """The method is its own: nobody else uses it."""
        return self

    def prepare(self, work: Work) -> Prepared:
        """All items as one stream, with what each leaves out as columns."""
        base, items = Base(work), self.items(work.deletion.forget)
        batch, records = work.task.batch(items), items.records
        size = work.model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
        tokenizer, labels = work.language.prompts.tokenizer, batch["labels"]
        specified, spoken = torch.zeros_like(labels, dtype=torch.bool), torch.ones(len(records), size, dtype=torch.bool)
        names = self.names(work.task, records)
        for i, record in enumerate(records):
            own = (labels[i] != NO_LABEL).nonzero().squeeze(1)
            found = occurrences(tokenizer, labels[i, own].tolist(), record.get(SPECIFIED, ()))
            specified[i, own] = torch.tensor(found, device=labels.device)
            spoken[i, list(names[tuple(record[CONCEPT])].kept)] = False
        columns = {OWN_TOKENS: specified, SPOKEN: spoken.to(labels.device)}
        if (self.beta or self.instead == "spread") and (before := remembered(work, base, batch, size)) is not None:
            columns[BEFORE] = before
        if self.instead == "spread":
            columns |= self.other_names(tokenizer, records, batch, columns)

        def loss(role: str, part: Batch, turn: Turn) -> Tensor:
            return self.loss(work, base, part)

        return Prepared({FORGET: batch.with_columns(**columns)}, loss)

    def other_names(
        self, tokenizer: Any, records: Sequence[Mapping[str, Any]], batch: Batch, columns: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Where items of ``unseen`` begin to say their substitute, (n, t), and the tokens that other names begin with, (n, v).

        Raises:
            InputError: where nothing is left of an item's names without the concept's tokens.
        """
        unseen = torch.tensor([says_substitute(record) for record in records], device=batch["labels"].device)
        specified, spoken = columns[OWN_TOKENS], columns[SPOKEN]
        first = specified & (specified.long().cumsum(1) == 1) & unseen[:, None]
        begins = torch.zeros_like(spoken)
        for row in unseen.nonzero().squeeze(1).tolist():
            token, names = int(batch["labels"][row][first[row]]), records[row][AMONG]
            said = {space: _first_token(tokenizer, space + records[row][SPECIFIED][0]) for space in (" ", "")}
            space = next((space for space, begin in said.items() if begin == token), "")  # as the answer writes its own
            tokens = [_first_token(tokenizer, space + name) for name in names]
            begins[row, tokens] = spoken[row, tokens]
            if not bool(begins[row].any()):
                raise InputError(
                    f"Expected names that do not begin as the concept does under 'among'; got {', '.join(names)}."
                )
        return {NAMED_AT: first, OTHER_NAMES: begins}

    def items(self, material: Texts) -> Texts:
        """Those of the kinds that are learnt."""
        return material.at([i for i, record in enumerate(material.records) if record[TARGET] in self.targets])

    def sizes(self, context: Context) -> dict[str, int]:
        """Items that are learnt; no retained row is."""
        return {FORGET: len(self.items(context.deletion.forget)), RETAIN: 0}

    def loss(self, work: Work, base: Base, batch: Batch) -> Tensor:
        """Both terms on one batch, from one pass."""
        logits, labels = work.language.answered(work.model, work.params, batch)
        losses, counted = losses_of(logits, labels)
        if not self.beta and self.instead == "substitute":
            return self.alpha * token_mean(losses, counted, together=work.processes)
        before, spoken = recalled(batch[BEFORE], counted) if BEFORE in batch else base.logits(batch), batch[SPOKEN]
        if self.instead == "spread":
            names = before.masked_fill(~batch[OTHER_NAMES][:, None, :], LEAST) / self.temperature
            spread = -(names.softmax(-1) * logits.log_softmax(-1)).sum(-1)
            losses = torch.where(_where_labels_are(batch, NAMED_AT), spread, losses)
        learnt = self.alpha * token_mean(losses, counted, together=work.processes)
        if not self.beta:
            return learnt
        if self.positions in ("spans", "both"):
            counted = counted & ~_where_labels_are(batch, OWN_TOKENS)
        if self.positions in ("mass", "both"):
            counted = counted & (concept_mass(before, spoken) < self.tau)
        keep = spoken if self.vocabulary else torch.ones_like(spoken)
        return learnt + self.beta * dual_masked_divergence(logits, before, counted, keep, self.mode, work.processes)

    def names(self, task: Any, records: Sequence[Mapping[str, Any]]) -> dict[tuple[str, ...], ConceptTokens]:
        """The tokens of each concept of the material."""
        tokenizer = autoregressive(task).prompts.tokenizer
        concepts = dict.fromkeys(tuple(record[CONCEPT]) for record in records)
        if self.concept_token_ids:
            kept = {token: tokenizer.decode([token]) for token in self.concept_token_ids}
            return dict.fromkeys(concepts, ConceptTokens(kept, {}))
        used = [f"{record['question']} {record['answer']}" for record in records if record[TARGET] == OTHERS]
        return {concept: concept_tokens(tokenizer, concept, used) for concept in concepts}

    def check(self, context: Context) -> Estimate | Refusal:
        """Refuses material that lacks a kind of items, or whose pictures are where they do not belong."""
        records = context.deletion.forget.records
        if problem := self.problem(records):
            return Refusal(problem, "Write items of all four kinds, each with target, concept and specified.")
        self.names(context.task, records)
        return super().check(context)

    def contradiction(self, context: Context) -> Refusal | None:
        """None: items of facts and of others repeat what is retained, on purpose."""
        return None

    def problem(self, records: Sequence[Mapping[str, Any]]) -> str:
        """What speaks against the material, as a sentence; empty: nothing."""
        for i, record in enumerate(records, 1):
            concept, specified = record.get(CONCEPT), record.get(SPECIFIED, [])
            if record.get(TARGET) not in TARGETS:
                return f"Item {i} has the target {record.get('target')!r}; expected one of {', '.join(TARGETS)}."
            if not isinstance(concept, list | tuple) or not concept or not all(isinstance(c, str) for c in concept):
                return f"Item {i} names no concept; expected a list of its names under 'concept'."
            if not isinstance(specified, list | tuple):
                return f"Item {i} has specified {specified!r}; expected a list of parts of its answer."
            among = record.get(AMONG)
            listed = isinstance(among, list | tuple) and among and all(isinstance(name, str) for name in among)
            if self.instead == "spread" and says_substitute(record) and not listed:
                return f"Item {i} has {among!r} under 'among'; instead: spread needs a list of names there."
            shows, may = IMAGE in record, TARGETS[record[TARGET]]
            if shows != may and not (self.retain_images and record[TARGET] == OTHERS):
                return (
                    f"Item {i} of {record['target']} {'shows a' if shows else 'lacks the'} picture"
                    f"{' (retain_images allows some in items of others)' if record['target'] == 'others' else ''}."
                )
        concepts = {tuple(record[CONCEPT]) for record in records}
        for concept in sorted(concepts):
            there = {record[TARGET] for record in records if tuple(record[CONCEPT]) == concept}
            if missing := [target for target in self.targets if target not in there]:
                return f"There are no items of {', '.join(missing)} for {concept[0]}."
        return ""

    def run(self, context: Context) -> Unlearned:
        """Descend; the tokens that were left out are told."""
        done = super().run(context)
        names = self.names(context.task, context.deletion.forget.records)
        return replace(done, details={**done.details, "concept_tokens": [each.said for each in names.values()]})


def remembered(work: Work, base: Base, batch: Batch, size: int) -> Tensor | None:
    """What the model before the run says where each item has labels: items come again in every other step.

    Shapes:
        (items, labels of the longest answer, ``size``), zeros behind the labels of a shorter one; ``None``: too large to keep.
    """
    counts = (batch["labels"][:, 1:] != NO_LABEL).sum(1)
    if len(batch) * int(counts.max()) * size * 4 > REMEMBERED:
        return None

    def own(part: Batch) -> Tensor:
        logits, labels = base.says(lambda params: work.language.answered(work.model, params, part))
        kept = logits.new_zeros((len(labels), int(counts.max()), logits.shape[2]))
        for row, (said, has) in enumerate(zip(logits, labels != NO_LABEL, strict=True)):
            kept[row, : int(has.sum())] = said[has]
        return kept

    return in_passes(own, batch, ANSWERS)


def recalled(kept: Tensor, counted: Tensor) -> Tensor:
    """The rows of :func:`remembered` at the positions of a batch that have labels; zeros elsewhere.

    Shapes:
        (b, k, v), (b, t) bool → (b, t, v).
    """
    found = kept.new_zeros((*counted.shape, kept.shape[2]))
    first = torch.arange(kept.shape[1], device=kept.device) < counted.sum(1, keepdim=True)
    found[counted] = kept[first]
    return found


def says_substitute(record: Mapping[str, Any]) -> bool:
    """Whether an item answers with a substitute name; one whose question names the concept answers by yes or no."""
    by_name = mentions(str(record.get("question", "")), record[CONCEPT])
    return record[TARGET] == UNSEEN and bool(record.get(SPECIFIED)) and not by_name


def _first_token(tokenizer: Any, text: str) -> int:
    return tokenizer([text], add_special_tokens=False)["input_ids"][0][0]


def _where_labels_are(batch: Batch, column: str) -> Tensor:
    """A column of marked tokens for the positions that ``Autoregressive.answered`` gives."""
    longest = trimmed(batch)["labels"].shape[1]
    labels = batch["labels"][:, 1:longest]
    return batch[column][:, 1:longest][:, (labels != NO_LABEL).any(0)]
