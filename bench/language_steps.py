"""A step of NPO and the memory of its run, against a straightforward implementation (goals: 1.4 x as fast, 0.6 x the bytes).

Straightforward: a second model gives reference log-probabilities in every step, every row is filled up to a fixed length, and
logits are computed everywhere. Both make the same steps on the same rows in this process, and must give the same losses. Run:
python bench/language_steps.py [FOLDER] [--steps N] [--json]. FOLDER: of a language model; without it stories260k of the
folder that EXPUNGE_DATA names. Times are processor time of this process: other jobs on the machine count less in it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, logsigmoid

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
from expunge.objectives.language import NPO
from expunge.tasks import adapters
from expunge.tasks.language import Language
from expunge.tasks.pretrained import load_language_model
from expunge.tasks.prompts import NO_LABEL, PLAIN

FASTER, SMALLER = 1.4, 0.6
FILLED = 256  # tokens a row in the straightforward run: the length in DualOptim's settings for TOFU
ROWS, BETA, LR = 8, 0.1, 1e-4
SETTINGS = {"r": 16, "lora_alpha": 32}


def straightforward(
    task: Language, tensors: Mapping[str, Tensor], deletion: Deletion, steps: int, lora: bool
) -> tuple[float, list[float], int]:
    """Seconds a step, losses and bytes of weights, optimizer and reference."""
    model, reference = task.build(tensors), task.build(tensors).eval()
    if lora:
        adapters.inject(model, SETTINGS, mixed_seed(0, "adapter", 0) % 2**63)  # the same start
    moving = [tensor for tensor in model.parameters() if tensor.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=LR, weight_decay=0.01)
    streams = {name: filled(task, rows) for name, rows in (("forget", deletion.forget), ("retain", deletion.after))}
    losses, spent = [], []
    for turn in Joint(steps=steps).turns(sizes(deletion), batches(), 0):
        forget, retain = ({k: t[turn.index[name]] for k, t in streams[name].items()} for name in ("forget", "retain"))
        begun = time.process_time()
        with torch.no_grad():
            base = token_losses(reference, forget).sum(1)
        forgotten = token_losses(model, forget).sum(1)
        kept = token_losses(model, retain).sum() / (retain["labels"][:, 1:] != NO_LABEL).sum()
        loss = -(2 / BETA) * logsigmoid(BETA * (forgotten - base)).mean() + kept
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        spent.append(time.process_time() - begun)
        losses.append(float(loss.detach()))
    states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    size = distinct([*model.parameters(), *reference.parameters(), *states])
    return sum(spent[1:]) / (steps - 1), losses, size


def token_losses(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["mask"], use_cache=False).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL, reduction="none").view(
        labels.shape
    )


def filled(task: Language, rows: Any) -> dict[str, Tensor]:
    batch = task.batch(rows)
    more = FILLED - batch["input_ids"].shape[1]
    ids = nn.functional.pad(batch["input_ids"], (0, more), value=task.prompts.padding)
    labels = nn.functional.pad(batch["labels"], (0, more), value=NO_LABEL)
    return {"input_ids": ids, "labels": labels, "mask": (torch.arange(FILLED) < batch["lengths"][:, None]).long()}


def ours(
    task: Language, tensors: Mapping[str, Tensor], deletion: Deletion, steps: int, lora: bool
) -> tuple[float, list[float], int]:
    """The same through the loop of every gradient method; what is prepared once is spread over the steps."""
    model = task.build(tensors, share=lora)
    work = Work(task, model, tensors, deletion, batches(), 0)
    method = Descend(
        Watched(NPO(beta=BETA)), Joint(steps=steps), Shared(Member("adamw", LR, weight_decay=0.01)),
        LoRA(SETTINGS) if lora else All(),
    )  # fmt: skip
    losses.clear()
    marks: list[float] = []
    done = method.run(work, InMemory(), lambda stage, at, total: marks.append(time.process_time()))
    first, last = marks[0], marks[-1]
    per_step = (last - first) / (len(marks) - 1)
    size = distinct([*model.parameters(), *tensors.values()]) + done.state_bytes
    return per_step + PREPARED[0] / steps, list(losses), size


losses: list[float] = []
PREPARED = [0.0]


class Watched:
    """An objective whose losses are written down, and the time of its preparation."""

    def __init__(self, objective: Any):
        self.objective = objective

    def prepare(self, work: Work) -> Any:
        begun = time.process_time()
        prepared = self.objective.prepare(work)
        PREPARED[0] = time.process_time() - begun
        inner, parts = prepared.loss, []

        def loss(role: str, batch: Any, turn: Any) -> Tensor:
            value = inner(role, batch, turn)
            parts.append(float(value.detach()))
            if len(parts) == 2:
                losses.append(sum(parts))
                parts.clear()
            return value

        prepared.loss = loss
        return prepared


def distinct(tensors: Iterable[Tensor]) -> int:
    """Bytes of all storages, each once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def sizes(deletion: Deletion) -> dict[str, int]:
    return {"forget": len(deletion.forget), "retain": len(deletion.after)}


def batches() -> dict[str, int]:
    return {"forget": ROWS, "retain": ROWS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    root = os.environ.get("EXPUNGE_DATA")
    if not root:
        print("Nothing to measure: EXPUNGE_DATA is not set, it names the folder that holds tofu and stories260k.")
        return
    folder = arguments.folder or Path(root) / "stories260k"
    task, tensors = load_language_model(folder, template=PLAIN, context=FILLED)
    data = read_tofu(Path(root) / "tofu", "full").at(range(3800, 4000))
    ids = Ids.rows(data.ids[-40:])
    deletion = Deletion(data, data.without(ids), data.only(ids), ids)
    found = []
    for lora in (False, True):
        run = {"task": task, "tensors": tensors, "deletion": deletion, "steps": arguments.steps, "lora": lora}
        slow, expected, theirs = straightforward(**run)
        fast, seen, mine = ours(**run)
        apart = max(abs(a - b) / abs(a) for a, b in zip(expected, seen, strict=True))
        kind = "adapter" if lora else "all weights"
        print(
            f"{folder.name}, {kind}: {slow * 1e3:.0f} ms a step straightforward, {fast * 1e3:.0f} ms ours: {slow / fast:.2f} x "
            f"(goal {FASTER:g}); state {theirs / 2**20:.1f} MiB, ours {mine / 2**20:.1f} MiB: {mine / theirs:.2f} x"
            + (f" (goal {SMALLER:g})" if lora else "")
            + f"; losses differ by {apart:.1e}"
        )
        found.append({"kind": kind, "faster": slow / fast, "smaller": mine / theirs, "losses_apart": apart})
    if arguments.json:
        print(json.dumps({"model": folder.name, "runs": found}))


if __name__ == "__main__":
    main()
