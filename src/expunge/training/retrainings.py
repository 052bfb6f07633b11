"""Retrainings by any recipe, each made once: what unlearned models are compared with, shared by all methods.

A retraining is ``recipe.fit(task, rows, seed=seed)``. It is cached by its content (task, rows, recipe, seed), one entry
each, as soon as it is done: a killed run keeps what it finished. What training took is stored beside the weights, so that
its cost can be told when it came from the cache. All train on one thread, here or in processes: more processes change no
bit.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from expunge.core.digest import digest_bytes, digest_json
from expunge.core.errors import FailedError, InputError
from expunge.core.on_disk import OnDisk
from expunge.core.task import Task
from expunge.core.trained import Trained
from expunge.data.rows import Rows
from expunge.training.descent import Step
from expunge.training.ensembles import STAGE, EnsembleSettings, Watch, train_stacked
from expunge.training.recipes import Stochastic, UserFit, for_comparison
from expunge.training.retraining import Retraining, as_entry, packed, unpacked
from expunge.training.shadow_models import describe_task, unstacked, worth_stacking

STACKED_AT_MOST = 20  # models at once: as many as a verifier takes for its nulls; memory grows with them


@dataclass(frozen=True)
class _Job:
    rows: Any
    seed: int
    key: Mapping[str, Any] = field(repr=False)
    name: str  # digest of the key


def retrain_all(
    task: Task,
    jobs: Sequence[tuple[Any, int]],
    recipe: Any,
    *,
    processes: int = 1,
    cache: Any = None,
    tags: Sequence[str] = (),
    watch: Watch | None = None,
    stacked: bool = False,
    keep: bool = False,
) -> list[Retraining]:
    """Retrain on each of ``jobs`` = (rows, seed), or read it from ``cache``; equal jobs are trained once.

    Args:
        processes: fresh processes to spread over, longest job first; each needs seconds to start, and a script that
            starts them needs the ``if __name__ == "__main__"`` guard. Rows reach them through shared memory. The result
            is the same bit for bit.
        cache: has ``get_or_compute(key, compute, tags)``. Entries carry the digest of their rows and ``tags``, to be
            purged with them. Training code of the user's own counts as changed when its file changes, and is not cached
            where it has none.
        watch: called with ("models", done, total).
        stacked: train small models together in one process where the recipe is SGD with a constant step, the rule of
            ``training.shadow_models`` says that it pays, and jobs agree on the content of each row. Equal to the recipe's
            own result up to rounding, and therefore cached apart from it.
        keep: with the secret state and the facts that the recipe leaves, which later requests need (``LeavesState``).

    Formal guarantee: none; retrainings measure.

    Raises:
        InputError: if a retraining diverges, or the task cannot be sent to another process. FailedError: if a process
            dies. Retrainings that were done by then are in the cache.
    """
    if processes < 1:
        raise InputError(f"Expected at least one process; got processes={processes}.")
    if not jobs:
        return []
    union = _union([rows for rows, _ in jobs]) if stacked and not keep and len(jobs) > 1 else None
    how = None if union is None else stackable(task, union, recipe)
    wanted = [_job(task, rows, int(seed), recipe, how is not None, keep) for rows, seed in jobs]
    if cache is not None and isinstance(recipe, UserFit) and _source(recipe) is None:
        cache = None
    found: dict[str, tuple[bytes, bool]] = {}  # digest of the key → entry, whether it was cached
    pending: dict[str, _Job] = {}
    for job in wanted:
        if job.name in pending or job.name in found:
            continue
        entry = None if cache is None else _look(cache, job, tags)
        if entry is None:
            pending[job.name] = job
        else:
            found[job.name] = (entry, True)
    total = len(pending) + len(found)

    def done(job: _Job, entry: bytes) -> None:
        if cache is not None:
            entry = cache.get_or_compute(job.key, lambda: entry, _tags(job, tags))
        found[job.name] = (entry, False)
        if watch:
            watch(STAGE, len(found), total)

    if watch and found:
        watch(STAGE, len(found), total)
    with one_thread():
        if pending and union is not None and how is not None:
            _together(task, union, list(pending.values()), how, done)
        elif isinstance(recipe, TrainsTogether) and not keep:
            _by_rows(task, recipe, list(pending.values()), done)
        elif processes > 1 and len(pending) > 1 and not keep:
            _in_processes(task, recipe, list(pending.values()), processes, done)
        else:
            for job in pending.values():
                done(job, _fit(task, recipe, job.rows, job.seed, keep))
    return [unpacked(*found[job.name], job.rows.digest, job.seed, task.device) for job in wanted]


def _job(task: Task, rows: Any, seed: int, recipe: Any, stacked: bool, keep: bool = False) -> _Job:
    key = {
        "what": "retraining/1",
        "task": describe_task(task, rows, [seed]),
        "rows": rows.digest,
        "recipe": [f"{type(recipe).__module__}:{type(recipe).__qualname__}", recipe.describe(), _source(recipe)],
        "seed": seed,
        "stacked": stacked,
        **({"kept": True} if keep else {}),
    }
    return _Job(rows, seed, key, digest_json(key))


def _source(recipe: Any) -> str | None:
    """Digest of the file that holds a user's own training function, which its name does not tell."""
    if not isinstance(recipe, UserFit):
        return None
    try:
        file = inspect.getsourcefile(getattr(recipe.function, "func", recipe.function))
        return None if file is None else digest_bytes(Path(file).read_bytes())
    except (TypeError, OSError):
        return None


