"""What really happened to the noise of a run: seen by whoever handed it out, not told by the method that used it.

The planner wraps the noise source and the journal of every run. The witness counts draws and coordinates, looks at each draw
while it is made, and keeps digests, norms and inner products of what the noise entered; neither noise nor weights are kept.
What it saw is written ahead together with the noisy bytes, so that a run that is started again knows it too.

Formal guarantee: a run whose noise was too weak, missed coordinates, was used twice or was left out of the release is found,
except with probability :data:`ALPHA` a test where nothing is wrong. Code that reaches into the interpreter is not held off.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.core.digest import canonical_json, digest_arrays
from expunge.core.errors import InputError
from expunge.core.method import NoiseSource, Once
from expunge.privacy.noise import SystemNoise, describe_source

ALPHA = 1e-9  # of each look at a draw: hundreds of draws a run and thousands of runs leave no false alarm
# Noise must stand far above what rounding does to a weight: this many times the distance to the next number.
SPACINGS = 1000
ENTRIES_LOOKED_AT = 1 << 16  # of the shape of a draw; norms and correlations take all of it
_MAGIC = b"expunge-witness/1\n"


@dataclass(frozen=True)
class Draw:
    """One draw of noise as it was seen. Digests, norms and the inner product are of un-noised weights: private.

    Attributes:
        source: what drew it (:func:`~expunge.privacy.noise.describe_source`).
        precision: type in which it was added.
        sigma: standard deviation that was asked for.
        names: tensor → number of coordinates that noise was added to.
        entered, left: digests of the tensors before and after.
        gaussian: whether what was added looks like fresh N(0, sigma² I) on all coordinates.
        resolved: whether sigma stands far above the rounding of the largest weight.
        written_ahead: whether it was made inside a stage of the journal.
        norm, previous_norm, product: of what it entered, of what the draw before left (of the model before for the first), and
            their inner product: from them follows how long the step in between was.
    """

    source: str
    precision: str
    sigma: float
    names: Mapping[str, int]
    entered: str
    left: str
    gaussian: bool
    resolved: bool
    written_ahead: bool
    norm: float
    previous_norm: float
    product: float

    def step_norm(self, decay: float, lr: float) -> float:
        """Norm of g where the noise entered ``decay * previous - lr * g``."""
        square = decay**2 * self.previous_norm**2 - 2 * decay * self.product + self.norm**2
        return math.sqrt(max(0.0, square)) / lr

    def step_rounding(self, lr: float) -> float:
        """What the arithmetic of the weights' type may add to :meth:`step_norm`."""
        epsilon = torch.finfo(torch.float64 if self.precision == "float64" else torch.float32).eps
        square = 2 * math.sqrt(np.finfo(float).eps)  # of a length that is a difference of squares in double precision
        return (2 * epsilon + square) * (self.norm + self.previous_norm) / lr


@dataclass
class Witness:
    """The noise source of one run, as a method sees it; see the module's text.

    Attributes:
        source: where noise comes from.
        start: released weights of the model before, what the first step is measured from.
        draws: what was seen, in order.
    """

    source: NoiseSource
    start: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    draws: list[Draw] = field(default_factory=list)
    _stage: str | None = None
    _left: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    _noise: np.ndarray | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """What drew: never what the source says of itself."""
        return describe_source(self.source)

    @property
    def secret(self) -> bool:
        """Whether the noise is the operating system's."""
        return type(self.source) is SystemNoise

    def add(self, tensors: Mapping[str, Tensor], sigma: float) -> tuple[dict[str, Tensor], str]:
        """``tensors`` with noise of the source, and the precision in which it was added; what happened is kept."""
        entered = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        noisy, precision = self.source.add(tensors, sigma)
        left = {name: tensor.detach().clone() for name, tensor in noisy.items()}
        added, fits = _added(entered, left)
        before = self._left or {name: self.start[name] for name in entered if name in self.start}
        self.draws.append(
            Draw(
                source=self.name,
                precision=precision,
                sigma=float(sigma),
                names={name: tensor.numel() for name, tensor in entered.items()},
                entered=digest_arrays(_cpu(entered)),
                left=digest_arrays(_cpu(left)),
                gaussian=fits and gaussian_noise(added, sigma, [t.numel() for t in entered.values()], self._noise),
                resolved=sigma >= SPACINGS * max((_spacing(tensor) for tensor in entered.values()), default=0.0),
                written_ahead=self._stage is not None,
                norm=_product(entered, entered) ** 0.5,
                previous_norm=_product(before, before) ** 0.5,
                product=_product(entered, before),
            )
        )
        self._left, self._noise = left, added
        return noisy, precision


