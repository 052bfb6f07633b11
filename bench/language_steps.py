"""A run of NPO and the memory of its state against a plain implementation (goals: 1.4 x as fast, 0.6 x the bytes).

The plain way: a second model gives reference log-probabilities in every step, and logits are computed everywhere; batches are
filled up to their own longest row, as ours are. Both make the same steps on the same rows, and must give the same losses.
Model and data: stories260k and TOFU of the folder that EXPUNGE_DATA names.
Run from the repository root: ``python bench/language_steps.py [--smoke] [--json]``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid

from comparison import Case, Growth, main
from expunge.core.data import Deletion, Ids
from expunge.core.method import InMemory
from expunge.data.tofu import read_tofu
from expunge.descent.descend import Descend
from expunge.descent.lora import LoRA
from expunge.descent.members import Member
from expunge.descent.optimizer import Shared
from expunge.descent.parameters import All
from expunge.descent.schedule import Joint
from expunge.descent.streams import mixed_seed
from expunge.descent.work import Work
from expunge.methods.npo import NPO
from expunge.tasks import adapters
from expunge.tasks.language import Language
from expunge.tasks.pretrained import load_language_model
from expunge.tasks.prompts import NO_LABEL, PLAIN

ROWS, BETA, LR = 8, 0.1, 1e-4
SETTINGS = {"r": 16, "lora_alpha": 32}


@dataclass(frozen=True)
class Run:
    """The loss of each step, and the bytes of weights, optimizer and reference."""

    losses: list[float]
    state: int


def plain(task: Language, tensors: Mapping[str, Tensor], deletion: Deletion, steps: int, lora: bool, size: int) -> Run:
    model, reference = task.build(tensors), task.build(tensors).eval()
    if lora:
        adapters.inject(model, SETTINGS, mixed_seed(0, "adapter", 0) % 2**63)  # the same start
    moving = [tensor for tensor in model.parameters() if tensor.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=LR, weight_decay=0.01)
    streams = {name: task.batch(rows) for name, rows in (("forget", deletion.forget), ("retain", deletion.after))}
    losses = []
    for turn in Joint(steps=steps).turns(sizes(deletion), batches(size), 0):
        forget, retain = (
            to_longest(streams[name].take(torch.as_tensor(turn.index[name]))) for name in ("forget", "retain")
        )
        with torch.no_grad():
            base = token_losses(reference, forget).sum(1)
        forgotten = token_losses(model, forget).sum(1)
        kept = token_losses(model, retain).sum() / (retain["labels"][:, 1:] != NO_LABEL).sum()
        loss = -(2 / BETA) * logsigmoid(BETA * (forgotten - base)).mean() + kept
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return Run(losses, distinct([*model.parameters(), *reference.parameters(), *states]))


def to_longest(batch: Any) -> dict[str, Tensor]:
    longest = int(batch["lengths"].max())
    mask = (torch.arange(longest) < batch["lengths"][:, None]).long()
    return {"input_ids": batch["input_ids"][:, :longest], "labels": batch["labels"][:, :longest], "mask": mask}


def token_losses(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["mask"], use_cache=False).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL, reduction="none").view(
        labels.shape
    )


def ours(task: Language, tensors: Mapping[str, Tensor], deletion: Deletion, steps: int, lora: bool, size: int) -> Run:
    """The same through the loop of every gradient method."""
    model = task.build(tensors, share=lora)
    work = Work(task, model, tensors, deletion, batches(size), 0)
    watched = Watched(NPO(beta=BETA), [])
    method = Descend(
        watched, Joint(steps=steps), Shared(Member("adamw", LR, weight_decay=0.01)), LoRA(SETTINGS) if lora else All()
    )
    done = method.run(work, InMemory(), lambda stage, at, total: None)
    return Run(watched.losses, distinct([*model.parameters(), *tensors.values()]) + done.state_bytes)


@dataclass(frozen=True)
class Watched:
    """An objective whose losses are written down."""

    objective: Any
    losses: list[float]

    def prepare(self, work: Work) -> Any:
        prepared = self.objective.prepare(work)
        inner, parts = prepared.loss, []

        def loss(role: str, batch: Any, turn: Any) -> Tensor:
            value = inner(role, batch, turn)
            parts.append(float(value.detach()))
            if len(parts) == 2:
                self.losses.append(sum(parts))
                parts.clear()
            return value

        prepared.loss = loss
        return prepared


def distinct(tensors: Iterable[Tensor]) -> int:
    """Bytes of all storages, each once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def sizes(deletion: Deletion) -> dict[str, int]:
    return {"forget": len(deletion.forget), "retain": len(deletion.after)}


def batches(size: int) -> dict[str, int]:
    return {"forget": size, "retain": size}


def agree(expected: Run, found: Run) -> None:
    apart = max(abs(a - b) / abs(a) for a, b in zip(expected.losses, found.losses, strict=True))
    if apart > 1e-3:
        raise SystemExit(f"Losses differ by {apart:.1e} of their size: the two ways do not do the same work.")
    smaller = found.state / expected.state
    print(f"state: {expected.state / 2**20:.1f} MiB plain, {smaller:.2f} x ours; losses differ by {apart:.0e}")


def cases(smoke: bool) -> Iterable[Case]:
    if not os.environ.get("EXPUNGE_DATA"):
        print("Nothing to measure: EXPUNGE_DATA is not set, it names the folder that holds tofu and stories260k.")
        return
    root, steps = Path(os.environ["EXPUNGE_DATA"]), 1 if smoke else 9
    task, tensors = load_language_model(root / "stories260k", template=PLAIN, context=256)
    data = read_tofu(root / "tofu", "full").at(range(3984 if smoke else 3800, 4000))
    ids = Ids.rows(data.ids[-8 if smoke else -40 :])
    deletion = Deletion(data, data.without(ids), data.only(ids), ids)
    for lora in (False,) if smoke else (False, True):  # peft takes seconds to import

        def way(run: Callable[..., Run], count: int, lora: bool = lora) -> Callable[[], Run]:
            return lambda: run(task, tensors, deletion, count, lora, 1 if smoke else ROWS)

        grown = None if smoke or lora else Growth(what="steps", ways={n: way(ours, n) for n in (4, 8, 16, 32)})
        yield Case(
            name=f"NPO, {'adapter' if lora else 'all weights'}, {steps} steps", baselines={"two models": way(plain, steps)},
            ours=way(ours, steps), agree=agree, rounds=3, goal=1.4, growth=grown,
        )  # fmt: skip


if __name__ == "__main__":
    main(__doc__, cases)
