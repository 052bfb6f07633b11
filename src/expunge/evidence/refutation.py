"""Attempts to refute a certificate, and the noise that it rests on. Passing one proves nothing; failing one is final.

A check's statement may be shown to anyone and holds no number that depends on un-noised weights or forgotten rows; its detail
holds them and is private.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from expunge.core.certificate import Certificate
from expunge.core.digest import finite
from expunge.core.measurement import Check
from expunge.privacy import audit, replay
from expunge.privacy.witness import gaussian_noise
from expunge.training.flat import distance, flatten

Tensors = Mapping[str, Tensor]
LEVEL = 0.05  # of a statistical test of one run: how often it may refute certificates that are true, all views together
ALPHA = 1e-6  # of the noise tests: every release is checked, so a false alarm must be rare
# A float32 sum over a million rows is off by about this share; what training may add to a distance without being wrong.
ROUNDING = {"float32": 1e-4, "float64": 1e-9}


def retrain_check(unlearned: Tensors, retrained: Tensors, certificate: Certificate, names: tuple[str, ...]) -> Check:
    """Distance of the un-noised weights against the sensitivity that the noise was made for.

    Formal guarantee: a failed check refutes the certificate for good (training is deterministic).
    """
    apart = distance({n: unlearned[n] for n in names}, {n: retrained[n] for n in names})
    result = replay.retrain_check(apart, certificate.sensitivity, rounding=_rounding(retrained, names))
    word = "exceeds" if result.refuted else "is within"
    # how far within depends on the removed rows: that number goes to the private folder only
    return Check(
        "retrain check",
        not result.refuted,
        f"The distance of the un-noised weights from the retrained ones {word} the bound that the noise was made for.",
        {"distance": finite(apart), "sensitivity": finite(certificate.sensitivity), "ratio": finite(result.ratio)},
    )


def _rounding(tensors: Tensors, names: tuple[str, ...]) -> float:
    """What two runs of the same arithmetic may be apart, in weights."""
    precision = "float64" if str(tensors[names[0]].dtype) == "torch.float64" else "float32"
    return ROUNDING[precision] * float(flatten(tensors, names).double().norm())


def replay_check(released: Tensors, replayed: Tensors, sigma: float, names: tuple[str, ...]) -> Check:
    """Whether released minus replayed weights can be N(0, sigma² I): chi-square on the squared norm.

    Catches noise that is too weak, and rows left in where they move the weights by more than the noise hides.
    """
    residual = (flatten(released, names).double() - flatten(replayed, names).double()).cpu().numpy()
    if sigma == 0:
        same = float(np.linalg.norm(residual)) <= _rounding(replayed, names)
        word = "equals" if same else "differs from"
        return Check("replay", same, f"No noise was added; the release {word} its replay.")
    result = replay.replay_check(residual, sigma=sigma)
    sizes = [released[name].numel() for name in names]
    refuted = result.refutes(ALPHA) or not gaussian_noise(residual, sigma, sizes)
    return Check(
        "replay",
        not refuted,
        "Released minus replayed weights "
        + ("are not the stated noise." if refuted else "look like the stated noise, coordinate by coordinate."),
        {"p_value": result.p_value, "standard_deviation": result.statistic, "coordinates": residual.size},
    )


def _same_weights(first: Tensors, repeated: Tensors, names: tuple[str, ...]) -> tuple[bool, dict[str, float | None]]:
    """Whether weights are those that were computed again, up to rounding, and how far they are apart beside their length."""
    apart = distance({n: first[n] for n in names}, {n: repeated[n] for n in names})
    length = float(flatten(repeated, names).double().norm()) or 1.0
    return apart <= _rounding(repeated, names), {"relative_distance": finite(apart / length)}


def trail_check(stored: Tensors, repeated: Tensors, names: tuple[str, ...]) -> Check:
    """Whether the stored iterate that a run rewound to is the one that training on these rows passes through.

    Formal guarantee: a failed check refutes what is recorded of the trail, on a machine that computes alike.
    """
    same, detail = _same_weights(stored, repeated, names)
    return Check(
        "stored iterates",
        same,
        "The iterate that was rewound to "
        + ("is" if same else "is not")
        + " the one that training on these rows passes.",
        detail,
    )


def recovery_check(released: Tensors, recovered: Tensors) -> Check:
    """Whether a release is what steps without noise on the retained rows make of the noisy weights, nothing else."""
    names = tuple(sorted(recovered))
    same = released.keys() == recovered.keys() and all(
        released[n].shape == recovered[n].shape
        and float((released[n].double().cpu() - recovered[n].double().cpu()).norm())
        <= 1e3 * _rounding({"w": recovered[n]}, ("w",)) + 1e-12
        for n in names
    )
    word = "is" if same else "is not"
    return Check(
        "replayed recovery",
        same,
        f"The release {word} what steps without noise on the retained rows make of the noisy weights.",
    )


def steps_check(state: Tensors, replayed: Tensors, names: tuple[str, ...]) -> Check:
    """Whether the un-noised weights that the method kept are those that the stated steps lead to.

    No noise hides anything here: one forgotten row left in, one step too few, and the check fails.

    Formal guarantee: a failed check refutes what the method said about its steps, on a machine that computes alike.
    """
    same, detail = _same_weights(state, replayed, names)
    return Check(
        "replayed steps",
        same,
        "The un-noised weights "
        + ("are those" if same else "are not those")
        + " that the stated steps on the retained rows lead to.",
        detail,
    )


def noise_reuse_check(first: tuple[Tensors, Tensors], second: tuple[Tensors, Tensors], names: tuple[str, ...]) -> Check:
    """Whether two releases (noisy, un-noised) share a noise vector: exact test of their correlation."""
    a, b = (
        (flatten(noisy, names).double() - flatten(plain, names).double()).cpu().numpy()
        for noisy, plain in (first, second)
    )
    if not (a.any() and b.any()):
        return Check("fresh noise", False, "A release equals its un-noised weights: no noise was added.")
    result = replay.noise_reuse_check(a, b)
    refuted = result.refutes(ALPHA)
    return Check(
        "fresh noise",
        not refuted,
        "The noise of this release and of the one before it are "
        + ("the same vector: their difference is exposed." if refuted else "uncorrelated, as fresh noise is."),
        {"p_value": result.p_value, "correlation": result.statistic},
    )


def two_world_test(
    unlearned: Callable[[], Tensors], retrained: Callable[[], Tensors], centres: tuple[Tensors, Tensors],
    names: tuple[str, ...], trials: int, epsilon: float, delta: float, alpha: float = 0.05,
) -> Check:  # fmt: skip
    """Release ``trials`` models in each world and try to tell them apart along the line between the worlds' centres.

    Args:
        unlearned, retrained: each call makes one fresh release.
        centres: un-noised weights of both worlds: the direction in which a shift of Gaussians shows best.

    Formal guarantee: a true (epsilon, delta) is refuted with probability at most ``alpha``.
    """
    origin, direction = _line(centres, names)

    def score(tensors: Tensors) -> float:
        return float((flatten(tensors, names).double().cpu().numpy() - origin) @ direction)

    first = [score(unlearned()) for _ in range(trials)]
    second = [score(retrained()) for _ in range(trials)]
    result = audit.two_world(first, second, epsilon, delta, confidence=1 - alpha)
    return Check(
        "two-world test",
        not result.refuted,
        f"{trials} unlearned and {trials} retrained releases, told apart along the line between them, "
        + ("speak against the stated epsilon." if result.refuted else "do not speak against the stated epsilon."),
        {
            "statement": result.statement,
            "epsilon_lower": result.epsilon_lower,
            "ceiling": result.ceiling,
            "trials": trials,
        },
    )


def _line(centres: tuple[Tensors, Tensors], names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Origin and unit direction between two centres; any direction where they coincide."""
    a, b = (flatten(tensors, names).double().cpu().numpy() for tensors in centres)
    gap = a - b
    size = float(np.linalg.norm(gap))
    direction = gap / size if size > 0 else np.eye(1, len(gap)).ravel()
    return b, direction


