"""Derivatives that are written out equal those of autograd, and are used for nothing but our own networks."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from expunge import Classification
from expunge.curvature.hessian import explicit_hessian
from expunge.curvature.newton import Differentiated
from expunge.curvature.softmax_head import HeadObjective, weighted_gram
from expunge.data.rows import Rows
from expunge.tasks.closed_forms import closed_form
from expunge.tasks.networks import SmeLU, SoftmaxHead, mlp, perceptron
from expunge.training.descent import MeanGradient, Step, differentiated, row_gradients, split
from expunge.training.flat import flat_loss, flatten, objective

CLOSE = 1e-12
NETWORKS = {
    "head": lambda d, k: SoftmaxHead(d, k, radius=1.5),
    "head with bias": lambda d, k: SoftmaxHead(d, k, radius=0.7, bias=True),
    "linear": lambda d, k: mlp(d, k, ()),
    "mlp": lambda d, k: mlp(d, k, (5,)),
    "deep mlp": lambda d, k: mlp(d, k, (4, 6)),
    "perceptron": lambda d, k: perceptron([d, 5, k]),
    "tanh": lambda d, k: nn.Sequential(nn.Linear(d, 5), nn.Tanh(), nn.Linear(5, k)),
    "deep perceptron": lambda d, k: perceptron([d, 4, 6, 3, k], beta=0.2),
}


def world(network, seed, n=17, d=4, k=3, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(n, d, generator=generator, dtype=dtype)
    rows = Rows.of(x, torch.randint(0, k, (n,), generator=generator))
    task = Classification(functools.partial(NETWORKS[network], d, k), dtype=dtype)
    model = task.build(seed=seed)
    weights = {
        name: tensor + scale * torch.randn(tensor.shape, generator=generator, dtype=dtype)
        for name, tensor in model.state_dict().items()
    }
    return task, model, rows, weights


def largest_gap(first, second):
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(sorted(NETWORKS)), st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 7), st.integers(2, 6),
    st.sampled_from([0.1, 1.0, 4.0]), st.sampled_from([None, 0.05, 3.0]), st.sampled_from([0.0, 0.1]),
)  # fmt: skip
def test_the_gradient_is_that_of_autograd(network, seed, n, d, k, scale, clip, l2):
    task, model, rows, weights = world(network, seed, n, d, k, scale=scale)
    moved, fixed = split(model, weights)
    batch, step = task.batch(rows), Step(1.0, l2, clip)
    mean = MeanGradient.of(task, model, fixed, step)
    assert mean.form is not None
    expected = differentiated(task, model, moved, fixed, batch, step)
    size = max(1.0, *(float(tensor.abs().max()) for tensor in expected.values()))
    assert largest_gap(mean.on(batch)(moved), expected) <= CLOSE * size


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("clip", [None, 0.3])
def test_single_precision_agrees_up_to_its_rounding_and_chunks_change_nothing(network, clip, monkeypatch):
    task, model, rows, weights = world(network, 1, n=50, dtype=torch.float32)
    moved, fixed = split(model, weights)
    batch, step = task.batch(rows), Step(1.0, 0.01, clip)
    mean = MeanGradient.of(task, model, fixed, step)
    expected = differentiated(task, model, moved, fixed, batch, step)
    assert largest_gap(mean.on(batch)(moved), expected) <= 3e-6
    monkeypatch.setattr("expunge.training.descent.MEAN_GRADIENT", 7)
    assert largest_gap(mean.on(batch)(moved), expected) <= 3e-6


@pytest.mark.parametrize("network", NETWORKS)
def test_stacked_models_get_the_gradient_of_each_alone(network):
    task, model, rows, _ = world(network, 0)
    form = closed_form(task, model)
    assert form is not None
    share = torch.rand(3, len(rows), dtype=torch.float64)
    each = [world(network, seed)[3] for seed in range(3)]
    stacked = {name: torch.stack([weights[name] for weights in each]) for name in each[0]}
    examples = form.examples(task.batch(rows))
    found = form.gradient(stacked, stacked.keys(), examples, share.unsqueeze(1))
    for r, weights in enumerate(each):
        alone = form.gradient(weights, weights.keys(), examples, share[r : r + 1])
        assert largest_gap({name: tensor[r] for name, tensor in found.items()}, alone) <= CLOSE
    losses = form.losses(stacked, examples)
    expected = torch.stack([task.losses(model, weights, task.batch(rows)) for weights in each])
    assert float((losses - expected).abs().max()) <= CLOSE * float(expected.max())


@pytest.mark.parametrize("network", NETWORKS)
def test_norms_of_single_examples_are_those_of_their_gradients(network):
    task, model, rows, weights = world(network, 2)
    form = closed_form(task, model)
    assert form is not None
    moved, fixed = split(model, weights)
    gradients = row_gradients(task, model, moved, fixed, task.batch(rows))
    expected = torch.stack([each.flatten(1).square().sum(1) for each in gradients.values()]).sum(0).sqrt()
    found = form.gradient_norms(moved, moved.keys(), form.examples(task.batch(rows)))
    assert float((found - expected).abs().max()) <= CLOSE * max(1.0, float(expected.max()))


@pytest.mark.parametrize("frozen", ["1.weight", "1.bias", "3.weight", "3.bias"])
@pytest.mark.parametrize("clip", [None, 0.2])
def test_frozen_weights_get_no_gradient_and_count_in_no_norm(frozen, clip):
    task, model, rows, weights = world("perceptron", 3)
    dict(model.named_parameters())[frozen].requires_grad_(False)
    moved, fixed = split(model, weights)
    step, batch = Step(1.0, 0.1, clip), task.batch(rows)
    expected = differentiated(task, model, moved, fixed, batch, step)
    assert frozen not in expected
    assert largest_gap(MeanGradient.of(task, model, fixed, step).on(batch)(moved), expected) <= CLOSE


def test_at_the_joints_of_the_activations_the_derivative_is_that_of_autograd():
    for network, joints in (("perceptron", [-0.5, 0.5]), ("mlp", [0.0])):
        task, model, _, weights = world(network, 4, d=1)
        moved, fixed = split(
            model, {**weights, "1.weight": torch.ones(5, 1).double(), "1.bias": torch.zeros(5).double()}
        )
        batch = task.batch(Rows.of(torch.tensor(joints, dtype=torch.float64)[:, None], torch.zeros(len(joints)).long()))
        expected = differentiated(task, model, moved, fixed, batch, Step(1.0))
        assert largest_gap(MeanGradient.of(task, model, fixed, Step(1.0)).on(batch)(moved), expected) <= CLOSE


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(["head", "head with bias", "linear"]), st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 6),
    st.integers(2, 5), st.sampled_from([0.1, 1.0, 4.0]), st.booleans(),
)  # fmt: skip
def test_value_gradient_hessian_and_newton_direction_are_those_of_autograd(network, seed, n, d, k, scale, shifted):
    task, model, rows, weights = world(network, seed, n, d, k, scale=scale)
    names = tuple(weights)
    theta, l2 = flatten(weights, names), 0.3
    linear = torch.randn(len(theta), dtype=torch.float64) if shifted else None
    found = objective(task, model, weights, task.batch(rows), l2, linear)
    assert isinstance(found, HeadObjective)
    loss = flat_loss(task, model, weights, task.batch(rows), l2, linear)
    plain = Differentiated(loss)
    gradient, hessian = plain.gradient(theta), explicit_hessian(loss, theta)
    value = float(plain.value(theta))
    assert float(found.value(theta)) == pytest.approx(value, rel=CLOSE, abs=CLOSE)
    for ours, theirs in (
        (found.gradient(theta), gradient),
        (found.hessian(theta), hessian),
        (found.newton_direction(theta, gradient), plain.newton_direction(theta, gradient)),
    ):
        condition = float(torch.linalg.cond(hessian)) if ours.ndim == 1 else 1.0
        assert float((ours - theirs).abs().max()) <= CLOSE * condition * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("columns", [1, 3, 4, 100])
def test_a_gram_matrix_in_blocks_is_the_plain_one(columns, monkeypatch):
    monkeypatch.setattr("expunge.curvature.softmax_head.COLUMNS_AT_ONCE", columns)
    x, w = torch.randn(7, 20, dtype=torch.float64), torch.rand(20, dtype=torch.float64)
    assert torch.allclose(weighted_gram(x, w), (x * w) @ x.T, rtol=0, atol=1e-13)


class Subclass(SoftmaxHead):
    """Could compute anything."""


class Doubled(Classification):
    """Could have any loss."""


def with_hook():
    model = mlp(4, 3, (5,))
    model[2].register_forward_hook(lambda module, inputs, output: 2 * output)
    return model


def with_buffer():
    model = SoftmaxHead(4, 3)
    model.register_buffer("mean", torch.zeros(4))
    return model


def normed():
    model = mlp(4, 3, (5,))
    nn.utils.parametrizations.weight_norm(model[1])
    return model


def shared_layer():
    layer = nn.Linear(4, 4)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer)


def sloped():
    model = perceptron([4, 5, 3])
    model[2].beta = torch.tensor(0.5)
    return model


OTHERS = {
    "subclass": lambda: Subclass(4, 3),
    "hook": with_hook,
    "buffer": with_buffer,
    "parametrization": normed,
    "layer used twice": shared_layer,
    "learnt joint": sloped,
    "other activation": lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 3)),
    "activation last": lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU()),
    "flatten between": lambda: nn.Sequential(nn.Linear(4, 5), nn.Flatten(), nn.Linear(5, 3)),
    "empty": lambda: nn.Sequential(),
    "dropout": lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 3)),
    "norm": lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3)),
    "flatten of two axes": lambda: nn.Sequential(nn.Flatten(1, 2), nn.Linear(4, 3)),
    "in a list": lambda: nn.Sequential(mlp(4, 3)),
    "subclass of a part": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(4, 5), type("A", (SmeLU,), {})(), nn.Linear(5, 3)
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_only_our_own_networks_have_a_closed_form(name):
    task = Classification(OTHERS[name])
    assert closed_form(task, task.build()) is None


@pytest.mark.parametrize("network", NETWORKS)
def test_another_loss_has_none(network):
    factory = functools.partial(NETWORKS[network], 4, 3)
    model = factory()
    assert closed_form(Classification(factory), model) is not None
    assert closed_form(Doubled(factory), model) is None
    changed = Classification(factory)
    object.__setattr__(
        changed, "losses", lambda model, params, batch: 10 * Classification.losses(changed, model, params, batch)
    )
    assert closed_form(changed, model) is None
