"""Causal language models of ``transformers``: records in, losses of answers out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.task import Outputs
from expunge.core.texts import Record
from expunge.core.turns import last_turn, with_last_turn
from expunge.data.texts import Texts
from expunge.tasks.classification import its_own, same_architecture
from expunge.tasks.model_parts import model_parts
from expunge.tasks.prompts import BEFORE, NO_LABEL, Fitting, Prompts
from expunge.tasks.seeds import seed_global
from expunge.tasks.wrappers import unwrapped

ORDERS = ("forget_first", "retain_first", "random")
REMEMBERED = 8  # encoded data sets that a task keeps: a run looks at the same few again and again


@dataclass(frozen=True)
class Language:
    """Runs ``factory()``'s modules on :class:`~expunge.data.texts.Texts`.

    Attributes:
        factory: makes a fresh module of the architecture; called under a forked random state.
        prompts: how records become tokens.
        dtype, device: of the weights.
        name: the kind of model, ``language``; what ``Capabilities.tasks`` speaks of.
        checkpointing: compute activations again in the backward pass instead of keeping them: less memory, a third more time.
        joint_order: which question comes first in joint prompts: ``forget_first`` as the SU text writes them,
            ``retain_first`` or ``random`` (UNKNOWN in the paper, arXiv 2506.00359).
        start: weights that training begins with; ``None``: fresh ones.
        beside: files that make a folder of ``transformers`` of released weights, where the model came from one; empty: it did
            not, and its tokenizer may have been made from training records, whose words it would tell.
    """

    factory: Callable[[], nn.Module]
    prompts: Prompts
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    name: str = "language"
    checkpointing: bool = False
    joint_order: str = "forget_first"
    start: Mapping[str, Tensor] | None = field(default=None, repr=False, compare=False)
    beside: Mapping[str, bytes] = field(default_factory=dict, repr=False, compare=False)
    _encoded: dict[str, Batch] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self):
        if self.joint_order not in ORDERS:
            raise InputError(f"Expected joint_order among {', '.join(ORDERS)}; got {self.joint_order!r}.")

    # --- the model ----------------------------------------------------------------------------------------------------

    def build(self, tensors: Mapping[str, Tensor] | None = None, *, seed: int = 0, share: bool = False) -> nn.Module:
        """A fresh module, initialised from ``seed`` or holding ``tensors``; a wrapper's prefix is taken off their names.

        Args:
            share: hold ``tensors`` themselves instead of copies: for weights that stay as they are.

        Raises:
            InputError: if ``tensors`` belong to another architecture, naming the first differences.
        """
        with torch.random.fork_rng(devices=[]):
            seed_global(seed, self.device)
            model = self.factory().to(self.device, self.dtype)
        if tensors is not None:
            own, tied = self.released(model), model.state_dict().keys()
            tensors, _ = unwrapped(tied, tensors)
            tensors = {name: tensor for name, tensor in tensors.items() if name in own or name not in tied}
            same_architecture(own, tensors)
            if share:
                for name, parameter in model.named_parameters():
                    parameter.data = tensors[name].to(self.device, self.dtype)
            else:
                model.load_state_dict({name: tensor.to(self.device) for name, tensor in tensors.items()}, strict=False)
        if self.checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        return model

    @staticmethod
    def released(model: nn.Module) -> dict[str, Tensor]:
        """Weights and buffers by name, tied weights once; the tensors themselves."""
        own = {name for name, _ in model.named_parameters()} | {name for name, _ in model.named_buffers()}
        return {name: tensor for name, tensor in model.state_dict().items() if name in own}

    # --- rows ---------------------------------------------------------------------------------------------------------

    def batch(self, data: Texts, index: Any = None) -> Batch:
        """Records as the columns ``input_ids``, ``labels`` (b, length) and ``lengths`` (b,), filled up on the right."""
        if index is not None:
            return self.encode(data.at(np.asarray(index)).records)
        if data.digest not in self._encoded:
            if len(self._encoded) >= REMEMBERED:
                self._encoded.pop(next(iter(self._encoded)))
            self._encoded[data.digest] = self.encode(data.records)
        return self._encoded[data.digest]

    def encode(self, records: Any) -> Batch:
        """Any records as a batch on the task's device."""
        return Batch({name: tensor.to(self.device) for name, tensor in self.prompts.encode(records).items()})

    def seen(self, model: nn.Module, asked: Any, ids: Tensor) -> dict[str, Any]:
        """Nothing is given beside tokens."""
        return {}

    def pair(self, first: Texts, second: Texts) -> Texts:
        """Joint prompts: of each two records one whose question holds both, with the answer of ``second``.

        Source: scope-aware unlearning (arXiv 2506.00359), eq. 5; how two prompts are joined is our choice.

        Two questions stand in one user turn, a space between; two plain texts follow each other, and only the second is
        learnt: its record is a question without a template of its own. The answers of ``first`` are nowhere in it.

        Raises:
            InputError: for different numbers, or questions beside plain texts.
        """
        if len(first) != len(second):
            raise InputError(
                f"Expected as many records on both sides of joint prompts; got {len(first)}, {len(second)}."
            )
        draw = np.random.default_rng([len(first), *second.ids.tolist()]).random(len(first))
        turned = [self.joint_order == "retain_first" or (self.joint_order == "random" and at < 0.5) for at in draw]
        return second.worded([_joint(a, b, t) for a, b, t in zip(first.records, second.records, turned, strict=True)])

    def fitting(self, data: Texts) -> tuple[Texts, Fitting]:
        """``data`` without records that leave no room for an answer, and the counts of what was dropped and cut.

        Raises:
            InputError: if none is left.
        """
        found = self.prompts.fitting(data.records)
        if not found.kept:
            raise InputError(
                f"None of the {len(data)} records leaves room for an answer in {self.prompts.context} tokens. Take a larger "
                "context."
            )
        return (data.at(found.kept) if found.dropped else data), found

    # --- running ------------------------------------------------------------------------------------------------------

    def answered(self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """What the model says where labels are, and the labels: logits are computed for these columns only.

        Shapes:
            logits (b, t, vocabulary), labels (b, t) with ``NO_LABEL`` where a row has none.
        """
        batch = trimmed(batch)
        labels = batch["labels"][:, 1:]
        where = (labels != NO_LABEL).any(0).nonzero().squeeze(1)
        logits = self._call(model, params, batch, where)
        return logits if logits.dtype == torch.float64 else logits.float(), labels[:, where]

    def outputs(self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch) -> Outputs:
        """Logits (b, t, vocabulary) where labels are."""
        return Outputs(self.answered(model, params, batch)[0])

    def token_losses(self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """-log p of each label, 0 where there is none, and where there is one.

        Shapes:
            (b, t), float32 or the weights' float64, and (b, t) bool.
        """
        return losses_of(*self.answered(model, params, batch))

    def losses(self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """N: mean loss over the labels of each row, (b,)."""
        values, mask = self.token_losses(model, params, batch)
        return values.sum(1) / mask.sum(1)

    def hidden(self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch, layer: int) -> Tensor:
        """What layer ``layer`` (from 0; negative from the end) gives; the layers above it are not run.

        Shapes:
            (b, length of the longest row, width).

        Raises:
            InputError: for a layer that the model does not have.
        """
        blocks = decoder_layers(model)
        if not -len(blocks) <= layer < len(blocks):
            raise InputError(f"Expected a layer from 0 to {len(blocks) - 1}; got {layer}.")
        seen: list[Tensor] = []

        def stop(_module: Any, _inputs: Any, output: Any) -> None:
            seen.append(output[0] if isinstance(output, tuple) else output)
            raise _Seen

        hook = blocks[layer].register_forward_hook(stop)
        try:
            self._call(model, params, trimmed(batch), None)
        except _Seen:
            pass
        finally:
            hook.remove()
        return seen[0]

    def inputs(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        """What the module is called with."""
        ids, lengths = batch["input_ids"], batch["lengths"]
        inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
        if int(lengths.min()) < ids.shape[1]:
            inputs["attention_mask"] = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).long()
        return inputs

    def _call(self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch, where: Tensor | None) -> Tensor:
        inputs = self.inputs(model, batch)
        narrow = where is not None and "logits_to_keep" in inspect.signature(model.forward).parameters
        if narrow:
            inputs["logits_to_keep"] = where
        if its_own(model, params):
            logits = model(**inputs).logits
        else:
            logits = functional_call(model, dict(params), (), inputs, tie_weights=True).logits
        return logits if narrow or where is None else logits[:, where]

    def files(self) -> dict[str, bytes]:
        """Configuration and tokenizer, so that ``AutoModelForCausalLM`` loads what was released."""
        return dict(self.beside)

    def check(self, data: Texts) -> None:
        """Whether tokens fit the vocabulary and every record has room for an answer.

        Raises:
            InputError: with the token or the record that does not fit.
        """
        batch = self.encode(data.records)
        vocabulary = self.build().get_input_embeddings().weight.shape[0]  # type: ignore[operator]
        must_fit(int(batch["input_ids"].max()), vocabulary)


class _Seen(Exception):
    """The wanted layer has spoken."""


def must_fit(largest: int, vocabulary: int) -> None:
    """Raise InputError if the tokenizer gives tokens that the model does not have."""
    if largest >= vocabulary:
        raise InputError(
            f"The tokenizer gives token {largest}, and the model knows {vocabulary}: they do not belong together. Load both "
            "from one folder."
        )


def losses_of(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """-log p of each label, 0 where there is none, and where there is one.

    Shapes:
        (b, t, vocabulary), (b, t) → (b, t), (b, t) bool.
    """
    values = nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL, reduction="none"
    )
    return values.view(labels.shape), labels != NO_LABEL


def trimmed(batch: Batch) -> Batch:
    """``batch`` without columns that only fill up: rows were filled up to the longest of the data, not of the batch."""
    longest = int(batch["lengths"].max())
    return batch.with_columns(input_ids=batch["input_ids"][:, :longest], labels=batch["labels"][:, :longest])


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The blocks that repeat: the longest list of modules in the model, of one that sees in the part that reads text."""
    parts = model_parts(model)
    reads = model if parts is None else model.get_submodule(parts.text)
    lists = [module for module in reads.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise InputError("The model has no list of layers; take a method that looks at outputs only.")
    return max(lists, key=len)


def _joint(first: Record, second: Record, turned: bool) -> Record:
    if ("question" in first) != ("question" in second):
        raise InputError("Joint prompts need questions on both sides, or plain texts on both sides.")
    if "question" in first:
        one, two = last_turn(first["question"]).strip(), last_turn(second["question"]).strip()
        joint = f"{two} {one}" if turned else f"{one} {two}"
        return {"question": with_last_turn(second["question"], joint), "answer": second["answer"]}
    return {BEFORE: first["text"], "text": second["text"]}


def in_batches(rows: int, size: int) -> Iterator[slice]:
    """Slices over ``rows`` rows."""
    return (slice(start, start + size) for start in range(0, rows, size))
