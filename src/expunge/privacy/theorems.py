"""Every guarantee that expunge can state.

A theorem is evaluated from a flat mapping of parameters alone, so that a reader of the record can evaluate it again.
"""

from __future__ import annotations

from collections.abc import Mapping

from expunge.core.certificate import Bound
from expunge.core.errors import InputError
from expunge.privacy.graph_theorems import GRAPH_THEOREMS
from expunge.privacy.network_theorems import NETWORK_THEOREMS
from expunge.privacy.theorem import ALWAYS_EXCLUDED as ALWAYS_EXCLUDED
from expunge.privacy.theorem import (
    BOUNDED,
    DRAWN,
    GROUP,
    NOISE,
    PUBLISHED,
    RELEASE,
    RETRAIN_INDISTINGUISHABLE,
    RUN,
    SMOOTH,
    TRAINING,
    UNLEARN_INDISTINGUISHABLE,
    Evaluation,
    Parameters,
    Theorem,
    one_draw,
)  # fmt: skip

__all__ = [
    "ADDED_SINCE_FORMAT_1", "ADDED_SINCE_FORMAT_2", "ALWAYS_EXCLUDED", "DROPPED_RULES", "OWN_NOISE", "THEOREMS", "Evaluation",
    "Parameters", "Theorem", "theorem",
]  # fmt: skip


def _r2d(p: Parameters) -> Evaluation:
    from expunge.privacy import sensitivity
    from expunge.privacy import sensitivity as s
    from expunge.privacy.descent_run import GradientDescentRun

    run = GradientDescentRun(
        samples=p["rows"], forget=p["forget"], steps=p["steps"], rewind=p["rewind"], lr=p["lr"],
        smoothness=p["smoothness"], gradient_bound=p.get("gradient_bound"),
        gradient_difference=p.get("gradient_difference"), l2=p.get("l2", 0.0), convex=bool(p.get("convex", False)),
        strong_convexity=p.get("strong_convexity", 0.0) or 0.0, clipped=p.get("clip") is not None,
    )  # fmt: skip
    bounds = s.bounds(run)
    extra = sensitivity.extra_recovery_error(p.get("recovery_error", 0.0), run)
    return Evaluation(tuple(bounds.values()), s.tightest(bounds).value + extra)


def _descent_to_delete(p: Parameters) -> Evaluation:
    from expunge.privacy import descent_to_delete as d

    apart = d.sensitivity(
        samples=p["rows"], forget=p["forget"], steps=p["steps"], lr=p["lr"], unlearn_steps=p["unlearn_steps"],
        smoothness=p["smoothness"], gradient_bound=p["gradient_bound"], strong_convexity=p["strong_convexity"],
        start_norm=p["start_norm"], earlier=p.get("earlier", 0), removed_before=p.get("removed_before", 0),
    )  # fmt: skip
    bound = Bound(
        "contraction",
        apart,
        "g^K (S + (2j−1) E) + E: each step shrinks the distance to the retained minimiser by g",
    )
    return Evaluation((bound,), apart)


def _newton(p: Parameters) -> Evaluation:
    from expunge.privacy import newton as n

    lipschitz = 2 * p["gradient_bound"]  # a row's loss and its share of the regulariser, near the minimiser
    published = n.sekhari_sensitivity(
        hessian_lipschitz=p["hessian_lipschitz"], forget=p["forget"], loss_lipschitz=lipschitz,
        strong_convexity=p["strong_convexity"], samples=p["rows"],
    )  # fmt: skip
    own = n.newton_step_error(
        hessian_lipschitz=p["hessian_lipschitz"], forget=p["forget"], loss_lipschitz=lipschitz,
        strong_convexity=p["strong_convexity"], samples=p["rows"], residual=p["residual"],
    )  # fmt: skip
    slack = p["residual"] / p["strong_convexity"]
    bounds = (
        Bound("sekhari", published + 2 * slack, "2 M m² L² / (lambda³ n²), plus solver residuals"),
        Bound("newton", own + slack, "M / (2 lambda) times the squared distance to the new minimiser, with residuals"),
    )
    return Evaluation(bounds, min(bound.value for bound in bounds))


