"""Shadow models: trained from scratch, each on its own part of the examples, for membership attacks to compare with.

Model r starts from ``task.build(seed=seeds[r])`` and trains on the examples where ``membership[r]`` holds. Three ways
lead to the same weights up to float rounding:

* ``train_one_by_one``: the plain way, for any model;
* ``train_stacked``: all models in one step of stacked tensors (``torch.func.vmap`` over weights, examples shared);
* ``train_in_processes``: the models split over processes of one thread each.

``train_shadow_models`` chooses between the first two, spreads over processes on request, and caches by content. Results
are stacked: name → (R, ...).

When stacking helps (measured by ``bench/stacked_shadow_models.py`` on two CPU cores): a step on its own costs about 0.2 ms
whatever it computes; stacking pays this once for all models. Once a step's arithmetic outweighs that, it gains
nothing, and full-batch stacking computes examples that a model then weighs with 0. Hence :func:`worth_stacking`.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from expunge.core.digest import digest_arrays, digest_json
from expunge.core.errors import FailedError, InputError
from expunge.core.task import FromFactory, Pretrained, Task
from expunge.tasks.closed_forms import closed_form
from expunge.training.ensembles import (
    STAGE,
    EnsembleSettings,
    Watch,
    checked_membership,
    train_one_by_one,
    train_stacked,
    why_not_stackable,
)

__all__ = [
    "ROWS_TIMES_WEIGHTS",
    "EnsembleSettings",
    "describe_task",
    "train_in_processes",
    "train_one_by_one",
    "train_shadow_models",
    "train_stacked",
    "unstacked",
    "worth_stacking",
]

# Of one model's step on a CPU: stacking is faster below, level or slower above. A closed form passes over rows of weight 0
# faster, so that it pays for longer (digits head and perceptron, random halves: bench/stacked_shadow_models.py).
ROWS_TIMES_WEIGHTS = 650_000
ROWS_TIMES_WEIGHTS_IN_CLOSED_FORM = 2_000_000


def worth_stacking(task: Task, rows: Any, settings: EnsembleSettings) -> bool:
    """The rule: stack where ``torch.func`` can, and one step is overhead rather than arithmetic.

    That is: no per-row clipping; a forward and backward pass on two rows goes through ``vmap`` (no random layers, no
    running statistics, no row that depends on others); and, on a CPU, rows per step × trainable weights at most
    ``ROWS_TIMES_WEIGHTS``, or the larger bound of networks with a closed form. On other devices it always stacks; that
    has not been measured.
    """
    model = task.build()
    weights = sum(tensor.numel() for tensor in model.parameters() if tensor.requires_grad)
    size = min(settings.batch_size or len(rows), len(rows))
    most = ROWS_TIMES_WEIGHTS if closed_form(task, model) is None else ROWS_TIMES_WEIGHTS_IN_CLOSED_FORM
    small = task.device != "cpu" or size * weights <= most
    return small and why_not_stackable(task, rows, settings) is None


def train_shadow_models(
    task: Task,
    rows: Any,
    membership: np.ndarray,
    settings: EnsembleSettings,
    seeds: Sequence[int],
    *,
    jobs: int | None = None,
    cache: Any = None,
    tags: Sequence[str] = (),
    watch: Watch | None = None,
) -> dict[str, Tensor]:
    """Train every shadow model in the way that is measured to be fastest, or read them from ``cache``.

    Args:
        jobs: processes; ``None`` or 1 for this one. More are started only when asked for: each takes seconds to start,
            and a script that starts them needs the ``if __name__ == "__main__"`` guard.
        cache: has ``get_or_compute(key, compute, tags)``; the key is the content of task, rows, membership, settings
            and seeds, never ``jobs``. Entries carry the digest of ``rows`` and ``tags``, to be purged with them.
        watch: called with ("models", done, total), in steps where stacked and in models otherwise.

    Shapes:
        membership (R, n) bool, seeds (R,) → name → (R, ...).

    Formal guarantee: none; shadow models measure.

    Raises:
        InputError: on a membership that does not fit, or a model that diverges; see also the three ways.
    """
    membership = checked_membership(membership, len(rows), seeds)
    stacked = len(seeds) > 1 and worth_stacking(task, rows, settings)

    def compute() -> dict[str, Tensor]:
        if jobs is not None and jobs != 1:
            return train_in_processes(task, rows, membership, settings, seeds, jobs=jobs, watch=watch)
        train = train_stacked if stacked else train_one_by_one
        return train(task, rows, membership, settings, seeds, watch=watch)

    if cache is None:
        return compute()
    key = {
        "what": "shadow models/1",
        "task": describe_task(task, rows, seeds),
        "rows": rows.digest,
        "membership": digest_arrays({"membership": membership}),
        "settings": settings.describe(),
        "seeds": [int(seed) for seed in seeds],
        "stacked": stacked,
    }
    content = cache.get_or_compute(key, lambda: save(compute()), tags=[rows.digest, *tags])
    return {name: tensor.to(task.device) for name, tensor in load(content).items()}


def unstacked(stacked: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    """One model's tensors out of stacked ones; views, not copies."""
    return {name: tensor[index] for name, tensor in stacked.items()}


