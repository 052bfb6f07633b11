"""Rounding weights to few bits: what was pushed less than half a step comes back (Zhang et al. 2024, arXiv 2410.16454).

An unlearned model that is only a little away from the one before may round to the same weights as that one, and answers again.
In that paper methods that keep utility hold 21 % of the knowledge in full precision and 83 % after rounding to 4 bits. A model
of a quarter of a million weights shows nothing of it (measured by us): report the figures, and expect nothing of small ones.

Formal guarantee: none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.attacks.recall import Score
from expunge.core.errors import InputError
from expunge.core.task import Task

BITS = (4, 8)  # those of arXiv 2410.16454
GROUP = 32  # weights that share a step; as in GGUF's Q4_0 and Q8_0; our choice
SCHEMES = ("symmetric", "asymmetric")


@dataclass(frozen=True)
class QuantisationRow:
    """Scores of both models at one precision.

    Attributes:
        bits: 4, 8, …; ``None``: as the weights are.
        unlearned, retrained: name of a score → its value; ``retrained`` is empty without such a model.
        error: largest distance of a rounded weight of the unlearned model from itself, in steps: at most a half.
    """

    bits: int | None
    unlearned: Mapping[str, float]
    retrained: Mapping[str, float]
    error: float


@dataclass(frozen=True)
class QuantisationTable:
    """What rounding does to an unlearned model and to its twin that never saw the records.

    Attributes:
        rows: full precision first.
        scheme, group: how weights were rounded.
        tensors: names of the weights that were.
    """

    rows: tuple[QuantisationRow, ...]
    scheme: str
    group: int
    tensors: tuple[str, ...]


def quantised(weight: Tensor, bits: int, *, group: int = GROUP, scheme: str = "symmetric") -> tuple[Tensor, Tensor]:
    """``weight`` rounded to the nearest of 2^bits values in each run of ``group`` along its last axis, and the steps.

    Symmetric: step = max |w| / (2^(bits-1) - 1), zero stays zero, values from -(2^(bits-1) - 1) to 2^(bits-1) - 1 steps.
    Asymmetric: step = (max - min) / (2^bits - 1), counted from the smallest weight. Either way no weight moves by more than
    half a step.

    Shapes:
        weight (…, n) → (…, n) of its own dtype, and the step of each weight, the same shape, float32 or wider.

    Raises:
        InputError: for fewer than 2 bits, more than 16, an unknown scheme, or weights that are not finite numbers.
    """
    _check((bits,), group, scheme)
    if not weight.is_floating_point() or not bool(torch.isfinite(weight).all()):
        raise InputError("Expected finite floating-point weights to round; got something else.")
    wide = weight.double() if weight.dtype == torch.float64 else weight.float()
    length = wide.shape[-1]
    padding = -length % group
    padded = nn.functional.pad(wide, (0, padding), mode="constant", value=0.0) if padding else wide
    if padding:  # the last run is shorter: what fills it up must not widen it
        padded[..., length:] = wide[..., -1:]
    runs = padded.unflatten(-1, (-1, group))
    if scheme == "symmetric":
        most = 2 ** (bits - 1) - 1
        start = torch.zeros_like(runs[..., :1])
        step = runs.abs().amax(-1, keepdim=True) / most
    else:
        start = runs.amin(-1, keepdim=True)
        step = (runs.amax(-1, keepdim=True) - start) / (2**bits - 1)
    whole = torch.where(step > 0, ((runs - start) / step.clamp_min(torch.finfo(wide.dtype).tiny)).round(), 0.0)
    rounded = (start + whole * step).flatten(-2)[..., :length]
    return rounded.to(weight.dtype), step.expand_as(runs).flatten(-2)[..., :length]


def linear_weights(model: nn.Module) -> tuple[str, ...]:
    """Names of the weight of every linear layer whose weight is its own: embeddings that double as the output stay."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return tuple(
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module.weight) not in embeddings
    )


def quantise(
    task: Task, tensors: Mapping[str, Tensor], bits: int, *, group: int = GROUP, scheme: str = "symmetric"
) -> dict[str, Tensor]:
    """``tensors`` with the weight of every linear layer rounded to ``bits``; what else there is stays what it is.

    Raises:
        InputError: as :func:`quantised`, or for a model without linear layers.
    """
    names = _must_have(task, tensors)
    return {
        name: quantised(tensor, bits, group=group, scheme=scheme)[0] if name in names else tensor
        for name, tensor in tensors.items()
    }


def quantisation_attack(
    task: Task,
    unlearned: Mapping[str, Tensor],
    score: Score,
    *,
    retrained: Mapping[str, Tensor] | None = None,
    bits: Sequence[int] = BITS,
    group: int = GROUP,
    scheme: str = "symmetric",
) -> QuantisationTable:
    """Score both models as they are and at each precision.

    Args:
        task: how the models are run.
        unlearned: the weights to be rounded.
        score: tensors → named numbers, for example the recall of the forgotten records.
        retrained: a model trained without the forget set; without it a number says little, since rounding harms every model.
        bits: precisions to try.
        group: weights that share one scale.
        scheme: ``symmetric`` or ``asymmetric`` rounding.

    Raises:
        InputError: as :func:`quantise`.

    Source: Zhang et al. 2024 (arXiv 2410.16454); rounding to nearest in groups of 32 is our choice.
    """
    _check(bits, group, scheme)
    names = _must_have(task, unlearned)
    rows = [QuantisationRow(None, dict(score(unlearned)), dict(score(retrained)) if retrained is not None else {}, 0.0)]
    for count in bits:
        small = quantise(task, unlearned, count, group=group, scheme=scheme)
        twin = quantise(task, retrained, count, group=group, scheme=scheme) if retrained is not None else None
        error = max(_error(unlearned[name], small[name], count, group, scheme) for name in names)
        rows.append(QuantisationRow(count, dict(score(small)), dict(score(twin)) if twin is not None else {}, error))
    return QuantisationTable(tuple(rows), scheme, group, names)


def _error(weight: Tensor, rounded: Tensor, bits: int, group: int, scheme: str) -> float:
    step = quantised(weight, bits, group=group, scheme=scheme)[1]
    apart = (rounded.to(step.dtype) - weight.to(step.dtype)).abs()
    return float(torch.where(step > 0, apart / step.clamp_min(torch.finfo(step.dtype).tiny), 0.0).max())


def _must_have(task: Task, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    names = tuple(name for name in linear_weights(task.build()) if name in tensors)
    if not names:
        raise InputError("The model has no linear layer whose weights could be rounded.")
    return names


def _check(bits: Sequence[int], group: int, scheme: str) -> None:
    if not bits or any(not 2 <= count <= 16 for count in bits):
        raise InputError(f"Expected bits from 2 to 16; got {list(bits)}.")
    if group < 1 or scheme not in SCHEMES:
        raise InputError(
            f"Expected a group of at least 1 and a scheme among {', '.join(SCHEMES)}; got {group}, {scheme!r}."
        )
