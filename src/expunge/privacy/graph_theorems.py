"""Guarantees about graphs, where retained examples change with those that go."""

from __future__ import annotations

from expunge.core.certificate import Bound
from expunge.privacy.graph_removal import ONE_SIDED, TWO_SIDED, minimum_shift
from expunge.privacy.newton import guo_epsilon
from expunge.privacy.theorem import (
    GROUP,
    NOISE,
    RELEASE,
    RETRAIN_INDISTINGUISHABLE,
    Evaluation,
    Parameters,
    Theorem,
    one_draw,
)

_RESIDUAL = ("noise_source", "noise_precision", "noise_covers")


def _idea(p: Parameters) -> Evaluation:
    bounds = []
    slack = float(p["residual"]) / float(p["convexity"])
    for name, factor in (("one-sided", ONE_SIDED), ("two-sided", TWO_SIDED)):
        apart = minimum_shift(
            examples=int(p["examples"]), gone=int(p["gone"]), changed=int(p["changed"]), factor=factor,
            strong_convexity=float(p["convexity"]), lipschitz=float(p["lipschitz"]),
            loss_bound=float(p["loss_bound"]),
        )  # fmt: skip
        what = f"step + (L gone + sqrt({factor} m lambda C changed + L² gone²)) / (m lambda) + residual / lambda"
        bounds.append(Bound(name, float(p["step"]) + apart + slack, what))
    return Evaluation(tuple(bounds), min(bound.value for bound in bounds))


def _graph_removal(p: Parameters) -> Evaluation:
    residual = float(p["residual"])
    bound = Bound("residual", residual, "norm of the gradient residuals of all heads and requests so far")
    return Evaluation((bound,), residual, epsilon=lambda sigma, delta: guo_epsilon(residual, sigma, delta))


GRAPH_THEOREMS = (
    Theorem(
        "idea",
        "IDEA (arXiv 2407.19398), Theorems 2 and 3, with the proof given in privacy.graph_removal",
        RETRAIN_INDISTINGUISHABLE,
        "the exact minimiser of the mean loss on what is left of the graph, with the same noise",
        (
            "dropout",
            "batch_norm",
            "augmentation",
            "preprocessing",
            "converged",
            *RELEASE,
            *NOISE,
            "within_budget",
            "release_ledger",
        ),
        {},
        GROUP,
        _idea,
        draws=one_draw,
        claimed="the loss of every node is strongly convex, Lipschitz and bounded by the constants that the method was set to; "
        "losses of graph networks are none of these",
        excludes=(
            "the noise level itself, and the numbers that it follows from: how many nodes are reached and the length of the "
            "step stand in this certificate",
        ),
    ),
    Theorem(
        "certified-graph-removal",
        "certified removal (arXiv 1911.03030, Theorem 3) on graphs: CGU (arXiv 2206.09140) and CEU (Wu et al., KDD 2023)",
        "the released model and a model trained on what is left of the graph, with a perturbed objective each, are "
        "(epsilon, delta)-indistinguishable (certified removal)",
        "the minimiser of the perturbed objective on what is left of the graph, with a perturbation of its own",
        (
            "dropout",
            "batch_norm",
            "augmentation",
            "preprocessing",
            "converged",
            *RELEASE,
            *_RESIDUAL,
            "within_budget",
            "release_ledger",
            "earlier_releases",
        ),
        {},
        GROUP,
        _graph_removal,
        claimed="the published tail argument holds for gradient residuals that are bounded on the data at hand",
        cumulative=True,
        after=("certified-graph-removal",),
    ),
)
