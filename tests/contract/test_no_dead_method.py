"""Every gradient method forgets through its forget gradients, and none claims more than it serves (checks 27, 28).

Of classifiers, that is; language models have a file of their own.

The source is a perceptron that knows 600 digits by heart. Published learning rates belong to ResNet-18 on 45,000 rows and
hundreds of forget steps; so batches are smaller here, which keeps the *number of steps* near the published one, and every
other setting is the shipped default unless the method's class says that its effect does not show at that rate (``small``).
What is asked is more than that the forget loss rises: going on to train on retained rows alone raises it tenfold in this
regime. So a method is held against its *control*, its own run with forget gradients of zero; where it makes no retain step,
that is the original model.

Whole classes go. Methods that change a representation (they need one) are the exception: the neighbours of a class that goes
are rows of other classes, and pushing rows off *their* centre makes the class easier to tell. They get random rows, and are
asked whether these left that centre. All numbers are means over two sources, each with a seed of its own.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from cases import CASES, CLASSIFYING, DUAL, blobs, class_of, method, points, samples
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
    name for name in registry.targets() if issubclass(registry.load(name), GradientMethod) and name in CLASSIFYING
)
UNCERTIFIED = [  # those with a loop of their own too
    name
    for name, can in ((name, class_of(name).capabilities) for name in sorted(registry.targets()))
    if not can.certified and can.effect == "weights" and {"*", "classification"} & {*can.tasks}
]
NEEDS = {name: class_of(name).capabilities.needs for name in (*GRADIENT, *DUAL)}
RETAIN_ONLY = [name for name in GRADIENT if "forgotten data" not in NEEDS[name]]
REPRESENTED = [name for name in GRADIENT if "representation" in NEEDS[name]]
FORGETTING = [name for name in (*GRADIENT, *DUAL) if "representation" not in NEEDS[name] and name not in RETAIN_ONLY]
SEEDS = (0, 1)
CLASS = Request("a licensor", (Target("class", {"label": 3}),))
ROWS = 600
RANDOM = samples(*map(int, np.random.default_rng(0).choice(ROWS, ROWS // 10, replace=False)))


@functools.cache
def source(seed: int = 0) -> Trained:
    rows = digits()[0].only(Ids.rows(range(ROWS)))
    return planning.train(TASK, rows, Stochastic(epochs=40, lr=0.05, momentum=0.9, batch_size=32), seed=seed)


def visible(name: str) -> Any:
    """The method at the settings of its class for so small a model."""
    return registry.make(name, registry.small_settings(name, "visible"))


def published(name: str) -> Any:
    """The same with no more than the size of batches changed."""
    return registry.make(name, {"batch_size": visible(name).batch_size})


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
    return _ran(made, request is CLASS)


@functools.cache
def _ran(made: Any, whole_class: bool) -> Ran:
    request = CLASS if whole_class else RANDOM
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


def control(made: Any, request: Request) -> Ran:
    """The run without forget gradients; without a retain step, which leaves nothing to run, the original model."""
    found = ran(made, request)
    if found.steps.keys() & {"retain", "joint", "mixed"}:
        return ran(silenced(made), request)
    return replace(found, now=found.accuracy, lost=found.loss)


def forgets(found: Ran, without: Ran) -> bool:
    """Whether the loss on the forget set is at least half as large again as the original model's, and as the control's.

    Over six seeds, two at a time, the smallest such ratio was 2.8 (random labels under DualOptim), and without forget
    gradients the largest was 1.
    """
    return found.lost > 1.5 * max(found.loss, without.lost)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in DUAL and n != "salun+dual" else []) for n in FORGETTING],
)
def test_check_27_forget_gradients_raise_the_loss_on_the_forget_set(name):
    made = visible(name)
    found = ran(made, CLASS)
    assert any(found.steps.get(role) for role in ("forget", "joint", "mixed"))
    assert forgets(found, control(made, CLASS))


@pytest.mark.parametrize("name", [name for name in FORGETTING if name not in DUAL])
def test_check_27_forget_gradients_take_the_accuracy_on_the_forget_set(name):
    """Half of it at least: over six seeds 73 points or more of a hundred. Under DualOptim's lower rates it is less."""
    made = visible(name)
    assert ran(made, CLASS).now < control(made, CLASS).now - 50


def test_check_27_a_run_that_forgets_nothing_passes_neither_test():
    """The negative controls: methods without their forget gradients, retained rows alone, and the original model itself."""
    for made in (silenced(visible("random_labels")), silenced(visible("bad_teacher")), visible("fine_tune")):
        found, without = ran(made, CLASS), control(made, CLASS)
        assert not forgets(found, without) and found.now > without.now - 10
    found = ran(visible("gradient_ascent"), CLASS)
    original = replace(found, now=found.accuracy, lost=found.loss)
    assert not forgets(original, original)


def test_check_27_a_forget_loss_that_rose_is_no_sign_of_forget_steps():
    """Training on retained rows alone raises it tenfold and more."""
    alone = ran(visible("fine_tune"), CLASS)
    assert alone.steps.keys() == {"retain"} and alone.lost > 5 * alone.loss and alone.now > alone.accuracy - 10


