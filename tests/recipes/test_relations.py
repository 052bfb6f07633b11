"""Relations of the vision spec, 6.2, in set-up (b): a small BatchNorm net that learns 5,000 CIFAR-10 images by heart.

Five forget sets, one source, two retrainings for each set. Minutes each: ``make bench``.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from expunge.bench.recipe import load_recipe
from expunge.bench.run import BenchSettings, bench
from expunge.bench.world import World
from expunge.core.method import InMemory
from expunge.descent.schedule import FORGET, RETAIN
from expunge.descent.work import Work
from expunge.methods import registry
from expunge.objectives.margins import (
    SelfModeConnectivity,
    distance,
    gaps,
    neighbourhood,
    represented,
)
from expunge.planning import plan

pytestmark = pytest.mark.slow
SEEDS = 5
ROWS = ("fine_tune", "ssd", "bad_teacher", "sfron", "sfron+dual", "salun", "salun+dual", "manif_smc", "manif_smc+fixed")


def halfway_to_random(task, now, seed):
    """What ManiF-SMC's released code measures margins on: half the model, half a fresh network; no curve, nothing trained."""
    fresh = task.build(seed=seed).state_dict()
    return {name: (tensor + fresh[name]) / 2 if tensor.is_floating_point() else tensor for name, tensor in now.items()}


@pytest.fixture(scope="module")
def recipe(real_data):
    real_data("cifar10")
    return load_recipe("cifar_random")


@pytest.fixture(scope="module")
def record(recipe, tmp_path_factory):
    return bench(recipe, tmp_path_factory.mktemp("cifar"), BenchSettings(methods=ROWS, seeds=SEEDS))


def mean(record, row, name):
    found = {item["method"]: item for item in [*record["rows"], record["reference"], record["source"]]}
    return found[row]["metrics"][name]["mean"]


def row(record, name):
    return next(item for item in record["rows"] if item["method"] == name)


def test_the_source_learnt_by_heart_what_retraining_does_not_know(record):
    assert mean(record, "source", "RA") >= 98
    assert mean(record, "source", "FA") - mean(record, "source", "TA") > 20
    assert abs(mean(record, "retrain", "FA") - mean(record, "retrain", "TA")) < 3


@pytest.mark.parametrize("name", ["fine_tune", "ssd", "bad_teacher"])
def test_methods_that_under_forget_random_rows_are_reported_to_do_so(record, name):
    item = row(record, name)
    if item["metrics"]:
        way = mean(record, "source", "FA") - mean(record, "retrain", "FA")
        assert mean(record, "source", "FA") - mean(record, name, "FA") < way / 2
    assert item["verdict"].startswith(("under-forgets", "failed")), item


def test_dualoptim_on_sfron_at_matched_forgetting(record):
    shared, dual = row(record, "sfron")["metrics"], row(record, "sfron+dual")["metrics"]
    assert abs(shared["FA"]["mean"] - dual["FA"]["mean"]) <= 4  # else the comparison is of effective learning rates
    assert dual["gap"]["std"] <= 1.1 * shared["gap"]["std"]
    assert dual["gap"]["mean"] <= shared["gap"]["mean"] + 1


def test_dualoptim_on_salun_at_comparable_forgetting(record):
    """The specification's pilot had a smaller gap with two optimizers (8.6 against 10.3). Here the two are level (8.1 against
    8.0): the difference is in how many members retraining shows. Five seeds do not resolve a point (spec 6.6)."""
    shared, dual = row(record, "salun")["metrics"], row(record, "salun+dual")["metrics"]
    assert abs(shared["FA"]["mean"] - dual["FA"]["mean"]) <= 4
    assert dual["gap"]["mean"] <= shared["gap"]["mean"] + 1
    assert dual["RA"]["mean"] >= shared["RA"]["mean"] - 1


def test_the_gap_of_a_seed_is_never_below_the_gap(record):
    for item in record["rows"]:
        if item["metrics"]:
            assert item["metrics"]["gap_per_seed"]["mean"] >= item["metrics"]["gap"]["mean"] - 1e-9


def test_adaptive_margins_keep_more_than_a_fixed_one(record):
    assert mean(record, "manif_smc", "RA") >= mean(record, "manif_smc+fixed", "RA")


# --- ManiF-SMC ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(recipe):
    return World.of(recipe)


