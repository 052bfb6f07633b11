"""What every registered method owes, on every tiny case that it serves."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import pytest
import torch

from cases import CASES, LANGUAGE, VARIANTS, class_of, method, samples, serving, smooth_network
from expunge import planning
from expunge.core.certificate import UNCERTIFIED, UNCHANGED, Verdict
from expunge.core.data import Deletion
from expunge.core.errors import FailedError, InputError, RefusedError
from expunge.core.journal import Journal
from expunge.core.method import Capabilities, Estimate
from expunge.core.request import Kind, Request, Target
from expunge.core.trained import Budget, Fact, InMemoryBook, Origin, Trained
from expunge.descent.descend import Descend
from expunge.descent.members import Member
from expunge.descent.optimizer import Shared
from expunge.descent.schedule import Passes
from expunge.methods import registry
from expunge.methods.fine_tune import FineTune
from expunge.methods.gradient_ascent import GradientAscent
from expunge.methods.no_op import NoOp
from expunge.methods.registry import settings_of
from expunge.objectives.supervised import Ascent
from expunge.privacy.again import differences, made_again
from expunge.privacy.noise import SeededNoise, SystemNoise
from expunge.report.record import plain
from expunge.training.noisy import NoisyGradientDescent
from expunge.training.perturbed import PerturbedMinimiser
from expunge.training.recipes import Stochastic, UserFit

EVERY = sorted(registry.targets())
# of the methods for language models: they all have what is put around them from one class
WRAPPED = next(name for name in LANGUAGE if VARIANTS[name])
SERVED = [
    (case, each)
    for case in CASES
    for name in CASES[case].serves
    if not CASES[case].like or name not in CASES[CASES[case].like].serves
    for each in (name, *(VARIANTS[name] if name not in LANGUAGE or name == WRAPPED else ()))
]


def around(name: str) -> list[pytest.MarkDecorator]:
    """What is put around a method is the same code for all: around one of classifiers and one of language it is fast."""
    plain, _, wrapper = name.partition("+")
    return [pytest.mark.slow] if wrapper and (plain not in (WRAPPED, "salun") or "+" in wrapper) else []


# Noisy training is left out where bits are compared: its law is repeatable, its bits are not.
REPEATABLE = [
    (case, name)
    for case, name in SERVED
    if name != "no_op"
    and not (name == "retrain" and isinstance(CASES[case].recipe, NoisyGradientDescent | PerturbedMinimiser))
]
CERTIFIED = [(case, name) for case, name in SERVED if class_of(name).capabilities.certified]
# Every certificate is void: with BatchNorm rows depend on one another, and of language training nobody records that they do not
NORMALISED = ("pictures", "pictures with answers")
AWAY_FROM_A_MINIMUM = [("graph", "idea")]  # whose theorem speaks of minima
# draw nothing when rows go: the perturbation has been there since training
NOISE_IN_TRAINING = [n for n in EVERY if "perturbed training" in registry.load(n).capabilities.needs]
ADOPTED = ("retained data", "forgotten data", "representation", "untied weights")  # what a network is adopted with
READY: dict[str, Trained] = {}


def ready(name: str) -> Trained:
    """The case's model, trained and published once for all tests: nothing may change it."""
    if name not in READY:
        READY[name] = CASES[name].ready()
    return READY[name]


class Counting(SystemNoise):
    """The operating system's noise, counting how often it was drawn."""

    def __init__(self):
        self.drawn = 0

    def add(self, tensors, sigma):
        self.drawn += 1
        return super().add(tensors, sigma)


class Exhausted(SystemNoise):
    """Noise that must not be drawn."""

    def add(self, tensors, sigma):
        pytest.fail("noise was drawn a second time")


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


@pytest.mark.parametrize("name", EVERY)
def test_every_method_is_served_by_some_case(name):
    assert any(name in case.serves for case in CASES.values()), (
        f"add a case to tests/cases.py that offers what {name} needs"
    )


@pytest.mark.parametrize("case", CASES)
def test_eligible_methods_are_those_the_case_names(case):
    plan = CASES[case].plan(ready(case), "no_op")
    controls = {name for name in EVERY if registry.load(name).capabilities.effect == "none"}
    kinds = CASES[case].request.kinds
    assert {*planning.eligible(plan.context, kinds), *controls} == CASES[case].eligible


