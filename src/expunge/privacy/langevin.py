"""Noisy gradient descent that keeps running on the retained data: Langevin and SGD unlearning.

Step: w ← Proj(w − η·gradient + sqrt(2η)·σ·N(0, I)) in training *and* unlearning, on an m-strongly convex loss,
gradients clipped to M (``clip``), η <= 1/L. Neighbouring data *replace* S records, so n is unchanged.

Formal guarantee: the papers' Rényi bounds, taken as published; the nonconvex ones are unusable by the authors' own
word.

Source: Chien et al. 2024: Langevin unlearning (arXiv 2401.10371) and SGD unlearning (arXiv 2403.17105), as their released
code has the bounds; the numbers of the theorems are not known to us.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from expunge.core.errors import InputError
from expunge.privacy.composition import renyi_to_epsilon
from expunge.privacy.domain import count, non_negative, positive


def langevin_divergence(
    orders: np.ndarray,
    *,
    unlearn_steps: int,
    strong_convexity: float,
    lr: float,
    clip: float,
    sigma: float,
    samples: int,
    forget: int,
) -> np.ndarray:
    """Return e^{−Kmη/α}·4αS²M²/(mσ²n²) for every order α: Rényi divergence after K unlearning steps. Same shape.

    Raises: InputError if a constant is outside its domain.
    Formal guarantee: between K noisy steps on the new data from the old data's law, and the new data's law.
    Source: Chien et al. 2024, Langevin unlearning (arXiv 2401.10371).

    >>> constants = dict(strong_convexity=0.011, lr=1 / 0.261, clip=1.0, sigma=0.03, samples=11_000, forget=1)
    >>> langevin_divergence(np.array([2.0]), unlearn_steps=0, **constants).round(6)
    array([0.006678])
    """
    positive("strong_convexity (m)", strong_convexity)
    positive("lr (eta)", lr)
    positive("sigma", sigma)
    non_negative("clip (M)", clip)
    count("unlearn_steps (K)", unlearn_steps)
    count("forget (S)", forget, at_most=count("samples (n)", samples, at_least=1))
    start = 4 * orders * (forget * clip / (sigma * samples)) ** 2 / strong_convexity
    return np.exp(-unlearn_steps * strong_convexity * lr / orders) * start


def langevin_epsilon(
    *,
    unlearn_steps: int,
    strong_convexity: float,
    lr: float,
    clip: float,
    sigma: float,
    samples: int,
    forget: int,
    delta: float,
    improved: bool = False,
) -> float:
    """Return ε at δ of Langevin unlearning; ``improved`` uses the sharper conversion than the paper's.

    Raises: InputError if a constant is outside its domain.
    Formal guarantee: (ε, δ) from the Rényi bound of ``langevin_divergence``.
    Source: Chien et al. 2024, Langevin unlearning (arXiv 2401.10371).

    >>> constants = dict(strong_convexity=0.011, lr=1 / 0.261, clip=1.0, sigma=0.03, samples=11_000, forget=1)
    >>> [round(langevin_epsilon(unlearn_steps=k, delta=1 / 11_000, **constants), 4) for k in (0, 1000)]
    [0.3559, 0.2569]
    """

    def divergence(orders: np.ndarray) -> np.ndarray:
        return langevin_divergence(
            orders,
            unlearn_steps=unlearn_steps,
            strong_convexity=strong_convexity,
            lr=lr,
            clip=clip,
            sigma=sigma,
            samples=samples,
            forget=forget,
        )

    return renyi_to_epsilon(divergence, delta, improved=improved).epsilon


def langevin_sequential_epsilon(
    steps: Sequence[int],
    *,
    strong_convexity: float,
    lr: float,
    clip: float,
    sigma: float,
    samples: int,
    forget: int,
    delta: float,
    improved: bool = False,
) -> float:
    """Return ε at δ after the last of several requests of S records each, the s-th given ``steps[s]`` noisy steps.

    ε_s(α) = e^{−k_s mη/α} (α−1/2)/(α−1) (ε_0(2α) + ε_{s−1}(2α)), where ε_0 is the bound before any unlearning step.

    Raises: InputError if there is no request or a constant is outside its domain.
    Formal guarantee: (ε, δ) for the current request, by the weak triangle inequality of Rényi divergences.
    Source: Chien et al. 2024, Langevin unlearning (arXiv 2401.10371).

    >>> constants = dict(strong_convexity=0.011, lr=1 / 0.261, clip=1.0, sigma=0.03, samples=11_000, forget=1)
    >>> round(langevin_sequential_epsilon([1000], delta=1 / 11_000, **constants), 4)
    0.2569
    """
    if not len(steps):
        raise InputError("steps must hold one number of steps for each request; got none. Pass at least one.")
    constants = {
        "strong_convexity": strong_convexity,
        "lr": lr,
        "clip": clip,
        "sigma": sigma,
        "samples": samples,
        "forget": forget,
    }

    def after(request: int, orders: np.ndarray) -> np.ndarray:
        if request == 0:
            return langevin_divergence(orders, unlearn_steps=steps[0], **constants)
        fresh = langevin_divergence(2 * orders, unlearn_steps=0, **constants)
        decay = np.exp(-count("steps", steps[request]) * strong_convexity * lr / orders)
        return decay * (orders - 0.5) / (orders - 1) * (fresh + after(request - 1, 2 * orders))

    return renyi_to_epsilon(lambda orders: after(len(steps) - 1, orders), delta, improved=improved).epsilon


def sgd_epsilon(
    epochs: int | Sequence[int],
    *,
    strong_convexity: float,
    lr: float,
    clip: float,
    sigma: float,
    samples: int,
    batch: int,
    delta: float,
    improved: bool = False,
) -> float:
    """Return ε at δ of SGD unlearning with fixed cyclic batches after K epochs; a sequence means successive requests.

    c = 1−ηm, Z = 2ηM/(b(1−c^{n/b})); Z_1 = Z, Z_s = Z_{s−1} c^{k_{s−1} n/b} + Z; ε_s(α) = α Z_s²/(2ησ²) c^{2 k_s n/b}.
    One replaced record a request. Training is taken as converged; otherwise a further term with the ball's radius is
    due.

    Raises: InputError if ηm >= 1, the batch exceeds n, or a constant is outside its domain.
    Formal guarantee: (ε, δ) from the published Rényi bound.
    Source: Chien et al. 2024, SGD unlearning (arXiv 2403.17105).

    >>> constants = dict(strong_convexity=0.011, lr=1 / 0.261, clip=1.0, sigma=0.03, samples=11_000, batch=128)
    >>> [round(sgd_epsilon(k, delta=1 / 11_000, **constants), 5) for k in (1, 2)]
    [0.11178, 0.00275]
    """
    positive("sigma", sigma)
    non_negative("clip (M)", clip)
    count("batch (b)", batch, at_least=1, at_most=count("samples (n)", samples, at_least=1))
    schedule = [epochs] if isinstance(epochs, int) else list(epochs)
    if not schedule:
        raise InputError("epochs must hold one number of epochs for each request; got none. Pass at least one.")
    if positive("lr (eta)", lr) * positive("strong_convexity (m)", strong_convexity) >= 1:
        raise InputError(f"lr*strong_convexity must be below 1; got {lr * strong_convexity!r}. Use lr <= 1/L.")
    log_epoch = samples / batch * math.log1p(-lr * strong_convexity)  # ln of the contraction of one epoch
    fresh = 2 * lr * clip / (batch * -math.expm1(log_epoch))
    apart = fresh
    for done in schedule[:-1]:
        apart = apart * math.exp(count("epochs", done) * log_epoch) + fresh
    rho = apart**2 / (2 * lr * sigma**2) * math.exp(2 * count("epochs", schedule[-1]) * log_epoch)
    return renyi_to_epsilon(lambda orders: rho * orders, delta, improved=improved).epsilon