def _tags(job: _Job, tags: Sequence[str]) -> list[str]:
    return [job.rows.digest, *tags]


class _Missing(Exception):
    """Not in the cache."""


def _look(cache: Any, job: _Job, tags: Sequence[str]) -> bytes | None:
    def missing() -> bytes:
        raise _Missing

    try:
        return cache.get_or_compute(job.key, missing, _tags(job, tags))
    except _Missing:
        return None


# --- one retraining -----------------------------------------------------------------------------------------------------


def _fit(task: Task, recipe: Any, rows: Any, seed: int, keep: bool = False) -> bytes:
    """One retraining as an entry of the cache."""
    started = time.perf_counter()
    trained = for_comparison(recipe).fit(task, rows, seed=seed)
    seconds = time.perf_counter() - started
    return packed(trained, trained.fact("seconds", seconds), keep)  # told of earlier tries as well


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Sums in parallel round differently: results must not depend on how many cores a machine has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# --- in processes -------------------------------------------------------------------------------------------------------


def _in_processes(
    task: Task, recipe: Any, jobs: Sequence[_Job], processes: int, done: Callable[[_Job, bytes], None]
) -> None:
    """Longest job first, to whichever process is free; after a failure what is under way is finished and kept."""
    try:
        payload = pickle.dumps((task, recipe))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"Expected a task and a recipe that can be sent to another process; they cannot be pickled ({error}). Make "
            "the task's factory and your training function functions at the top of a module (or functools.partial of "
            "one), or use processes=1."
        ) from error
    processes = min(processes, len(jobs))
    waiting = sorted(jobs, key=lambda job: len(job.rows))
    running: dict[Future[bytes], _Job] = {}
    failure: Exception | None = None
    with ProcessPoolExecutor(processes, get_context("spawn"), _start_worker, (payload,)) as pool:
        while running or (waiting and failure is None):
            while waiting and failure is None and len(running) <= processes:  # one ahead: nobody waits for work
                job = waiting.pop()
                try:
                    running[pool.submit(_work, _sendable(job.rows), job.seed)] = job
                except BrokenProcessPool as error:
                    failure = error
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                try:
                    done(job, future.result())
                except Exception as error:
                    failure = failure or error
    if isinstance(failure, BrokenProcessPool):
        raise FailedError(
            "A process that retrained died: memory ran out, or the script that was started lacks the "
            "`if __name__ == '__main__':` guard. Use fewer processes, or processes=1."
        ) from failure
    if failure is not None:
        raise failure


def _sendable(rows: Any) -> Any:
    """Rows whose tensors lie in shared memory, which sends them without a copy; as bytes where the machine has too little.

    The tensors move there once, in place; whoever holds them sees the same values.
    """
    try:
        for value in vars(rows).values():
            if isinstance(value, Tensor) and value.device.type == "cpu":
                value.share_memory_()
    except RuntimeError:
        return pickle.dumps(rows)
    return rows


_given: list[Any] = []  # in a worker: task, recipe


def _start_worker(payload: bytes) -> None:
    torch.set_num_threads(1)
    end_with_parent()
    _given[:] = pickle.loads(payload)  # noqa: S301  (written by the parent process, never read from disk or wire)