def one_run_audit(
    inserted: Sequence[bool], scores: Sequence[float], guesses: int, epsilon: float, delta: float, alpha: float = 0.05
) -> Check:
    """Guess from one unlearned model which canaries had been trained on before all were forgotten.

    Source: Steinke et al. 2023 (arXiv 2305.08846).

    Args:
        inserted: for each canary, drawn by an independent fair coin, whether it was trained on and then forgotten; the
            others were never trained on.
        scores: higher means "inserted": for example minus its loss under the released model.
        guesses: how many canaries to guess on, half at each end.

    Formal guarantee: a true certificate is refuted with probability at most ``alpha``. Two unlearned models with different
    forgotten sets are each close to one retrained model, so only (2 epsilon, (1 + e^epsilon) delta)-close to each other; the
    comparison accounts for that.
    """
    from expunge.privacy.guessing import one_run_audit_epsilon

    inside, order = np.asarray(inserted, dtype=bool), np.argsort(np.asarray(scores, dtype=float))
    half = guesses // 2
    low, high = order[:half], order[len(order) - half :]
    correct = int((~inside[low]).sum() + inside[high].sum())
    result = one_run_audit_epsilon(len(inside), 2 * half, correct, delta, alpha)
    ceiling = one_run_audit_epsilon(len(inside), 2 * half, 2 * half, delta, alpha).certificate_epsilon
    refuted = result.refutes(epsilon)
    power = "" if ceiling > epsilon else "; so few canaries could not have refuted it"
    return Check(
        "one-run audit",
        not refuted,
        f"Guesses about {len(inside)} canaries "
        + ("speak against the stated epsilon." if refuted else f"do not speak against the stated epsilon{power}."),
        {
            "correct": correct,
            "guesses": 2 * half,
            "canaries": len(inside),
            "epsilon_lower": result.certificate_epsilon,
            "ceiling": ceiling,
        },
    )


