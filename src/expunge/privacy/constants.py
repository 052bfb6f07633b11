"""Constants that are proved from bounded inputs, so that a certificate needs nobody's word for them.

Symbols: R ``radius`` = enforced bound on ‖x‖; a bias is one more input that is always 1, so R² becomes R² + 1; λ
``l2`` = weight of (λ/2)‖θ‖² on *all* parameters, bias included. ``gradient_bound`` and ``gradient_difference`` speak
of the data part, ``smoothness`` and ``strong_convexity`` of the whole loss.

Derived here, beside each formula; G and L of logistic and softmax regression are the usual ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from expunge.privacy.domain import non_negative, positive


@dataclass(frozen=True)
class Constants:
    """Proved constants of one sample's loss and, for each, the formula it came from."""

    gradient_bound: float  # G, loss/weights, data part
    gradient_difference: float  # B: two samples' gradients at one point, loss/weights
    smoothness: float  # L, loss/weights²
    strong_convexity: float  # loss/weights²
    hessian_lipschitz: float  # M, loss/weights³
    formulas: Mapping[str, str]


def logistic_head(radius: float, l2: float, bias: bool = True) -> Constants:
    """Return the constants of ln(1 + e^{−y θ·x}) + (λ/2)‖θ‖², y = ±1.

    The derivative of the scalar loss lies in (−1, 1), its second in (0, 1/4], its third in ±1/(6√3). Two samples'
    gradients can come arbitrarily close to opposite, so B = 2G.

    Raises: InputError if R <= 0 or λ < 0.
    Formal guarantee: the bounds hold for every ‖x‖ <= R and every θ.
    Source: derived above.

    >>> head = logistic_head(1.0, 0.01, bias=False)
    >>> head.gradient_bound, head.smoothness, head.strong_convexity
    (1.0, 0.26, 0.01)
    """
    r = _augmented(radius, bias)
    return _constants(
        (r, "R"),
        (r**2 / 4 + non_negative("l2", l2), "R²/4 + λ"),
        (l2, "λ"),
        (r**3 / (6 * math.sqrt(3)), "R³/(6√3)"),
        bias,
    )


def softmax_head(radius: float, l2: float, bias: bool = True) -> Constants:
    """Return the constants of cross-entropy of softmax(Wx) + (λ/2)‖W‖², any number of classes.

    The gradient is (p − e_y)xᵀ and ‖p − e_y‖ <= √2; the Hessian in the logits, diag(p) − ppᵀ, has norm at most 1/2. Its
    derivative along a unit direction u is a third central moment of u under p; a variable of range r has at most
    r³/(6√3), and r <= √2.

    Raises: InputError if R <= 0 or λ < 0.
    Formal guarantee: the bounds hold for every ‖x‖ <= R and every W.
    Source: derived above.

    >>> head = softmax_head(1.0, 0.01, bias=True)
    >>> round(head.gradient_bound, 6), round(head.smoothness, 6), head.strong_convexity
    (2.0, 1.01, 0.01)
    """
    r = _augmented(radius, bias)
    return _constants(
        (math.sqrt(2) * r, "√2 R"),
        (r**2 / 2 + non_negative("l2", l2), "R²/2 + λ"),
        (l2, "λ"),
        (math.sqrt(2) / (3 * math.sqrt(3)) * r**3, "√2 R³/(3√3)"),
        bias,
    )


def squared_loss_head(
    radius: float, l2: float, *, target_bound: float, parameter_bound: float, bias: bool = True
) -> Constants:
    """Return the constants of ½‖Wx − y‖² + (λ/2)‖W‖² with ‖y‖ <= Y and the weights projected on ‖W‖ <= P.

    The gradient (Wx − y)xᵀ grows with W, so G = R(RP + Y) holds only while the projection is applied after every step;
    the Hessian xxᵀ does not depend on W (M = 0: Newton is exact).

    Raises: InputError if R or P <= 0, or λ or Y < 0.
    Formal guarantee: the bounds hold for every ‖x‖ <= R, ‖y‖ <= Y and every ‖W‖ <= P.
    Source: derived above; a projection onto a convex set stretches no distance.

    >>> squared_loss_head(1.0, 0.1, target_bound=2.0, parameter_bound=3.0, bias=False).gradient_bound
    5.0
    """
    r = _augmented(radius, bias)
    bound = r * (r * positive("parameter_bound", parameter_bound) + non_negative("target_bound", target_bound))
    return _constants(
        (bound, "R(RP + Y), weights projected on radius P"),
        (r**2 + non_negative("l2", l2), "R² + λ"),
        (l2, "λ"),
        (0.0, "0"),
        bias,
    )


def _augmented(radius: float, bias: bool) -> float:
    return math.hypot(positive("radius", radius), 1.0) if bias else float(positive("radius", radius))


def _constants(gradient, smoothness, strong_convexity, hessian, bias: bool) -> Constants:
    note = ", with R² + 1 for R² (bias)" if bias else ""
    return Constants(
        gradient[0],
        2 * gradient[0],
        smoothness[0],
        strong_convexity[0],
        hessian[0],
        {
            "gradient_bound": gradient[1] + note,
            "gradient_difference": f"2 ({gradient[1]})" + note,
            "smoothness": smoothness[1] + note,
            "strong_convexity": strong_convexity[1],
            "hessian_lipschitz": hessian[1] + note,
        },
    )
