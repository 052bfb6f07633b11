"""Derivatives of the cross-entropy of softmax heads and perceptrons, written out: several times as fast as autograd.

A :class:`ClosedForm` exists for ``SoftmaxHead`` and for sequences of linear layers with ReLU, tanh or SmeLU between them
(``perceptron``, ``mlp``), under our own cross-entropy, all by exact types (:mod:`expunge.tasks.exact_types`);
:func:`closed_form` gives ``None`` for anything else. It equals autograd up to rounding, at the joints of activations as well.

Examples lie along the last axis: an elementwise step then runs over long contiguous rows, and stacked models share one product.
Leading axes of weights and examples stand for models that train together.

Formal guarantee: none of its own; the formulas are the chain rule. The Hessian in the logits is diag(p) - pp'; the norm of
one example's gradient is that of two vectors' outer product (Goodfellow 2015, arXiv 1510.01799).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.core.batch import Batch
from expunge.core.task import Task
from expunge.tasks.exact_types import altered, plain_classification, plain_softmax_head
from expunge.tasks.networks import SmeLU, SoftmaxHead

Params = Mapping[str, Tensor]


@dataclass(frozen=True)
class Layer:
    """An affine map and what follows it.

    Attributes:
        weight, bias: names of the tensors (out, in) and (out,); ``None`` for no bias.
        then: ``relu``, ``tanh``, or the beta of SmeLU; ``None`` where the logits follow.
    """

    weight: str
    bias: str | None
    then: str | float | None = None

    def affine(self, params: Params, inputs: Tensor) -> Tensor:
        """(..., out, n)."""
        product = params[self.weight] @ inputs
        return product if self.bias is None else product.add_(params[self.bias].unsqueeze(-1))

    def activation(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The activation and its derivative at ``z``, each (..., out, n)."""
        if self.then == "tanh":
            value = z.tanh()
            return value, value.square().neg_().add_(1)
        if isinstance(self.then, float):
            slope = z.mul(1 / (2 * self.then)).add_(0.5).clamp_(0, 1)
            return z.sub(self.then).relu_().addcmul_(slope, slope, value=self.then), slope
        value = z.relu()
        return value, value.sign()


@dataclass(frozen=True)
class Examples:
    """What a closed form reads of a batch.

    Attributes:
        features: (..., d, n), projected on the head's ball.
        labels: (..., n).
    """

    features: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return self.labels.shape[-1]


def laid_out(columns: Mapping[str, Tensor]) -> Examples:
    """Columns ``x`` (..., n, d), projected already, and ``y`` (..., n), with the examples along the last axis."""
    return Examples(columns["x"].mT.contiguous(), columns["y"])


