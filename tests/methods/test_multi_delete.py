"""MultiDelete on a tiny model that sees: its terms by hand, what they do, and what is refused."""

from __future__ import annotations

import functools

import pytest
import torch

from cases import shapes, small_vision_language
from expunge import planning
from expunge.core.data import Deletion, Ids
from expunge.core.errors import RefusedError
from expunge.core.request import Request, Target
from expunge.core.trained import Trained
from expunge.descent.work import Work
from expunge.methods.multi_delete import MultiDelete, states
from expunge.tasks.language import decoder_layers

STARS = [3, 7]
REQUEST = Request("a rights holder", (Target("samples", {"ids": STARS}),))
ALONE = {"multimodal": 0.0, "unimodal": 0.0}


@functools.cache
def model() -> Trained:
    task = small_vision_language()
    return planning.adopt(task, task.released(task.build(seed=1)), shapes())


def work(tensors=None) -> Work:
    base, ids = model().artifact.tensors, Ids.rows(STARS)
    deletion = Deletion(shapes(), shapes().without(ids), shapes().only(ids), ids)
    network = model().task.build({name: tensor.clone() for name, tensor in (tensors or base).items()})
    return Work(model().task, network, base, deletion, {"forget": 2, "retain": 2}, 0)


@torch.no_grad()
def state(on: Work, record: dict, at: int) -> torch.Tensor:
    """What the last block gives for one record alone, at position ``at``, with a mean square of 1."""
    seen: list[torch.Tensor] = []
    hook = decoder_layers(on.model)[-1].register_forward_hook(
        lambda m, i, o: seen.append(o[0] if isinstance(o, tuple) else o)
    )
    batch = on.task.encode([record])
    on.model.eval()(**on.task.inputs(on.model, batch))
    hook.remove()
    return seen[0][0, at] / seen[0][0, at].square().mean().sqrt()


def test_decoupling_is_the_distance_to_the_originals_strangers():
    on, method = work(), MultiDelete(**ALONE, decoupling=3.0)
    ready = method.prepare(on)
    forget = on.deletion.forget.records
    first, second = method.strangers(forget, [r for r in on.deletion.after.records if "image" in r], on.seed)
    for own, one, two in zip(forget, first, second, strict=True):
        assert one["image"] == own["image"] and one["answer"] != own["answer"]
        assert two["image"] != own["image"] and (two["question"], two["answer"]) == (own["question"], own["answer"])
    apart = [
        (state(on, own, -1) - state(on, other, -1)).square().mean()
        for side in (first, second) for own, other in zip(forget, side, strict=True)
    ]  # fmt: skip
    found = float(ready.loss("forget", ready.streams["forget"], None).detach())
    assert found == pytest.approx(3.0 * float(torch.stack(apart).sum()) / len(forget), rel=1e-4) and found > 0


def test_all_terms_are_zero_for_an_unchanged_model_that_is_paired_with_itself(monkeypatch):
    monkeypatch.setattr(MultiDelete, "strangers", lambda self, forget, retained, seed: (list(forget), list(forget)))
    on = work()
    ready = MultiDelete().prepare(on)
    for role in ("forget", "retain"):
        assert float(ready.loss(role, ready.streams[role], None).detach()) == pytest.approx(0, abs=1e-8), role


def test_each_modality_alone_is_held_where_it_was():
    """The same streams under other weights: pictures at their last image token (the fourth), texts without their picture."""
    before = work()
    ready = MultiDelete(decoupling=0.0, unimodal=2.0).prepare(before)
    torch.manual_seed(0)
    moved = {name: tensor + 0.05 * torch.randn_like(tensor) for name, tensor in before.model.state_dict().items()}
    old, new = work(), work(moved)
    before.model.load_state_dict(moved)
    expected = 0.0
    for record in before.deletion.forget.records:
        words = {name: record[name] for name in ("question", "answer")}
        expected += float((state(new, record, 3) - state(old, record, 3)).square().mean())
        expected += float((state(new, words, -1) - state(old, words, -1)).square().mean())
    found = float(ready.loss("forget", ready.streams["forget"], None).detach())
    assert found == pytest.approx(2.0 * expected / 2, rel=1e-4)


def test_forgotten_pairs_come_nearer_to_strangers_than_they_were_and_retained_pairs_rest():
    outcome = planning.plan(model(), REQUEST, MultiDelete(steps=25, lr=3e-3, batch_size=2, warmup=0.0), key=b"k").run()
    after = work(outcome.releases[0].artifact.tensors)
    stream = MultiDelete(**ALONE).prepare(work()).streams["forget"]
    losses = {name: float(_distance(on, stream)) for name, on in (("before", work()), ("after", after))}
    assert losses["after"] < 0.7 * losses["before"], losses


@torch.no_grad()
def _distance(on: Work, batch) -> torch.Tensor:
    own = states(on, on.params, batch, "last")
    return (own[:, None] - batch["strangers"]).square().mean()


def test_records_without_pictures_and_without_strangers_are_refused():
    with pytest.raises(RefusedError, match="no picture to tear"):
        planning.plan(
            model(), Request("a", (Target("samples", {"ids": [16]}),)), MultiDelete(steps=2, warmup=0.0), key=b"k"
        )
    stars = [i for i in range(16) if i % 4 == 3]
    alike = planning.adopt(small_vision_language(), model().artifact.tensors, shapes().at(stars))
    with pytest.raises(RefusedError, match="nothing to re-pair it with"):
        planning.plan(alike, REQUEST, MultiDelete(steps=2, warmup=0.0), key=b"k")
