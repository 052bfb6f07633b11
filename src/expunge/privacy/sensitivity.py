"""How far an unlearned model can be from the retrained one: every proven bound for rewound gradient descent (R2D).

Two runs of full-batch gradient descent from the same θ₀ with the same constant step size η and T steps:

* unlearned: T−K steps on all n samples, then K steps on the n−m retained ones;
* retrained: T steps on the n−m retained samples.

Per-sample loss = data part + a data-independent regulariser (λ/2)‖θ‖². Symbols, all in the units of the loss and of the
weights: ``smoothness`` L bounds the Hessian of the whole (regulariser included); ``gradient_bound`` G bounds the norm
of one sample's data-part gradient everywhere the runs can be; ``gradient_difference`` B bounds the distance between two
samples' gradients at one point, and is at most 2G. A projection of the iterate onto a convex set, in both phases,
changes none of the bounds. Rounding of the iterates themselves is not part of any bound.

Source: R2D (arXiv 2409.09778), Theorem 3.1, for ``published``; the tighter bounds are derived here under the same
assumptions.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping

from expunge.core.certificate import Bound
from expunge.core.errors import InputError
from expunge.privacy.descent_run import GradientDescentRun
from expunge.privacy.domain import count, exp_or_inf, non_negative, positive

NAMES = ("published", "tight", "path", "convex", "strongly_convex")


def log_h(run: GradientDescentRun) -> float:
    """Return ln h(K), h(K) = ((1 + ηLn/(n−m))^(T−K) − 1)(1 + ηL)^K; −inf at K = T.

    Formal guarantee: none by itself, see ``published``.
    Source: R2D (arXiv 2409.09778), Theorem 3.1.

    >>> round(math.exp(log_h(GradientDescentRun(94449, 1079, 3666, 376, 0.01, 0.2065, 0.5946))), 3)
    2079.304
    """
    step = math.log1p(run.lr * run.smoothness * run.samples / (run.samples - run.forget))
    return _log_expm1((run.steps - run.rewind) * step) + run.rewind * run.log_growth


def published(run: GradientDescentRun) -> float:
    """Return the published 2mG h(K)/(Ln) in weights; inf instead of an overflow.

    The distance recursion behind it holds for every η > 0; the step limits of the theorem serve its utility part.

    Raises: InputError if the run has no gradient_bound.
    Formal guarantee: ‖unlearned − retrained‖ <= value for L-smooth, G-bounded losses.
    Source: R2D (arXiv 2409.09778), Theorem 3.1.

    >>> round(published(GradientDescentRun(100, 10, 80, 20, 0.05, 0.5, 1.0)), 10)
    2.736825654
    """
    if run.gradient_bound is None:
        raise InputError("published needs gradient_bound (G); the run has None. Use tight with gradient_difference.")
    if run.lr * run.smoothness == 0:
        return 2 * run.forget * run.gradient_bound * run.lr * (run.steps - run.rewind) / (run.samples - run.forget)
    scale = 2 * run.forget * run.gradient_bound / (run.smoothness * run.samples)
    return exp_or_inf(math.log(scale) + log_h(run)) if scale > 0 else 0.0


def tight(run: GradientDescentRun) -> float:
    """Return (mB/(Ln))((1+ηL)^T − (1+ηL)^K) in weights; attained with equality by concave quadratics.

    Formal guarantee: ‖unlearned − retrained‖ <= value for L-smooth losses whose gradients differ by at most B.
    Derived here: gradients of the two mean losses differ by at most mB/n at any one point, and one descent step on one of
    them stretches a distance by at most 1+ηL; only gradient *differences* between samples matter.

    >>> round(tight(GradientDescentRun(100, 10, 80, 20, 0.05, 0.5, 1.0)), 10)
    2.2283805504
    """
    if run.lr * run.smoothness == 0:
        return run.kick * (run.steps - run.rewind)
    if run.kick == 0:
        return 0.0
    log_scale = math.log(run.kick) - math.log(run.lr * run.smoothness)
    return exp_or_inf(log_scale + _log_expm1((run.steps - run.rewind) * run.log_growth) + run.rewind * run.log_growth)


def path(run: GradientDescentRun) -> float:
    """Return the bound that also knows that a step moves a run by at most ηG: growth is exponential, then linear.

    Solves D ← D + min(ηL·D + ηmB/n, 2ηG) (T−K times), D ← D + min(ηL·D, 2ηG) (K times) in closed form: in each phase
    the exponential branch is the smaller one until D reaches the cap, and never again.

    Raises: InputError if the run has no gradient_bound: the cap is false then.
    Formal guarantee: ‖unlearned − retrained‖ <= value if gradient_bound holds everywhere and η·l2 <= 2.
    Derived here: no step moves either run by more than ηG, so none can part them by more than 2ηG.

    >>> round(path(GradientDescentRun(94449, 1079, 3666, 1786, 0.01, 0.2065, 0.5946)), 3)
    23.454
    """
    if run.gradient_bound is None:
        raise InputError("path needs gradient_bound (G); the run has None. Enforce G by clipping, or use tight.")
    cap, stretch = 2 * run.lr * run.gradient_bound, run.lr * run.smoothness
    if stretch == 0 or run.kick == 0:
        return run.kick * (run.steps - run.rewind)
    if not math.isfinite(run.kick):
        return math.inf
    learning = run.steps - run.rewind
    free = min(learning, _steps_to(cap / run.kick, run.log_growth))
    distance = math.expm1(free * run.log_growth) * run.kick / stretch + cap * (learning - free)
    return capped_growth(distance, run.rewind, cap, stretch)


def capped_growth(distance: float, steps: int, cap: float, stretch: float) -> float:
    """Return D after ``steps`` times D ← D + min(stretch·D, cap), in closed form.

    Formal guarantee: none by itself, see ``path``.
    Derived here.

    >>> capped_growth(1.0, 3, cap=2.0, stretch=1.0)  # 1 → 2 → 4 → 6
    6.0
    """
    if distance == 0 or stretch == 0:
        return distance
    free = min(steps, _steps_to(cap / (stretch * distance), math.log1p(stretch)))
    return distance * exp_or_inf(free * math.log1p(stretch)) + (cap * (steps - free) if steps > free else 0.0)


def convex(run: GradientDescentRun) -> float:
    """Return ηmB(T−K)/n in weights: on a convex loss with η <= 2/L a gradient step never stretches distances.

    Raises: InputError if the loss is not convex, clipped, or η > 2/L.
    Formal guarantee: ‖unlearned − retrained‖ <= value.
    Derived here: each step before the rewind parts the runs by at most ηmB/n more, and no step stretches what there is.

    >>> convex(GradientDescentRun(1000, 20, 300, 50, 1.0, 0.25, 1.0, convex=True))
    10.0
    """
    _require(run, "convex", why_not_convex(run))
    return run.kick * (run.steps - run.rewind)


def strongly_convex(run: GradientDescentRun) -> float:
    """Return (mB/(nμ)) ρ^K (1 − ρ^(T−K)), ρ = 1 − ημ, in weights: every step on a μ-strongly convex loss contracts.

    Raises: InputError if μ = 0, gradients are clipped, or η > 2/(L + μ).
    Formal guarantee: ‖unlearned − retrained‖ <= value.
    Derived here: as for ``convex``, and every later step shrinks each of these distances by ρ.

    >>> round(strongly_convex(GradientDescentRun(1000, 20, 300, 50, 1.0, 0.26, 1.0, strong_convexity=0.01)), 2)
    2.22
    """
    _require(run, "strongly_convex", why_not_strongly_convex(run))
    scale = run.kick / (run.lr * run.strong_convexity)
    if run.lr * run.strong_convexity == 1:
        return scale if run.rewind == 0 and run.steps > 0 else 0.0
    log_rho = math.log1p(-run.lr * run.strong_convexity)
    return scale * math.exp(run.rewind * log_rho) * -math.expm1((run.steps - run.rewind) * log_rho)


def bounds(run: GradientDescentRun) -> dict[str, Bound]:
    """Return every bound by name (``NAMES``), the invalid ones with value inf and the reason.

    Formal guarantee: each valid bound holds; see the functions of the same names.
    Source: R2D (arXiv 2409.09778), Theorem 3.1, for the published one; the others are derived here.

    >>> [b.name for b in bounds(GradientDescentRun(100, 10, 80, 20, 0.05, 0.5, 1.0)).values() if b.valid]
    ['published', 'tight', 'path']
    """
    no_bound = "no uniform gradient bound G" if run.gradient_bound is None else ""
    expanding = f"step size: eta*l2 = {run.lr * run.l2:.3g} > 2" if run.lr * run.l2 > 2 else ""
    table = {
        "published": (published, "2mG/(Ln) ((1+ηLn/(n−m))^(T−K) − 1)(1+ηL)^K; R2D Theorem 3.1", no_bound),
        "tight": (tight, "mB/(Ln) ((1+ηL)^T − (1+ηL)^K)", ""),
        "path": (path, "D += min(ηL·D + ηmB/n, 2ηG), T−K times; D += min(ηL·D, 2ηG), K times", no_bound or expanding),
        "convex": (convex, "ηmB(T−K)/n", why_not_convex(run)),
        "strongly_convex": (strongly_convex, "mB/(nμ) ρ^K (1 − ρ^(T−K)), ρ = 1−ημ", why_not_strongly_convex(run)),
    }
    return {
        name: Bound(name, math.inf, source, False, reason) if reason else Bound(name, function(run), source)
        for name, (function, source, reason) in table.items()
    }


def tightest(candidates: Mapping[str, Bound] | Iterable[Bound]) -> Bound:
    """Return the smallest valid bound of a table or a collection.

    Raises: InputError if none is valid.
    Formal guarantee: that of the returned bound; the choice depends on declared constants only, never on the data.
    Source: our choice.

    >>> tightest(bounds(GradientDescentRun(1000, 20, 300, 50, 1.0, 0.25, 1.0, convex=True))).name
    'convex'
    """
    offered = list(candidates.values() if isinstance(candidates, Mapping) else candidates)
    valid = [bound for bound in offered if bound.valid]
    if not valid:
        reasons = "; ".join(f"{bound.name}: {bound.reason}" for bound in offered)
        raise InputError(f"at least one valid bound is needed; got none ({reasons}). Correct the run's constants.")
    return min(valid, key=lambda bound: bound.value)


def why_not_convex(run: GradientDescentRun) -> str:
    """Return why one step on the retained loss may stretch distances, empty if it cannot."""
    if not run.convex and run.strong_convexity == 0:
        return "loss not convex"
    if run.clipped:
        return "clipped gradients of a convex loss need not be monotone"
    if run.lr * run.smoothness > 2:
        return f"step size: eta = {run.lr:.3g} > 2/L = {2 / run.smoothness:.3g}"
    return ""


def why_not_strongly_convex(run: GradientDescentRun) -> str:
    """Return why one step may fail to contract by 1 − ημ, empty if it does."""
    if run.strong_convexity == 0:
        return "loss not strongly convex"
    if run.lr * (run.smoothness + run.strong_convexity) > 2:
        return f"step size: eta = {run.lr:.3g} > 2/(L+mu) = {2 / (run.smoothness + run.strong_convexity):.3g}"
    return why_not_convex(run)


def stretch(run: GradientDescentRun) -> float:
    """Return the factor by which one step on the retained loss can stretch a distance: 1+ηL, 1 (convex) or 1−ημ.

    Formal guarantee: Lipschitz constant of the gradient step, under the run's constants.
    Source: the usual properties of a gradient step; 1+ηL is the one of R2D (arXiv 2409.09778), Theorem 3.1.

    >>> stretch(GradientDescentRun(1000, 20, 300, 50, 1.0, 0.25, 1.0, convex=True))
    1.0
    """
    if not why_not_strongly_convex(run):
        return 1 - run.lr * run.strong_convexity
    return 1.0 if not why_not_convex(run) else 1 + run.lr * run.smoothness


def extra_recovery_error(error: float, run: GradientDescentRun) -> float:
    """Return e·(1+ηL)^K (factor 1 if convex, (1−ημ)^K if strongly convex): to be added to the sensitivity.

    ``error`` e is a bound on the distance of the recovered checkpoint from the true one (weights). The published
    theorem does not contain this term; with an unknown e there is no certificate.

    Raises: InputError if e is negative.
    Formal guarantee: unlearning from the recovered instead of the true checkpoint moves the result by at most the
    value.
    Derived here; R2D's Algorithm 3 (arXiv 2409.09778) recovers the checkpoint without bounding its error.

    >>> round(extra_recovery_error(0.065, GradientDescentRun(94449, 1079, 3666, 376, 0.01, 0.2065, 0.5946)), 4)
    0.1412
    """
    non_negative("error", error, allow_inf=True)
    factor = stretch(run)
    if error == 0 or (factor == 0 and run.rewind > 0):
        return 0.0
    return error * (exp_or_inf(run.rewind * math.log(factor)) if run.rewind else 1.0)


def recovery_error(residual: float, lr: float, smoothness: float, steps: int) -> float:
    """Return r/(1−ηL)^K: how far a recovered checkpoint can be off if K forward steps on all data end r from θ_T.

    A gradient step shrinks distances by at most 1 − ηL, so a small residual r (weights) proves a small error.

    Raises: InputError if ηL >= 1 (a step may then merge two points, and the residual proves nothing).
    Formal guarantee: ‖recovered − true checkpoint‖ <= value, rounding of the forward steps apart.
    Derived here; R2D's Algorithm 3 (arXiv 2409.09778) recovers the checkpoint without bounding its error.

    >>> round(recovery_error(1e-6, 0.01, 0.2065, 376) * 1e6, 3)
    2.175
    """
    non_negative("residual", residual, allow_inf=True)
    positive("lr (eta)", lr)
    non_negative("smoothness (L)", smoothness)
    count("steps (K)", steps)
    if lr * smoothness >= 1:
        raise InputError(
            f"lr*smoothness must be below 1 to run gradient descent backwards; got {lr * smoothness!r}. "
            "Save the checkpoint during training instead."
        )
    return residual * exp_or_inf(-steps * math.log1p(-lr * smoothness)) if residual > 0 else 0.0


def _require(run: GradientDescentRun, name: str, reason: str) -> None:
    if reason:
        raise InputError(f"the {name} bound must hold for this run; got: {reason}. Use tightest(bounds(run)).")


def _log_expm1(x: float) -> float:
    """ln(e^x − 1) for x >= 0 without overflow."""
    if x == 0:
        return -math.inf
    return x + math.log(-math.expm1(-x))


def _steps_to(ratio: float, log_growth: float) -> int:
    """Smallest whole t >= 0 with growth^t >= ratio: from there on the cap is the smaller branch."""
    if ratio <= 1:
        return 0
    steps = math.log(ratio) / log_growth if log_growth else math.inf
    return math.ceil(steps) if math.isfinite(steps) else sys.maxsize  # more than any run has
