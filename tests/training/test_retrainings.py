from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.waiting import wait_until
from torch import nn

from expunge.core.cache import Cache
from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.data.rows import Rows
from expunge.tasks.classification import Classification
from expunge.tasks.networks import perceptron
from expunge.training import retrainings
from expunge.training.recipes import GradientDescent, Stochastic, UserFit
from expunge.training.retraining import unpacked
from expunge.training.retrainings import retrain_all

RECIPE = Stochastic(epochs=2, lr=0.1, batch_size=16, momentum=0.9)


def network() -> nn.Module:
    return perceptron([6, 5, 3])


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))


TASK = Classification(network)


def some_rows() -> Rows:
    generator = torch.Generator().manual_seed(0)
    return Rows.of(torch.randn(60, 6, generator=generator), torch.randint(0, 3, (60,), generator=generator))


def some_jobs(count: int = 4) -> list[tuple[Rows, int]]:
    rows = some_rows()
    return [(rows.without(Ids.rows(range(3 * r, 3 * r + 6))), 10 + r) for r in range(count)]


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path / "cache")


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def never(*_, **__):
    pytest.fail("computed twice")


def user_fit(data, seed):
    """Training code of a user's own; in a process of its own it finds its rows in shared memory."""
    assert data.x.is_shared() or os.environ.get("EXPUNGE_TEST_PARENT") == str(os.getpid())
    model = TASK.build(seed=seed)
    with torch.no_grad():
        next(model.parameters()).add_(data.x.mean())
    return model


def slow_fit(data, seed):
    """Takes a while; where a folder of permits is named, it takes one of them, and without one never ends."""
    time.sleep(0.2)
    if PERMITS in os.environ:
        _permitted(Path(os.environ[PERMITS]))
    return TASK.build(seed=seed)


PERMITS = "EXPUNGE_TEST_PERMITS"


def _permitted(folder: Path) -> None:
    while True:
        for permit in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                permit.unlink()
                return
        time.sleep(0.05)


def diverging(data, seed):
    if seed == 11:
        raise InputError("Diverged: take a smaller step.")
    return TASK.build(seed=seed)


