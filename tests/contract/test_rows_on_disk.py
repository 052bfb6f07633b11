"""Rows whose examples lie on disk give the bits that rows in memory give, whatever is done with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cases import CASES, class_of, pictures, small_pictures_net
from expunge import planning
from expunge.core import on_disk
from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.core.on_disk import OnDisk, room
from expunge.data.rows import Rows, joined
from expunge.evidence.outputs import example_outputs
from expunge.measuring import measure
from expunge.privacy.noise import SeededNoise
from expunge.tasks import passes
from expunge.training.descent import Step
from expunge.training.ensembles import EnsembleSettings
from expunge.training.noisy import NoisyGradientDescent
from expunge.training.perturbed import PerturbedMinimiser
from expunge.training.recipes import Stochastic, UserFit
from expunge.training.retrainings import retrain_all
from expunge.training.shadow_models import train_in_processes, train_shadow_models

FAST = [("pictures", "fine_tune"), ("pictures", "salun"), ("head", "r2d"), ("network, not published", "scrub")]
# noisy fine-tuning starts from weights that come out of a file in any order, and even seeded noise follows that order
EVERY = [
    (name, method)
    for name, case in CASES.items()
    if type(case.data) is Rows and not isinstance(case.recipe, NoisyGradientDescent | PerturbedMinimiser)
    for method in case.serves
    if method != "noisy_fine_tune" and "perturbed training" not in class_of(method).capabilities.needs
]


@pytest.fixture(autouse=True)
def no_memory(monkeypatch, tmp_path) -> Iterator[None]:
    """Nothing is small enough to be held, so that a file stays one wherever it goes."""
    monkeypatch.setattr(on_disk, "IN_MEMORY", 0)
    monkeypatch.setattr(on_disk, "AT_ONCE", 1000)
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    yield


def filed(rows: Rows) -> Rows:
    """The same rows, their examples in a file in another order than their own."""
    made, order = room(tuple(rows.x.shape), rows.x.dtype), np.random.default_rng(0).permutation(len(rows))
    made[:] = rows.x[order]
    return replace(rows, x=made[np.argsort(order)])


def same(first: Any, second: Any) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def carried_out(name: str, method: str, data: Rows, probes: dict[str, Any]) -> Any:
    """The case's request, on ``data``, with noise that can be drawn again."""
    case = replace(CASES[name], data=data, probes=probes)
    trained = planning.train(case.task, data, case.recipe, seed=0)
    if case.budget is not None:
        by = class_of(case.calibrated)()
        trained = planning.publish(trained, case.budget, method=by, noise=SeededNoise(1))
    return case.plan(trained, method, noise=SeededNoise(2)).run()


@pytest.mark.parametrize(
    ("name", "method"),
    [pytest.param(*each, marks=[] if each in FAST else [pytest.mark.slow]) for each in dict.fromkeys([*FAST, *EVERY])],
)
def test_a_method_releases_the_same_bits(name, method):
    case = CASES[name]
    on_file = {each: filed(rows) for each, rows in case.probes.items()}
    held, found = (
        carried_out(name, method, case.data, {**case.probes}),
        carried_out(name, method, filed(case.data), on_file),
    )
    for release, other in zip(held.releases, found.releases, strict=True):
        assert same(release.artifact.tensors, other.artifact.tensors)
    assert isinstance(found.deletion.after.x, OnDisk) and isinstance(found.deletion.forget.x, OnDisk)
    assert held.deletion.after.digest == found.deletion.after.digest
    assert held.cost["gradient_evaluations"] == found.cost["gradient_evaluations"]


def test_what_is_measured_is_the_same():
    case = CASES["digits head"]
    outcomes = [carried_out("digits head", "r2d", data, {"test": test}) for data, test in (
        (case.data, case.probes["test"]), (filed(case.data), filed(case.probes["test"])),
    )]  # fmt: skip
    held, found = (
        [each for each in measure(outcome).measurements if "seconds" not in each.metric] for outcome in outcomes
    )
    assert held == found and len(held) > 4


def test_digests_contents_and_what_a_reader_says_are_those_of_rows_in_memory():
    rows = pictures()
    on_file, gone = filed(rows), Ids.rows([3, 4, 5])
    for held, found in (
        (rows, on_file),
        (rows.without(gone), on_file.without(gone)),
        (rows.only(gone), on_file.only(gone)),
    ):
        assert held.digest == found.digest and held.contents([0, 2]) == found.contents([0, 2])
        assert np.array_equal(held.row_digests, found.row_digests) and found.prepared() == held.prepared()
        assert held.ids.tolist() == found.ids.tolist() and len(found.x) == len(held)
    assert on_file.without(gone).x.file is on_file.x.file
    changed = replace(rows, x=rows.x + 1)
    assert replace(changed, x=filed(changed).x).prepared() == changed.prepared() != rows.prepared()
    single, in_double = on_file.to("cpu", torch.float32), on_file.to("cpu", torch.float64)
    assert single.digest == rows.to("cpu", torch.float32).digest and in_double.digest == rows.digest
    assert joined([on_file.only(gone), on_file]).digest == joined([rows.only(gone), rows]).digest
    assert joined([on_file.only(gone), rows]).digest == joined([rows.only(gone), rows]).digest


