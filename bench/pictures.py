"""Forgetting a concept and evaluating it, against plain implementations (goals: 1.1 x a step, 0.6 x the bytes, 3 x evaluation).

The plain way of SIU has a second full model as reference, which is asked in every step, and computes logits everywhere; its
adapter, batches and steps are ours, and it must give the same losses. The plain way of evaluation asks one question at a time.
Model and data: the digits that come with expunge and scikit-learn, and their weights.
Run from the repository root: ``python bench/pictures.py [--smoke] [--json]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from comparison import Case, Growth, main
from expunge.core.data import Deletion, Ids
from expunge.core.method import InMemory
from expunge.core.task import autoregressive
from expunge.data.digits_world import digits_world
from expunge.data.picture_world import CONCEPT
from expunge.data.texts import Texts
from expunge.descent.descend import Descend
from expunge.descent.lora import LoRA
from expunge.descent.members import Member
from expunge.descent.optimizer import Shared
from expunge.descent.schedule import FORGET, Alone
from expunge.descent.streams import mixed_seed
from expunge.descent.work import Work
from expunge.methods.siu import OWN_TOKENS, SIU, SPOKEN
from expunge.modalities.vision_language import concept
from expunge.modalities.vision_language.config import ConceptSettings
from expunge.tasks import adapters
from expunge.tasks.generation import generate
from expunge.tasks.micro_vision_language import micro_vision_language
from expunge.tasks.prompts import NO_LABEL
from expunge.training.pictures import PictureTraining
from expunge.training.shipped import name_of, shipped

LR, ROWS, TAU, TOKENS = 3e-3, 4, 0.5, 14
ADAPTER = {"r": 8, "lora_alpha": 16}


@dataclass(frozen=True)
class Run:
    """The loss of each step, and the bytes of weights, optimizer and reference."""

    losses: list[float]
    state: int


def plain(task: Any, tensors: Mapping[str, Tensor], material: Texts, steps: int) -> Run:
    """A model with an adapter beside a second whole one."""
    model, reference = (task.build({name: tensor.clone() for name, tensor in tensors.items()}) for _ in "12")
    adapters.inject(model, ADAPTER, mixed_seed(0, "adapter", 0) % 2**63)  # the same start
    moving = [tensor for tensor in model.parameters() if tensor.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=LR, weight_decay=0.0)
    work = Work(task, task.build(tensors), tensors, Deletion.authored(None, material), {FORGET: ROWS}, 0)
    whole = SIU(lora=None, beta=0.0).prepare(work).streams[FORGET]  # columns alone: nothing of it is in the comparison
    model.train(), reference.eval()
    losses = []
    for turn in Alone(None, FORGET, steps).turns({FORGET: len(material)}, {FORGET: ROWS}, 0):
        batch = whole.take(torch.as_tensor(turn.index[FORGET]))
        longest = int(batch["lengths"].max())
        batch = batch.with_columns(input_ids=batch["input_ids"][:, :longest], labels=batch["labels"][:, :longest])
        inputs, labels = task.inputs(model, batch), batch["labels"][:, 1:]
        logits = model(**inputs).logits[:, :-1]
        with torch.no_grad():
            before = reference(**inputs).logits[:, :-1]
        answer = labels != NO_LABEL
        learnt = cross_entropy(logits[answer], labels[answer])
        p, q, keep = before.log_softmax(-1), logits.log_softmax(-1), batch[SPOKEN][:, None, :]
        counted = answer & ~batch[OWN_TOKENS][:, 1:longest] & ((p.exp() * ~keep).sum(-1) < TAU)
        apart = ((p.exp() * (p - q)) * keep).sum(-1)[counted].sum() / max(1, int(counted.sum()))
        loss = 0.9 * learnt + 0.75 * apart
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return Run(losses, distinct([*model.parameters(), *reference.parameters(), *states]))


def ours(task: Any, tensors: Mapping[str, Tensor], material: Texts, steps: int) -> Run:
    """The same through the loop of every gradient method."""
    model = task.build(tensors, share=True)
    work = Work(task, model, tensors, Deletion.authored(None, material), {FORGET: ROWS}, 0)
    watched = Watched(SIU(), [], [])
    method = Descend(watched, Alone(None, FORGET, steps), Shared(Member("adamw", LR, weight_decay=0.0)), LoRA(ADAPTER))
    done = method.run(work, InMemory(), lambda stage, at, total: None)
    return Run(watched.losses, distinct([*model.parameters(), *tensors.values(), *watched.kept]) + done.state_bytes)


@dataclass(frozen=True)
class Watched:
    """An objective whose losses, and whatever it keeps of the model before the run, are written down."""

    objective: Any
    losses: list[float]
    kept: list[Tensor]

    def prepare(self, work: Work) -> Any:
        prepared = self.objective.prepare(work)
        inner = prepared.loss
        self.kept.extend(tensor for name, tensor in prepared.streams[FORGET].columns.items() if name == "siu_before")

        def loss(role: str, batch: Any, turn: Any) -> Tensor:
            value = inner(role, batch, turn)
            self.losses.append(float(value.detach()))
            return value

        prepared.loss = loss
        return prepared


def distinct(tensors: Iterable[Tensor]) -> int:
    """Bytes of all storages, each once."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def agree(expected: Run, found: Run) -> None:
    apart = max(abs(a - b) / max(abs(a), 0.1) for a, b in zip(expected.losses, found.losses, strict=True))
    if apart > 1e-2:
        raise SystemExit(f"Losses differ by {apart:.1e} of their size: the two ways do not do the same work.")
    size = f"{expected.state / 2**20:.1f} MiB plain, {found.state / expected.state:.2f} x ours"
    print(f"state: {size}; losses differ by {apart:.0e}")


def alike(expected: list[str], found: list[str]) -> None:
    if expected != found:
        raise SystemExit("Answers differ: the two ways do not ask the same.")


def cases(smoke: bool) -> Iterable[Case]:
    world = digits_world()
    task: Any = micro_vision_language(world.vocabulary)
    tensors = shipped(name_of(task, world.train, PictureTraining(), 0))
    if tensors is None:
        raise SystemExit("The weights that come with the package are of another world or recipe: make them again.")
    absent = Ids.rows(world.train.ids[world.train.columns[CONCEPT] == "seven"])
    settings = ConceptSettings(kind="digit")  # type: ignore[call-arg]
    seven = concept.Concept(("seven",), absent)
    material = Texts.of(concept.items_of(settings, world.train, [seven], 0, world))
    steps = 2 if smoke else 24

    def way(run: Callable[..., Run], count: int) -> Callable[[], Run]:
        return lambda: run(task, tensors, material, count)

    yield Case(
        name=f"SIU, {steps} steps", baselines={"two models": way(plain, steps)}, ours=way(ours, steps), agree=agree, rounds=5,
        goal=1.1, growth=None if smoke else Growth(what="steps", ways={n: way(ours, n) for n in (6, 12, 24, 48)}),
    )  # fmt: skip
    asked = [*world.named("seven"), *world.yes_no("seven")][: 4 if smoke else None]
    model = task.build(tensors).eval()

    def answers(size: int) -> Callable[[], list[str]]:
        return lambda: generate(autoregressive(task), model, asked, max_new_tokens=TOKENS, batch_size=size)

    yield Case(
        name=f"evaluation, {len(asked)} questions", baselines={"one at a time": answers(1)}, ours=answers(256), agree=alike,
        rounds=3, goal=3.0,
    )  # fmt: skip


if __name__ == "__main__":
    main(__doc__, cases)
