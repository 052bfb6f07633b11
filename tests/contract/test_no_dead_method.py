"""Every gradient method forgets something at its shipped defaults, and none claims more than it serves (checks 27, 28).

Of classifiers, that is; language models have a file of their own.

The source is a perceptron that knows 600 digits by heart. Published learning rates belong to ResNet-18 on 45,000 rows and
hundreds of forget steps; so batches are smaller here, which keeps the *number of steps* near the published one, and every
other setting is the shipped default. What is asked is more than the spec's "+20 %": going on to train on retained rows
alone raises the forget loss tenfold in this regime. So a method must leave fine-tuning behind by two points of forget
accuracy, or else beat its own run with forget gradients silenced.

Whole classes go, which is what these methods reach at such rates. ManiF-SMC is the exception: the neighbours of a class
that goes are rows of other classes, and pushing rows off *their* centre makes the class easier to tell. It gets random rows,
and is asked whether they left that centre. All numbers are means over two sources, each with a seed of its own.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from cases import CASES, DUAL, LANGUAGE, blobs, class_of, method, points, samples
from expunge import planning
from expunge.core.data import Ids
from expunge.core.errors import FailedError, InputError, RefusedError
from expunge.core.method import Capabilities, Outcome
from expunge.core.request import Request, Target
from expunge.core.trained import Trained
from expunge.data.digits import digits
from expunge.data.rows import Rows
from expunge.descent.schedule import FORGET, MIXED
from expunge.descent.work import Prepared, Work
from expunge.methods import registry
from expunge.methods.by_descent import GradientMethod
from expunge.methods.fine_tune import FineTune
from expunge.methods.random_labels import RandomLabels
from expunge.objectives.margins import distance, neighbourhood, represented
from expunge.tasks.classification import Classification
from expunge.tasks.networks import mlp
from expunge.training.stochastic import Stochastic

TASK = Classification(functools.partial(mlp, 64, 10, (64,)))
GRADIENT = sorted(
    name for name in registry.targets() if issubclass(registry.load(name), GradientMethod) and name not in LANGUAGE
)
RETAIN_ONLY = ("fine_tune", "l1_sparse")
ON_ROWS, UNDONE = "manif_smc", "manif_smc+dual"
SEEDS = (0, 1)
CLASS = Request("a licensor", (Target("class", {"label": 3}),))
ROWS = 600
RANDOM = samples(*map(int, np.random.default_rng(0).choice(ROWS, ROWS // 10, replace=False)))
SHIPPED: dict[str, dict[str, Any]] = {  # batch sizes that give about the published number of forget steps, or a fifth
    **{name: {"batch_size": 8} for name in GRADIENT},
    "bad_teacher": {"batch_size": 3},
    "manif_smc": {"batch_size": 4},
    "manif_smc+dual": {"batch_size": 4, "repair": True},
}


@functools.cache
def source(seed: int = 0) -> Trained:
    rows = digits()[0].only(Ids.rows(range(ROWS)))
    return planning.train(TASK, rows, Stochastic(epochs=40, lr=0.05, momentum=0.9, batch_size=32), seed=seed)


def shipped(name: str) -> Any:
    return registry.make(name, SHIPPED.get(name, SHIPPED.get(name.partition("+")[0], {})))


def seen(tensors: Any, rows: Any) -> tuple[float, float]:
    """(accuracy in percent, loss)"""
    model = TASK.build(tensors).eval()
    with torch.no_grad():
        logits = model(rows.x.float())
    return float((logits.argmax(1) == rows.y).double().mean() * 100), float(nn.functional.cross_entropy(logits, rows.y))


@dataclass(frozen=True)
class Ran:
    """What the forgotten rows are to a model before and after, in the mean over the sources of :data:`SEEDS`."""

    accuracy: float
    loss: float
    now: float  # accuracy
    lost: float  # loss
    kept: float  # accuracy on retained rows
    steps: dict[str, int]
    apart: float  # how far forgotten rows lie from the centre of their neighbours, over how far they lay


def ran(made: Any, request: Request) -> Ran:
    """Each source unlearns with a seed of its own."""
    numbers, steps = [], {}
    for seed in SEEDS:
        outcome = planning.plan(source(seed), request, made, seed=seed).run()
        assert max(outcome.change.values()) > 0
        steps, (forget, after) = outcome.details.get("steps", {}), (outcome.deletion.forget, outcome.deletion.after)
        before, now = source(seed).artifact.tensors, outcome.releases[0].artifact.tensors
        numbers.append((*seen(before, forget), *seen(now, forget), seen(now, after)[0], apart(before, now, outcome)))
    accuracy, loss, now, lost, kept, further = np.mean(numbers, 0).tolist()
    return Ran(accuracy, loss, now, lost, kept, steps, further)


def apart(before: Any, now: Any, outcome: Outcome) -> float:
    gone, stays = TASK.batch(outcome.deletion.forget), TASK.batch(outcome.deletion.after)
    around = neighbourhood(TASK, TASK.build(before), before, gone, stays, 5)
    moved = represented(TASK, TASK.build(now), now, gone)
    return float(distance(moved, around.centre).mean() / distance(around.old_erased, around.centre).mean())


@dataclass(frozen=True)
class Silent:
    """An objective whose forget loss has no gradient."""

    objective: Any

    def prepare(self, work: Work) -> Prepared:
        prepared = self.objective.prepare(work)
        loss = prepared.loss

        def silent(role: str, batch: Any, turn: Any) -> Any:
            if role == FORGET:
                return 0 * loss(role, batch, turn)
            if role != MIXED or not batch["forgotten"].any():
                return loss(role, batch, turn)
            stays = ~batch["forgotten"]
            if not stays.any():
                return 0 * loss(role, batch, turn)
            return stays.double().mean() * loss(role, batch.take(stays.nonzero().squeeze(1)), turn)

        prepared.loss = silent
        return prepared


def silenced(made: Any) -> Any:
    """The same method, step for step, with forget gradients of zero."""

    class Control(type(made)):
        def composition(self, context):
            composed = super().composition(context)
            return replace(composed, objective=Silent(composed.objective))

    return Control(**registry.settings_of(made)["settings"])


def test_check_27_the_sources_have_something_to_forget():
    assert all(seen(source(seed).artifact.tensors, source(seed).data)[0] >= 98 for seed in SEEDS)


@pytest.mark.parametrize("name", [n for n in [*GRADIENT, *DUAL] if n not in (*RETAIN_ONLY, ON_ROWS, UNDONE)])
def test_check_27_no_dead_method(name):
    made = shipped(name)
    found = ran(made, CLASS)
    assert any(found.steps.get(role) for role in ("forget", "joint", "mixed"))
    assert found.now < found.accuracy - 2 or found.lost > 1.2 * found.loss
    if found.steps.keys() & {"retain", "joint", "mixed"} and found.now > fine_tuned().now - 2:
        assert found.lost > 1.1 * ran(silenced(made), CLASS).lost, "its forget steps do nothing"


def test_check_27_manif_smc_pushes_rows_off_the_centre_of_their_neighbours():
    """By 4 to 7 % over six seeds. Their loss rises by a tenth in the mean, and not with every seed."""
    found = ran(shipped(ON_ROWS), RANDOM)
    assert found.steps["forget"] and found.apart > 1.02


def test_check_27_repair_leaves_no_more_than_retained_rows_alone_do():
    """Repair is ours and no default: nine retain steps to each forget step leave next to nothing, and this says so.

    Over six seeds the loss of the forgotten rows is 1.3 times what it was, and 1.8 times after retain steps alone.
    """
    found = ran(shipped(UNDONE), RANDOM)
    assert found.steps == {"forget": 15, "retain": 135} and found.now > found.accuracy - 1
    assert found.lost < ran(shipped("fine_tune"), RANDOM).lost


@functools.cache
def fine_tuned() -> Ran:
    return ran(shipped("fine_tune"), CLASS)


def test_check_27_retained_rows_alone_answer_the_first_question_and_not_the_second():
    """The negative control: a forget loss that rose by 20 % is no sign of forget steps."""
    alone = fine_tuned()
    assert alone.lost > 1.2 * alone.loss and alone.now > alone.accuracy - 10
    assert ran(silenced(shipped("random_labels")), CLASS).now > alone.now - 2


@pytest.mark.parametrize("name", RETAIN_ONLY)
def test_check_27_retain_only_methods_say_so_and_forget_too_little(name):
    found = ran(shipped(name), RANDOM)
    assert found.steps.keys() == {"retain"}
    assert "forgotten data" not in registry.load(name).capabilities.needs
    assert found.now > 98, "under-forgetting is expected of it, and must show"


def test_check_27_ssd_is_training_free_and_dampens_a_class():
    found = ran(registry.make("ssd"), CLASS)
    assert "No training" in str(__import__("expunge.methods.ssd", fromlist=["x"]).__doc__)
    assert found.now < 10 and found.kept > 80


@functools.cache
def network() -> Trained:
    return CASES["network"].train()


def test_an_estimate_is_never_below_what_steps_take():
    for name in [
        n for n in [*GRADIENT, *DUAL] if not n.startswith(("salun", "sfron", "manif_smc"))
    ]:  # no masks, no curve
        plan = CASES["network"].plan(network(), name)
        assert 0 < plan.run().cost["gradient_evaluations"] <= plan.estimate.gradient_evaluations, name


# --- check 28, and other requests that must be refused --------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ClassOnly(RandomLabels):
    """Declares one scenario."""

    name: ClassVar[str] = "class_only"
    capabilities: ClassVar[Capabilities] = replace(RandomLabels.capabilities, kinds=("class",))


def test_check_28_a_method_for_classes_refuses_random_rows():
    made = ClassOnly(epochs=1, batch_size=16)
    with pytest.raises(RefusedError, match="does not serve requests of kind samples; it serves class"):
        planning.plan(source(), RANDOM, made)
    planning.plan(source(), CLASS, made)


@pytest.mark.parametrize("name", [*GRADIENT, *DUAL, "ssd"])
def test_check_28_kinds_and_tasks_that_a_method_does_not_declare_are_refused(name):
    case = CASES["convex quadratic"]
    if "*" not in class_of(name).capabilities.tasks:
        with pytest.raises(RefusedError, match="runs on classification, not on point"):
            planning.plan(case.train(), case.request, method(name))
    concept = Request("a rights holder", (Target("concept", {"name": "a square"}),))
    with pytest.raises(RefusedError, match="does not serve requests of kind concept"):
        planning.plan(source(), concept, method(name), material=blobs(5))


def test_a_class_that_is_lost_by_the_way_is_a_request_of_its_own():
    y = np.arange(30) % 2
    y[:3] = 2
    data = Rows.of(np.random.default_rng(0).standard_normal((30, 2)), y)
    trained = planning.adopt(CASES["network"].task, CASES["network"].task.build(), data)
    for name in GRADIENT:
        with pytest.raises(RefusedError, match="every row of class 2 among rows of other classes"):
            planning.plan(trained, samples(0, 1, 2, 5), method(name))
        planning.plan(trained, samples(0, 1, 2), method(name))
        planning.plan(trained, samples(0, 1, 5), method(name))


@pytest.mark.parametrize("name", [*GRADIENT, *DUAL, "ssd"])
def test_a_frozen_model_is_refused(name):
    def frozen() -> nn.Module:
        return mlp(2, 3, (4,)).requires_grad_(False)

    task = Classification(frozen)
    with pytest.raises(RefusedError, match=r"frozen|no weight there to train"):
        planning.plan(planning.adopt(task, task.build(), blobs()), samples(1, 2), method(name))


RATES = [
    (name, field)
    for name in (*GRADIENT, *DUAL)
    for field in ("lr", "retain_lr")
    if field in registry.settings_of(method(name))["settings"]
    and (field == "lr" or name not in ("bad_teacher", "manif_smc"))  # which use it under dual only
]


@pytest.mark.parametrize("rate", [0.0, -1.0])
@pytest.mark.parametrize(("name", "field"), RATES)
def test_a_learning_rate_of_zero_is_never_taken_for_the_default(name, field, rate):
    with pytest.raises(InputError, match="learning rate above 0"):
        planning.plan(network(), samples(1, 2), method(name, **{field: rate}))


@pytest.mark.parametrize("size", [0, -1])
@pytest.mark.parametrize("name", [*GRADIENT, "ssd"])
def test_a_batch_of_no_rows_is_refused(name, size):
    with pytest.raises(InputError, match="batch_size of at least 1"):
        planning.plan(network(), samples(1, 2), method(name, batch_size=size))


def test_manif_refuses_what_has_no_neighbours_or_no_representation():
    trained = network()
    with pytest.raises(RefusedError, match=r"k=5 retained neighbours .* 4 rows are retained.*smaller k"):
        planning.plan(trained, samples(*range(56)), registry.make("manif_smc"))
    with pytest.raises(InputError, match="at least one neighbour"):
        registry.make("manif_smc", {"k": 0})
    flat = Classification(lambda: nn.Sequential(nn.Flatten(), nn.Linear(2, 3)))
    with pytest.raises(RefusedError, match="representation before the classifier head"):
        planning.plan(planning.adopt(flat, flat.build(), blobs()), samples(1), registry.make("manif_smc"))
    without = Classification(lambda: nn.Sequential(nn.Unflatten(1, (1, 2)), nn.Conv1d(1, 3, 2), nn.Flatten()))
    trained = planning.adopt(without, without.build(), blobs())
    with pytest.raises(RefusedError, match="no linear layer"):
        planning.plan(trained, samples(1), registry.make("manif_smc"))
    assert "manif_smc" not in planning.eligible(planning.plan(trained, samples(1), FineTune()).context, ("samples",))


@pytest.mark.parametrize("name", [*RETAIN_ONLY, "gradient_ascent", "ssd", "retrain"])
def test_dual_of_a_method_with_one_objective_is_refused_naming_the_others(name):
    with pytest.raises(InputError, match=r"Expected \+dual after one of .*salun.*two objectives; got"):
        registry.make(f"{name}+dual")
    assert len(DUAL) == 7


def test_dual_needs_steps_that_alternate():
    with pytest.raises(InputError, match="alternate"):
        registry.make("random_labels+dual", {"mixed": True})
    with pytest.raises(InputError, match="only with repair"):
        registry.make("manif_smc+dual")
    with pytest.raises(InputError, match=r"Expected \+su after one of grad_diff, npo,.*retain loss.*; got salun\+su"):
        registry.make("salun+su")
    for name in DUAL:
        assert registry.row_name(method(name)) == name


def test_scrub_with_rewinding_needs_held_out_rows():
    trained = network()
    made = method("scrub", rewind=True, epochs=2)
    with pytest.raises(RefusedError, match="no probe 'validation'"):
        planning.plan(trained, samples(1, 2), made)
    outcome = planning.plan(trained, samples(1, 2), made, probes={"validation": blobs(30, seed=5)}).run()
    assert len(outcome.details["guard"]) == 3


def test_bad_numbers_in_a_run_release_nothing():
    trained = network()
    with pytest.raises(FailedError, match=r"Stopped at step .* not finite.*nothing was released"):
        planning.plan(trained, samples(1, 2), registry.make("gradient_ascent", {"lr": 1e30})).run()
    assert all(torch.isfinite(tensor).all() for tensor in trained.artifact.tensors.values())


def test_points_are_served_by_methods_for_any_task():
    task = CASES["convex quadratic"].task
    outcome = planning.plan(
        planning.adopt(task, task.build(), points()), samples(1), method("neg_grad_plus+dual")
    ).run()
    assert outcome.details["steps"]["forget"] == outcome.details["steps"]["retain"] > 0