def train_in_processes(
    task: Task,
    rows: Any,
    membership: np.ndarray,
    settings: EnsembleSettings,
    seeds: Sequence[int],
    *,
    jobs: int,
    watch: Watch | None = None,
) -> dict[str, Tensor]:
    """Split the models over ``jobs`` fresh processes of one thread each; each trains its share by the same rule.

    Worth it where training takes a minute or more: a process needs some three seconds to start. Shapes and guarantee as
    :func:`train_shadow_models`.

    Raises:
        InputError: if the task cannot be sent to another process, or a model diverges. FailedError: if a process
            dies.
    """
    membership = checked_membership(membership, len(rows), seeds)
    if jobs < 1:
        raise InputError(f"Expected at least one process; got jobs={jobs}.")
    try:
        stacked = len(seeds) > 1 and worth_stacking(task, rows, settings)
        payload = pickle.dumps((task, rows, settings, stacked))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"Expected a task that can be sent to another process; it cannot be pickled ({error}). Make its factory a "
            "function at the top of a module (or functools.partial of one), or use jobs=1."
        ) from error
    jobs = min(jobs, len(seeds))
    shares = np.array_split(np.arange(len(seeds)), jobs)
    done: dict[int, dict[str, Tensor]] = {}
    with ProcessPoolExecutor(jobs, get_context("spawn"), _start_worker, (payload,)) as pool:
        futures = {
            pool.submit(_work, membership[share], [int(seeds[r]) for r in share]): i for i, share in enumerate(shares)
        }
        try:
            for future in as_completed(futures):
                done[futures[future]] = load(future.result())
                if watch:
                    watch(STAGE, sum(len(shares[i]) for i in done), len(seeds))
        except BrokenProcessPool as error:
            raise FailedError(
                "A process that trained shadow models died: memory ran out, or the script that was started lacks the "
                "`if __name__ == '__main__':` guard. Use fewer jobs, or jobs=1."
            ) from error
    device = task.device
    return {name: torch.cat([done[i][name] for i in range(jobs)]).to(device) for name in done[0]}


_shared: list[Any] = []  # in a worker: task, rows, settings, whether to stack


def _start_worker(payload: bytes) -> None:
    torch.set_num_threads(1)
    _shared[:] = pickle.loads(payload)  # noqa: S301  (written by the parent process, never read from disk or wire)


def _work(membership: np.ndarray, seeds: list[int]) -> bytes:
    task, rows, settings, stacked = _shared
    return save((train_stacked if stacked else train_one_by_one)(task, rows, membership, settings, seeds))


def describe_task(task: Task, rows: Any, seeds: Sequence[int]) -> dict[str, Any]:
    """What a task is known by in a cache key: its names, its modules, its initial weights and what it computes.

    Names alone do not tell two lambdas apart, and shapes do not show an activation's constant: the losses of a few rows
    at weights moved off the start do.
    """
    factory = task.factory if isinstance(task, FromFactory) else None
    name = getattr(factory, "__qualname__", type(factory).__qualname__)
    model = task.build().eval()
    generator = torch.Generator().manual_seed(0)
    moved = {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator).to(tensor)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in task.released(model).items()
    }
    with torch.no_grad():
        losses = task.losses(model, moved, task.batch(rows).take(slice(16)))
    start = task.start if isinstance(task, Pretrained) else None  # weights that training begins with
    return {
        **({} if start is None else {"start": digest_arrays(start)}),
        "task": f"{type(task).__module__}:{type(task).__qualname__}",
        "factory": f"{getattr(factory, '__module__', '')}:{name}",
        "model": repr(model),
        "dtype": str(task.dtype) if isinstance(task, FromFactory) else "",
        "starts": digest_json([digest_arrays(task.build(seed=int(seed)).state_dict()) for seed in seeds]),
        "losses": digest_arrays({"losses": losses}),
    }