def test_rows_that_hold_nan_are_refused_by_their_positions():
    x = torch.ones(300, 1, 8, 8)
    x[[7, 250], 0, 2, 2] = torch.tensor([float("nan"), float("inf")])
    made = room(tuple(x.shape), x.dtype)
    made[:] = x
    for inputs in (x, made):
        with pytest.raises(InputError, match=r"2 row\(s\) hold NaN or infinity, the first at position 7"):
            Rows.of(inputs, torch.zeros(300, dtype=torch.long))


def test_retrainings_together_alone_and_with_augmentation_are_the_same():
    task, rows = small_pictures_net(), pictures()
    plain = CASES["network, not published"].task
    flat = CASES["network, not published"].data
    for each, data, recipe, stacked in (
        (task, rows, Stochastic(epochs=2, lr=0.1, batch_size=16, augment="crop_flip"), False),
        (plain, flat, Stochastic(epochs=2, lr=0.1, batch_size=16), True),
        (plain, flat, Stochastic(epochs=2, lr=0.1, batch_size=16), False),
    ):
        parts = [Ids.rows([0, 1]), Ids.rows([5])]
        held, found = (
            retrain_all(each, [(whole.without(ids), seed) for seed, ids in enumerate(parts)], recipe, stacked=stacked)
            for whole in (data, filed(data))
        )
        assert all(same(a.tensors, b.tensors) for a, b in zip(held, found, strict=True))


def test_a_training_function_of_somebody_s_own_gets_one_tensor():
    def fit(data: Any, seed: int) -> Any:
        assert data.x.shape == (48, 1, 8, 8) and bool(data.x.mean() == pictures().x.mean())
        return small_pictures_net().build(seed=seed)

    trained = UserFit(fit).fit(small_pictures_net(), filed(pictures()))
    assert isinstance(trained.data.x, OnDisk)


def shadows(batch_size: int | None) -> tuple[Any, np.ndarray, EnsembleSettings]:
    task, members = CASES["network, not published"].task, np.random.default_rng(0).random((3, 60)) < 0.5
    return task, members, EnsembleSettings(Step(0.1), epochs=2, batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [None, 16])
def test_shadow_models_are_the_same(batch_size):
    task, members, settings = shadows(batch_size)
    rows = CASES["network, not published"].data
    held, found = (train_shadow_models(task, each, members, settings, [1, 2, 3]) for each in (rows, filed(rows)))
    assert same(held, found)


@pytest.mark.slow
def test_processes_open_the_same_file():
    task, members, settings = shadows(16)
    rows = filed(CASES["network, not published"].data)
    alone = train_shadow_models(task, rows, members, settings, [1, 2, 3])
    apart = train_in_processes(task, rows, members, settings, [1, 2, 3], jobs=2)
    assert all(torch.allclose(alone[name], apart[name], atol=1e-6) for name in alone)
    recipe, jobs = Stochastic(epochs=1, lr=0.1, batch_size=16), [(rows, 0), (rows.without(Ids.rows([1])), 1)]
    one, two = retrain_all(task, jobs, recipe), retrain_all(task, jobs, recipe, processes=2)
    assert all(same(a.tensors, b.tensors) for a, b in zip(one, two, strict=True))


def test_outputs_are_those_of_the_same_passes(monkeypatch):
    """Large examples enter a pass in smaller numbers, in memory and on disk alike."""
    task, rows, sizes = small_pictures_net(), pictures(), list[int]()
    tensors = dict(task.build(seed=1).state_dict())
    losses = task.outputs

    def outputs(model: Any, params: Any, batch: Any) -> Any:
        sizes.append(len(batch))
        return losses(model, params, batch)

    monkeypatch.setattr(passes, "AT_ONCE", 1000)
    monkeypatch.setattr(type(task), "outputs", lambda self, *rest: outputs(*rest))
    held, found = (example_outputs(task, tensors, {"retain": each})["retain"] for each in (rows, filed(rows)))
    assert np.array_equal(held.logits, found.logits) and np.array_equal(held.losses, found.losses)
    assert max(sizes) == 3 and sizes[: len(sizes) // 2] == sizes[len(sizes) // 2 :]  # 1,000 bytes: three of 64 floats
