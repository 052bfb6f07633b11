"""Rehearsal 3: SU's joint prompts: a retained sentence in front of a forgotten one, through ``Task.pair``."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from expunge import planning
from expunge.core.method import Capabilities, Estimate, Unlearned
from expunge.core.request import Request, Target
from expunge.core.trained import Artifact
from expunge.measuring import measure
from expunge.training.recipes import GradientDescent

from .sequences import NextToken, at, sentences


@dataclass(frozen=True)
class AscentWithPairs:
    name: ClassVar[str] = "ascent_with_pairs"
    capabilities: ClassVar[Capabilities] = Capabilities(
        ("samples", "user"), ("sequences",), ("retained data", "forgotten data"), "weights", False
    )

    def check(self, context):
        return Estimate(90 * len(context.deletion.forget))

    def run(self, context):
        task, deletion = context.task, context.deletion
        generator = torch.Generator().manual_seed(context.generator_seed)
        weights = {n: t.clone().requires_grad_() for n, t in context.trained.artifact.tensors.items()}
        forget = deletion.forget
        for _ in range(30):
            index = torch.randint(len(deletion.after), (len(deletion.forget),), generator=generator)
            retain = at(deletion.after, index.tolist())
            mean = lambda rows: task.losses(task.build(), weights, task.batch(rows)).mean()  # noqa: E731
            loss = mean(retain) - 0.6 * mean(forget) - 0.6 * mean(task.pair(retain, forget))
            for name, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
                weights[name] = (weights[name] - 0.5 * gradient).detach().requires_grad_()
        return Unlearned({"model": Artifact({n: t.detach() for n, t in weights.items()})})


@pytest.mark.parametrize("seed", [0, 1])
def test_joint_prompts_travel_through_the_task(seed):
    data = sentences(seed=seed)
    task = NextToken()
    joined = task.pair(at(data, [0, 1]), at(data, [5, 5]))
    batch = task.batch(joined)
    assert len(joined) == 2 and joined.ids.tolist() == [5, 5]  # named by what is learnt
    assert batch["tokens"].tolist() == [
        data.x[0].tolist() + data.x[5].tolist(),
        data.x[1].tolist() + data.x[5].tolist(),
    ]
    assert batch["counts"].tolist() == [[False] * 5 + [True] * 4] * 2
    trained = planning.train(task, data, GradientDescent(steps=30, lr=5.0), seed=seed)
    request = Request("a publisher", (Target("user", {"book": 1}),))
    outcome = planning.plan(
        trained, request, AscentWithPairs(), probes={"elsewhere": sentences(8, seed=9)}, seed=seed
    ).run()
    again = planning.plan(trained, request, AscentWithPairs(), seed=seed).run()
    assert outcome.releases[0].artifact.digest == again.releases[0].artifact.digest
    evidence = measure(outcome)
    assert evidence["loss/forget"].value > evidence["loss/forget"].original
    assert evidence["loss/elsewhere"].ideal is not None and evidence.reference == "retrained"
    assert outcome.verdict == "no-certificate"