def test_larger_fixed_margins_push_erased_rows_further_and_leave_neighbours_and_head(world):
    models = world.models([0])
    source, deletion, task = world.source(models["source", 0, 0]), world.deletion(0), world.workload.opened.task
    base, model = source.artifact.tensors, world.workload.opened.task.build(source.artifact.tensors)
    erased, retained = task.batch(deletion.forget), task.batch(deletion.after)
    around = neighbourhood(task, model, base, erased, retained, 5)
    pushed, moved = [], []
    for alpha in (0.05, 0.2, 0.5):
        method = registry.make("manif_smc", {"margin": "fixed", "alpha": alpha})
        tensors = (
            plan(source, world.workload.request(0), method, probes=deletion.probes).run().releases[0].artifact.tensors
        )
        z, pool = (represented(task, task.build(tensors), tensors, batch) for batch in (erased, around.pool))
        pushed.append(float(distance(z, around.centre).mean()))
        near = around.near.flatten()
        centre = around.centre.repeat_interleave(5, 0)
        before, after = (float(distance(p[near], centre).mean()) for p in (around.old_pool, pool))
        moved.append(abs(after - before))
        head = task.head_of(model)
        assert all(torch.equal(tensors[n], base[n]) for n in base if n.startswith(f"{head}."))
    print("erased to centroid", pushed, "neighbours moved", moved)
    assert pushed == sorted(pushed)
    assert max(moved) < 0.1


def test_margins_of_a_trained_curve_rank_rows_as_retraining_does(recipe):
    """Spearman with margins measured on the retrained model: the trained curve is above both shortcuts.

    On a net with a hidden layer before its head. Where the head sees the last map itself, margins of the original model
    already rank as retraining does (0.75), and no curve adds anything. The specification's pilot also had random
    interpolation above the original model; here it is below (0.32 against 0.43; the trained curve 0.50).
    """
    world = World.of(recipe.model_copy(update={"model_settings": {**recipe.model_settings, "hidden": 128}}))
    sets = (0, 1, 2)
    models = world.models(sets)
    base = models["source", 0, 0].tensors
    found = {"original": [], "random": [], "curve": []}
    sizes = {"original": [], "random": [], "curve": [], "retrained": []}
    for number in sets:
        task, deletion = world.workload.opened.task, world.deletion(number)
        model = task.build(base)
        erased, retained = task.batch(deletion.forget), task.batch(deletion.after)
        around = neighbourhood(task, model, base, erased, retained, 5)
        work = Work(task, model, base, deletion, {FORGET: 16, RETAIN: 16}, seed=number)

        def margins(tensors):
            pool, rows = (represented(task, model, tensors, batch) for batch in (around.pool, erased))  # noqa: B023
            return gaps(pool, rows, around.near).flatten().numpy()  # noqa: B023

        curve = SelfModeConnectivity().surrogate(task, model, base, base, around, work.draw("curve", 0), number)
        measured = {
            "original": margins(base),
            "random": margins(halfway_to_random(task, base, number)),
            "curve": margins(curve),
        }
        retrained = margins(models["retrain", number, 0].tensors)
        sizes["retrained"].append(retrained.mean())
        for name, values in measured.items():
            found[name].append(spearmanr(values, retrained).statistic)
            sizes[name].append(values.mean())
    order, size = ({n: float(np.mean(v)) for n, v in found_.items()} for found_ in (found, sizes))
    print("Spearman", order, "mean margin", size)
    assert order["curve"] > max(order["random"], order["original"])
    assert size["original"] < size["curve"] < size["retrained"]


def test_label_free_unlearning_never_reads_a_label(world):
    """Garbage labels change no bit."""
    models = world.models([0])
    source, deletion = world.source(models["source", 0, 0]), world.deletion(0)
    method = registry.make("manif_smc", {"curve_steps": 20})
    released = []
    for change in (0, 1):
        planned = plan(source, world.workload.request(0), method, probes=deletion.probes, journal=InMemory())
        for rows in (planned.context.deletion.forget, planned.context.deletion.after):
            rows.y.add_(change).remainder_(10)
        released.append(planned.run().releases[0].artifact.digest)
    assert released[0] == released[1]


# --- whole classes: a smoke test, for which small nets do not discriminate ------------------------------------------------


CLASS_SETTINGS = {  # rates of the random subsets in the recipe are too small or too large for a whole class
    "neg_grad_plus+dual": {"epochs": 3, "lr": 5e-5},
    # labels over all classes hit the true one in a tenth of the draws, and accuracy then stays near a tenth (SalUn: 12 %)
    "random_labels+dual": {"epochs": 5, "lr": 2.5e-3, "exclude_true": True},
    "scrub+dual": {"epochs": 5, "lr": 4.5e-4},
    "sfron+dual": {"steps": 355, "lr": 1.4e-3},
}


def test_repairing_methods_forget_a_class(real_data, tmp_path):
    real_data("mnist")
    recipe = load_recipe("mnist_random")
    changes = {"forget": {"kind": "class", "labels": [3]}, "methods": CLASS_SETTINGS}
    record = bench(type(recipe).model_validate({**recipe.model_dump(), **changes}), tmp_path, BenchSettings(seeds=1))
    for name in CLASS_SETTINGS:
        assert mean(record, name, "FA") < 2, name
        assert mean(record, name, "RA") > mean(record, "source", "RA") - 1, name
