"""Spec checks 7, 8 and 9: one test per rule of sections 6.1 and 6.2, what is beyond the promise, and composition."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from cases import CASES, beside_ledger, blobs, method, samples, smooth_network, softmax_head
from expunge import planning
from expunge.core.certificate import Origin, Status, Verdict
from expunge.core.errors import InputError, RefusedError
from expunge.core.trained import Budget, Fact
from expunge.privacy.certify import RUN_FACTS, Circumstances, certify
from expunge.privacy.composition import EarlierReleases
from expunge.privacy.gaussian import epsilon_of
from expunge.privacy.noise import SeededNoise, SystemNoise
from expunge.privacy.preconditions import RULES
from expunge.privacy.theorems import THEOREMS
from expunge.tasks.classification import Classification
from expunge.tasks.networks import perceptron
from expunge.training.recipes import GradientDescent, Stochastic
from expunge.training.recorder import Recorder

R2D = functools.partial(method, "r2d")
DECLARED = {"smoothness": 1.0, "gradient_bound": 2.0}


def verdict(trained, noise=None, name="r2d", request=None, **settings):
    """Verdict and the names of what does not simply hold, for a model that lies beside its ledger."""
    trained = beside_ledger(trained)
    plan = planning.plan(trained, request or samples(3, 4), method(name, **settings), noise=noise)
    certificate = plan.run().certificate
    return certificate.verdict, {a.name: a.status for a in certificate.assumptions if a.status is not Status.HOLDS}


def with_facts(**facts: Fact):
    trained = CASES["head"].publish()
    return replace(trained, facts={**trained.facts, **facts})


def plain() -> nn.Module:
    return perceptron((2, 6, 3))


def on_network(factory=plain, **recipe):
    recipe = {"steps": 20, "lr": 0.1, "constants": DECLARED, **recipe}
    trained = planning.train(Classification(factory), blobs(), GradientDescent(**recipe))
    return planning.publish(trained, Budget(None, 1e-5, 6, 1e4))


def test_check_07_a_head_with_proved_constants_is_certified():
    assert verdict(CASES["head"].publish()) == (Verdict.CERTIFIED, {})


def test_check_07_enforced_gradient_bound_with_declared_smoothness_is_under_declared_constants():
    broken = {"smoothness": Status.UNCHECKED, "start": Status.UNCHECKED}  # the network's own code made its weights
    assert verdict(CASES["clipped network"].publish()) == (Verdict.UNDER_DECLARED, broken)


@pytest.mark.parametrize(
    "optimizer", [{"momentum": 0.9}, {"optimizer": "adam"}, {"batch_size": 8}, {"schedule": "cosine"}]
)
def test_check_07_momentum_adam_mini_batches_and_schedules_void(optimizer):
    trained = CASES["head"].train()
    recipe = Stochastic(**{"epochs": 2, "lr": 0.1, "batch_size": 1000, **optimizer})
    other = planning.train(trained.task, trained.data, recipe)
    expected = {"adam": "optimizer"}.get(str(optimizer.get("optimizer")), next(iter(optimizer)))
    expected = {"batch_size": "batch"}.get(expected, expected)
    recorded = {name: other.facts[name] for name in ("optimizer", "batch", "schedule", "momentum")}
    published = with_facts(**recorded)
    assert verdict(published) == (Verdict.VOID, {expected: Status.VIOLATED})


def test_check_07_full_batch_sgd_without_momentum_is_gradient_descent():
    recipe = Stochastic(epochs=2, lr=0.1, batch_size=1000)
    other = planning.train(softmax_head(2, 3), blobs(), recipe)
    recorded = {name: other.facts[name] for name in ("optimizer", "batch", "schedule", "momentum")}
    assert verdict(with_facts(**recorded)) == (Verdict.CERTIFIED, {})


def test_check_07_batch_normalisation_voids_and_so_do_its_buffers():
    found, broken = verdict(on_network(normalised))
    assert found is Verdict.VOID and broken["batch_norm"] is Status.VIOLATED is broken["buffers_moved"]


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))


class Remembers(nn.Linear):
    """A linear layer that publishes the mean of its inputs."""

    def __init__(self):
        super().__init__(2, 3)
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, x):
        if self.training:
            self.mean.copy_(x.detach().mean(0))
        return super().forward(x)


def test_check_07_a_buffer_that_follows_the_data_voids():
    found, broken = verdict(on_network(Remembers))
    assert found is Verdict.VOID
    assert {name for name, status in broken.items() if status is Status.VIOLATED} == {
        "buffers_moved",
        "unnoised_tensors",
    }


@pytest.mark.parametrize(("rate", "void"), [(0.5, True), (0.0, False)])
def test_check_07_active_dropout_voids(rate, void):
    found, broken = verdict(on_network(functools.partial(dropping, rate)))
    assert (found is Verdict.VOID) is void is ("dropout" in broken)


def dropping(rate: float) -> nn.Module:
    return nn.Sequential(nn.Linear(2, 6), nn.Dropout(rate), nn.Linear(6, 3))


@pytest.mark.parametrize(("origin", "expected"), [("unknown", Verdict.VOID), ("public", Verdict.HEURISTIC)])
def test_check_07_pretraining_on_the_removed_or_on_unknown_rows_voids(origin, expected):
    start = smooth_network().build(seed=9).state_dict()
    found, broken = verdict(on_network(start=start, start_origin=origin))
    assert found is expected  # a public start is declared; the hand-picked noise of this network is what remains
    assert broken["start"] is (Status.VIOLATED if origin == "unknown" else Status.UNCHECKED)


@pytest.mark.parametrize(
    ("fact", "expected", "status"),
    [
        (Fact("fitted", Origin.ENFORCED), Verdict.VOID, Status.VIOLATED),
        (Fact("fitted on all rows", Origin.DECLARED), Verdict.VOID, Status.VIOLATED),
        (Fact("fixed", Origin.DECLARED), Verdict.UNDER_DECLARED, Status.UNCHECKED),
    ],
)
def test_check_07_preprocessing_that_looked_at_other_rows_voids(fact, expected, status):
    case = replace(CASES["head"], data=replace(blobs(), preprocessing=fact))
    assert verdict(case.publish()) == (expected, {"preprocessing": status})


def test_check_07_data_that_do_not_say_how_they_were_prepared_void():
    trained = CASES["head"].publish()
    facts = {name: fact for name, fact in trained.facts.items() if name != "preprocessing"}
    assert verdict(replace(trained, facts=facts)) == (Verdict.VOID, {"preprocessing": Status.VIOLATED})


@pytest.mark.parametrize("name", ["r2d", "descent_to_delete", "noisy_fine_tune", "newton"])
def test_check_07_seeded_noise_voids(name):
    trained = CASES["head for newton"].publish()
    assert verdict(trained, name=name)[0] is Verdict.CERTIFIED
    assert verdict(trained, SeededNoise(0), name) == (Verdict.VOID, {"noise_source": Status.VIOLATED})


class Coarse(SystemNoise):
    """Adds its noise in half precision."""

    def add(self, tensors, sigma):
        noisy, _ = super().add(tensors, sigma)
        return {
            n: (tensors[n].bfloat16() + (t - tensors[n]).bfloat16()).to(t.dtype) for n, t in noisy.items()
        }, "bfloat16"


@pytest.mark.parametrize("name", ["r2d", "descent_to_delete", "noisy_fine_tune", "newton"])
def test_check_07_noise_in_half_precision_voids(name):
    found = verdict(CASES["head for newton"].publish(), Coarse(), name)
    assert found[0] is Verdict.VOID and found[1]["noise_precision"] is Status.VIOLATED


class Partial(SystemNoise):
    """Leaves one tensor without noise."""

    def add(self, tensors, sigma):
        noisy, precision = super().add(tensors, sigma)
        largest = max(tensors, key=lambda name: tensors[name].numel())
        return {**noisy, largest: tensors[largest].clone()}, precision


def test_check_07_noise_that_leaves_a_tensor_out_voids():
    found, broken = verdict(CASES["clipped network"].publish(), Partial())
    assert found is Verdict.VOID and broken["noise_covers"] is Status.VIOLATED


@pytest.mark.parametrize("sampled", ["smoothness", "gradient_bound"])
def test_check_07_a_sampled_constant_makes_the_noise_heuristic(sampled):
    constants = {name: value for name, value in DECLARED.items() if name != sampled}
    case = replace(CASES["network"], recipe=GradientDescent(steps=10, lr=0.05, constants=constants, estimate=True))
    case = replace(case, budget=Budget(8.0, 1e-5, 6))
    found, broken = verdict(case.publish())
    assert found is Verdict.HEURISTIC and set(broken) == {*DECLARED, "start"}
    assert case.publish().facts[sampled].origin is Origin.ESTIMATED


@pytest.mark.parametrize("weakest", ["smoothness", "gradient_bound"])
@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (Origin.PROVED, Verdict.CERTIFIED), (Origin.ENFORCED, Verdict.CERTIFIED), (Origin.CLAIMED, Verdict.AS_CLAIMED),
        (Origin.DECLARED, Verdict.UNDER_DECLARED), (Origin.ESTIMATED, Verdict.HEURISTIC),
    ],
)  # fmt: skip
def test_check_07_the_weakest_origin_decides(weakest, origin, expected):
    value = CASES["head"].publish().facts[weakest].value
    assert verdict(with_facts(**{weakest: Fact(value, origin)}))[0] is expected


@pytest.mark.parametrize("name", ["convex", "strong_convexity"])
def test_check_07_declared_convexity_counts_where_the_bound_rests_on_it(name):
    value = CASES["head"].publish().facts[name].value
    found, broken = verdict(with_facts(**{name: Fact(value, Origin.DECLARED)}))
    assert found is Verdict.UNDER_DECLARED and name in broken


@pytest.mark.parametrize("name", ["r2d", "descent_to_delete", "newton"])
def test_check_07_a_hand_picked_sigma_is_heuristic_whatever_else_holds(name):
    trained = CASES["head for newton"].publish(epsilon=None, sigma=100.0)
    assert verdict(trained, name=name) == (Verdict.HEURISTIC, {"noise_calibrated": Status.UNCHECKED})


@pytest.mark.parametrize("name", ["smoothness", "gradient_bound"])
def test_check_07_a_missing_constant_voids_and_derives_no_noise(name):
    trained = CASES["head"].publish()
    facts = {key: fact for key, fact in trained.facts.items() if key != name}
    found, broken = verdict(replace(trained, facts=facts))
    assert found is Verdict.VOID and broken[name] is Status.VIOLATED and broken["finite_bound"] is Status.VIOLATED
    with pytest.raises(InputError, match=name):
        planning.publish(replace(CASES["head"].train(), facts=facts), Budget(1.0, 1e-5, 3), method=R2D())


@pytest.mark.parametrize("known", [True, False])
def test_check_07_an_infinite_recovery_error_voids(known):
    constants = DECLARED if known else {}
    task = smooth_network(dtype=torch.float64)
    trained = planning.train(task, blobs(), GradientDescent(steps=20, lr=0.1, constants=constants, rewinds=(1.0,)))
    trained = planning.publish(trained, Budget(None, 1e-5, 6, 1e4))
    found, broken = verdict(trained, rewind=0.25, recover=True)
    assert found is (Verdict.HEURISTIC if known else Verdict.VOID)
    assert ("finite_bound" in broken) is not known


def test_check_07_a_replayed_loop_is_a_fact_and_an_unreplayed_one_a_declaration():
    case = CASES["head"]
    for replay, expected in ((True, Verdict.UNDER_DECLARED), (False, Verdict.UNDER_DECLARED)):
        recorder = Recorder(case.task, case.data, case.recipe)
        model = case.task.build()
        recorder.start(model)
        for _ in range(case.recipe.steps):
            loss = case.task.losses(model, dict(model.named_parameters()), case.task.batch(case.data)).mean()
            (loss + 0.05 * sum(p.square().sum() for p in model.parameters())).backward()
            for p in model.parameters():
                p.data -= p.grad
                p.grad = None
            recorder.step(model)
        trained = planning.publish(recorder.finish(model, replay=replay), case.budget, method=R2D())
        found, broken = verdict(trained)
        assert found is expected and ("optimizer" in broken) is not replay
        assert broken["selection"] is Status.UNCHECKED  # whether somebody looked before stopping, only the user knows


# --- no rule is decorative: each one alone voids its theorem -----------------------------------------------------------

CLAIMS = {
    "rewind-to-delete": ("head", "r2d"), "descent-to-delete": ("head", "descent_to_delete"),
    "newton": ("head for newton", "newton"), "noisy-fine-tuning": ("head", "noisy_fine_tune"),
    "langevin": ("noisy head", "langevin"), "retrain": ("head", "retrain"),
    "certified-removal": ("perturbed head", "certified_removal"),
    "network-newton": ("peers", "network_newton"), "rr-du": ("peers", "rr_du"), "masked-rr-du": ("peers", "masked_rr_du"),
    "idea": ("graph, perturbed", "idea"), "certified-graph-removal": ("graph, perturbed", "cgu"),
}  # fmt: skip
AS_PUBLISHED = (
    "langevin",
    "certified-removal",
    "rr-du",
    "idea",
    "certified-graph-removal",
)  # theorems that nobody re-proved here
SEEN = (
    "retained_rows", "release_changed", "noise_fixed_before", "within_capacity", "within_budget", "own_implementation",
    "release_ledger", "earlier_releases",
)  # fmt: skip
WATCHED = {  # what the planner establishes of an honest run
    "model_code": True, "unnoised_tensors": "none", "trail_of_these_rows": True, "noise_source": "operating system",
    "noise_precision": "float64", "noise_covers": True, "noise_resolved": True, "noise_level": True,
    "noise_entered": True, "noise_written_ahead": True, "steps_bounded": True, "retained_rows": True,
    "retained_unchanged": True, "distance_agreed": True, "reference_reached": True, "peers_reached": True,
}  # fmt: skip
WEAKER = {"own_implementation": Verdict.UNREPLAYED, "release_ledger": Verdict.UNDER_DECLARED}
RULED = [(name, rule) for name in THEOREMS for rule in THEOREMS[name].rules]


@functools.cache
def claimed(name: str):
    """An honest run's claim, the facts it rests on, and what the planner saw."""
    case, how = CLAIMS[name]
    trained = CASES[case].ready()
    plan = CASES[case].plan(trained, how)
    claim = plan.method.run(plan.context).claim
    own = name in ("noisy-fine-tuning", *AS_PUBLISHED)
    digest = plan.context.deletion.after.digest
    watched = {rule: (value, "") for rule, value in WATCHED.items() if rule not in trained.facts}
    around = Circumstances(
        None if own else trained.budget,
        EarlierReleases(),
        3,
        digest,
        True,
        seen=watched,
        published_first=True,
        ledger=True,
        own=True,
    )
    return claim, trained.facts, around


