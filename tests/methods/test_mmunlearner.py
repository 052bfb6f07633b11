"""MMUnlearner on a tiny model that sees: its mask by an independent computation, what may move, and what is refused."""

from __future__ import annotations

import functools

import pytest
import torch

from cases import shapes, small_vision_language
from expunge import planning
from expunge.core.data import Deletion, Ids
from expunge.core.errors import InputError, RefusedError
from expunge.core.request import Request, Target
from expunge.core.trained import Trained
from expunge.data.texts import Texts
from expunge.descent.work import Work
from expunge.methods.mmunlearner import MMUnlearner, Salient
from expunge.tasks.model_parts import model_parts

STARS = [i for i, record in enumerate(shapes().records) if record["answer"] == "star"]
REQUEST = Request("a rights holder", (Target("samples", {"ids": STARS}),))


@functools.cache
def model() -> Trained:
    task = small_vision_language()
    return planning.adopt(task, task.released(task.build(seed=1)), shapes())


def work(batch_size: int = 2) -> Work:
    base, ids = model().artifact.tensors, Ids.rows(STARS)
    deletion = Deletion(shapes(), shapes().without(ids), shapes().only(ids), ids)
    sizes = {"forget": batch_size, "retain": batch_size}
    return Work(model().task, model().task.build(base), base, deletion, sizes, 0)


def fisher(on: Work, name: str, data: Texts, batch_size: int) -> torch.Tensor:
    """Mean over batches of the squared gradient of the mean loss of an answer's tokens, then over the batch."""
    network, weight = on.model.eval(), dict(on.model.named_parameters())[name]
    whole, squares = on.task.batch(data), []
    for start in range(0, len(data), batch_size):
        part = whole.take(torch.arange(start, min(start + batch_size, len(data))))
        logits = network(**on.task.inputs(network, part)).logits[:, :-1]
        labels = part["labels"][:, 1 : logits.shape[1] + 1]
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
        rows = each.sum(1) / (labels != -100).sum(1)
        (gradient,) = torch.autograd.grad(rows.mean(), weight)
        squares.append(gradient**2)
    return torch.stack(squares).mean(0)


@pytest.mark.parametrize("part", ["text", "vision"])
def test_the_mask_is_the_ratio_of_squared_gradients(part):
    on, name = work(), {"text": "mlp.down_proj.weight", "vision": "mlp.fc2.weight"}[part]
    selection = Salient(part, 2).select(on)
    name = next(n for n in selection.names if n.endswith(name))
    retained = on.deletion.after
    if part == "vision":
        retained = retained.at([i for i, record in enumerate(retained.records) if "image" in record])
    expected = fisher(on, name, on.deletion.forget, 2) / (fisher(on, name, retained, 2) + 1e-15) >= 1
    mask = selection.masks["forget"][name]
    assert (mask != expected).float().mean() <= 0.01, "but for ties of rounding"
    assert 0.02 < mask.float().mean() < 0.98 and set(selection.masks) == {"forget"} and selection.strict


@pytest.mark.parametrize("part", ["text", "vision"])
def test_weights_of_the_other_part_rest(part):
    outcome = planning.plan(model(), REQUEST, MMUnlearner(part=part, steps=2, lr=1e-2, batch_size=2), key=b"k").run()
    parts = model_parts(model().task.build())
    assert parts is not None
    moved = {parts.part_of(name) for name, size in outcome.change.items() if size}
    assert moved == ({"text", "other"} if part == "text" else {"vision", "connector"})
    assert outcome.details["steps"] == {"forget": 2, "retain": 2}


def test_an_adapter_is_refused():
    with pytest.raises(InputError, match="Leave lora out"):
        MMUnlearner(lora={})


def test_a_mask_of_what_sees_needs_retained_pictures():
    shown = [i for i, record in enumerate(shapes().records) if "image" in record]
    everything = Request("a rights holder", (Target("samples", {"ids": shown}),))
    with pytest.raises(RefusedError, match="retained records with pictures"):
        planning.plan(model(), everything, MMUnlearner(part="vision", steps=1), key=b"k")