class WitnessedJournal:
    """The journal of a run as a method sees it: what the witness saw in a stage is stored with the stage's bytes."""

    def __init__(self, journal: Once, witness: Witness):
        self._journal, self._witness, self._known = journal, witness, set[str]()
        self.last_noisy: bytes | None = None  # content of the last stage in which noise was drawn

    def once(self, name: str, compute: Callable[[], bytes]) -> bytes:
        """See :class:`~expunge.core.method.Once`."""
        witness, computed = self._witness, False

        def recorded() -> bytes:
            nonlocal computed
            computed = True
            outer, witness._stage, first = witness._stage, name, len(witness.draws)
            try:
                content = compute()
            finally:
                witness._stage = outer
            if len(witness.draws) == first and not content.startswith(_MAGIC):
                return content
            seen = canonical_json([asdict(draw) for draw in witness.draws[first:]])
            return _MAGIC + len(seen).to_bytes(8, "little") + seen + content

        content = self._journal.once(name, recorded)
        seen, content = _parted(name, content)
        if not computed and name not in self._known:
            witness.draws.extend(seen)
        self._known.add(name)
        self.last_noisy = content if seen else self.last_noisy
        return content


def _parted(name: str, content: bytes) -> tuple[list[Draw], bytes]:
    if not content.startswith(_MAGIC):
        return [], content
    at = len(_MAGIC) + 8
    size = int.from_bytes(content[len(_MAGIC) : at], "little")
    try:
        seen = [Draw(**item) for item in json.loads(content[at : at + size])]
    except (TypeError, ValueError):
        raise InputError(
            f"Stage {name!r} of the journal was written by another version: clear it and start anew."
        ) from None
    return seen, content[at + size :]


