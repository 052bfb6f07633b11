"""Rehearsal 4: SIU: a concept is forgotten through authored items whose masks travel in the batch; no trained row goes."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from expunge import planning
from expunge.core.data import Deletion, Ids
from expunge.core.errors import InputError, RefusedError
from expunge.core.measurement import UNDECIDABLE
from expunge.core.method import Capabilities, Estimate, InMemory, Unlearned
from expunge.core.request import Request, Target
from expunge.core.trained import Artifact, Trained
from expunge.data.marks import marks_of, recognised
from expunge.measuring import measure

from .sequences import WORDS, Items, NextToken, at, sentences


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


@dataclass(frozen=True)
class Counted:
    """Next-token frequencies: what a retrained model is can be computed by hand."""

    def fit(self, task, data, *, seed=0, watch=None):
        tokens = data.x.long()
        counts = torch.full((WORDS, WORDS), 0.1, dtype=torch.float64)
        for one, following in zip(tokens[:, :-1].ravel().tolist(), tokens[:, 1:].ravel().tolist(), strict=True):
            counts[one, following] += 1
        return Trained(task, Artifact({"weight": counts.log()}), data, self, seed=seed)

    def describe(self):
        return {"recipe": "counts"}


def concept(data, word):
    """Ids of the sentences that hold ``word``: what no picture, or no sentence, of a concept means here."""
    return Ids.rows(data.ids[(data.x == word).any(1).numpy()])


def material(word):
    """Two authored sentences in which the model is not to say ``word``."""
    plain = sentences(2, seed=5)
    tokens = plain.x.clone()
    tokens[:, 0], tokens[:, 1] = word - 1, word
    counts, pushed = torch.zeros(2, 4, dtype=torch.bool), torch.zeros(2, WORDS, dtype=torch.bool)
    counts[:, 0], pushed[:, word] = True, True
    return Items(tokens, plain.y, plain.ids, counts=counts, pushed=pushed)


@pytest.mark.parametrize("word", [2, 4, 6])
def test_a_retrained_model_lacks_what_is_absent_and_the_method_never_sees_it(word):
    task, data = NextToken(), sentences()
    trained, absent = Counted().fit(task, data), concept(data, word)
    request = Request("a rights holder", (Target("concept", {"name": "the successor"}),))
    deletion = replace(Deletion.authored(data, data, absent=absent), ids=Ids.none())
    plan = planning.plan(trained, request, MaskedKL(), material=material(word), deletion=deletion)
    kept = [i for i, tokens in enumerate(data.x.tolist()) if word not in tokens]
    for seen in (plan.deletion, plan.context.deletion):
        assert not seen.member and seen.size == 0 and len(seen.forget) == 2
        assert seen.after.ids.tolist() == data.ids[kept].tolist() and seen.absent == absent
    outcome = plan.run()
    evidence = measure(outcome)
    by_hand = Counted().fit(task, at(data, kept)).artifact.tensors["weight"]
    ideal = task.losses(task.build(), {"weight": by_hand}, task.batch(material(word))).mean()
    assert evidence["loss/forget"].ideal == pytest.approx(float(ideal))
    assert evidence["loss/forget"].ideal > evidence["loss/forget"].original + 0.5
    assert outcome.after.removed == absent, "who was forgotten is known to be gone, whatever it was forgotten through"
    again = planning.plan(outcome.after, request, MaskedKL(), material=material(word))
    assert again.deletion.after.ids.tolist() == data.ids[kept].tolist()


def test_what_is_absent_must_leave_something_and_needs_known_data():
    data = sentences()
    with pytest.raises(InputError, match="nothing would be retained"):
        Deletion.authored(data, material(2), absent=Ids.rows(data.ids))
    with pytest.raises(InputError, match="data are unknown"):
        Deletion.authored(None, material(2), absent=Ids.rows([1]))


def test_other_material_is_another_run():
    task, data = NextToken(), sentences()
    request = Request("a rights holder", (Target("concept", {"name": "the successor"}),))
    trained, journal = Counted().fit(task, data), InMemory()
    scopes = {
        planning.plan(
            trained, request, MaskedKL(), key=b"k", material=material(word), journal=journal
        ).context.journal._scope
        for word in (2, 4)
    }
    assert len(scopes) == 2


def test_later_runs_recognise_what_is_absent():
    data = sentences()
    absent = concept(data, 3)
    marks = marks_of(
        Deletion.authored(data, material(3), absent=absent), (Target("concept", {"name": "three"}),), b"key"
    )
    assert recognised(data, marks, b"key") == absent
    assert not len(recognised(data.without(absent), marks, b"key")) and not len(recognised(data, marks, b"other"))