def _noisy_fine_tuning(p: Parameters) -> Evaluation:
    from expunge.privacy import noisy_fine_tuning as f

    shift = f.shift(clip_model=p["clip_model"], clip=p["clip"], lr=p["lr"], l2=p["l2"], steps=p["steps"])
    bound = Bound("shift", shift, "2 C0 rho^T + 2 eta C1 (1 - rho^T) / (1 - rho)")
    return Evaluation(
        (bound,), shift, lambda sigma: f.accumulated_noise(sigma=sigma, lr=p["lr"], l2=p["l2"], steps=p["steps"])
    )


def _langevin(p: Parameters) -> Evaluation:
    from expunge.privacy import langevin as v

    def epsilon(sigma: float, delta: float) -> float:
        if p["lr"] * p["smoothness"] > 1 + 1e-12:
            return float("inf")  # the bound is stated for steps of at most 1 / L
        return v.langevin_epsilon(
            unlearn_steps=p["unlearn_steps"], strong_convexity=p["strong_convexity"], lr=p["lr"], clip=p["clip"],
            sigma=sigma, samples=p["rows"], forget=p["forget"], delta=delta,
        )  # fmt: skip

    return Evaluation((), float("inf"), epsilon=epsilon)


def _certified_removal(p: Parameters) -> Evaluation:
    from expunge.privacy.newton import guo_epsilon

    residual = float(p["residual"])
    bound = Bound("residual", residual, "sum over requests of n' M/2 ||step||², plus the residual of the minimiser")
    return Evaluation((bound,), residual, epsilon=lambda sigma, delta: guo_epsilon(residual, sigma, delta))


def _retrain(p: Parameters) -> Evaluation:
    return Evaluation((Bound("exact", 0.0, "the release is made by the reference procedure itself"),), 0.0)