@pytest.mark.parametrize("name", ["gradient_ascent", "bad_teacher"])
def test_check_27_at_published_rates_these_raise_the_loss_and_not_yet_the_error(name):
    """Their rates belong to larger models: by the loss they forget, and by accuracy they do not, which this says."""
    made = published(name)
    found = ran(made, CLASS)
    assert forgets(found, control(made, CLASS)) and found.now > found.accuracy - 5


@pytest.mark.parametrize("name", REPRESENTED)
def test_check_27_methods_that_change_a_representation_push_rows_off_the_centre_of_their_neighbours(name):
    """ManiF-SMC by 4 to 7 % over six seeds. Their loss rises by a tenth in the mean, and not with every seed."""
    found = ran(visible(name), RANDOM)
    assert found.steps["forget"] and found.apart > 1.02


def test_check_27_repair_leaves_no_more_than_retained_rows_alone_do():
    """Repair is ours and no default: nine retain steps to each forget step leave next to nothing, and this says so.

    Over six seeds the loss of the forgotten rows is 1.3 times what it was, and 1.8 times after retain steps alone.
    """
    found = ran(visible("manif_smc+dual"), RANDOM)
    assert found.steps == {"forget": 15, "retain": 135} and found.now > found.accuracy - 1
    assert found.lost < ran(visible("fine_tune"), RANDOM).lost


@pytest.mark.parametrize("name", RETAIN_ONLY)
def test_check_27_methods_that_need_no_forgotten_data_make_retain_steps_alone_and_under_forget(name):
    found = ran(visible(name), RANDOM)
    assert found.steps.keys() == {"retain"}
    assert found.now > 98, "under-forgetting is expected of it, and must show"


def test_check_27_ssd_is_training_free_and_dampens_a_class():
    found = ran(registry.make("ssd"), CLASS)
    assert "No training" in str(__import__("expunge.methods.ssd", fromlist=["x"]).__doc__)
    assert found.now < 10 and found.kept > 80


@functools.cache
def network() -> Trained:
    return CASES["network"].train()


def test_an_estimate_is_never_below_what_a_run_takes():
    for name in [*GRADIENT, *DUAL]:
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


@pytest.mark.parametrize("name", [*UNCERTIFIED, *DUAL])
def test_check_28_kinds_and_tasks_that_a_method_does_not_declare_are_refused(name):
    case = CASES["convex quadratic"]
    if "*" not in class_of(name).capabilities.tasks:
        with pytest.raises(RefusedError, match=r"runs on classification(, diffusion)?(, graph)?, not on point"):
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


@pytest.mark.parametrize("name", [*UNCERTIFIED, *DUAL])
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
    and (field == "lr" or name in DUAL or not registry.needed_under(name, "dual"))  # no retain loss without it
]


@pytest.mark.parametrize("rate", [0.0, -1.0])
@pytest.mark.parametrize(("name", "field"), RATES)
def test_a_learning_rate_of_zero_is_never_taken_for_the_default(name, field, rate):
    with pytest.raises(InputError, match="finite number above 0"):
        planning.plan(network(), samples(1, 2), method(name, **{field: rate}))


@pytest.mark.parametrize("size", [0, -1])
@pytest.mark.parametrize("name", [n for n in UNCERTIFIED if "batch_size" in registry.settings_names(n)])
def test_a_batch_of_no_rows_is_refused(name, size):
    with pytest.raises(InputError, match="whole number at least 1"):
        planning.plan(network(), samples(1, 2), method(name, batch_size=size))


def test_manif_refuses_what_has_no_neighbours_or_no_representation():
    trained = network()
    with pytest.raises(RefusedError, match=r"k=5 retained neighbours .* 4 rows are retained.*smaller k"):
        planning.plan(trained, samples(*range(56)), registry.make("manif_smc"))
    with pytest.raises(InputError, match="at least 1 and at most 1,000,000,000 as k"):
        registry.make("manif_smc", {"k": 0})
    flat = Classification(lambda: nn.Sequential(nn.Flatten(), nn.Linear(2, 3)))
    with pytest.raises(RefusedError, match="representation before the classifier head"):
        planning.plan(planning.adopt(flat, flat.build(), blobs()), samples(1), registry.make("manif_smc"))
    without = Classification(lambda: nn.Sequential(nn.Unflatten(1, (1, 2)), nn.Conv1d(1, 3, 2), nn.Flatten()))
    trained = planning.adopt(without, without.build(), blobs())
    with pytest.raises(RefusedError, match="no linear layer"):
        planning.plan(trained, samples(1), registry.make("manif_smc"))
    assert "manif_smc" not in planning.eligible(planning.plan(trained, samples(1), FineTune()).context, ("samples",))


@pytest.mark.parametrize("name", [n for n in sorted(registry.targets()) if "dual" not in registry.variants_of(n)])
def test_dual_of_a_method_with_one_objective_is_refused_naming_the_others(name):
    with pytest.raises(InputError, match=r"Expected \+dual after one of .*salun.*two objectives; got"):
        registry.make(f"{name}+dual")
    assert "salun+dual" in DUAL and "random_labels+dual" in DUAL


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
