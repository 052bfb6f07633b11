"""Guarantees about networks of peers: a correction that all subtract, and a token that walks."""

from __future__ import annotations

from expunge.core.certificate import Bound
from expunge.privacy import token_walk
from expunge.privacy.theorem import (
    DRAWN,
    NOISE,
    PUBLISHED,
    RELEASE,
    Evaluation,
    Parameters,
    Theorem,
    one_draw,
)

TRAINED_TO_TAU = (
    "the released model and a model retrained without the forgotten records to a gradient of at most tau, with the same noise, "
    "are (epsilon, delta)-indistinguishable (retrain-indistinguishability)"
)
TO_TAU = (
    "the recipe's rounds of gossip among the peers that stay on their retained rows and, while the gradient of the mean "
    "objective at the mean model is above tau, steps of all peers together down that gradient"
)
AGREED = (
    "batch", "dropout", "batch_norm", "augmentation", "preprocessing", "residual_within", "distance_agreed",
    "reference_reached", "peers_reached", "retained_unchanged", *RELEASE, *PUBLISHED,
)  # fmt: skip
STRONGLY_CONVEX = {"strong_convexity": "the mean objective of the peers on any retained rows is mu-strongly convex"}
OUTSIDE = (
    "that a run was carried out at all: whether the agreed distance could be kept depends on the forgotten records",
    "retrainings that stop above tau: that the recipe's rounds reach it was seen with all records; that they do without those "
    "that left is measured, not proved",
)


def _agreed_distance(p: Parameters) -> Evaluation:
    bound = Bound(
        "agreed", float(p["distance"]),
        "agreed before any request; a run keeps (||gradient of the retained objective|| + tau) / mu within it or is refused",
    )  # fmt: skip
    return Evaluation((bound,), bound.value)


def _rr_du(p: Parameters) -> Evaluation:
    visits = int(p["visits"])
    apart = token_walk.sensitivity(p["adjacency"], float(p["clip"]), float(p["factor"]), p["alignment"] == "exact")
    bound = Bound(
        "visit", apart, f"by how much one visit's gradient can differ ({p['adjacency']}), norm at most {p['clip']:g}"
    )
    if p["accountant"] == "conservative":
        return Evaluation((bound,), apart, lambda sigma: sigma / max(visits, 1) ** 0.5)
    return Evaluation(
        (bound,), float("inf"),
        epsilon=lambda sigma, delta: token_walk.claimed_epsilon(visits, apart, sigma, delta, p["kappa"]),
    )  # fmt: skip


NETWORK_THEOREMS = (
    Theorem(
        "network-newton",
        "strong convexity at both models (derived here; setting of arXiv 2601.06436)",
        TRAINED_TO_TAU,
        f"{TO_TAU}; that mean at every peer, with the same noise",
        (*AGREED, *NOISE),
        STRONGLY_CONVEX,
        (
            "presence of the forgotten records as a group, against whoever holds the models of any number of peers after "
            "the deletion: all hold the same bytes",
        ),
        _agreed_distance,
        draws=one_draw,
        recorded=("rows", "lr", "l2"),
        excludes=(
            "peers that kept the model from before: what they see is a curvature-weighted gradient of the forgotten "
            "records, from which records can be reconstructed (arXiv 2502.14558)",
            "the transcript of messages: gradients and curvature products that peers summed while they corrected, and all "
            "messages of training",
            *OUTSIDE,
        ),
    ),
    Theorem(
        "rr-du",
        "RR-DU, Corollary 5.2 (arXiv 2512.08443), taken as claimed; visits composed here",
        "what all peers together see after the request and what they would see if the client's gradients at its visits were "
        "other ones of the stated sensitivity are (epsilon, delta)-indistinguishable",
        "the same walk from the same start model, with other gradients at the client's visits",
        (
            "dropout",
            "batch_norm",
            "augmentation",
            "preprocessing",
            "own_implementation",
            "model_code",
            "release_changed",
            "unnoised_tensors",
            "buffers_moved",
            *DRAWN,
            "steps_bounded",
            "release_ledger",
        ),
        {},
        (
            "the client's gradients after the request (tier T2, as claimed); nothing is said of what the start model knows",
        ),
        _rr_du,
        "the client's queries after the request are there, replaced, or without the forgotten records, as the parameters say",
        draws=lambda p: (int(p["visits"]), p["sigma"]),
        claimed="the published guarantee presumes that masking the client's gradients after the request is enough: the walk "
        "starts from a model that was trained on the forgotten records, and no noise masks that",
        excludes=(
            "that the model the walk started from was trained on the forgotten records (the start-model caveat): masking it "
            "would take noise for the distance to a retrained model, which no deep network is known to keep",
            "messages of training from before the request",
        ),
    ),
    Theorem(
        "masked-rr-du",
        "strong convexity at the start of the walk (tier T1, derived here; setting of arXiv 2512.08443)",
        TRAINED_TO_TAU,
        f"{TO_TAU}; that mean with the same noise, and the same walk from it on the retained rows",
        (*AGREED, *DRAWN),
        STRONGLY_CONVEX,
        (
            "presence of the forgotten records as a group, against whoever sees all messages and models from the masked start "
            "on: the walk reads no forgotten record, so that it is post-processing (tier T1)",
        ),
        _agreed_distance,
        draws=one_draw,
        recorded=("rows", "lr", "l2"),
        excludes=("peers that kept the model from before, and all messages of training", *OUTSIDE),
    ),
)
