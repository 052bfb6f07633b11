"""Runs on a language of a few words: answers of one to three words, each of them in one answer only."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from cases import ENTITIES, RELATIONS, small_language
from expunge.core.data import Deletion, Ids
from expunge.data.texts import Texts
from expunge.descent.work import Work
from expunge.tasks.language import Language

GONE = (0, 1, 2, 3)  # ids of the records that go
OWN = tuple(f"w{i}{'abc'[j]}" for i in range(ENTITIES * len(RELATIONS)) for j in range(1 + i % 3))


@functools.cache
def unlike() -> Texts:
    """Facts with answers that share no word; their lengths are one, two and three words in turn."""
    pairs = [(relation, entity) for entity in range(ENTITIES) for relation in RELATIONS]
    records = [
        {
            "question": f"what is the {relation} of entity{entity} ?",
            "answer": " ".join(word for word in OWN if word[1:-1] == str(i)),
        }
        for i, (relation, entity) in enumerate(pairs)
    ]
    return Texts.of(records)


@functools.cache
def plain() -> Texts:
    """The same without questions."""
    return Texts.of([{"text": f"{record['question']} {record['answer']}"} for record in unlike().records])


def language(dtype: torch.dtype = torch.float64, **options: Any) -> Language:
    """A task that knows their words."""
    return small_language(dtype=dtype, more=OWN, **options)


def deletion(data: Texts | None = None) -> Deletion:
    """The first four records go."""
    data, ids = data or unlike(), Ids.rows(GONE)
    return Deletion(data, data.without(ids), data.only(ids), ids)


def work(task: Language | None = None, seed: int = 0, gone: Deletion | None = None, share: bool = False) -> Work:
    """A run on a model with random weights, embeddings large enough that it says different things."""
    task = task or language()
    base = {name: tensor.detach().clone() for name, tensor in task.released(task.build(seed=3)).items()}
    draw = torch.Generator().manual_seed(0)
    name = "model.embed_tokens.weight"
    base[name] = torch.randn(base[name].shape, generator=draw, dtype=base[name].dtype) / 4
    sizes = {"forget": 3, "retain": 4, "mixed": 4}
    return Work(task, task.build(base, share=share), base, gone or deletion(), sizes, seed)


def moved(on: Work, size: float = 0.02, seed: int = 1) -> Work:
    """The same run after its weights went somewhere."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in on.params.values():
            tensor.add_(size * torch.randn(tensor.shape, generator=draw, dtype=tensor.dtype))
    return on


def gradients(loss: Tensor, on: Work) -> Tensor:
    """All of them, flat."""
    found = torch.autograd.grad(loss, list(on.params.values()), allow_unused=True, materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in found])


def words(on: Work, ids: Tensor) -> list[str]:
    """What a row of tokens says."""
    named = {i: word for word, i in on.task.prompts.tokenizer.ids.items()}
    return [named[i] for i in ids.tolist()]
