"""Corrections against retraining, bounds against distances, and the curvature they rest on against autograd."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from tests.network.networks import head, partition, recipe

from expunge.core.data import Ids
from expunge.core.request import Target
from expunge.curvature.conjugate_gradient import conjugate_gradient
from expunge.curvature.hessian import explicit_hessian
from expunge.curvature.lanczos import lanczos
from expunge.curvature.newton import minimise
from expunge.curvature.softmax_head import HeadObjective
from expunge.curvature.weighted_head import WeightedHead
from expunge.network.correction import correct, correct_stacked, head_objective, residual_bound
from expunge.network.mixing import as_torch, metropolis, mixed
from expunge.tasks.classification import Classification
from expunge.tasks.networks import SoftmaxHead

MU = 1e-2
SCOPES = {
    "samples": lambda data: Target("samples", {"ids": data.ids[data.at("4")][:10].tolist()}),
    "class at a client": lambda data: Target("class", {"label": 3, "client": "4"}),
    "client": lambda data: Target("client", {"client": "4"}),
}


class World:
    """A network trained twice, with and without what leaves."""

    def __init__(self, scope, kind="ring", rounds=60, lr=2.0, alpha=None, l2=MU, seed=0):
        self.data, self.lr, self.rounds = partition(10, alpha, seed), lr, rounds
        self.task, self.recipe = head(self.data), recipe(kind, rounds=rounds, lr=lr, l2=l2)
        self.left = self.data.without(self.data.select(SCOPES[scope](self.data)))
        self.before, self.after = (self.recipe.models(self.task, rows) for rows in (self.data, self.left))
        self.theta, self.retrained = (run.models.mean(0) for _, _, run in (self.before, self.after))
        start = dict(self.task.build().state_dict())
        self.f, self.f_minus = (
            head_objective(self.task, rows, made[0], l2, start)
            for rows, made in ((self.data, self.before), (self.left, self.after))
        )

    def corrected(self, kind, **options):
        return correct(kind, self.f, self.f_minus, self.theta, lr=self.lr, rounds=self.rounds, **options)

    def gain(self, kind, **options):
        step = self.corrected(kind, **options).step
        return float((self.theta - self.retrained).norm() / (self.theta - step - self.retrained).norm())

    @property
    def stayed(self):
        return self.before[2].models[[self.before[0].peers.index(p) for p in self.after[0].peers]]

    def worst(self, models):
        return float((models - self.after[2].models).norm(dim=1).max())


@functools.cache
def world(scope, kind="ring", **options):
    return World(scope, kind, **options)


# --- the mathematics by itself ------------------------------------------------------------------------------------------


def scores(task, model, theta, sizes, batch):
    parts = dict(zip(dict(model.named_parameters()), theta.split(sizes), strict=True))
    return task.outputs(model, {n: parts[n].view(p.shape) for n, p in model.named_parameters()}, batch).logits


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_products_are_those_of_autograd(bias, seed):
    generator = torch.Generator().manual_seed(seed)
    data = partition(4)
    data = data.only(Ids.rows(data.ids[:40]))
    task = Classification(lambda: SoftmaxHead(17, 10, bias=bias), dtype=torch.float64)
    weights = torch.rand(len(data), generator=generator, dtype=torch.float64)
    model = task.build()
    batch = task.batch(data)
    sizes = [t.numel() for t in model.parameters()]
    theta, v = (torch.randn(sum(sizes), generator=generator, dtype=torch.float64) for _ in range(2))

    def losses(t):
        parts = dict(zip(dict(model.named_parameters()), t.split(sizes), strict=True))
        params = {n: parts[n].view(p.shape) for n, p in model.named_parameters()}
        return task.losses(model, params, batch)

    from expunge.tasks.closed_forms import closed_form

    form = closed_form(task, model)
    assert form is not None
    ours = WeightedHead(form, form.examples(batch), weights[None], 0.3)
    value = lambda t: (weights * losses(t)).sum() + 0.15 * t.square().sum()  # noqa: E731
    exact = explicit_hessian(value, theta)
    rows = torch.func.jacrev(losses)(theta)
    empirical = rows.T @ (weights[:, None] * rows) + 0.3 * torch.eye(len(theta), dtype=torch.float64)
    assert torch.allclose(ours.gradient(theta), torch.func.grad(value)(theta), atol=1e-10)
    assert torch.allclose(ours.gauss_newton(theta)(v), exact @ v, atol=1e-9)
    assert torch.allclose(ours.hessian_diagonal(theta), exact.diagonal(), atol=1e-10)
    assert torch.allclose(ours.empirical(theta)(v), empirical @ v, atol=1e-9)
    assert torch.allclose(ours.empirical_diagonal(theta), empirical.diagonal(), atol=1e-10)
    # K-FAC: a dense Kronecker product, and the Hessian itself where all probabilities are equal
    inputs = torch.cat([data.x, torch.ones(len(data), 1, dtype=torch.float64)], 1) if bias else data.x.double()
    p = torch.softmax(scores(task, model, theta, sizes, batch), 1)
    outputs = sum(w * (torch.diag(q) - torch.outer(q, q)) for w, q in zip(weights, p, strict=True))
    whole = torch.kron(outputs, (inputs.T * weights) @ inputs / weights.sum())
    order = torch.arange(len(theta))
    if bias:  # class by class, its bias last; ours has all biases last
        order = torch.cat([torch.arange(170).view(10, 17), torch.arange(170, 180).view(10, 1)], 1).flatten()
    expected = torch.empty_like(v)
    expected[order] = whole @ v[order] + 0.3 * v[order]
    assert torch.allclose(ours.kronecker(theta)(v), expected, atol=1e-9)
    flat = torch.zeros_like(theta)
    assert torch.allclose(ours.kronecker(flat)(v), ours.gauss_newton(flat)(v), atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_conjugate_gradients_solve_and_say_how_well(seed):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(30, 30, generator=generator, dtype=torch.float64)
    matrix, b = root @ root.T + torch.eye(30, dtype=torch.float64), torch.randn(30, generator=generator).double()
    exact = torch.linalg.solve(matrix, b)
    solution = conjugate_gradient(lambda v: matrix @ v, b, 1e-12)
    assert torch.allclose(solution.solution, exact, atol=1e-9) and solution.residual <= 1e-12
    early = conjugate_gradient(lambda v: matrix @ v, b, 1e-12, most=3)
    assert early.products == 3
    assert early.residual == pytest.approx(float((matrix @ early.solution - b).norm() / b.norm()), rel=1e-9)
    assert conjugate_gradient(lambda v: matrix @ v, torch.zeros(30)).products == 0


def test_horizon_is_the_filter_of_its_eigenvalues():
    this = world("samples")
    d = len(this.theta)
    h = torch.stack([this.f_minus.gauss_newton(this.theta)(e) for e in torch.eye(d, dtype=torch.float64)])
    values, vectors = torch.linalg.eigh((h + h.T) / 2)
    dg = this.f_minus.gradient(this.theta) - this.f.gradient(this.theta)
    phi = (1 - (1 - this.lr * values) ** this.rounds) / values
    expected = vectors @ (phi * (vectors.T @ dg))
    assert torch.allclose(this.corrected("horizon").step, expected, atol=1e-9 * float(expected.norm()) + 1e-14)


# --- the papers' direction: what a correction is worth --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ring", "grid", "erdos_renyi", "complete"])
@pytest.mark.parametrize("scope", SCOPES)
def test_check_a06_the_difference_brings_the_mean_model_closer_to_retraining(scope, kind):
    this = world(scope, kind)
    assert this.gain("difference") >= 2.5
    assert this.gain("horizon") >= 2.5


@pytest.mark.parametrize("scope", SCOPES)
def test_check_a08_the_full_step_on_an_unconverged_model_is_worse_than_the_difference(scope):
    this = world(scope, rounds=200, l2=1e-3)
    assert this.gain("full") < 1 < this.gain("difference")
    assert float(this.f.gradient(this.theta).norm()) > 1e-4  # what a method can see of it


@pytest.mark.parametrize("scope", SCOPES)
def test_after_a_few_rounds_only_the_horizon_helps(scope):
    """The difference takes away what a model would have learnt in the end; one that stopped early never did."""
    this = World(scope, rounds=10, l2=1e-3)
    assert this.gain("difference") < 1 < this.gain("horizon")
    assert this.corrected("difference").left > 1  # which a method can see
    assert world(scope, rounds=200).corrected("difference").left < 0.5


@pytest.mark.parametrize("kind", ["difference", "full"])
def test_a_second_newton_step_reaches_what_one_leaves_of_a_client(kind):
    this = World("client", rounds=200)
    target = this.f.gradient(this.theta) if kind == "difference" else 0.0
    left = [
        float((this.f_minus.gradient(this.theta - this.corrected(kind, iterations=k).step) - target).norm())
        for k in (1, 2, 3)
    ]
    assert left[1] < left[0] / 10 and left[2] < 1e-6


@pytest.mark.parametrize("seed", range(2))
def test_functions_of_a_matrix_are_those_of_its_eigenvalues(seed):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    matrix, b = root @ root.T, torch.randn(12, generator=generator, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(matrix)
    for function in (torch.exp, lambda h: (1 - (1 - 0.01 * h) ** 50) / h.clamp_min(1e-12)):
        scaled = function(values / 10)
        found = lanczos(lambda v: matrix @ v / 10, b, function, 1e-13)
        assert torch.allclose(found.solution, vectors @ (scaled * (vectors.T @ b)), rtol=1e-9, atol=1e-9)
    cubic = lanczos(lambda v: matrix @ v, b, lambda h: h**3, 0.0, most=4)  # a polynomial is exact as soon as it can be
    assert cubic.products == 4 and torch.allclose(cubic.solution, matrix @ matrix @ matrix @ b, rtol=1e-9)
    assert lanczos(lambda v: matrix @ v, torch.zeros_like(b), torch.exp).products == 0
    alone = lanczos(lambda v: 3 * v, b, torch.exp)  # an invariant space ends it
    assert alone.products == 1 and torch.allclose(alone.solution, np.exp(3) * b)


def test_check_a09_the_residual_finds_a_diagonal_that_does_harm():
    this = world("class at a client", l2=1e-3, rounds=200)
    good, bad = this.corrected("difference"), this.corrected("difference", curvature="fisher_diagonal")
    assert good.residual < 1e-6 and bad.residual > 0.5
    assert this.gain("difference", curvature="fisher_diagonal") < this.gain("difference") / 3


@pytest.mark.parametrize(("seed", "alpha"), [(0, None), (1, 1.0)])
def test_check_a10_consensus_and_the_stacked_system_help_the_worst_peer_more_than_one_broadcast(seed, alpha):
    this = World("class at a client", rounds=200, alpha=alpha, seed=seed)
    plain = this.worst(this.stayed)
    uniform = this.worst(this.stayed - this.corrected("difference").step)
    stacked = this.worst(
        this.stayed - correct_stacked(this.before[:2], this.after[:2], this.before[2].models, this.lr).step
    )
    matrix = as_torch(metropolis(this.after[0]))
    agreed = mixed(matrix, this.stayed, 34) - this.corrected("difference").step
    apart = float((agreed - mixed(matrix, this.after[2].models, 34)).norm(dim=1).max())
    assert uniform < plain and stacked < uniform and apart < uniform
    assert plain / stacked > 5 and plain / apart > 5


@pytest.mark.parametrize("scope", SCOPES)
def test_the_stacked_system_gives_the_models_of_a_longer_retraining(scope):
    """With converged gossip the stacked shift is Newton's step between two minimisers: quadratically close."""
    this = World(scope, rounds=500)
    shift = this.worst(this.stayed)
    left = this.worst(
        this.stayed - correct_stacked(this.before[:2], this.after[:2], this.before[2].models, this.lr).step
    )
    assert left < 0.2 * shift