def claimed_verdict(name: str) -> Verdict:
    return Verdict.AS_CLAIMED if name in AS_PUBLISHED else Verdict.CERTIFIED


@pytest.mark.parametrize("name", THEOREMS)
def test_check_07_honest_claims_are_not_void(name):
    assert certify(*claimed(name)).verdict is claimed_verdict(name)


@pytest.mark.parametrize(("name", "rule"), RULED)
def test_check_07_every_rule_alone_voids_its_theorem(name, rule):
    claim, facts, around = claimed(name)
    wrong = Fact("something else", Origin.ENFORCED)
    if rule == "within_budget" and THEOREMS[name].cumulative:  # its own parameter says what earlier releases used up
        claim = replace(claim, parameters={**claim.parameters, "residual": 1e6})
    elif rule in SEEN:
        around = {
            "retained_rows": replace(around, retained="other rows"),
            "release_changed": replace(around, changed=False),
            "noise_fixed_before": around.budget and replace(around, budget=replace(around.budget, sigma=99.0)),
            "within_capacity": around.budget and replace(around, budget=replace(around.budget, capacity=2)),
            "within_budget": replace(around, earlier=EarlierReleases(1, 99.0, ((THEOREMS[name].after or ("",))[0],))),
            "own_implementation": replace(around, own=False),
            "release_ledger": replace(around, ledger=False),
            "earlier_releases": replace(around, earlier=EarlierReleases(1, 1e-9, ("newton",))),
        }[rule]
    elif rule in around.seen:
        around = replace(around, seen={**around.seen, rule: ("something else", "")})
    elif rule in claim.facts and (rule not in facts or rule in RUN_FACTS):  # what only the run can know decides
        claim = replace(claim, facts={**claim.facts, rule: wrong})
    else:
        facts = {**facts, rule: wrong}
    certificate = certify(claim, facts, around)
    if rule in WEAKER:  # nothing is known to be wrong, and nobody vouches
        assert certificate.verdict is max(WEAKER[rule], claimed_verdict(name), key=list(Verdict).index)
        return
    assert certificate.verdict is Verdict.VOID
    violated = {a.name for a in certificate.assumptions if a.status is Status.VIOLATED}
    assert rule in violated and violated <= {rule, "within_budget"} | (
        {"finite_bound"} if rule == "within_budget" else set()
    )


