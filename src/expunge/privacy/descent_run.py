"""What a sensitivity bound needs to know about gradient descent that is rewound and redone on the retained samples.

Source: R2D (arXiv 2409.09778), Algorithms 1 and 2 and the assumptions of Theorem 3.1; clipping is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from expunge.core.errors import InputError
from expunge.privacy.domain import count, non_negative, positive


@dataclass(frozen=True)
class GradientDescentRun:
    """What a sensitivity bound needs to know about a run; units stand beside the fields.

    ``gradient_bound=None`` says that no uniform bound exists (quadratics on an unbounded set): then
    ``gradient_difference`` is required and the bounds that need G are invalid. ``clipped=True`` says that G is
    *enforced* by clipping every sample's gradient to norm G (derived here): clipping is a projection, hence
    1-Lipschitz, so L is kept and all general bounds hold with G := clip norm; but a clipped convex gradient need not
    be the gradient of a convex function, so the convex bounds are invalid.

    Raises: InputError for m >= n, K outside [0, T], or a constant outside its domain.
    Formal guarantee: none; the constants' provenance decides what a bound computed from them is worth.
    Source: R2D (arXiv 2409.09778), Algorithms 1 and 2 and the assumptions of Theorem 3.1.

    >>> from expunge.privacy.sensitivity import path, published, tight
    >>> run = GradientDescentRun(samples=94449, forget=1079, steps=3666, rewind=376, lr=0.01, smoothness=0.2065,
    ...                          gradient_bound=0.5946)
    >>> round(published(run), 3), round(tight(run), 3), round(path(run), 3)
    (136.797, 126.478, 23.509)
    """

    samples: int  # n, all training samples
    forget: int  # m, samples to forget
    steps: int  # T, gradient steps of training
    rewind: int  # K, last steps that are undone and redone on the retained samples
    lr: float  # η
    smoothness: float  # L, 1/weights² x loss
    gradient_bound: float | None  # G, loss/weights
    gradient_difference: float | None = None  # B, loss/weights; None means 2G
    strong_convexity: float = 0.0  # μ of the mean retained loss; above 0 implies convex
    convex: bool = False  # the mean loss over the retained samples is convex
    l2: float = 0.0  # λ of the regulariser, already counted in smoothness
    clipped: bool = False  # G is enforced by per-sample clipping

    def __post_init__(self):
        count("samples (n)", self.samples, at_least=1)
        if not count("forget (m)", self.forget) < self.samples:
            raise InputError(
                f"forget (m) must be below samples (n) = {self.samples}, something must remain; got m = {self.forget}. "
                "To forget everything, discard the model."
            )
        count("steps (T)", self.steps)
        count("rewind (K)", self.rewind, at_most=self.steps)
        positive("lr (eta)", self.lr)
        non_negative("smoothness (L)", self.smoothness)
        non_negative("strong_convexity (mu)", self.strong_convexity)
        non_negative("l2", self.l2)
        if self.strong_convexity > self.smoothness:
            raise InputError(
                f"strong_convexity must be at most smoothness = {self.smoothness!r}; got {self.strong_convexity!r}. "
                "Both bound the same Hessian: recompute them from the same loss."
            )
        if self.gradient_bound is None and self.gradient_difference is None:
            raise InputError(
                "gradient_bound or gradient_difference must be a number; got None for both. "
                "Clip per-sample gradients to norm C and pass gradient_bound=C, clipped=True."
            )
        for name in ("gradient_bound", "gradient_difference"):
            if getattr(self, name) is not None:
                non_negative(name, getattr(self, name))

    @property
    def difference(self) -> float:
        """B, capped at 2G: how far two samples' gradients can be apart at one point."""
        caps = [self.gradient_difference, None if self.gradient_bound is None else 2 * self.gradient_bound]
        return min(cap for cap in caps if cap is not None)

    @property
    def kick(self) -> float:
        """η m B/n: what one step on all samples instead of the retained ones adds to the distance (weights)."""
        return self.lr * self.forget * self.difference / self.samples

    @property
    def log_growth(self) -> float:
        """ln(1 + ηL): one step on the same smooth loss stretches distances by at most 1 + ηL."""
        return math.log1p(self.lr * self.smoothness)
