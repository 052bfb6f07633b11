"""Gaussian noise for releases: from the operating system, unrecorded, once; or seeded, for tests, which voids."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from expunge.core.errors import InputError

_BLOCK = 1 << 20  # coordinates per draw: bounds memory
_LOW_PRECISION = ("torch.bfloat16", "torch.float16")


class _Normals(Protocol):
    def __call__(self, count: int) -> np.ndarray: ...


def system_normals(count: int) -> np.ndarray:
    """``count`` standard normal numbers in double precision from the operating system's generator (Box-Muller).

    Formal guarantee: as good as ``os.urandom``; the floating-point sampler itself is not safe against an attacker who
    sees low-order bits of the released numbers, and every certificate says so.

    Shapes:
        (count,) float64.
    """
    pairs = (count + 1) // 2
    words = np.frombuffer(os.urandom(16 * pairs), dtype=np.uint64)
    uniform = ((words >> np.uint64(11)) + 0.5) * 2.0**-53  # in (0, 1), never 0
    radius = np.sqrt(-2.0 * np.log(uniform[:pairs]))
    angle = 2.0 * np.pi * uniform[pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def describe_source(source: Any) -> str:
    """What a noise source is, by its exact type: ``operating system`` for :class:`SystemNoise` itself and nothing else.

    A subclass may draw from a fixed seed or add nothing at all; what it calls itself says nothing.
    """
    kind = type(source)
    if kind is SystemNoise and not vars(source):
        return "operating system"
    return "seeded" if kind is SeededNoise else f"{kind.__module__}.{kind.__qualname__}"


class SystemNoise:
    """Noise that may back a certificate: drawn from the operating system and never recorded."""

    name = "operating system"
    secret = True

    def add(self, tensors: Mapping[str, Any], sigma: float) -> tuple[dict[str, Any], str]:
        """Every coordinate of every tensor plus independent N(0, sigma²); see :func:`add_noise`."""
        return add_noise(tensors, sigma, system_normals)


class SeededNoise:
    """Noise from a seed, for tests and drawings. A release with it can be subtracted by whoever knows the seed: void."""

    name = "seeded"
    secret = False

    def __init__(self, seed: int):
        self._generator = np.random.default_rng(seed)

    def add(self, tensors: Mapping[str, Any], sigma: float) -> tuple[dict[str, Any], str]:
        """Every coordinate plus N(0, sigma²); later calls continue the stream, so no two share a vector."""
        return add_noise(tensors, sigma, lambda count: self._generator.standard_normal(count))


def add_noise(tensors: Mapping[str, Any], sigma: float, normals: _Normals) -> tuple[dict[str, Any], str]:
    """Add N(0, sigma² I) in at least single precision, then return to each tensor's own type.

    Half-precision weights are widened first: at bfloat16 a weight of 2 has a spacing of 0.0156, in which a small sigma
    would drown. Casting down afterwards is post-processing.

    Returns:
        New tensors, and the precision in which the noise was added.

    Raises:
        InputError: if sigma is negative or not finite.
    """
    import torch

    if not (sigma >= 0 and np.isfinite(sigma)):
        raise InputError(f"Expected a finite noise level sigma >= 0; got {sigma}.")
    noisy = {}
    precisions = set()
    for name, tensor in tensors.items():
        wide = tensor.detach().float() if str(tensor.dtype) in _LOW_PRECISION else tensor.detach().clone()
        precisions.add(str(wide.dtype).removeprefix("torch."))
        flat = wide.view(-1)
        for start in range(0, flat.numel(), _BLOCK):
            part = flat[start : start + _BLOCK]
            drawn = torch.from_numpy(np.asarray(normals(part.numel())) * sigma)
            part += drawn.to(part.device, part.dtype)
        noisy[name] = wide.to(tensor.dtype)
    return noisy, "float64" if precisions <= {"float64"} else "float32"