@pytest.mark.parametrize(("name", "rule"), [(n, r) for n, r in RULED if r not in SEEN])
def test_check_07_what_nobody_recorded_voids(name, rule):
    claim, facts, around = claimed(name)
    without = lambda known: {key: fact for key, fact in known.items() if key != rule}  # noqa: E731
    seen = {key: value for key, value in around.seen.items() if key != rule}
    certificate = certify(replace(claim, facts=without(claim.facts)), without(facts), replace(around, seen=seen))
    item = {a.name: a for a in certificate.assumptions}[rule]
    assert certificate.verdict is Verdict.VOID and "nobody recorded it" in item.statement


@pytest.mark.parametrize(("name", "rule"), [(n, r) for n, r in RULED if r not in SEEN and r not in RUN_FACTS])
def test_check_07_what_only_the_user_says_stays_declared(name, rule):
    claim, facts, around = claimed(name)
    if rule in facts:
        facts = {**facts, rule: Fact(facts[rule].value, Origin.DECLARED)}
        found = certify(claim, facts, around).verdict
        assert found is (Verdict.AS_CLAIMED if name in AS_PUBLISHED else Verdict.UNDER_DECLARED)
    assert RULES[rule].check({}).status is Status.VIOLATED


# --- checks 8 and 9: beyond the promise, and several releases -----------------------------------------------------------