@dataclass(frozen=True)
class ClosedForm:
    """A network's layers in order, and the radius of the ball that a softmax head projects its inputs on.

    Shapes:
        params: name → (..., *shape); leading axes for stacked models.
    """

    layers: tuple[Layer, ...]
    radius: float | None = None

    @property
    def names(self) -> set[str]:
        """Names of all weights and biases."""
        return {name for layer in self.layers for name in (layer.weight, layer.bias) if name is not None}

    def projected(self, batch: Batch) -> Batch:
        """The same examples with inputs as the first layer sees them, (n, d): what need not be done in every step."""
        x = batch["x"].flatten(1)
        scale = self._onto_ball(x)
        return batch.with_columns(x=x if scale is None else x * scale)

    def examples(self, batch: Batch) -> Examples:
        """``batch``, laid out for many steps: one copy of the inputs."""
        x = batch["x"].flatten(1)
        features, scale = x.mT.clone(memory_format=torch.contiguous_format), self._onto_ball(x)
        return Examples(features if scale is None else features.mul_(scale.mT), batch["y"])

    def _onto_ball(self, x: Tensor) -> Tensor | None:
        """What each input (n, d) is multiplied by to lie in the ball, (n, 1); ``None`` where all do already."""
        if self.radius is None:
            return None
        norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return None if bool((norms <= self.radius).all()) else self.radius / norms.clamp_min(self.radius)

    def gradient(
        self, params: Params, names: Collection[str], examples: Examples, share: Tensor, clip: float | None = None
    ) -> dict[str, Tensor]:
        """Gradient of the sum of share · loss over examples, for the tensors called ``names``.

        Args:
            share: weight of each example, (..., 1, n).
            clip: the norm to which each example's gradient is brought before it is weighed.
        """
        inputs, slopes = self._forward(params, examples)
        error = error_of(self.layers[-1].affine(params, inputs[-1]), examples.labels, share if clip is None else None)
        errors = self._backward(params, names, error, slopes)
        if clip is not None:
            scale = clip / self._norms(names, inputs, errors).clamp_min(clip) * share
            errors = {i: each * scale for i, each in errors.items()}
        return self._products(names, inputs, errors)

    def gradient_norms(self, params: Params, names: Collection[str], examples: Examples) -> Tensor:
        """Norm of each example's gradient over the tensors called ``names``, (..., n)."""
        inputs, slopes = self._forward(params, examples)
        error = error_of(self.layers[-1].affine(params, inputs[-1]), examples.labels)
        return self._norms(names, inputs, self._backward(params, names, error, slopes)).squeeze(-2)

    def losses(self, params: Params, examples: Examples) -> Tensor:
        """Cross-entropy of each example, (..., n)."""
        logits = self.layers[-1].affine(params, self._forward(params, examples)[0][-1])
        own = examples.labels.unsqueeze(-2).expand(*logits.shape[:-2], 1, len(examples))
        return logits.logsumexp(-2) - logits.gather(-2, own).squeeze(-2)

    def _forward(self, params: Params, examples: Examples) -> tuple[list[Tensor], list[Tensor]]:
        """What enters each layer, and the derivative of each activation."""
        inputs, slopes = [examples.features], []
        for layer in self.layers[:-1]:
            value, slope = layer.activation(layer.affine(params, inputs[-1]))
            inputs.append(value)
            slopes.append(slope)
        return inputs, slopes

    def _backward(
        self, params: Params, names: Collection[str], error: Tensor, slopes: list[Tensor]
    ) -> dict[int, Tensor]:
        """Derivatives by the outputs of each affine map, down to the lowest whose tensors are asked for."""
        lowest = min(i for i, layer in enumerate(self.layers) if layer.weight in names or layer.bias in names)
        errors = {len(self.layers) - 1: error}
        for i in range(len(self.layers) - 1, lowest, -1):
            errors[i - 1] = (params[self.layers[i].weight].mT @ errors[i]).mul_(slopes[i - 1])
        return errors

    def _products(self, names: Collection[str], inputs: list[Tensor], errors: dict[int, Tensor]) -> dict[str, Tensor]:
        found = {}
        for i, error in errors.items():
            layer = self.layers[i]
            if layer.weight in names:
                found[layer.weight] = error @ inputs[i].mT
            if layer.bias is not None and layer.bias in names:
                found[layer.bias] = error.sum(-1)
        return {name: found[name] for name in names}

    def _norms(self, names: Collection[str], inputs: list[Tensor], errors: dict[int, Tensor]) -> Tensor:
        """Norm of each example's gradient, (..., 1, n): one layer's is the outer product of its error and its input."""
        total = torch.zeros(())
        for i, error in errors.items():
            layer = self.layers[i]
            size = error.square().sum(-2, keepdim=True)
            if layer.weight in names:
                total = total + size * inputs[i].square().sum(-2, keepdim=True)
            if layer.bias is not None and layer.bias in names:
                total = total + size
        return total.sqrt()


def closed_form(task: Task, model: nn.Module) -> ClosedForm | None:
    """The closed form of ``model``'s loss under ``task``; ``None`` where it is not known to be one of ours."""
    if not plain_classification(task):
        return None
    if plain_softmax_head(task, model):
        assert isinstance(model, SoftmaxHead)
        form = ClosedForm((_layer("linear", model.linear),), model.radius)
    elif (layers := _perceptron(model)) is not None:
        form = ClosedForm(layers)
    else:
        return None
    named = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return form if form.names == named and not any(True for _ in model.buffers()) else None


def _layer(name: str, linear: nn.Linear, then: str | float | None = None) -> Layer:
    return Layer(f"{name}.weight", None if linear.bias is None else f"{name}.bias", then)


def _perceptron(model: nn.Module) -> tuple[Layer, ...] | None:
    """The layers of (flatten,) linear, (activation, linear)*; ``None`` for any other module."""
    named = list(model.named_children())
    if type(model) is not nn.Sequential or any(map(altered, [model, *(part for _, part in named)])):
        return None
    if named and type(named[0][1]) is nn.Flatten:
        if (named[0][1].start_dim, named[0][1].end_dim) != (1, -1):
            return None
        named = named[1:]
    affine = {name: part for name, part in named[::2] if type(part) is nn.Linear}
    after = [_activation(part) for _, part in named[1::2]]
    if len({id(part) for part in affine.values()}) != len(after) + 1 or len(named) % 2 == 0 or None in after:
        return None
    return tuple(_layer(name, part, then) for (name, part), then in zip(affine.items(), [*after, None], strict=True))


def _activation(module: nn.Module) -> str | float | None:
    """What a :class:`Layer` calls it; ``None`` for one that is not known here."""
    if type(module) is SmeLU:
        return module.beta if type(module.beta) is float and module.beta > 0 else None
    return {nn.ReLU: "relu", nn.Tanh: "tanh"}.get(type(module))


def error_of(logits: Tensor, labels: Tensor, share: Tensor | None = None) -> Tensor:
    """Derivative of share · loss by the logits, (softmax - one-hot) · share, in place: (..., classes, n)."""
    powers = logits.sub_(logits.amax(-2, keepdim=True)).exp_()
    total = powers.sum(-2, keepdim=True)
    weight = torch.ones_like(total) if share is None else share.expand_as(total)
    powers.mul_(weight / total)
    return powers.scatter_add_(-2, labels.unsqueeze(-2).expand(*total.shape), -weight)
