"""Sensitivity of mini-batch training if retraining means the same batches in the same order, forgotten samples skipped.

With that coupling randomness is shared and the deterministic recursion applies. The certificate must say "retrained
with the coupled batch order", and training needs a sampler that can be replayed.

Derived here: it extends the recursion behind R2D's Theorem 3.1 (arXiv 2409.09778) to batches. The stochastic follow-up of
R2D, "Descend or Rewind?" (arXiv 2511.15983), is not used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from expunge.core.certificate import Bound
from expunge.core.errors import InputError
from expunge.privacy.descent_run import GradientDescentRun
from expunge.privacy.domain import count
from expunge.privacy.sensitivity import stretch


def coupled_minibatch(run: GradientDescentRun, forgotten: Sequence[int], batch_sizes: int | Sequence[int]) -> Bound:
    """Return the sensitivity bound (weights) given how many forgotten samples each of the T batches held.

    A learning step whose batch of size b holds k forgotten samples: D ← D + min((stretch−1)·D + ηB·k/b, 2ηG); a fully
    forgotten batch is skipped by the retrained run (its regulariser step, if any, is kept): D ← D + ηG. Of the last K
    steps, which both runs take without forgotten samples, only the stretch remains. ``run.forget`` is not used; L, G, B
    and convexity must hold for every batch, which per-sample constants ensure.

    Raises: InputError if there are not T counts, a count exceeds its batch, or a batch is fully forgotten without G.
    Formal guarantee: ‖unlearned − coupled retrained‖ <= value under the run's constants.
    Source: derived here, with the path argument of ``sensitivity.path``.

    >>> run = GradientDescentRun(100, 10, 80, 20, 0.05, 0.5, 1.0)
    >>> round(coupled_minibatch(run, [10] * 80, 100).value, 10)  # one batch of everything: the full-batch bound
    2.2283805504
    """
    sizes = [batch_sizes] * run.steps if isinstance(batch_sizes, int) else list(batch_sizes)
    if not len(forgotten) == len(sizes) == run.steps:
        raise InputError(
            f"forgotten and batch_sizes must have one entry for each of the T = {run.steps} steps; "
            f"got {len(forgotten)} and {len(sizes)}. Record the sampler's batches during training."
        )
    for held, size in zip(forgotten, sizes, strict=True):
        count("batch size", size, at_least=1)
        count("forgotten samples in a batch", held, at_most=size)
    bound = run.gradient_bound if run.lr * run.l2 <= 2 else None  # as for the path bound
    cap = math.inf if bound is None else 2 * run.lr * bound
    learning = run.steps - run.rewind
    if bound is None and any(held == size for held, size in zip(forgotten[:learning], sizes[:learning], strict=True)):
        raise InputError("a fully forgotten batch needs a gradient_bound with eta*l2 <= 2; got none. Clip per sample.")
    growth, kick, distance = stretch(run) - 1, run.lr * run.difference, 0.0
    for step, (held, size) in enumerate(zip(forgotten, sizes, strict=True)):
        if held == size:
            distance += cap / 2 if step < learning else 0.0
        else:
            added = kick * held / size if step < learning else 0.0
            distance += min(growth * distance + added, cap)
    return Bound("coupled_minibatch", distance, "D += min((stretch−1)·D + ηB·k/b, 2ηG) over the recorded batches")