@pytest.mark.parametrize("name", ["r2d", "descent_to_delete", "newton"])
@pytest.mark.parametrize("size", [7, 12])
def test_check_08_more_than_the_capacity_is_refused_and_retraining_named(name, size):
    trained = CASES["head for newton"].publish()
    planning.plan(trained, samples(*range(6)), method(name))
    with pytest.raises(
        RefusedError, match=rf"removed to {size}; the published capacity is 6.*Eligible here: .*retrain"
    ):
        planning.plan(trained, samples(*range(size)), method(name))


def test_check_08_a_certificate_beyond_the_capacity_would_be_void():
    claim, facts, around = claimed("rewind-to-delete")
    certificate = certify(claim, facts, replace(around, removed=7))
    assert certificate.parameters["forget"] == 7 and certificate.verdict is Verdict.VOID


@pytest.mark.parametrize(("name", "served"), [("r2d", 3), ("descent_to_delete", 1)])
def test_check_08_a_composed_level_above_the_budget_is_refused_and_retraining_resets_it(name, served):
    case = CASES["head"]
    trained = beside_ledger(planning.publish(case.train(), Budget(1.0, 1e-5, 4), method=method(name)))
    done = 0
    with pytest.raises(
        RefusedError, match=r"All releases together would come to epsilon 1\.\d+, above the published 1"
    ):
        for done in range(10):
            outcome = planning.plan(trained, samples(done), method(name)).run()
            assert outcome.certificate.epsilon <= 1.0 and outcome.verdict == Verdict.CERTIFIED
            trained = outcome.after
    # r2d: sensitivities 1, 2, 3, 4 of 4: 1 + 4 + 9 <= 16 < 1 + 4 + 9 + 16, refused within the capacity;
    # descent_to_delete: what training left unfinished is paid by every release
    assert done == served == len(trained.removed)
    fresh = planning.plan(trained, samples(done), method("retrain")).run()
    assert fresh.certificate.epsilon == 0 and not fresh.after.spent
    assert planning.plan(fresh.after, samples(20), method(name)).run().verdict == Verdict.CERTIFIED