def _cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def _product(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Inner product over the tensors that both have, in double precision."""
    return sum(
        float(first[name].double().cpu().flatten() @ second[name].double().cpu().flatten())
        for name in first
        if name in second and first[name].shape == second[name].shape
    )


def _added(entered: Mapping[str, Tensor], left: Mapping[str, Tensor]) -> tuple[np.ndarray, bool]:
    """What was added, flat, and whether the tensors are those that went in."""
    same = entered.keys() == left.keys() and all(
        entered[name].shape == left[name].shape and entered[name].dtype == left[name].dtype for name in entered
    )
    if not same:
        return np.zeros(0), False
    parts = [(left[name].double() - entered[name].double()).cpu().flatten().numpy() for name in entered]
    return (np.concatenate(parts) if parts else np.zeros(0)), True


def gaussian_noise(added: np.ndarray, sigma: float, sizes: list[int], before: np.ndarray | None = None) -> bool:
    """Whether ``added`` can be a fresh draw of N(0, sigma² I): size of each tensor and half, shape, no reuse, none left out."""
    from scipy.special import betaincc, chdtr, chdtrc

    if added.size == 0:
        return False
    if sigma == 0:
        return not added.any()
    if not np.isfinite(added).all():
        return False
    scaled = added / sigma
    edges = np.cumsum([0, *sizes])
    halves = [(0, added.size // 2), (added.size // 2, added.size)]
    for start, stop in [*itertools.pairwise(edges), *halves, (0, added.size)]:
        part = scaled[start:stop]
        if part.size:
            square = float(part @ part)
            if 2 * min(chdtr(part.size, square), chdtrc(part.size, square)) < ALPHA:
                return False
    # a rounded draw may leave a coordinate where it was, one in a thousand at the very least resolution that is allowed
    if added.size >= 32 and np.count_nonzero(added == 0) > max(3, added.size // 50):
        return False
    if _unlike_normal(scaled[:: max(1, added.size // ENTRIES_LOOKED_AT)]) < ALPHA:
        return False
    if before is not None and before.size == added.size >= 8:
        cosine = float(added @ before) / float(np.linalg.norm(added) * np.linalg.norm(before))
        return float(betaincc(0.5, (added.size - 1) / 2, min(1.0, cosine**2))) >= ALPHA
    return True


def _unlike_normal(values: np.ndarray) -> float:
    """p-value of Kolmogorov's test against N(0, 1), its limit for many values (few values are judged more mildly)."""
    from scipy.special import kolmogorov, ndtr

    below = ndtr(np.sort(values))
    steps = np.arange(values.size + 1) / values.size
    largest = max(float((steps[1:] - below).max()), float((below - steps[:-1]).max()))
    return float(kolmogorov(largest * math.sqrt(values.size)))


def _spacing(tensor: Tensor) -> float:
    """Distance from the largest weight to the next number, in the type in which noise is added (single or wider)."""
    precision = torch.finfo(torch.float64 if tensor.dtype == torch.float64 else torch.float32).eps
    return precision * float(tensor.detach().abs().max()) if tensor.numel() else 0.0


def noise_facts(
    witness: Witness, *, names: Mapping[str, int], draws: int, sigma: float, released: Mapping[str, Any],
    state: Mapping[str, Any] | None = None, releases: int = 1,
) -> dict[str, tuple[Any, str]]:  # fmt: skip
    """What the draws of a run amount to: fact → value and note.

    Args:
        names: trainable tensor → coordinates: what every draw must cover.
        draws: how many a theorem speaks of, for one release.
        sigma: of each of them.
        released: the trainable tensors of what is released.
        state: the un-noised weights that the run kept: what the noise must have entered; ``None``: not asked for.
        releases: how many different models the run released: each needs draws of its own.

    Returns:
        ``noise_source``, ``noise_precision``, ``noise_covers``, ``noise_resolved``, ``noise_level``, ``noise_entered`` (the
        released weights are what the last draw left; of several models what one of the draws left) and
        ``noise_written_ahead``.
    """
    seen = witness.draws
    sources = sorted({draw.source for draw in seen}) or ["none"]
    level = len(seen) == draws * releases and all(math.isclose(draw.sigma, sigma, rel_tol=1e-12) for draw in seen)
    covers = bool(seen) and all(dict(draw.names) == dict(names) and draw.gaussian for draw in seen)
    last = seen[-1:] if releases == 1 else seen
    left = digest_arrays({name: torch.as_tensor(t).cpu() for name, t in released.items()})
    own = next((draw for draw in last if draw.left == left), None)
    entered = own is not None
    if state is not None and own is not None:
        entered = own.entered == digest_arrays({name: torch.as_tensor(t).cpu() for name, t in state.items()})
    return {
        "noise_source": ("+".join(sources), "the type of the source that drew, as the planner saw it"),
        "noise_precision": (
            "+".join(sorted({draw.precision for draw in seen})) or "none",
            "type in which it was added",
        ),
        "noise_covers": (covers, "every draw against every trainable coordinate, while it was made"),
        "noise_resolved": (
            bool(seen) and all(draw.resolved for draw in seen),
            "sigma against the spacing of the weights",
        ),
        "noise_level": (level, "number of draws and sigma of each, as the planner saw them"),
        "noise_entered": (
            entered,
            f"the released weights against what {'the last' if releases == 1 else 'each'} draw left",
        ),
        "noise_written_ahead": (all(draw.written_ahead for draw in seen), "every draw was made inside a stored stage"),
    }