@pytest.fixture
def one_thread():
    """Several threads add up in another order where several models are one product."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("recipe", [RECIPE, GradientDescent(steps=5, lr=0.1)], ids=["stochastic", "descent"])
def test_each_is_what_the_recipe_makes_in_the_order_asked_for(recipe, one_thread):
    jobs = some_jobs()
    for (rows, seed), found in zip(jobs, retrain_all(TASK, jobs, recipe), strict=True):
        assert same(found.tensors, recipe.fit(TASK, rows, seed=seed).artifact.tensors)
        assert (found.digest_of_rows, found.seed, found.cached) == (rows.digest, seed, False)
        assert found.seconds > 0
    assert retrain_all(TASK, [], recipe) == []


@pytest.mark.parametrize(
    "recipe", [RECIPE, pytest.param(UserFit(user_fit), marks=pytest.mark.slow)], ids=["stochastic", "user"]
)
def test_processes_change_no_bit(recipe, monkeypatch):
    monkeypatch.setenv("EXPUNGE_TEST_PARENT", str(os.getpid()))
    task, jobs, seen = Classification(normalised) if recipe is RECIPE else TASK, some_jobs(5), []
    threads = torch.get_num_threads()
    here = retrain_all(task, jobs, recipe)
    there = retrain_all(task, jobs, recipe, processes=2, watch=lambda *told: seen.append(told))
    assert all(same(a.tensors, b.tensors) and a.seed == b.seed for a, b in zip(here, there, strict=True))
    assert seen == [("models", i, 5) for i in range(1, 6)]
    assert torch.get_num_threads() == threads


def test_each_is_cached_alone_with_what_it_cost_and_goes_with_its_rows(cache, monkeypatch):
    jobs = some_jobs(3)
    first = retrain_all(TASK, jobs[:2], RECIPE, cache=cache, tags=["five forget sets"])
    assert len(cache.entries("five forget sets")) == 2
    seen = []
    second = retrain_all(TASK, jobs[::-1], RECIPE, cache=cache, watch=lambda *told: seen.append(told))
    assert [item.cached for item in second] == [False, True, True] and seen == [
        ("models", 2, 3),
        ("models", 3, 3),
    ]
    monkeypatch.setattr(retrainings, "_fit", never)
    third = retrain_all(TASK, jobs[:2], RECIPE, cache=cache, processes=2)
    for item, again in zip(first, third, strict=True):
        assert same(item.tensors, again.tensors) and again.cached and again.seconds == item.seconds > 0
    assert len(cache.purge(jobs[0][0].digest)) == 1 and len(cache.entries()) == 2


def test_equal_jobs_are_trained_once(monkeypatch):
    calls, fit = [], retrainings._fit
    monkeypatch.setattr(retrainings, "_fit", lambda *a: calls.append(a) or fit(*a))
    rows = some_rows()
    copy = Rows(rows.x.clone(), rows.y.clone(), rows.ids)
    first, second = retrain_all(TASK, [(rows, 3), (copy, 3)], RECIPE)
    assert len(calls) == 1 and same(first.tensors, second.tensors)


def test_the_key_is_the_content(cache):
    rows = some_rows()
    flipped = Rows(rows.x, rows.y.flip(0), rows.ids)
    renamed = Rows(rows.x, rows.y, rows.ids + 1)
    for task, data, recipe, seed in (
        (TASK, rows, RECIPE, 0),
        (TASK, rows, RECIPE, 1),
        (TASK, flipped, RECIPE, 0),
        (TASK, renamed, RECIPE, 0),
        (TASK, rows, Stochastic(epochs=1, lr=0.1, batch_size=16, momentum=0.9), 0),
        (TASK, rows, GradientDescent(steps=2, lr=0.1), 0),
        (TASK, rows, UserFit(slow_fit), 0),
        (Classification(functools.partial(perceptron, [6, 5, 3], beta=0.3)), rows, RECIPE, 0),
        (Classification(network, dtype=torch.float64), rows, RECIPE, 0),
    ):
        before = len(cache.entries())
        (found,) = retrain_all(task, [(data, seed)], recipe, cache=cache)
        assert not found.cached and len(cache.entries()) == before + 1
    assert retrain_all(TASK, [(some_rows(), 0)], RECIPE, cache=cache)[0].cached


def test_training_code_without_a_file_is_not_cached_and_changed_code_is_new(cache, tmp_path, monkeypatch):
    scope: dict = {"TASK": TASK}
    exec("def fit(data, seed):\n    return TASK.build(seed=seed)", scope)
    retrain_all(TASK, [(some_rows(), 0)], UserFit(scope["fit"], name="mine"), cache=cache)
    assert not cache.entries()
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "import test_retrainings as t\n\n\ndef fit(data, seed):\n    return t.TASK.build(seed=seed{})\n"
    (tmp_path / "own_training.py").write_text(code.format(""))
    import own_training  # type: ignore[import-not-found]

    for change in ("", " + 1"):
        (tmp_path / "own_training.py").write_text(code.format(change))
        assert not retrain_all(TASK, [(some_rows(), 0)], UserFit(own_training.fit), cache=cache)[0].cached
    assert retrain_all(TASK, [(some_rows(), 0)], UserFit(own_training.fit), cache=cache)[0].cached


def test_what_was_done_before_a_failure_is_kept(cache):
    for processes in (1, 2):
        with pytest.raises(InputError, match="smaller step"):
            retrain_all(TASK, some_jobs(2), UserFit(diverging), cache=cache, processes=processes)
        assert len(cache.entries()) == 1


def killed_run(folder: str) -> None:
    retrain_all(TASK, some_jobs(8), UserFit(slow_fit), processes=2, cache=Cache(Path(folder)))


def test_a_killed_run_keeps_what_it_finished_and_leaves_no_process(cache, tmp_path):
    """Killed while both processes are at work, which three permits for eight retrainings make sure of."""
    permits = tmp_path / "permits"
    permits.mkdir()
    for name in "abc":
        (permits / name).touch()
    code = f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]; import test_retrainings as t; "
    run = subprocess.Popen(
        [sys.executable, "-c", code + f"t.killed_run({str(cache.folder)!r})"],
        start_new_session=True,
        env=os.environ | {PERMITS: str(permits)},
    )
    assert wait_until(lambda: len(cache.entries()) == 3, lambda: run.poll() is None)
    run.send_signal(signal.SIGKILL)  # the parent alone
    run.wait()
    kept = len(cache.entries())
    assert kept == 3
    found = retrain_all(TASK, some_jobs(8), UserFit(slow_fit), cache=cache)
    assert sum(item.cached for item in found) == kept
    assert all(item.seconds >= 0.2 for item in found)
    wait_until(lambda: not _alive(run.pid), lambda: True)  # workers, which would wait for permits for ever, end with it


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_cannot_be_sent_is_refused_with_the_way_out():
    for task, recipe in (
        (Classification(lambda: network()), RECIPE),
        (TASK, UserFit(lambda d, s: network(), name="f")),
    ):
        with pytest.raises(InputError, match="processes=1"):
            retrain_all(task, some_jobs(2), recipe, processes=2)
        assert len(retrain_all(task, some_jobs(2), recipe)) == 2
    with pytest.raises(InputError, match="at least one process"):
        retrain_all(TASK, some_jobs(2), RECIPE, processes=0)


def test_rows_are_sent_as_bytes_where_shared_memory_is_full(monkeypatch):
    rows = some_rows()

    def full(self):
        raise RuntimeError("unable to allocate shared memory")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    sent = retrainings._sendable(rows)
    assert isinstance(sent, bytes)
    retrainings._given[:] = (TASK, RECIPE)
    entry = retrainings._work(sent, 3)
    (expected,) = retrain_all(TASK, [(rows, 3)], RECIPE)
    assert same(unpacked(entry, False, rows.digest, 3, "cpu").tensors, expected.tensors)


# --- stacked ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum, l2", [(0.0, 0.0), (0.9, 0.01)])
def test_stacked_equals_the_recipe_up_to_rounding_and_is_cached_apart(cache, momentum, l2, monkeypatch):
    task, jobs = Classification(network, dtype=torch.float64), some_jobs(6)
    recipe = Stochastic(epochs=3, lr=0.1, batch_size=16, momentum=momentum, l2=l2)
    alone = retrain_all(task, jobs, recipe, cache=cache)
    fit = retrainings._fit
    monkeypatch.setattr(retrainings, "_fit", never)
    together = retrain_all(task, jobs, recipe, stacked=True, cache=cache)
    for first, second in zip(alone, together, strict=True):
        gap = max(float((first.tensors[n] - second.tensors[n]).abs().max()) for n in first.tensors)
        assert gap < 1e-12 and not second.cached and second.seconds > 0
    assert len(cache.entries()) == 12
    assert all(item.cached for item in retrain_all(task, jobs, recipe, stacked=True, cache=cache))
    monkeypatch.setattr(retrainings, "_fit", fit)


@pytest.mark.parametrize(
    "task, recipe",
    [
        (Classification(normalised), RECIPE),
        (TASK, Stochastic(epochs=1, lr=0.1, schedule="cosine")),
        (TASK, Stochastic(epochs=1, lr=0.1, optimizer="adam")),
        (TASK, GradientDescent(steps=2, lr=0.1)),
    ],
)
def test_what_does_not_stack_is_trained_as_ever(task, recipe):
    jobs = some_jobs(2)
    asked = retrain_all(task, jobs, recipe, stacked=True)
    assert all(same(a.tensors, b.tensors) for a, b in zip(asked, retrain_all(task, jobs, recipe), strict=True))


def test_rows_that_differ_in_content_under_one_id_are_not_stacked(monkeypatch):
    rows = some_rows()
    poisoned = Rows(rows.x, (rows.y + 1) % 3, rows.ids)
    shuffled = Rows(rows.x.flip(0), rows.y.flip(0), rows.ids[::-1].copy())
    monkeypatch.setattr(retrainings, "train_stacked", never)
    for other in (poisoned, shuffled):
        jobs = [(rows, 0), (other, 0)]
        for (data, seed), found in zip(jobs, retrain_all(TASK, jobs, RECIPE, stacked=True), strict=True):
            assert same(found.tensors, RECIPE.fit(TASK, data, seed=seed).artifact.tensors)
    with pytest.raises(pytest.fail.Exception):
        retrain_all(TASK, some_jobs(2), RECIPE, stacked=True)
    union = retrainings._union([data for data, _ in some_jobs(3)])
    assert union is not None and np.array_equal(union.ids, rows.ids) and torch.equal(union.x, rows.x)