THEOREMS: Mapping[str, Theorem] = {
    theorem.name: theorem
    for theorem in (
        Theorem(
            "rewind-to-delete",
            "R2D Theorem 3.1 (arXiv 2409.09778), with tighter bounds under the same assumptions",
            RETRAIN_INDISTINGUISHABLE,
            "full-batch gradient descent on the retained rows from the same start, same steps, step size and noise",
            (*TRAINING, "trail_of_these_rows", "retained_unchanged", *RELEASE, *NOISE, *PUBLISHED),
            {"smoothness": SMOOTH, "gradient_bound": BOUNDED},
            GROUP,
            _r2d,
            draws=one_draw,
            recorded=("rows", "steps", "lr", "l2", "clip"),
            alternatives={
                "gradient_bound": (
                    "gradient_difference",
                    "at any point where the two runs go, two rows' gradients differ by at most B",
                )
            },
        ),
        Theorem(
            "descent-to-delete",
            "Neel et al. 2021 (arXiv 2007.02923), contraction argument with every constant explicit",
            RETRAIN_INDISTINGUISHABLE,
            "full-batch gradient descent on the retained rows from the same start, same steps, step size and noise",
            (*TRAINING, "retained_unchanged", *RELEASE, *NOISE, *PUBLISHED, "earlier_releases"),
            {
                "smoothness": SMOOTH,
                "gradient_bound": BOUNDED,
                "strong_convexity": "the loss on any retained rows is lambda-strongly convex",
            },
            GROUP,
            _descent_to_delete,
            draws=one_draw,
            after=("descent-to-delete",),
            recorded=("rows", "steps", "lr", "start_norm"),
        ),
        Theorem(
            "newton",
            "Sekhari et al. 2021 (arXiv 2103.03279)",
            UNLEARN_INDISTINGUISHABLE,
            "the exact minimiser on the retained rows, with the same noise",
            (
                "dropout",
                "batch_norm",
                "augmentation",
                "preprocessing",
                "converged",
                "retained_unchanged",
                *RELEASE,
                *NOISE,
                *PUBLISHED,
            ),
            {
                "gradient_bound": BOUNDED,
                "strong_convexity": "the loss on any rows is lambda-strongly convex",
                "hessian_lipschitz": "every row's Hessian is M-Lipschitz",
            },
            GROUP,
            _newton,
            draws=one_draw,
            recorded=("rows",),
        ),
        Theorem(
            "certified-removal",
            "Guo et al. 2020 (arXiv 1911.03030), Theorem 3, taken as published",
            "the released model and a model trained without the forgotten records, with a perturbed objective each, are "
            "(epsilon, delta)-indistinguishable (certified removal)",
            "the minimiser of the perturbed objective on the retained rows, with a perturbation of its own",
            (
                "dropout",
                "batch_norm",
                "augmentation",
                "preprocessing",
                "converged",
                "retained_unchanged",
                *RELEASE,
                "noise_source",
                "noise_precision",
                "noise_covers",
                "within_budget",
                "release_ledger",
                "earlier_releases",
            ),
            {
                "strong_convexity": "the loss on any rows is lambda-strongly convex",
                "hessian_lipschitz": "every row's Hessian is M-Lipschitz",
            },
            GROUP,
            _certified_removal,
            recorded=("rows",),
            claimed="the published tail argument holds for gradient residuals that are bounded on the data at hand",
            cumulative=True,
            after=("certified-removal",),
        ),
        Theorem(
            "noisy-fine-tuning",
            "Koloskova et al. 2025 (arXiv 2506.06985), accounting by shifted divergence",
            UNLEARN_INDISTINGUISHABLE,
            "the same clipped noisy fine-tuning on the retained rows, started from any other model",
            (
                "dropout",
                "batch_norm",
                "augmentation",
                "preprocessing",
                *RELEASE,
                *DRAWN,
                "steps_bounded",
                "within_budget",
                "release_ledger",
            ),
            {},
            ("presence of the forgotten records, whatever their number and whatever the model before was",),
            _noisy_fine_tuning,
            draws=lambda p: (int(p["steps"]), p["sigma"]),
        ),
        Theorem(
            "langevin",
            "Chien et al. 2024 (arXiv 2401.10371), published Rényi bound, taken as published",
            "Rényi divergence to the law of noisy training on the data with the forgotten records replaced",
            "noisy projected gradient descent, run to stationarity, with the forgotten records replaced by empty ones",
            (
                "augmentation",
                "dropout",
                "batch_norm",
                "start",
                "preprocessing",
                "noisy_training",
                "retained_unchanged",
                *RELEASE,
                *DRAWN,
                "release_ledger",
            ),
            {"strong_convexity": "the loss is strongly convex", "smoothness": SMOOTH},
            GROUP,
            _langevin,
            "the forgotten records are replaced by records without gradient; n is unchanged",
            recorded=("rows", "lr", "clip"),
            draws=lambda p: (int(p["unlearn_steps"]), (2 * p["lr"]) ** 0.5 * p["sigma"]),
            claimed="training had reached its stationary law, as the published bound presumes",
        ),
        Theorem(
            "retrain",
            "by construction",
            RETRAIN_INDISTINGUISHABLE,
            "the recipe itself on the retained rows",
            ("start", "selection", "preprocessing", *RUN),
            {},
            GROUP,
            _retrain,
        ),
        *NETWORK_THEOREMS,
        *GRAPH_THEOREMS,
    )
}


# Theorems whose noise follows from the method's own settings, not from the published budget.
OWN_NOISE = ("noisy-fine-tuning", "langevin", "rr-du", "idea")

# Rules that came, or went, while records of the format expunge-evidence/2 were written.
ADDED_SINCE_FORMAT_2, DROPPED_RULES = ("model_code", "retained_unchanged"), ("earlier_releases",)
# Rules that records of the format expunge-evidence/1 could not carry: what their version did not promise.
ADDED_SINCE_FORMAT_1 = (
    "noise_level", "noise_entered", "noise_written_ahead", "noise_resolved", "steps_bounded", "unnoised_tensors",
    "own_implementation", "model_code", "trail_of_these_rows", "release_ledger", "earlier_releases", "retained_unchanged",
)  # fmt: skip


def theorem(name: str) -> Theorem:
    """The theorem called ``name``; raises InputError listing the known ones."""
    if name not in THEOREMS:
        raise InputError(f"Expected a theorem among {', '.join(THEOREMS)}; got {name!r}.")
    return THEOREMS[name]