@pytest.mark.parametrize(("case", "name"), SERVED)
def test_a_served_request_is_carried_out_as_declared(case, name):
    trained, can = ready(case), class_of(name).capabilities
    digests = (trained.artifact.digest, trained.data.digest, trained.trail and sorted(trained.trail.iterates))
    plan = CASES[case].plan(trained, name)
    outcome = plan.run()
    assert isinstance(plan.estimate, Estimate) and plan.estimate.gradient_evaluations >= 0
    assert set(CASES[case].request.kinds) <= set(can.kinds)
    assert (trained.artifact.digest, trained.data.digest, trained.trail and sorted(trained.trail.iterates)) == digests
    assert outcome.request["matched"]["count"] == outcome.deletion.size
    assert (outcome.deletion.size > 0) == outcome.deletion.member
    if can.effect in ("none", "graph"):  # the weights stay; a graph's next request finds what is left of it
        assert outcome.status == UNCHANGED == outcome.verdict
        assert outcome.after.artifact is trained.artifact and outcome.after.spent == trained.spent
        cut = outcome.deletion.after if can.effect == "graph" else trained.data
        assert outcome.after.data.digest == cut.digest
        assert set(outcome.change.values()) == {0.0}
    else:
        assert outcome.status == "fulfilled" and max(outcome.change.values()) > 0
        assert outcome.after.data.digest == outcome.deletion.after.digest
        assert outcome.after.artifact.digest == outcome.releases[0].artifact.digest != trained.artifact.digest
        assert outcome.after.removed == outcome.deletion.ids or not len(outcome.after.removed)
    assert all(release.certificate is None for release in outcome.releases) or can.certified
    form = "operator" if can.effect == "operator" else "weights"
    assert {release.artifact.form for release in outcome.releases} == {form}
    trained.task.build(outcome.releases[0].artifact.tensors)  # fits the architecture


@pytest.mark.parametrize(("case", "name"), [p for p in CERTIFIED if p[0] in NORMALISED and p[1] != "retrain"])
def test_batch_normalisation_voids_a_certificate_and_so_does_not_knowing(case, name):
    certificate = CASES[case].plan(ready(case), name).run().certificate
    assert certificate.verdict is Verdict.VOID
    assert any(a.name == "batch_norm" and a.status == "violated" for a in certificate.assumptions)


@pytest.mark.parametrize(("case", "name"), AWAY_FROM_A_MINIMUM)
def test_away_from_a_minimum_a_theorem_about_minima_is_void(case, name):
    certificate = CASES[case].plan(ready(case), name).run().certificate
    assert certificate.verdict is Verdict.VOID
    assert any(a.name == "converged" and a.status == "violated" for a in certificate.assumptions)


@pytest.mark.parametrize(
    ("case", "name"), [p for p in CERTIFIED if p[0] not in NORMALISED and p not in AWAY_FROM_A_MINIMUM]
)
def test_a_certificate_is_bound_and_can_be_computed_again(case, name):
    outcome = CASES[case].plan(ready(case), name).run()
    certificate = outcome.certificate
    assert certificate.verdict is not Verdict.VOID
    assert certificate.binds["release"] == outcome.releases[0].artifact.digest
    assert certificate.binds["retained"] == outcome.deletion.after.digest
    record, facts = plain(certificate.to_json()), plain({name: asdict(fact) for name, fact in outcome.facts.items()})
    read = {name: Fact(fact["value"], Origin(fact["origin"]), fact["note"]) for name, fact in facts.items()}
    again = plain(made_again(record, read, outcome.before.budget, [], "model").to_json())
    assert differences(record, again) == []
    assert differences({**record, "delta": record["delta"] / 2}, again)


@pytest.mark.parametrize(("case", "name"), [pytest.param(*p, marks=around(p[1])) for p in REPEATABLE])
@pytest.mark.parametrize("seed", [pytest.param(0, marks=pytest.mark.slow), 7])
def test_equal_seeds_give_equal_bits(case, name, seed):
    runs = [CASES[case].plan(ready(case), name, noise=SeededNoise(seed), seed=seed).run() for _ in range(2)]
    assert same(runs[0].after.secret, runs[1].after.secret)
    assert runs[0].releases[0].artifact.digest == runs[1].releases[0].artifact.digest


