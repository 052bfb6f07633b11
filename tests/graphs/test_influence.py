"""GIF and IDEA against Newton steps from dense formulas, and IDEA's bound against minima that are known exactly."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from cases import CASES, linear_network, small_graph
from expunge import planning
from expunge.core.certificate import Verdict
from expunge.core.errors import FailedError, InputError, RefusedError
from expunge.core.request import Request, Target
from expunge.core.trained import InMemoryBook, Trained
from expunge.curvature.conjugate_gradient import conjugate_gradient
from expunge.curvature.neumann import neumann
from expunge.data.graphs.graph import Graph
from expunge.methods.gif import GIF
from expunge.methods.gnn_delete import GNNDelete
from expunge.methods.idea import IDEA
from expunge.privacy.gaussian import epsilon_of
from expunge.privacy.graph_removal import minimum_shift
from expunge.training.graph_minimiser import GraphMinimiser

L2 = 0.05


@functools.cache
def minimised(seed: int = 0) -> Trained:
    return planning.train(linear_network(), small_graph(seed), GraphMinimiser(sigma=0.0, loss="softmax", l2=L2))


def mixed(graph: Graph, seed: int) -> Request:
    """A node, an edge far from it and the features of a third."""
    draw = np.random.default_rng(seed)
    busy = graph.examples[np.diff(graph.adjacency.indptr)[graph.positions(graph.examples)] > 0]
    node, other = (int(each) for each in draw.choice(busy, 2, replace=False))
    pairs = [edge for edge in graph.edges.tolist() if node not in edge and other not in edge][:2]
    return Request(
        "a", (Target("node", {"ids": [node]}), Target("edge", {"pairs": pairs}), Target("feature", {"node": other}))
    )


def dense_loss(graph: Graph, l2: float = L2):
    """(theta, (d · k,)) → mean loss with its penalty, from formulas alone."""
    a = graph.adjacency.toarray().astype(float) + np.eye(len(graph.nodes))
    norm = a / np.sqrt(np.outer(a.sum(1), a.sum(1)))
    z = torch.from_numpy((norm @ norm @ graph.features.toarray())[graph.positions(graph.examples)])
    y = torch.from_numpy(graph.labels(graph.examples))

    def loss(theta: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(z @ theta.view(9, 3), y) + l2 / 2 * theta.square().sum()

    return loss


def newton(loss, theta: Tensor, steps: int) -> Tensor:
    for _ in range(steps):
        gradient = torch.autograd.functional.jacobian(loss, theta)
        theta = theta - torch.linalg.solve(torch.autograd.functional.hessian(loss, theta), gradient)
    return theta


def weights(trained: Trained) -> Tensor:
    return trained.secret["linear.weight"].reshape(-1)


def stepped(seed: int, **settings) -> tuple[Tensor, Trained]:
    outcome = planning.plan(minimised(seed), mixed(small_graph(seed), seed), GIF(**settings)).run()
    return weights(outcome.after), outcome.after


@pytest.mark.parametrize("seed", range(3))
def test_check_04_one_step_is_newton_s_on_what_is_left_and_others_are_further_from_retraining(seed):
    now, after = stepped(seed, tolerance=1e-10)
    theta = weights(minimised(seed))
    assert torch.autograd.functional.jacobian(dense_loss(small_graph(seed)), theta).norm() < 1e-9
    loss = dense_loss(after.data)
    assert torch.allclose(now, newton(loss, theta, 1), atol=1e-8)
    best = newton(loss, theta, 8)
    apart = [float((each - best).norm()) for each in (
        now, stepped(seed, hessian="before")[0], stepped(seed, neighbours=False)[0], theta,
    )]  # fmt: skip
    assert apart == sorted(apart) and apart[0] < 0.1 * apart[3]


def test_check_05_conjugate_gradients_are_a_dense_solution_and_see_where_a_matrix_bends_downwards():
    draw = torch.Generator().manual_seed(0)
    root = torch.randn(300, 300, dtype=torch.float64, generator=draw)
    matrix, right = root @ root.T / 300 + torch.eye(300), torch.randn(300, dtype=torch.float64, generator=draw)
    found = conjugate_gradient(lambda v: matrix @ v, right, 1e-10)
    assert found.definite and torch.allclose(found.solution, torch.linalg.solve(matrix, right), rtol=1e-6, atol=1e-8)
    bent = matrix - 2 * torch.eye(300)
    assert not conjugate_gradient(lambda v: bent @ v, right).definite


def test_check_03_the_published_iteration_has_its_closed_form():
    draw = torch.Generator().manual_seed(0)
    root = torch.randn(12, 12, dtype=torch.float64, generator=draw)
    values, basis = torch.linalg.eigh(root @ root.T)
    right, scale, steps = torch.randn(12, dtype=torch.float64, generator=draw), 1.1 * float(values.max()), 40
    expected = basis @ ((basis.T @ right) * (1 - (1 - values / scale) ** (steps + 1)) / values)
    assert torch.allclose(neumann(lambda v: root @ (root.T @ v), right, scale, steps), expected, atol=1e-12)
    huge = neumann(lambda v: root @ (root.T @ v), right, 1e9, steps)
    assert torch.allclose(huge, (steps + 1) / 1e9 * right, rtol=1e-5)  # hardly any change, whatever the matrix


def test_the_published_settings_take_the_published_step():
    settings = {"solver": "iteration", "hessian": "before", "iterations": 7, "scale": 60.0}
    now, after = stepped(1, **settings)
    theta, before = weights(minimised(1)), small_graph(1)
    m, n = len(before), len(after.data)
    old, new = dense_loss(before), dense_loss(after.data)
    of = lambda loss: torch.autograd.functional.jacobian(loss, theta)  # noqa: E731
    right = m * of(old) - n * of(new)
    matrix = m * torch.autograd.functional.hessian(old, theta)
    h = right
    for _ in range(7):
        h = right + h - matrix @ h / 60
    assert torch.allclose(now, theta + h / 60, atol=1e-10)
    with pytest.raises(FailedError, match="cannot converge"):
        stepped(1, solver="iteration", scale=0.5)


@pytest.mark.parametrize("case", ["graph", "graph, perturbed"])
def test_check_17_labels_of_other_nodes_never_enter_an_influence_step(case):
    """On the released code of GIF and IDEA this fails: it reads the labels of test nodes."""
    trained = CASES[case].ready()
    graph = trained.data
    y = graph.y.copy()
    hidden = ~np.isin(graph.nodes, graph.examples)
    y[hidden] = (y[hidden] + 1) % 3
    other = replace(trained, data=replace(graph, y=y))
    first, second = (planning.plan(each, CASES[case].request, GIF()).run().after.secret for each in (trained, other))
    assert all(torch.equal(first[name], second[name]) for name in first)


# --- how far a minimum can move --------------------------------------------------------------------------------------------


def instance(draw: np.random.Generator) -> tuple[float, float, float, dict]:
    """Quadratics with minima known exactly: how far they lie apart, and constants that are computed, not assumed."""
    d, m = int(draw.integers(1, 4)), int(draw.integers(2, 30))
    gone = int(draw.integers(0, max(1, m // 2)))
    reached = int(draw.integers(0, m - gone))
    bend, centre = draw.uniform(0.3, 3, m), draw.normal(0, draw.uniform(0.1, 3), (m, d))
    level = draw.normal(0, 2, m)
    moved, levels = centre.copy(), level.copy()
    moved[gone : gone + reached] += draw.normal(0, draw.uniform(0, 3), (reached, d))
    levels[gone : gone + reached] = draw.normal(0, 2, reached)
    mean = lambda w, c: (w[:, None] * c).sum(0) / w.sum()  # noqa: E731
    a, b = mean(bend, centre), mean(bend[gone:], moved[gone:])
    lowest = bend.min()
    loss = lambda at, c, k: bend / 2 * ((at - c) ** 2).sum(1) + k  # noqa: E731
    largest = max(np.abs(loss(at, c, k)).max() for at in (a, b) for c, k in ((centre, level), (moved, levels)))
    steep = max(np.linalg.norm(bend[:gone, None] * (at - centre[:gone]), axis=1).max(initial=0) for at in (a, b))
    numbers = {"examples": m, "gone": gone, "changed": gone + reached, "strong_convexity": lowest,
               "lipschitz": steep, "loss_bound": largest}  # fmt: skip
    apart = float(np.linalg.norm(a - b))
    return apart, minimum_shift(**numbers, factor=8), minimum_shift(**numbers, factor=4), numbers


def test_check_15_the_bound_holds_in_a_thousand_random_instances_for_either_factor():
    draw = np.random.default_rng(0)
    found = [instance(draw)[:3] for _ in range(1000)]
    assert all(apart <= printed * (1 + 1e-9) <= proof * (1 + 2e-9) for apart, proof, printed in found)
    assert max(apart / printed for apart, _, printed in found if printed) > 0.3  # it is not empty


@pytest.mark.parametrize("d", [0.1, 1.0, 7.0])
def test_the_printed_factor_is_attained_so_that_no_smaller_one_holds(d):
    """All m losses move their minimum by d and are between -C and C at both: no counterexample to 4 lies beyond."""
    bend, m = 0.7, 5
    loss = lambda at, centre: bend / 2 * (at - centre) ** 2 - bend * d**2 / 4  # noqa: E731
    bound = max(abs(loss(at, centre)) for at in (0, d) for centre in (0, d))
    shift = functools.partial(
        minimum_shift, examples=m, gone=0, changed=m, strong_convexity=bend, lipschitz=0.0, loss_bound=bound
    )
    assert shift(factor=4) == pytest.approx(d) and shift(factor=8) == pytest.approx(d * 2**0.5)


# --- what the certificate says -------------------------------------------------------------------------------------------


def released(**settings):
    apart = replace(minimised(0), book=InMemoryBook())  # each release is counted by itself
    return planning.plan(apart, mixed(small_graph(0), 0), IDEA(**settings)).run()


def test_noise_follows_from_the_bound_and_the_certificate_is_as_claimed():
    outcome = released()
    certificate, details = outcome.certificate, outcome.details
    assert certificate.verdict is Verdict.AS_CLAIMED and certificate.epsilon <= 1
    numbers = {"examples": 30, "gone": 1, "changed": 1 + details["reached"], "strong_convexity": 0.05,
               "lipschitz": 0.25, "loss_bound": 3.0}  # fmt: skip
    sensitivity = details["step"] + minimum_shift(**numbers) + 1e-6 / 0.05
    assert details["sensitivity"] == pytest.approx(sensitivity)
    assert epsilon_of(sensitivity / details["sigma"], 1e-4) == pytest.approx(1, rel=1e-6)
    noises = [
        released(**settings).details["sigma"] for settings in ({"epsilon": 0.5}, {}, {"epsilon": 4.0}, {"factor": 4})
    ]
    assert noises[0] > noises[1] > noises[2] and noises[3] < noises[1]
    assert released(delta=1e-8).details["sigma"] > noises[1]
    assert released(factor=4).certificate.verdict is Verdict.AS_CLAIMED


def test_published_noise_is_void_and_the_epsilon_that_it_means_is_said():
    outcome = released(noise_std=0.6, factor=4)
    certificate = outcome.certificate
    assert certificate.verdict is Verdict.VOID and certificate.epsilon > 100
    assert certificate.epsilon == pytest.approx(epsilon_of(outcome.details["sensitivity"] / 0.6, 1e-4), rel=1e-3)
    assert any(a.name == "within_budget" and a.status == "violated" for a in certificate.assumptions)


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(InputError, match="as solver of gif"):
        GIF(solver="lissa")
    with pytest.raises(InputError, match="Expected 8 or 4 as factor of idea"):
        IDEA(factor=2)
    graph = CASES["graph"].ready()
    after = planning.plan(graph, CASES["graph"].request, GNNDelete(epochs=1)).run().after
    with pytest.raises(RefusedError, match="left deletion operators"):
        planning.plan(after, Request("b", (Target("node", {"ids": [7]}),)), GIF())