# Checks that measuring makes of every release under a theorem; where one is missing, somebody left it out.
_ALWAYS = {
    name: ("replay", "replayed steps") for name in ("rewind-to-delete", "descent-to-delete", "newton", "network-newton")
}


def left_out(certificate: Certificate, checks: Sequence[Check]) -> list[str]:
    """Checks of this release that are missing, in words; a run that was refuted is not checked any further."""
    made = {check.name for check in checks}
    wanted = _ALWAYS.get(str(certificate.parameters["theorem"]), ())
    return [
        f"the check {name!r}, which is made of every such release, is missing" for name in wanted if name not in made
    ]


def refuting(check: Check, certificate: Certificate) -> bool:
    """Whether the numbers of a check refute the certificate, whatever it says of having passed; without numbers it does not.

    Rounding is granted generously: this finds what was rewritten, the check itself was exact.
    """
    said = check.detail
    if not said:
        return False
    bounds = {
        "retrain check": lambda: said.get("distance", 0) <= certificate.sensitivity * 1.01 + ROUNDING["float32"],
        "replay": lambda: _is_noise(said, certificate.sigma),
        "stored iterates": lambda: said["relative_distance"] <= ROUNDING["float32"],
        "replayed steps": lambda: said["relative_distance"] <= ROUNDING["float32"],
        "fresh noise": lambda: said["p_value"] > ALPHA,
        "two-world test": lambda: said["epsilon_lower"] <= certificate.epsilon * (1 + 1e-9),
        "one-run audit": lambda: said["epsilon_lower"] <= certificate.epsilon * (1 + 1e-9),
    }
    return check.name in bounds and not bounds[check.name]()


def _is_noise(said: Mapping[str, Any], sigma: float) -> bool:
    """Whether the size of a residual is that of the stated noise, and the p-value the one that follows from it."""
    squared = said["coordinates"] * said["standard_deviation"] ** 2
    again = replay.replay_check(squared_norm=squared, sigma=sigma, dimension=said["coordinates"])
    return not again.refutes(ALPHA) and abs(again.p_value - said["p_value"]) <= 1e-6