@pytest.mark.parametrize(
    ("case", "name"),
    [p for p in CERTIFIED if p[1] not in NOISE_IN_TRAINING and (CASES[p[0]].budget or p[1] != "retrain")],
)
def test_fresh_noise_makes_every_release_another_one(case, name):
    first, second = (CASES[case].plan(ready(case), name).run() for _ in range(2))
    moved = [n for n, t in first.releases[0].artifact.tensors.items() if t.is_floating_point()]
    for tensor in moved:
        a, b = (outcome.releases[0].artifact.tensors[tensor] for outcome in (first, second))
        assert (a != b).any()


@pytest.mark.parametrize(("case", "name"), [pytest.param(*p, marks=around(p[1])) for p in SERVED if p[1] != "no_op"])
def test_a_second_run_on_the_same_journal_returns_the_same_bits_and_draws_nothing(case, name, tmp_path):
    trained, noise = ready(case), Counting()
    first = CASES[case].plan(trained, name, noise=noise, journal=Journal(tmp_path)).run()
    draws = class_of(name).capabilities.certified and name not in NOISE_IN_TRAINING
    if draws and (trained.budget or name != "retrain"):
        assert noise.drawn > 0
    again = CASES[case].plan(trained, name, noise=Exhausted(), journal=Journal(tmp_path)).run()
    assert again.releases[0].artifact.digest == first.releases[0].artifact.digest
    assert same(again.after.secret, first.after.secret)
    assert again.verdict == first.verdict
    if first.after.trail:
        assert again.after.trail.steps == first.after.trail.steps


@pytest.mark.parametrize("name", [name for case, name in CERTIFIED if case == "head"])
def test_another_source_on_the_same_journal_does_not_launder_noise(name, tmp_path):
    trained, case = ready("head"), CASES["head"]
    case.plan(trained, name, noise=SeededNoise(0), journal=Journal(tmp_path)).run()
    resumed = case.plan(trained, name, noise=SystemNoise(), journal=Journal(tmp_path)).run()
    source = {a.name: a for a in resumed.certificate.assumptions}.get("noise_source")
    assert name == "retrain" or (source.value == "seeded" and resumed.verdict == Verdict.VOID)


def test_another_request_on_the_same_journal_is_another_run(tmp_path):
    trained = ready("head")
    first, second = (
        planning.plan(trained, samples(*ids), method("r2d"), journal=Journal(tmp_path)).run() for ids in ((3,), (4, 5))
    )
    assert not same(first.after.state, second.after.state)
    assert first.releases[0].artifact.digest != second.releases[0].artifact.digest


@pytest.mark.parametrize("name", [each for name in EVERY for each in (name, *VARIANTS[name])])
def test_settings_make_the_round_trip(name):
    made = method(name)
    record = settings_of(made)
    assert registry.row_name(made) == name and record["name"] == name.partition("+")[0]
    for again in (registry.make(name, record["settings"]), registry.make(record["name"], record["settings"])):
        assert again == made and settings_of(again)["digest"] == record["digest"]
    with pytest.raises(InputError, match=r"no setting nonsense"):
        registry.make(name, {"nonsense": 1})


@pytest.mark.parametrize("name", EVERY)
def test_capabilities_and_documentation(name):
    cls = registry.load(name)
    assert cls.name == name and cls.__doc__
    assert "Formal guarantee:" in __import__(cls.__module__, fromlist=["x"]).__doc__
    assert bool(registry.papers_of(name)) == (cls.capabilities.effect != "none"), (
        "a control has no paper, all others do"
    )
    assert all(
        paper.title and paper.by and re.fullmatch(r"(\d{4}\.\d{5})?", paper.arxiv) for paper in registry.papers_of(name)
    )


# --- refusals in words ------------------------------------------------------------------------------------------------


def refused(trained, name, request=None, **options) -> str:
    with pytest.raises(RefusedError) as caught:
        planning.plan(replace(trained, book=InMemoryBook()), request or samples(3, 4), method(name), **options)
    message = str(caught.value)
    assert message.count(".") >= 1 and len(message) > 40
    return message


