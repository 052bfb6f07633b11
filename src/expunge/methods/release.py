"""The last step of every certified method: noise, once, written ahead of everything that depends on it.

What is known of the noise is not said here: the planner hands out source and journal and watches both (``privacy.witness``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from expunge.core.method import NoiseSource, Once
from expunge.methods.stages import contiguous
from expunge.training.descent import trainable


def noisy_once(
    journal: Once, stage: str, noise: NoiseSource, draw: Callable[[NoiseSource], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """What ``draw`` makes with ``noise``, written ahead: a run that is started again finds the tensors as they were drawn."""
    return load_tensors(journal.once(stage, lambda: save_tensors(contiguous(draw(noise)))))


def noisy_release(
    model: Any, tensors: Mapping[str, Tensor], sigma: float, noise: NoiseSource, journal: Once, stage: str = "release"
) -> dict[str, Tensor]:
    """``tensors`` with N(0, sigma²) on every trainable coordinate.

    The noisy tensors are written to the journal before anyone sees them: a run that is killed and started again
    finds them there and cannot draw a second time.

    Formal guarantee: each trainable coordinate receives noise exactly once per stage of a journal; the un-noised input
    is not touched.
    """
    names = trainable(model)

    def draw(source: NoiseSource) -> dict[str, Tensor]:
        return {**tensors, **source.add({name: tensors[name] for name in names}, sigma)[0]}

    return noisy_once(journal, stage, noise, draw)


# Least noise that a bound is ever turned into. Constants, so that the level does not depend on anybody's rows; more noise
# than a bound asks for keeps every promise.
LEAST_SIGMA = {torch.float64: 1e-9}
LEAST_SIGMA_OTHERWISE = 1e-3


def least_sigma(model: Any) -> float:
    """The least noise level for a model's weights: below it, rounding rather than noise decides the last digits."""
    moved = [parameter.dtype for parameter in model.parameters() if parameter.requires_grad]
    return max(LEAST_SIGMA.get(dtype, LEAST_SIGMA_OTHERWISE) for dtype in moved)
