"""Rehearsal 4: SIU: a concept is forgotten through authored items whose masks travel in the batch; no trained row goes."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from expunge import planning
from expunge.core.errors import RefusedError
from expunge.core.measurement import UNDECIDABLE
from expunge.core.method import Capabilities, Estimate, Unlearned
from expunge.core.request import Request, Target
from expunge.core.trained import Artifact
from expunge.measuring import measure

from .sequences import WORDS, Items, NextToken, sentences


@dataclass(frozen=True)
class MaskedKL:
    """Bring the distribution without the pushed words to the released one, on the tokens that count."""

    name: ClassVar[str] = "masked_kl"
    capabilities: ClassVar[Capabilities] = Capabilities(
        ("concept",), ("sequences",), ("forgotten data",), "weights", False
    )

    def check(self, context):
        return Estimate(60 * len(context.deletion.forget))

    def run(self, context):
        task, batch = context.task, context.task.batch(context.deletion.forget)
        weight = context.trained.artifact.tensors["weight"].clone().requires_grad_()
        logits = task.outputs(task.build(), {"weight": weight.detach()}, batch).logits
        wanted = logits.masked_fill(batch["pushed"][:, None, :], -30.0).softmax(-1)
        for _ in range(60):
            said = task.outputs(task.build(), {"weight": weight}, batch).logits.log_softmax(-1)
            loss = -((wanted * said).sum(-1) * batch["counts"]).sum() / batch["counts"].sum()
            weight = (weight - 5.0 * torch.autograd.grad(loss, weight)[0]).detach().requires_grad_()
        return Unlearned({"model": Artifact({"weight": weight.detach()})})


@pytest.mark.parametrize("known", [True, False])
def test_authored_material_stands_for_a_concept(known):
    task, plain = NextToken(), sentences(6, seed=3)
    counts, pushed = torch.zeros(6, 4, dtype=torch.bool), torch.zeros(6, WORDS, dtype=torch.bool)
    counts[:, 0] = True
    pushed[torch.arange(6), plain.x[:, 1].long()] = True
    items = Items(plain.x, plain.y, plain.ids, counts=counts, pushed=pushed)
    trained = planning.adopt(task, task.build(seed=4), sentences() if known else None)
    request = Request("a rights holder", (Target("concept", {"name": "the successor"}),))
    outcome = planning.plan(trained, request, MaskedKL(), material=items).run()
    assert not outcome.deletion.member and outcome.deletion.size == 0 and outcome.certificate is None
    assert outcome.after.data is trained.data and not len(outcome.after.removed)
    evidence = measure(outcome)
    assert evidence.verdict == UNDECIDABLE and evidence["loss/forget"].ideal is None
    assert evidence["loss/forget"].value > evidence["loss/forget"].original + 0.2
    with pytest.raises(RefusedError, match="kind concept"):
        planning.plan(trained, request, material=items)
