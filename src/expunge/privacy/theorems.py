"""Every guarantee that expunge can state: what it needs, against what it compares, and its numbers from its parameters.

A theorem is evaluated from a flat mapping of parameters alone, so that a reader of the record can evaluate it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from expunge.core.certificate import Bound
from expunge.core.errors import InputError

Parameters = Mapping[str, Any]

ALWAYS_EXCLUDED = (
    "someone who holds the model from before the deletion, or a copy, quantised export or fine-tuned child of it",
    "the secret un-noised iterates kept for later requests",
    "requests chosen after seeing a release (adaptive requests)",
    "settings that somebody chose by looking at the forgotten rows",
    "rounding inside the floating-point noise sampler and the arithmetic of descent",
    "that membership attacks score one half: a retrained model need not either",
    "releases from a copy of the model's folder, or from the same training published to another one",
)


@dataclass(frozen=True)
class Evaluation:
    """What a theorem says for given parameters.

    Attributes:
        bounds: every bound computed, with validity.
        sensitivity: the tightest valid one (L2), plus recovery error.
        noise: effective noise standard deviation for given ``sigma``.
        epsilon: for guarantees that are not Gaussian trade-offs: epsilon at a delta, given sigma; ``None`` otherwise.
    """

    bounds: tuple[Bound, ...]
    sensitivity: float
    noise: Callable[[float], float] = lambda sigma: sigma
    epsilon: Callable[[float, float], float] | None = None

    def mu(self, sigma: float) -> float:
        """Sensitivity over noise; 0 for no difference, infinite without noise."""
        noise = self.noise(sigma)
        if self.sensitivity == 0:
            return 0.0
        return self.sensitivity / noise if noise > 0 else float("inf")


@dataclass(frozen=True)
class Theorem:
    """One guarantee.

    Attributes:
        name, source: how it is called, and where it is proved.
        definition: in which sense the release is indistinguishable.
        procedure: the reference procedure it is compared with.
        rules: preconditions (``privacy.preconditions``).
        constants: facts that its bounds are computed with, and what each means.
        covers: what is promised, in words.
        evaluate: numbers from parameters.
        recorded: parameters that belong to training: its record decides them, not what a method says.
        alternatives: constant → another one that stands in where only that is known, and what it means.
        cumulative: whether its parameters already contain what earlier releases used up, so that nothing composes.
        draws: how many draws of noise a run makes and the sigma of each, from the parameters; ``None``: it draws none itself.
        after: theorems of earlier requests after which it still holds; ``None``: after any.
        claimed: what the published argument presumes and nobody here can check; empty where it was re-derived.
        excludes: what is not promised besides what no theorem does, in words.
    """

    name: str
    source: str
    definition: str
    procedure: str
    rules: tuple[str, ...]
    constants: Mapping[str, str]
    covers: tuple[str, ...]
    evaluate: Callable[[Parameters], Evaluation]
    adjacency: str = "the forgotten records are present in training, or were never there (removal)"
    recorded: tuple[str, ...] = ()
    alternatives: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    claimed: str = ""
    excludes: tuple[str, ...] = ()
    cumulative: bool = False
    draws: Callable[[Parameters], tuple[int, float]] | None = None
    after: tuple[str, ...] | None = None

    def constants_from(self, known: Mapping[str, Any]) -> dict[str, str]:
        """The constants it is evaluated with, given what is known: a stand-in only where the constant itself is missing."""
        chosen = {}
        for name, statement in self.constants.items():
            other, meaning = self.alternatives.get(name, (name, statement))
            if known.get(name) is None and known.get(other) is not None:
                name, statement = other, meaning
            chosen[name] = statement
        return chosen


_TRAINING = (
    "optimizer", "batch", "schedule", "momentum", "decay_outside_loss", "dropout", "batch_norm", "augmentation", "start",
    "selection", "preprocessing",
)  # fmt: skip
_DRAWN = ("noise_source", "noise_precision", "noise_covers", "noise_resolved", "noise_level", "noise_written_ahead")
_NOISE = (*_DRAWN, "noise_entered")
_RUN = ("own_implementation", "model_code", "retained_rows", "release_changed", "unnoised_tensors")
_RELEASE = (*_RUN, "buffers_moved")
_PUBLISHED = ("noise_fixed_before", "within_capacity", "within_budget", "release_ledger")


def _one_draw(p: Parameters) -> tuple[int, float]:
    return 1, p["sigma"]


_RETRAIN_INDISTINGUISHABLE = (
    "the released model and a model retrained without the forgotten records, with the same noise, are "
    "(epsilon, delta)-indistinguishable (retrain-indistinguishability)"
)
_UNLEARN_INDISTINGUISHABLE = (
    "the released model and what the same procedure releases when the forgotten records were never there are "
    "(epsilon, delta)-indistinguishable (unlearn-indistinguishability)"
)
_GROUP = ("presence of the forgotten records as a group, whatever their number up to the capacity",)
_SMOOTH = "every row's loss is L-smooth in the weights, everywhere the two runs go"
_BOUNDED = "every row's gradient has norm at most G, everywhere the two runs go"


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


def _network_newton(p: Parameters) -> Evaluation:
    bound = Bound(
        "agreed", float(p["distance"]),
        "agreed before any request; a run keeps (||gradient of the retained objective|| + tau) / mu within it or is refused",
    )  # fmt: skip
    return Evaluation((bound,), bound.value)


def _retrain(p: Parameters) -> Evaluation:
    return Evaluation((Bound("exact", 0.0, "the release is made by the reference procedure itself"),), 0.0)


THEOREMS: Mapping[str, Theorem] = {
    theorem.name: theorem
    for theorem in (
        Theorem(
            "rewind-to-delete",
            "R2D Theorem 3.1 (arXiv 2409.09778), with tighter bounds under the same assumptions",
            _RETRAIN_INDISTINGUISHABLE,
            "full-batch gradient descent on the retained rows from the same start, same steps, step size and noise",
            (*_TRAINING, "trail_of_these_rows", "retained_unchanged", *_RELEASE, *_NOISE, *_PUBLISHED),
            {"smoothness": _SMOOTH, "gradient_bound": _BOUNDED},
            _GROUP,
            _r2d,
            draws=_one_draw,
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
            _RETRAIN_INDISTINGUISHABLE,
            "full-batch gradient descent on the retained rows from the same start, same steps, step size and noise",
            (*_TRAINING, "retained_unchanged", *_RELEASE, *_NOISE, *_PUBLISHED, "earlier_releases"),
            {
                "smoothness": _SMOOTH,
                "gradient_bound": _BOUNDED,
                "strong_convexity": "the loss on any retained rows is lambda-strongly convex",
            },
            _GROUP,
            _descent_to_delete,
            draws=_one_draw,
            after=("descent-to-delete",),
            recorded=("rows", "steps", "lr", "start_norm"),
        ),
        Theorem(
            "newton",
            "Sekhari et al. 2021 (arXiv 2103.03279)",
            _UNLEARN_INDISTINGUISHABLE,
            "the exact minimiser on the retained rows, with the same noise",
            (
                "dropout",
                "batch_norm",
                "augmentation",
                "preprocessing",
                "converged",
                "retained_unchanged",
                *_RELEASE,
                *_NOISE,
                *_PUBLISHED,
            ),
            {
                "gradient_bound": _BOUNDED,
                "strong_convexity": "the loss on any rows is lambda-strongly convex",
                "hessian_lipschitz": "every row's Hessian is M-Lipschitz",
            },
            _GROUP,
            _newton,
            draws=_one_draw,
            recorded=("rows",),
        ),
        Theorem(
            "network-newton",
            "strong convexity at both models (derived here; setting of arXiv 2601.06436)",
            _RETRAIN_INDISTINGUISHABLE,
            "gossip among the peers that stay on their retained rows, until the gradient of their mean objective at the "
            "network's mean model is at most tau; that mean at every peer, with the same noise",
            (
                "dropout",
                "batch_norm",
                "augmentation",
                "preprocessing",
                "residual_within",
                "retained_unchanged",
                *_RELEASE,
                *_NOISE,
                *_PUBLISHED,
            ),
            {"strong_convexity": "the mean objective of the peers on any retained rows is mu-strongly convex"},
            (
                "presence of the forgotten records as a group, against whoever holds the models of any number of peers after "
                "the deletion: all hold the same bytes",
            ),
            _network_newton,
            draws=_one_draw,
            recorded=("rows", "lr", "l2"),
            excludes=(
                "peers that kept the model from before: what they see is a curvature-weighted gradient of the forgotten "
                "records, from which records can be reconstructed (arXiv 2502.14558)",
                "the transcript of messages: gradients and curvature products that peers summed while they corrected, and all "
                "messages of training",
                "that a run was carried out at all: whether the agreed distance could be kept depends on the forgotten records",
            ),
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
                *_RELEASE,
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
            _GROUP,
            _certified_removal,
            recorded=("rows",),
            claimed="the published tail argument holds for gradient residuals that are bounded on the data at hand",
            cumulative=True,
            after=("certified-removal",),
        ),
        Theorem(
            "noisy-fine-tuning",
            "Koloskova et al. 2025 (arXiv 2506.06985), accounting by shifted divergence",
            _UNLEARN_INDISTINGUISHABLE,
            "the same clipped noisy fine-tuning on the retained rows, started from any other model",
            (
                "dropout",
                "batch_norm",
                "augmentation",
                "preprocessing",
                *_RELEASE,
                *_DRAWN,
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
                *_RELEASE,
                *_DRAWN,
                "release_ledger",
            ),
            {"strong_convexity": "the loss is strongly convex", "smoothness": _SMOOTH},
            _GROUP,
            _langevin,
            "the forgotten records are replaced by records without gradient; n is unchanged",
            recorded=("rows", "lr", "clip"),
            draws=lambda p: (int(p["unlearn_steps"]), (2 * p["lr"]) ** 0.5 * p["sigma"]),
            claimed="training had reached its stationary law, as the published bound presumes",
        ),
        Theorem(
            "retrain",
            "by construction",
            _RETRAIN_INDISTINGUISHABLE,
            "the recipe itself on the retained rows",
            ("start", "selection", "preprocessing", *_RUN),
            {},
            _GROUP,
            _retrain,
        ),
    )
}


# Theorems whose noise follows from the method's own settings, not from the published budget.
OWN_NOISE = ("noisy-fine-tuning", "langevin")

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