def test_check_08_an_uncertified_release_leaves_nothing_to_compose_with():
    trained = CASES["head"].publish()
    after = planning.plan(trained, samples(1), method("fine_tune")).run().after
    for name, why in (("descent_to_delete", "does not cover"), ("noisy_fine_tune", "epsilon inf")):
        with pytest.raises(RefusedError, match=why):
            planning.plan(after, samples(2), method(name))


COMPOSED = {2: 1.46517, 5: 2.44208, 10: 3.61859}


def test_check_09_ten_releases_of_one_compose_through_the_pipeline():
    trained = beside_ledger(planning.publish(CASES["head"].train(), Budget(4.0, 1e-5, 30), method=R2D()))
    found = {}
    for i in range(1, 11):
        outcome = planning.plan(trained, samples(i), method("noisy_fine_tune", steps=2, recovery_epochs=0)).run()
        assert outcome.certificate.release_epsilon == pytest.approx(1.0, abs=1e-9)
        assert outcome.verdict == Verdict.CERTIFIED
        found[i], trained = outcome.certificate.epsilon, outcome.after
    assert {i: round(found[i], 5) for i in COMPOSED} == COMPOSED
    with pytest.raises(RefusedError, match="above the published 4"):
        for i in range(11, 15):
            trained = planning.plan(trained, samples(i), method("noisy_fine_tune", steps=2)).run().after


def test_check_09_without_a_published_promise_the_second_release_is_refused():
    trained = CASES["noisy head"].train()
    after = planning.plan(trained, samples(1), method("noisy_fine_tune")).run().after
    with pytest.raises(RefusedError, match=r"together come to epsilon 1\.465, above 1.*Eligible here: .*retrain"):
        planning.plan(after, samples(2), method("noisy_fine_tune"))


@pytest.mark.parametrize("releases", [2, 5, 10])
def test_check_09_views_released_together_compose_too(releases):
    claim, facts, around = claimed("noisy-fine-tuning")
    published = Budget(4.0, 1e-5, 30, 1.0)
    certificate = certify(claim, facts, replace(around, together=releases, published=published))
    assert certificate.epsilon == pytest.approx(COMPOSED[releases], abs=1e-5)
    assert certificate.composed_mu == pytest.approx(certificate.mu * math.sqrt(releases))
    assert certificate.epsilon == epsilon_of(certificate.composed_mu, 1e-5)
