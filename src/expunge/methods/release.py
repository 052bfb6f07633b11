"""The last step of every certified method: noise, once, written ahead of everything that depends on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from expunge.core.method import NoiseSource, Once
from expunge.core.trained import Fact, Origin
from expunge.methods.stages import contiguous
from expunge.training.descent import trainable


class _Witness:
    """A noise source that remembers in which precisions it was asked to add."""

    def __init__(self, source: NoiseSource):
        self.source, self.name, self.secret = source, source.name, source.secret
        self.precisions: set[str] = set()

    def add(self, tensors: Mapping[str, Tensor], sigma: float) -> tuple[Any, str]:
        noisy, precision = self.source.add(tensors, sigma)
        self.precisions.add(precision)
        return noisy, precision


def noisy_once(
    journal: Once, stage: str, noise: NoiseSource, draw: Callable[[NoiseSource], Mapping[str, Tensor]]
) -> tuple[dict[str, Tensor], dict[str, Fact]]:
    """What ``draw`` makes with ``noise``, written ahead together with where the noise came from.

    A run that is started again finds tensors and origin as they were drawn; another source given to it changes neither.
    """

    def compute() -> bytes:
        witness = _Witness(noise)
        tensors = draw(witness)
        origin = {"source": witness.name, "precision": "+".join(sorted(witness.precisions))}
        return save_tensors(contiguous(tensors), metadata=origin)

    content = journal.once(stage, compute)
    size = int.from_bytes(content[:8], "little")  # safetensors: header length, header (JSON), bytes
    origin = json.loads(content[8 : 8 + size])["__metadata__"]
    return load_tensors(content), {
        "noise_source": Fact(origin["source"], Origin.ENFORCED, "the source that drew it"),
        "noise_precision": Fact(origin["precision"], Origin.ENFORCED, "type in which it was added"),
    }


def noisy_release(
    model: Any, tensors: Mapping[str, Tensor], sigma: float, noise: NoiseSource, journal: Once, stage: str = "release"
) -> tuple[dict[str, Tensor], dict[str, Fact]]:
    """``tensors`` with N(0, sigma²) on every trainable coordinate, and what is known about that noise.

    The noisy tensors are written to the journal before anyone sees them: a run that is killed and started again
    finds them there and cannot draw a second time.

    Formal guarantee: each trainable coordinate receives noise exactly once per stage of a journal; the un-noised input
    is not touched.
    """
    names = trainable(model)

    def draw(source: NoiseSource) -> dict[str, Tensor]:
        return {**tensors, **source.add({name: tensors[name] for name in names}, sigma)[0]}

    released, facts = noisy_once(journal, stage, noise, draw)
    spacing = max(_spacing(tensors[name]) for name in names)
    untouched = [n for n in names if sigma > 0 and tensors[n].numel() > 8 and (released[n] == tensors[n].cpu()).all()]
    return released, {
        **facts,
        "noise_covers": Fact(
            not untouched, Origin.ENFORCED, f"{len(names)} trainable tensors, compared before and after"
        ),
        "noise_resolved": Fact(
            sigma >= SPACINGS * spacing,
            Origin.ENFORCED,
            f"sigma against the spacing {spacing:.1e} of the largest weight",
        ),
    }


# Noise must stand far above what rounding does to a weight: this many times the distance to the next number.
SPACINGS = 1000
# Least noise that a bound is ever turned into. Constants, so that the level does not depend on anybody's rows; more noise
# than a bound asks for keeps every promise.
LEAST_SIGMA = {torch.float64: 1e-9}
LEAST_SIGMA_OTHERWISE = 1e-3


def _spacing(tensor: Tensor) -> float:
    """Distance from the largest weight to the next number, in the type in which noise is added (single or wider)."""
    precision = torch.finfo(torch.float64 if tensor.dtype == torch.float64 else torch.float32).eps
    return precision * float(tensor.detach().abs().max())


def least_sigma(model: Any) -> float:
    """The least noise level for a model's weights: below it, rounding rather than noise decides the last digits."""
    moved = [parameter.dtype for parameter in model.parameters() if parameter.requires_grad]
    return max(LEAST_SIGMA.get(dtype, LEAST_SIGMA_OTHERWISE) for dtype in moved)
