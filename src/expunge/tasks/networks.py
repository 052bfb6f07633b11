"""Small networks: a softmax head with bounded inputs and smooth perceptrons, whose smoothness can be spoken about, and an
ordinary perceptron."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SoftmaxHead(nn.Module):
    """Softmax regression on rows that are first projected on a ball, so that its constants are proved, not measured.

    With ``||x|| <= radius`` enforced inside the forward pass, per-row cross-entropy is convex in the weights with
    bounded gradient and smoothness whatever the data are; ``privacy.constants`` has the formulas. All
    weights start at zero: a start that no data can have influenced.

    Args:
        features, classes: numbers in a row, and classes.
        radius: of the ball that rows are projected on.
        bias: whether each class has an intercept.

    Shapes:
        (n, ...) → (n, classes); inputs are flattened to (n, features).
    """

    def __init__(self, features: int, classes: int, radius: float = 1.0, bias: bool = False):
        super().__init__()
        self.radius = float(radius)
        self.linear = nn.Linear(features, classes, bias=bias)
        nn.init.zeros_(self.linear.weight)
        if bias:
            nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = x.flatten(1)
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        shrink = self.radius / norm.clamp_min(self.radius)  # (n, 1)
        # shrinking the (n, classes) products is the same map as shrinking the (n, features) rows, and cheaper
        logits = (x @ self.linear.weight.T) * shrink
        return logits if self.linear.bias is None else logits + self.linear.bias


class SmeLU(nn.Module):
    """A rectifier with a quadratic joint, so that a smoothness constant exists.

    Beta 0.5: the networks in the experiments of R2D (arXiv 2409.09778).

    0 below -beta, the identity above beta, (x + beta)² / (4 beta) between.
    """

    def __init__(self, beta: float = 0.5):
        super().__init__()
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        clipped = torch.clamp(x, -self.beta, self.beta)
        return (clipped + self.beta) ** 2 / (4 * self.beta) + torch.relu(x - self.beta)


def perceptron(widths: Sequence[int], beta: float = 0.5) -> nn.Sequential:
    """A multilayer perceptron with SmeLU between its linear layers; ``widths`` from input to classes.

    Args:
        widths: of all layers, from the input to the classes.
        beta: half-width of SmeLU's quadratic part; 0.5 in the experiments of R2D (arXiv 2409.09778).
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        layers += [nn.Linear(fan_in, fan_out)] + ([SmeLU(beta)] if i < len(widths) - 2 else [])
    return nn.Sequential(*layers)


def mlp(features: int, classes: int, hidden: Sequence[int] = (128,)) -> nn.Sequential:
    """An ordinary perceptron with ReLU; inputs of any shape with ``features`` numbers a row.

    Args:
        features, classes: numbers in a row, and classes.
        hidden: widths of the hidden layers.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in itertools.pairwise([features, *hidden]):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1] if hidden else features, classes))