def end_with_parent() -> None:
    """Let this process end when the one that started it does: a worker whose parent was killed would wait for ever."""
    if (parent := parent_process()) is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _work(rows: Any, seed: int) -> bytes:
    task, recipe = _given
    if isinstance(rows, bytes):
        rows = pickle.loads(rows)  # noqa: S301  (as above)
    return _fit(task, recipe, rows, seed)


# --- stacked ------------------------------------------------------------------------------------------------------------


def stackable(task: Task, rows: Rows, recipe: Any) -> EnsembleSettings | None:
    """The recipe as settings of stacked training, where it can be said so and pays; ``None`` where not."""
    if not isinstance(recipe, Stochastic):
        return None
    if recipe.optimizer != "sgd" or recipe.schedule != "constant" or recipe.augment != "none":
        return None
    settings = EnsembleSettings(
        Step(recipe.lr, recipe.l2), epochs=recipe.epochs, batch_size=recipe.batch_size, momentum=recipe.momentum
    )
    return settings if worth_stacking(task, rows, settings) else None


def _union(parts: Sequence[Any]) -> Rows | None:
    """All rows of ``parts`` in the order of their ids; ``None`` where they are not rows of one table in that order."""
    if not all(isinstance(part, Rows) and bool((np.diff(part.ids) > 0).all()) for part in parts):
        return None
    first = parts[0]
    if any(part.x.shape[1:] != first.x.shape[1:] or part.x.dtype != first.x.dtype for part in parts):
        return None
    ids = np.unique(np.concatenate([part.ids for part in parts]))
    filed = [part.x for part in parts if isinstance(part.x, OnDisk)]
    if filed and not all(filed[0].of_one_file(part.x) for part in parts):
        return None

    def examples(part: Rows) -> Tensor:  # which of the file, where they lie in one: equal places, equal examples
        return torch.from_numpy(part.x.places) if isinstance(part.x, OnDisk) else part.x

    like = examples(first)
    x, y = like.new_zeros(len(ids), *like.shape[1:]), first.y.new_zeros(len(ids))
    known = torch.zeros(len(ids), dtype=torch.bool, device=x.device)
    for part in {part.digest: part for part in parts}.values():
        at, own = torch.from_numpy(np.searchsorted(ids, part.ids)).to(x.device), examples(part)
        seen = known[at]
        if not (torch.equal(x[at[seen]], own[seen]) and torch.equal(y[at[seen]], part.y[seen])):
            return None
        x[at], y[at], known[at] = own, part.y, True
    return Rows(filed[0].at(x.numpy()) if filed else x, y, ids)


@runtime_checkable
class TrainsTogether(Protocol):
    """A recipe that trains several models on the same data at once, each to the weights that it has when trained alone."""

    def fit_together(self, task: Task, data: Any, seeds: Sequence[int]) -> Sequence[Trained]:
        """As ``fit`` for each of ``seeds``, up to rounding; one after another where models cannot be stacked."""
        ...


def _by_rows(task: Task, recipe: TrainsTogether, jobs: Sequence[_Job], done: Callable[[_Job, bytes], None]) -> None:
    """Jobs on the same data together, at most :data:`STACKED_AT_MOST` of them."""
    groups: dict[str, list[_Job]] = {}
    for job in jobs:
        groups.setdefault(job.rows.digest, []).append(job)
    for group in groups.values():
        for first in range(0, len(group), STACKED_AT_MOST):
            part = group[first : first + STACKED_AT_MOST]
            started = time.perf_counter()
            made = recipe.fit_together(task, part[0].rows, [job.seed for job in part])
            seconds = (time.perf_counter() - started) / len(part)
            for job, trained in zip(part, made, strict=True):
                done(job, packed(trained, seconds))


def _together(
    task: Task, rows: Rows, jobs: Sequence[_Job], settings: EnsembleSettings, done: Callable[[_Job, bytes], None]
) -> None:
    membership = np.stack([np.isin(rows.ids, job.rows.ids, assume_unique=True) for job in jobs])
    started = time.perf_counter()
    tensors = train_stacked(task, rows, membership, settings, [job.seed for job in jobs])
    seconds = (time.perf_counter() - started) / len(jobs)
    for r, job in enumerate(jobs):
        done(job, as_entry(unstacked(tensors, r), seconds))