# --- bounds ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(("kind", "rounds", "alpha"), [
    ("ring", 5, None), ("ring", 60, 0.5), ("complete", 60, None), ("ring", 200, 0.5),
])  # fmt: skip
def test_check_a11_the_bound_is_above_every_peers_distance(scope, kind, rounds, alpha):
    this = world(scope, kind, rounds=rounds, alpha=alpha)
    tau = float(this.f_minus.gradient(this.retrained).norm())
    apart = [float((m - m.mean(0)).norm(dim=1).max()) for m in (this.stayed, this.after[2].models)]
    for correction in ("difference", "horizon"):
        for curvature in ("hessian", "kfac", "fisher_empirical", "fisher_diagonal"):
            step = this.corrected(correction, curvature=curvature).step
            mean = this.stayed.mean(0) - step
            gradient = float(this.f_minus.gradient(mean).norm())
            bound = residual_bound(gradient, tau, MU, sum(apart))
            assert bound >= this.worst(this.stayed - step)
            assert residual_bound(gradient, tau, MU) >= float((mean - this.retrained).norm())


@pytest.mark.parametrize("seed", range(3))
def test_check_a12_the_bound_is_tight_between_exact_minimisers(seed):
    this = World("samples", rounds=1, seed=seed)
    exact = []
    for f, rows in ((this.f, this.data), (this.f_minus, this.left)):
        assert len(rows)
        theta = torch.zeros_like(this.theta)
        for _ in range(7):  # Newton's method with our products; damped by nothing: the head is well conditioned
            theta = theta - conjugate_gradient(f.gauss_newton(theta), f.gradient(theta), 1e-12).solution
        assert float(f.gradient(theta).norm()) < 1e-12
        exact.append(theta)
    step = correct("difference", this.f, this.f_minus, exact[0], tolerance=1e-12).step
    actual = float((exact[0] - step - exact[1]).norm())
    bound = residual_bound(float(this.f_minus.gradient(exact[0] - step).norm()), 0.0, MU)
    assert actual <= bound <= 6 * actual
    assert float((exact[0] - exact[1]).norm()) / actual > 20


def test_the_minimiser_is_that_of_independent_code():
    """Equal weights for all examples: with clients of equal size F is the mean over all rows."""
    this = world("samples")
    ours = torch.zeros_like(this.theta)
    for _ in range(7):
        product = this.f.gauss_newton(ours)
        ours = ours - conjugate_gradient(product, this.f.gradient(ours), 1e-12).solution
    objective = HeadObjective(this.f.form, [this.f.examples], MU)
    theirs, _ = minimise(objective, torch.zeros_like(ours), 1e-12, 50)
    assert torch.allclose(ours, theirs, atol=1e-9)
    assert np.isfinite(float(theirs.norm()))