NOT_SERVED = [
    (c, n)
    for c in CASES
    for n in EVERY
    if n not in CASES[c].serves and (not CASES[c].like or n in CASES[CASES[c].like].serves)
]


@pytest.mark.parametrize(  # a third of them: each refusal tries every method
    ("case", "name"), [pytest.param(*p, marks=[pytest.mark.slow] * (i % 3 > 0)) for i, p in enumerate(NOT_SERVED)]
)
def test_what_a_method_does_not_serve_it_refuses_naming_those_that_do(case, name):
    message = refused(ready(case), name, CASES[case].request, material=CASES[case].material)
    named = message.partition("Eligible here: ")[2]
    assert CASES[case].eligible - {"no_op"} == set(named.rstrip(".").split(", "))


@pytest.mark.parametrize(
    ("case", "name", "reason"),
    [
        ("language", "r2d", "no trail"),
        ("language", "noisy_fine_tune", "share"),
        ("network, not published", "r2d", "needs a published budget"),
        ("head for newton", "langevin", "trained without noise"),
        ("noisy head", "r2d", "no trail"),
        ("network", "newton", "strongly convex"),
        ("network", "descent_to_delete", "strongly convex"),
        ("noisy head", "newton", "published budget"),
        ("noisy head", "descent_to_delete", "published budget"),
    ],
)
def test_a_missing_need_is_named(case, name, reason):
    assert reason in refused(ready(case), name, CASES[case].request)


@pytest.mark.parametrize(("case", "name"), [(c, n) for c in CASES for n in CASES[c].unlike_defaults])
def test_defaults_that_ask_for_another_model_are_refused(case, name):
    layer, distance = (
        r"The model has 1 layers, from 0; there is no layer 7\. Name another one\.",
        "distance that was agreed",
    )
    with pytest.raises(RefusedError, match=f"{layer}|{distance}"):
        planning.plan(ready(case), CASES[case].request, registry.make(name))


def adopted(data=None) -> Trained:
    return planning.adopt(CASES["network"].task, CASES["network"].train().artifact.tensors, data)


@pytest.mark.parametrize("name", EVERY)
def test_without_data_there_is_nothing_to_match(name):
    assert "training data of this model are unknown" in refused(adopted(), name)


ON_RECORD = [n for n in EVERY if n not in serving("classification", ("samples",), ADOPTED)]


@pytest.mark.parametrize("name", ON_RECORD)
def test_a_model_adopted_with_its_data_serves_what_needs_no_record(name):
    message = refused(adopted(CASES["network"].data), name)
    named = message.partition("Eligible here: ")[2].rstrip(".").split(", ")
    assert set(named) == {n for n in serving("classification", ("samples",), ADOPTED) if n != "no_op"}


LEARN_FROM_MATERIAL = [
    n
    for n in EVERY
    if "forgotten data" in registry.load(n).capabilities.needs
    and {"*", "classification"} & {*registry.load(n).capabilities.tasks}
]


def test_without_any_training_row_only_methods_that_need_none_learn_from_authored_material():
    material = CASES["network"].data.only(Deletion.of(CASES["network"].data, samples(1, 2)).ids)
    alone = [n for n in serving("classification", ("samples",), ["forgotten data"]) if n in LEARN_FROM_MATERIAL]
    assert "gradient_ascent" in alone
    for name in LEARN_FROM_MATERIAL:
        if name in alone:
            outcome = planning.plan(adopted(), samples(1), method(name), material=material).run()
            assert max(outcome.change.values()) > 0
        else:
            message = refused(adopted(), name, samples(1), material=material)
            assert "needs the retained data" in message
            assert message.endswith(f"Eligible here: {', '.join(alone)}.")


ON_ROWS = [
    n
    for n in EVERY
    if {"*", "classification"} & {*registry.load(n).capabilities.tasks} and n not in ("no_op", *LEARN_FROM_MATERIAL)
]


@pytest.mark.parametrize("name", ON_ROWS)
def test_authored_material_is_refused_by_methods_that_forget_rows(name):
    concept = Request("a rights holder", (Target("concept", {"name": "a square"}),))
    material = CASES["network"].data.only(Deletion.of(CASES["network"].data, samples(1, 2)).ids)
    assert "kind concept" in refused(adopted(), name, concept, material=material)
    for trained in (adopted(CASES["network"].data), ready("head for newton")):
        assert "authored material" in refused(trained, name, samples(1), material=material)


