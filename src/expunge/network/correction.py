"""What must be subtracted from every peer's model when examples leave: Newton corrections in a network without a server.

F(x) = (1/N) sum_i f_i(x), f_i the mean loss of peer i's examples plus (mu/2) ||x||². F^- is the same without the examples that
leave; a peer whose examples are all gone leaves too. At the mean model x, with dg = grad F^-(x) - grad F(x) and H^- the Hessian
of F^-:

* ``horizon``: s = Phi_K(H^-) dg with Phi_K(h) = (1 - (1 - gamma h)^K) / h: what K rounds of the mean model made of dg.
* ``difference``: s = (H^-)^-1 dg, what endless training would make of dg. A network that stopped after a few rounds has not
  taken up what ``difference`` takes away: there it does harm, where ``horizon`` does not.
* ``full``: s = (H^-)^-1 grad F^-(x). Its target is the minimiser; on a model that is none it goes past every retraining.
* ``stacked``: full-batch gossip with constant gamma minimises Psi(X) = sum_i f_i(x_i) + tr(X' (I - Q) X) / (2 gamma); one
  system [blkdiag(H_i^-) + (I - Q) / gamma] dX = grad Psi^-(X) - grad Psi(X) corrects every peer by itself.

Measured on UCI Heart Disease, one of four hospitals in a ring leaves, gamma .1 and 1, l2 .001 and .01: ``horizon`` shortened
the distance to a retrained model 2.6 to 27 times after 30 rounds, 3.1 to 14 after 300, 3.1 to 45 after 3000. ``difference``
made it 1.8 to 44 times as long after 30 rounds, up to 9.4 times as long or 4.1 times shorter after 300, and 1.2 to 35 times
shorter after 3000.

H^- is the Gauss-Newton matrix: of a linear head the Hessian itself, of other networks the part of it that is never negative.

Derived here; "Certified Unlearning in Decentralized Federated Learning" (arXiv 2601.06436) broadcasts a Newton-style correction
whose printed form is UNKNOWN to us. ``full`` is the step of Guo et al. 2020 (arXiv 1911.03030).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.curvature.conjugate_gradient import Solution, conjugate_gradient
from expunge.curvature.lanczos import lanczos
from expunge.curvature.weighted_head import WeightedHead
from expunge.curvature.weighted_network import WeightedNetwork
from expunge.data.partition import Partition
from expunge.network.mixing import as_torch, metropolis
from expunge.network.peers import Peers, must_be_shared_out
from expunge.network.topology import Topology
from expunge.tasks.closed_forms import closed_form
from expunge.training.descent import trainable

CORRECTIONS = ("horizon", "difference", "full", "stacked")
CURVATURES = ("gauss_newton", "hessian", "hessian_diagonal", "kfac", "fisher_empirical", "fisher_diagonal")

Objective = WeightedHead | WeightedNetwork


@dataclass(frozen=True, eq=False)
class Correction:
    """What to subtract.

    Attributes:
        step: s, (d,), or (N, d) for ``stacked``.
        products: with the curvature: each takes one sum over the network.
        residual: ||H^- s - b|| / ||b|| with the exact Hessian, whatever curvature solved for s; b is the right-hand side. At
            1 or above the correction leaves more to first order than doing nothing.
        left: of ``difference``: ||s - s_K|| / ||s_K|| with the step s_K of ``horizon``: the distance to a retraining of the
            same length after and before, to first order. At 1 or above it does harm. ``None`` for other kinds.
    """

    step: Tensor
    products: int
    residual: float
    left: float | None = None


def head_objective(
    task: Task, data: Partition, topology: Topology, l2: float, start: Mapping[str, Tensor]
) -> WeightedHead:
    """F of a linear head, whose second derivatives are written out: every peer counts alike, and every example of a peer.

    Raises:
        InputError: for any other model.
    """
    found = network_objective(task, data, topology, l2, start)
    if not isinstance(found, WeightedHead):
        raise InputError(
            "Expected a linear head under cross-entropy (SoftmaxHead): no more is known of the second derivatives of other "
            "networks than their Gauss-Newton matrix. Keep a backbone frozen and train a head on its features."
        )
    return found


def network_objective(
    task: Task, data: Partition, topology: Topology, l2: float, start: Mapping[str, Tensor]
) -> Objective:
    """F of any classifier; the rest as :func:`head_objective`."""
    must_be_shared_out(data, topology)
    model = task.build(start)
    form, batch = closed_form(task, model), task.batch(data)
    counts = dict(zip(*np.unique(data.owners.astype(str), return_counts=True), strict=True))
    weights = torch.tensor([1 / (len(topology) * counts[owner]) for owner in data.owners], dtype=torch.float64)
    if form is not None and len(form.layers) == 1:
        examples = form.examples(batch)
        return WeightedHead(form, examples, weights.to(examples.features)[None], l2)
    like = {name: start[name] for name in trainable(model)}
    return WeightedNetwork(task, model, like, batch, weights.to(next(iter(like.values()))), l2)


def correct(
    kind: str, before: Objective, after: Objective, theta: Tensor, *, curvature: str = "gauss_newton", lr: float = 0.0,
    rounds: int = 0, tolerance: float = 1e-8, most: int = 1000, iterations: int = 1,
) -> Correction:  # fmt: skip
    """The correction of the mean model ``theta`` (d,), for every kind but ``stacked``.

    Args:
        before, after: F and F^-.
        curvature: one of :data:`CURVATURES`; ``hessian`` and those after it are of linear heads alone. The diagonals divide
            elementwise, ``kfac`` is a product of two small matrices.
        lr, rounds: gamma and K of ``horizon``, and of ``Correction.left``.
        tolerance, most: of the conjugate gradients, or of the Krylov space.
        iterations: Newton steps of ``difference`` (towards grad F^- = grad F(theta)) and ``full`` (towards 0).
    """
    if kind not in CORRECTIONS or kind == "stacked":
        raise InputError(f"Expected a correction among {', '.join(CORRECTIONS)}; got {kind!r}.")
    if kind == "horizon" and not (lr > 0 and rounds > 0):
        raise InputError(f"Expected the step size and the rounds of training for horizon; got {lr} and {rounds}.")
    target = torch.zeros_like(theta) if kind == "full" else before.gradient(theta)
    right = after.gradient(theta) - target
    exact = after.gauss_newton(theta)
    kept = lanczos(exact, right, lambda h: _taken_up(h, lr, rounds), tolerance, most) if lr > 0 and rounds > 0 else None
    if kind == "horizon":
        assert kept is not None
        return Correction(kept.solution, kept.products, _relative(exact, kept.solution, right))
    solution = _solved(after, theta, right, curvature, tolerance, most, exact)
    step, products = solution.solution, solution.products
    residual = _relative(exact, step, right)
    left = None
    if kind == "difference" and kept is not None and (size := float(kept.solution.norm())):
        left = float((step - kept.solution).norm()) / size
    for _ in range(iterations - 1):
        at = theta - step
        further = _solved(after, at, after.gradient(at) - target, curvature, tolerance, most)
        step, products = step + further.solution, products + further.products
    return Correction(step, products, residual, left)


def _taken_up(h: Tensor, lr: float, rounds: int) -> Tensor:
    """Phi_K(h), what K rounds with step gamma make of a constant gradient along an eigenvector; K gamma at h = 0."""
    flat = (lr * h * rounds).abs() < 1e-6
    return torch.where(flat, lr * rounds, (1 - (1 - lr * h) ** rounds) / torch.where(flat, 1.0, h))


def _solved(
    after: Objective, theta: Tensor, right: Tensor, curvature: str, tolerance: float, most: int,
    exact: Callable[[Tensor], Tensor] | None = None,
) -> Solution:  # fmt: skip
    if curvature not in CURVATURES:
        raise InputError(f"Expected a curvature among {', '.join(CURVATURES)}; got {curvature!r}.")
    if curvature == "gauss_newton" or (curvature == "hessian" and isinstance(after, WeightedHead)):
        return conjugate_gradient(exact or after.gauss_newton(theta), right, tolerance, most)
    if not isinstance(after, WeightedHead):
        raise InputError(f"Expected curvature gauss_newton for a network that is no linear head; got {curvature}.")
    if curvature == "hessian_diagonal":
        return Solution(right / after.hessian_diagonal(theta), 1, 0.0)
    if curvature == "fisher_diagonal":
        return Solution(right / after.empirical_diagonal(theta), 1, 0.0)
    product = after.kronecker(theta) if curvature == "kfac" else after.empirical(theta)
    return conjugate_gradient(product, right, tolerance, most)


def _relative(product: Callable[[Tensor], Tensor], step: Tensor, right: Tensor) -> float:
    size = float(right.norm())
    return float((product(step) - right).norm()) / size if size else 0.0


def correct_stacked(
    before: tuple[Topology, Peers], after: tuple[Topology, Peers], models: Tensor, lr: float, *, tolerance: float = 1e-8,
    most: int = 2000, mixing: Callable[[Topology], sparse.csr_array] = metropolis,
) -> Correction:  # fmt: skip
    """The correction of every peer's own model, for those that stay.

    Args:
        before, after: the network with and without the examples that leave.
        models: of all peers before, (N, d).
        lr: gamma of training.
        mixing: the matrix with which a network averages.

    Shapes:
        the step is (N', d), N' peers after.
    """
    places = [before[0].peers.index(peer) for peer in after[0].peers]
    matrices = [as_torch(mixing(topology), models.dtype) for topology, _ in (before, after)]
    old = _stationarity(matrices[0], before[1], models, lr)[places]
    kept = models[places]
    right = _stationarity(matrices[1], after[1], kept, lr) - old
    peers, matrix = after[1], matrices[1]
    local = peers.all_examples()
    if peers.form is None or len(peers.form.layers) > 1 or local.examples is None:
        raise InputError("Expected a linear head under cross-entropy (SoftmaxHead) for the stacked correction.")
    head = WeightedHead(peers.form, local.examples, local.share[:, None], peers.l2)

    curved = head.gauss_newton(kept)

    def product(v: Tensor) -> Tensor:
        return curved(v) + (v - matrix @ v) / lr

    solution = conjugate_gradient(product, right, tolerance, most)
    return Correction(solution.solution, solution.products, solution.residual)


def _stationarity(matrix: Tensor, peers: Peers, models: Tensor, lr: float) -> Tensor:
    """grad Psi(X), (N, d): zero where gossip with full batches stands still."""
    return peers.all_examples().gradient(models) + (models - matrix @ models) / lr


def residual_bound(gradient: float, tau: float, strong_convexity: float, apart: float = 0.0) -> float:
    """B = (||grad F^-(x)|| + tau) / mu + C: how far a corrected model can be from a retrained one.

    Both lie within gradient norm over mu of the one minimiser of F^-.

    Args:
        gradient: ||grad F^-|| at the corrected mean model.
        tau: the largest ||grad F^-|| at the mean model with which a retraining stops.
        strong_convexity: mu.
        apart: C, the largest distance of a peer's model from the mean's, of both together; 0 after consensus.
    """
    if not strong_convexity > 0:
        raise InputError(f"Expected a strong convexity above 0; got {strong_convexity}: no gradient bounds a distance.")
    return (gradient + tau) / strong_convexity + apart
