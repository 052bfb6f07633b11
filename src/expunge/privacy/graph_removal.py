"""How far a minimum moves when nodes, edges or features of a graph go, and what a residual of the gradient comes to.

Symbols: ``m`` = examples before; ``gone`` = those that go; ``changed`` = |Ṽ|, those that go or that the deletion reaches;
``C`` = bound of every example's loss at both minima; ``L`` = Lipschitz constant of a loss; ``lambda`` = its strong convexity.

The bound of IDEA (arXiv 2407.19398, Theorem 2) is the larger root of a quadratic. Its proof uses strong convexity at one of the
two minima and reaches ``d² - 2 L gone d / (m lambda) - 8 C changed / (m lambda) <= 0``; the theorem prints the root for 4.
The printed bound holds all the same, by strong convexity at both (derived here). With S and S' the sums of losses before and
after, minimised at a and b, d = ||a - b||, both growths together give

    (m - gone / 2) lambda d² <= [S(b) - S'(b)] - [S(a) - S'(a)] <= L gone d + 4 C reached,

where only what goes and what is reached differ, and what is reached by at most 2 C at either point. A lambda-strongly convex
loss that is L-Lipschitz between the minima has L >= lambda d / 2, so the half on the left is at most another L gone d on the
right: m lambda d² <= 2 L gone d + 4 C changed, whose root is the printed one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from expunge.core.errors import InputError
from expunge.privacy.domain import count, non_negative, positive
from expunge.privacy.newton import guo_budget

ONE_SIDED, TWO_SIDED = 8, 4  # factors under the root
CURVATURE = 0.25  # gamma of the logistic loss as CGU has it; its third derivative is at most 0.0963


def minimum_shift(
    *, examples: int, gone: int, changed: int, strong_convexity: float, lipschitz: float, loss_bound: float,
    factor: int = ONE_SIDED,
) -> float:  # fmt: skip
    """``(L gone + sqrt(factor m lambda C changed + L² gone²)) / (m lambda)``: how far the minimum of the mean loss can move.

    Args:
        factor: 8 of the published proof, or 4 of the published theorem and of the proof above.

    Raises:
        InputError: if a number is outside its domain, or more examples go than there are.

    Formal guarantee: an upper bound for lambda-strongly convex losses that are L-Lipschitz between both minima and at most C
    there, at exact minima.
    Source: IDEA (arXiv 2407.19398), Theorem 2; see above.

    >>> round(minimum_shift(examples=2437, gone=121, changed=2000, strong_convexity=0.05, lipschitz=0.25, loss_bound=3.0), 2)
    20.1
    """
    count("examples (m)", examples, at_least=1)
    count("gone", gone, at_most=examples)
    count("changed", changed, at_most=examples)
    positive("strong_convexity (lambda)", strong_convexity)
    non_negative("lipschitz (L)", lipschitz)
    non_negative("loss_bound (C)", loss_bound)
    if factor not in (ONE_SIDED, TWO_SIDED):
        raise InputError(f"Expected a factor of {TWO_SIDED} or {ONE_SIDED}; got {factor!r}.")
    weight = examples * strong_convexity
    return (lipschitz * gone + math.sqrt(factor * weight * loss_bound * changed + (lipschitz * gone) ** 2)) / weight


def share_of_head(sigma: float, epsilon: float, delta: float, heads: int) -> float:
    """What the gradient residual of each of ``heads`` may come to so that all of them together stay within the budget.

    Residuals of heads are parts of one vector, and so is their noise: shares of ``budget / sqrt(heads)`` keep its norm within
    the budget of one (derived here). CGU's code sums residuals over heads and compares with ``heads`` budgets.

    Raises:
        InputError: as ``privacy.newton.guo_budget``.

    Formal guarantee: none of its own.

    >>> round(share_of_head(1.0, 1.0, 1e-4, 4) / share_of_head(1.0, 1.0, 1e-4, 1), 3)
    0.5
    """
    count("heads", heads, at_least=1)
    return guo_budget(sigma, epsilon, delta) / math.sqrt(heads)


def residual_of_head(z: Tensor, step: Tensor, curvature: float = CURVATURE) -> Tensor:
    """``gamma ||Z||_2 ||s|| ||Z s||`` of each head: what a Newton step s leaves of the gradient of a sum of logistic losses.

    Args:
        curvature: gamma, by how fast the second derivative of a loss changes at most.

    Shapes:
        z (n, d), rows on what is left; step (d, heads) → (heads,).

    Formal guarantee: an upper bound of the gradient's norm after the step, beyond what it was before and what the solver left.
    Source: CGU (arXiv 2206.09140), the bound that follows from the data.
    """
    spectral = torch.linalg.eigvalsh(z.T @ z)[-1].clamp_min(0).sqrt()
    return curvature * spectral * step.norm(dim=0) * (z @ step).norm(dim=0)