def test_double_precision_is_asked_for_before_the_run():
    case = replace(CASES["head for newton"], task=replace(CASES["head for newton"].task, dtype=torch.float32))
    trained = case.publish()
    assert "double precision" in refused(trained, "newton")
    with pytest.raises(RefusedError, match="double precision"):
        planning.plan(trained, samples(3), registry.make("r2d", {"rewind": 0.3, "recover": True}))


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in ("samples", "user", "class")])
def test_rows_do_not_pretend_to_hold_other_kinds(kind):
    with pytest.raises(InputError, match="Rows can lose samples, users or classes"):
        planning.plan(ready("head"), Request("x", (Target(kind, {"ids": [1]}),)), method("no_op"))


@pytest.mark.parametrize(
    ("request_", "message"), [(samples(10**6), "matches nothing"), (samples(*range(60)), "matches everything")]
)
def test_requests_that_match_nothing_or_everything_are_refused(request_, message):
    with pytest.raises(InputError, match=message):
        planning.plan(ready("head"), request_, method("no_op"))


@pytest.mark.parametrize(
    "fit", [Stochastic(epochs=2, lr=0.1), UserFit(lambda data, seed: smooth_network().build(seed=seed))]
)
def test_training_without_a_trail_serves_retraining_and_baselines(fit):
    trained = planning.train(smooth_network(), CASES["network"].data, fit)
    assert "no trail" in refused(trained, "r2d")
    if isinstance(fit, Stochastic):
        planning.plan(trained, samples(0, 1), method("retrain")).run()


# --- a method that does nothing, and a control that does something ------------------------------------------------------


@pytest.mark.parametrize("case", ["head", "network", "noisy head"])
def test_a_method_that_changes_nothing_has_failed(case):
    with pytest.raises(FailedError, match="left every tensor as it was"):
        planning.plan(ready(case), samples(3), Idle()).run()


def test_a_threshold_that_no_weight_passes_has_failed():
    with pytest.raises(FailedError, match="left every tensor as it was"):
        planning.plan(ready("network"), samples(3), registry.make("ssd", {"alpha": 1e12})).run()


@pytest.mark.parametrize("case", ["head", "network", "noisy head"])
@pytest.mark.parametrize("rate", [0.0, -0.1, float("nan")])
@pytest.mark.parametrize("cls", [FineTune, GradientAscent])
def test_a_learning_rate_that_is_none_is_refused_before_the_run(case, cls, rate):
    with pytest.raises(InputError, match=r"finite number above 0|finite settings"):
        planning.plan(ready(case), samples(3), cls(lr=rate, epochs=1))


@dataclass(frozen=True)
class Idle(FineTune):
    """Declares that it changes the weights, and makes no step."""

    name: ClassVar[str] = "idle"
    capabilities: ClassVar[Capabilities] = FineTune.capabilities

    def composition(self, context):
        return Descend(Ascent(), Passes(1, retain=0, forget_until=0), Shared(Member("sgd", 0.1)))


@dataclass(frozen=True)
class MovingControl(NoOp):
    """Declares that it changes nothing, and changes something."""

    name: ClassVar[str] = "moving_control"
    capabilities: ClassVar[Capabilities] = NoOp.capabilities

    def run(self, context):
        return FineTune(epochs=1).run(context)


def test_a_control_that_changes_something_has_failed():
    with pytest.raises(FailedError, match="declares that it changes nothing"):
        planning.plan(ready("head"), samples(3), MovingControl()).run()


@pytest.mark.parametrize("cls", [FineTune, GradientAscent])
def test_uncertified_methods_never_release_the_secret_weights(cls):
    trained = ready("network")
    outcome = planning.plan(trained, samples(3, 4, 5), cls(lr=1e-5, epochs=1)).run()
    apart = (outcome.releases[0].artifact.tensors["1.weight"] - trained.state["1.weight"]).norm()
    assert apart > trained.budget.sigma and outcome.verdict == UNCERTIFIED


def test_a_budget_beyond_all_rows_is_refused():
    with pytest.raises(InputError, match="capacity below"):
        planning.publish(CASES["head"].train(), Budget(1.0, 1e-5, 60), method=method("r2d"))
