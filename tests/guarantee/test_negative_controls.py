"""Spec check 13 and negative controls: rogue methods and planted bugs are never certified, honest ones always are.

What a method says about itself is not believed. Some lies the planner sees at once (weights, digests, counts); others only
a replay, a retraining or two worlds of releases show. Every detector is also shown the honest implementation, which it
must let pass on several seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch

from cases import CASES, beside_ledger, method, samples
from expunge import planning
from expunge.core.certificate import UNCHANGED, Claim, Status, Verdict
from expunge.core.errors import FailedError, InputError
from expunge.core.method import InMemory, Outcome
from expunge.core.trained import Budget, Fact, InMemoryBook, Origin, Trained
from expunge.evidence.refutation import noise_reuse_check, two_world_test
from expunge.measuring import MeasureSettings, measure
from expunge.methods.descent_to_delete import DescentToDelete
from expunge.methods.fine_tune import FineTune
from expunge.methods.newton import Newton
from expunge.methods.no_op import NoOp
from expunge.methods.r2d import R2D
from expunge.methods.retrain import Retrain
from expunge.privacy.noise import SystemNoise
from expunge.privacy.replay import realised_epsilon
from expunge.training.flat import distance

from .oracles import measured, oracle_2

QUICK = MeasureSettings(shadow_models=0, replicates=0, trials=0, audit=False)
SEEDS = range(4)


def run(trained: Trained, rogue: Any, *ids: int, **options: Any) -> Outcome:
    apart = replace(trained, book=InMemoryBook())  # each run is an experiment of its own
    return planning.plan(apart, samples(*(ids or (3, 4, 5))), rogue, **options).run()


def refuted(outcome: Outcome) -> set[str]:
    """Names of the checks that failed; the verdict after measuring is void exactly if there are any."""
    evidence = measure(outcome, QUICK)
    assert outcome.own or not outcome.certificate.certified  # what a plug-in says of itself certifies nothing
    failed = {check.name for check in evidence.checks if check.passed is False}
    before = outcome.certificate.verdict
    assert evidence.outcome.verdict == (Verdict.VOID if failed else before)
    assert (evidence.verdict == "refuted") is bool(failed)
    return failed


def violated(outcome: Outcome) -> set[str]:
    return {a.name for a in outcome.certificate.assumptions if a.status is Status.VIOLATED}


def ready(name: str, seed: int = 0, **budget: Any) -> Trained:
    return CASES[name].publish(seed, **budget)


def tight_oracle(d: int = 60, rewind: int = 79, epsilon: float = 1.0) -> Trained:
    """O2 with the noise of its attained bound at K = ``rewind``: every unit of distance is paid for."""
    task, rows, recipe = oracle_2(d)
    recipe = replace(recipe, rewinds=(rewind / 80, 1.0))
    return planning.publish(
        planning.train(task, rows, recipe), Budget(epsilon, 1e-5, 10), method=R2D(rewind=rewind / 80)
    )


FORGOTTEN = tuple(range(10))  # O2's rows that pull the other way


# --- rogues the planner sees at once -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Untouched(R2D):
    """Claims everything and returns the model as it was, bit for bit."""

    name: ClassVar[str] = "untouched"

    def run(self, context):
        return replace(super().run(context), views={"model": context.trained.artifact})


@dataclass(frozen=True)
class CertifiedControl(NoOp):
    """A control that claims a theorem."""

    name: ClassVar[str] = "certified_control"

    def run(self, context):
        return replace(super().run(context), claim=R2D().run(context).claim)


@dataclass(frozen=True)
class OneViewUntouched(R2D):
    """Changes one view and leaves the other as it was."""

    name: ClassVar[str] = "one_view_untouched"

    def run(self, context):
        result = super().run(context)
        return replace(result, views={"a": result.views["model"], "b": context.trained.artifact})


@pytest.mark.parametrize("case", ["head", "network", "digits head", "concave quadratic"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_bitwise_untouched_model_is_never_certified(case, seed):
    trained = CASES[case].publish(seed)
    with pytest.raises(FailedError, match="left every tensor as it was"):
        run(trained, Untouched())
    control = run(trained, CertifiedControl())
    assert control.verdict == UNCHANGED == control.status
    assert control.certificate.verdict is Verdict.VOID and "release_changed" in violated(control)
    mixed = run(trained, OneViewUntouched())
    assert mixed.verdict == Verdict.VOID and mixed.releases[1].certificate.verdict is Verdict.VOID


SEES_EVERYTHING = replace(R2D.capabilities, needs=(*R2D.capabilities.needs, "forgotten data"))


def test_rows_that_a_method_does_not_ask_for_are_withheld():
    @dataclass(frozen=True)
    class Peeks(R2D):
        def run(self, context):
            assert context.trained.data is None
            return super().run(replace(context, deletion=replace(context.deletion, after=context.deletion.before)))

    with pytest.raises(InputError, match="withheld"):
        run(ready("head"), Peeks())


@dataclass(frozen=True)
class OtherRows(R2D):
    """Forgets other rows than it was asked to, and says so truthfully, or not."""

    name: ClassVar[str] = "other_rows"
    capabilities: ClassVar[Any] = SEES_EVERYTHING
    lies: bool = False
    left_in: int | None = None  # how many of the forgotten rows stay; None: all, and the next rows go instead

    def run(self, context):
        deletion = context.deletion
        ids = deletion.ids["row"]
        gone = ids + len(ids) if self.left_in is None else ids[self.left_in :]
        rows = deletion.before.without(type(deletion.ids).rows(gone))
        result = super().run(replace(context, deletion=replace(deletion, after=rows)))
        said = deletion.after.digest if self.lies else rows.digest
        return replace(result, claim=replace(result.claim, descended_on=said))


@pytest.mark.parametrize("left_in", [None, 1, 3])
@pytest.mark.parametrize("case", ["head", "network", "digits head", "concave quadratic"])
def test_a_wrong_forget_set_truthfully_told_is_void(case, left_in):
    ids = (20, 21, 22)
    outcome = run(ready(case), OtherRows(left_in=left_in), *ids)
    assert outcome.verdict == Verdict.VOID and "retained_rows" in violated(outcome)


HONEST = {"r2d": R2D(), "descent_to_delete": DescentToDelete(steps=20), "newton": Newton()}


@dataclass(frozen=True)
class Boaster:
    """An honest method that talks its claim's numbers or facts up."""

    honest: Any
    parameters: dict[str, Any]
    facts: dict[str, Fact]
    name = "boaster"
    capabilities = property(lambda self: self.honest.capabilities)
    check = property(lambda self: self.honest.check)

    def run(self, context):
        result = self.honest.run(context)
        claim = result.claim
        boast = Claim(
            claim.theorem, {**claim.parameters, **self.parameters}, {**claim.facts, **self.facts}, claim.descended_on
        )
        return replace(result, claim=boast)


def boaster(honest: Any, parameters: dict[str, Any] | None = None, facts: dict[str, Fact] | None = None) -> Boaster:
    return Boaster(honest, parameters or {}, facts or {})


BOASTS = {
    "forget": 0, "rows": 10**9, "smoothness": 1e-9, "gradient_bound": 1e-9, "gradient_difference": 1e-9, "steps": 1,
    "strong_convexity": 0.999, "hessian_lipschitz": 0.0, "lr": 1e-9, "l2": 0.0, "convex": True, "start_norm": 0.0,
}  # fmt: skip


@pytest.mark.parametrize("boast", BOASTS)
@pytest.mark.parametrize("name", HONEST)
def test_numbers_that_training_decided_cannot_be_talked_down(name, boast):
    case, options = CASES["head for newton"], {"noise": SystemNoise()}
    plain = planning.plan(case.publish(), case.request, HONEST[name], **options).run().certificate
    boasted = boaster(HONEST[name], {boast: BOASTS[boast]})
    found = planning.plan(case.publish(), case.request, boasted, **options).run().certificate
    assert found.sensitivity == plain.sensitivity > 0 and found.mu == plain.mu and found.epsilon == plain.epsilon


@pytest.mark.parametrize("boast", ["optimizer", "batch", "momentum", "batch_norm", "start", "preprocessing"])
def test_facts_of_training_cannot_be_talked_up(boast):
    trained = ready("head")
    bad = replace(trained, facts={**trained.facts, boast: Fact("bad", Origin.DECLARED)})
    good = {boast: trained.facts[boast]}
    outcome = run(bad, boaster(HONEST["r2d"], facts=good))
    assert outcome.verdict == Verdict.VOID and violated(outcome) == {boast}


@pytest.mark.parametrize("constant", ["smoothness", "gradient_bound"])
def test_sampled_constants_cannot_be_called_proved(constant):
    trained = ready("network")
    claimed = {constant: Fact(trained.facts[constant].value, Origin.PROVED)}
    found = run(trained, boaster(R2D(), facts=claimed)).certificate
    assert found.verdict is Verdict.UNREPLAYED
    assert {a.name: a.origin for a in found.assumptions}[constant] is Origin.ESTIMATED


def test_a_theorem_that_does_not_exist_is_rejected():
    @dataclass(frozen=True)
    class Invented(R2D):
        def run(self, context):
            return replace(super().run(context), claim=Claim("my own", {"sigma": 1.0}))

    with pytest.raises(InputError, match="theorem among"):
        run(ready("head"), Invented())


@dataclass(frozen=True)
class NamedRetrain(R2D):
    """Calls itself retraining to have its spent level forgotten."""

    name: ClassVar[str] = "retrain"


def test_a_name_does_not_reset_what_was_spent():
    after = run(ready("head"), NamedRetrain(rewind=0.5), 3).after
    assert len(after.spent) == 1 and len(after.removed) == 1
    again = run(after, NamedRetrain(rewind=0.5), 4)
    assert again.certificate.composed_mu > again.certificate.mu


# --- rogues that only measuring shows ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShownAndReleased(R2D):
    """Releases what it made of the wrong rows and shows the honest un-noised weights instead."""

    name: ClassVar[str] = "shown_and_released"
    capabilities: ClassVar[Any] = SEES_EVERYTHING

    def run(self, context):
        honest = super().run(replace(context, journal=InMemory()))
        wrong = OtherRows(rewind=self.rewind, lies=True, left_in=context.deletion.size).run(context)
        return replace(wrong, state=honest.state)


@dataclass(frozen=True)
class NothingShown(OtherRows):
    """Keeps its un-noised weights to itself."""

    name: ClassVar[str] = "nothing_shown"

    def run(self, context):
        return replace(super().run(context), state=None)


@dataclass(frozen=True)
class TooFewSteps(R2D):
    """Descends K steps and claims to have retrained: a sensitivity of zero."""

    name: ClassVar[str] = "too_few_steps"

    def run(self, context):
        result = super().run(context)
        parameters = {**result.claim.parameters, "rewind": result.claim.parameters["steps"]}
        return replace(result, claim=replace(result.claim, parameters=parameters))


@dataclass(frozen=True)
class ImpossibleSteps(R2D):
    """Claims a rewind whose iterate nobody stored and nobody can compute."""

    name: ClassVar[str] = "impossible_steps"

    def run(self, context):
        result = super().run(context)
        return replace(result, claim=replace(result.claim, parameters={**result.claim.parameters, "rewind": 3}))


@dataclass(frozen=True)
class FineTunedRetrain(FineTune):
    """Fine-tunes and calls it retraining."""

    name: ClassVar[str] = "fine_tuned_retrain"
    capabilities: ClassVar[Any] = replace(Retrain.capabilities, needs=("retained data", "recipe", "forgotten data"))

    def run(self, context):
        honest = Retrain().run(replace(context, journal=InMemory()))
        return replace(FineTune(epochs=1).run(context), claim=honest.claim)


@pytest.mark.parametrize("case", ["head", "digits head", "concave quadratic", "clipped network"])
@pytest.mark.parametrize("left_in", [None, 1, 2])
def test_rows_left_in_under_a_false_digest_are_caught_by_replaying_the_steps(case, left_in):
    outcome = run(ready(case), OtherRows(lies=True, left_in=left_in), 8, 9)
    assert outcome.verdict == Verdict.UNREPLAYED  # the lie is worth nothing until it is looked at
    assert "replayed steps" in refuted(outcome)


def test_check_13_a_false_digest_on_the_tight_oracle_is_caught_by_replay_and_by_retraining():
    trained = tight_oracle(epsilon=8.0)  # little noise hides the lie from the chi-square, too
    outcome = run(trained, OtherRows(rewind=79 / 80, lies=True, left_in=10), *FORGOTTEN)
    assert outcome.verdict == Verdict.UNREPLAYED
    assert refuted(outcome) >= {"replayed steps", "retrain check"}
    assert measured(outcome) > 30 * outcome.certificate.sensitivity
    hidden = run(trained, ShownAndReleased(rewind=79 / 80), *FORGOTTEN)
    assert hidden.verdict == Verdict.VOID and "noise_entered" in violated(hidden) and "replay" in refuted(hidden)
    silent = run(trained, NothingShown(rewind=79 / 80, lies=True, left_in=10), *FORGOTTEN)
    assert silent.verdict == Verdict.VOID and "noise_entered" in violated(silent)  # nothing to hold the noise against


@pytest.mark.parametrize(
    ("case", "rogue"),
    [
        ("head", TooFewSteps()), ("digits head", TooFewSteps()), ("concave quadratic", TooFewSteps()),
        ("clipped network", ImpossibleSteps()), ("head", FineTunedRetrain()), ("digits head", FineTunedRetrain()),
        ("network, not published", FineTunedRetrain()),
    ],
)  # fmt: skip
def test_false_claims_about_the_steps_are_caught(case, rogue):
    outcome = run(CASES[case].ready(), rogue, 1, 2)
    assert outcome.certificate.epsilon < 8.1 and not outcome.certificate.certified
    assert refuted(outcome)


# --- check 13: planted bugs --------------------------------------------------------------------------------------------


class Weak(SystemNoise):
    """A tenth of the noise."""

    def add(self, tensors, sigma):
        return super().add(tensors, 0.1 * sigma)


class Reused(SystemNoise):
    """Draws one vector and adds it, rescaled, to everything it is given."""

    def __init__(self):
        self.vector: dict[str, torch.Tensor] = {}

    def add(self, tensors, sigma):
        if not self.vector:
            noisy, _ = super().add(tensors, 1.0)
            self.vector = {name: noisy[name] - tensors[name] for name in tensors}
        return {name: tensors[name] + sigma * self.vector[name] for name in tensors}, "float64"


class Forgetful(InMemory):
    """A journal that keeps what was computed and forgets what was drawn: every run is a fresh release, at once."""

    def once(self, name: str, compute: Callable[[], bytes]) -> bytes:
        return compute() if name.endswith((".release", ".published")) else super().once(name, compute)


def worlds(trained: Trained, rogue: Any, noise: Any, trials: int = 200):
    """Two worlds of real releases: unlearned, and published by whoever never saw the forgotten rows."""
    journal = Forgetful()
    first = run(trained, rogue, *FORGOTTEN, noise=noise, journal=journal)
    again = planning.train(trained.task, first.deletion.after, trained.recipe)
    budget = Budget(None, 1e-5, 10, trained.budget.sigma)

    def unlearned():
        return run(trained, rogue, *FORGOTTEN, noise=noise, journal=journal).releases[0].artifact.tensors

    def retrained():
        return planning.publish(again, budget, noise=noise).artifact.tensors

    centres = (first.after.state, again.artifact.tensors)
    check = two_world_test(unlearned, retrained, centres, ("theta",), trials, trained.budget.epsilon, 1e-5)
    return first, check


@pytest.mark.parametrize(
    "seed",
    [
        0,
        pytest.param(1, marks=pytest.mark.slow),
        pytest.param(2, marks=pytest.mark.slow),
        pytest.param(3, marks=pytest.mark.slow),
    ],
)
def test_check_13_the_honest_implementation_passes_every_check_on_the_tight_oracle(seed):
    trained = tight_oracle(rewind=(79, 60, 40, 20)[seed])
    outcome, check = worlds(trained, R2D(rewind=(79, 60, 40, 20)[seed] / 80), SystemNoise())
    assert check.passed and check.detail["trials"] == 200
    assert refuted(outcome) == set()
    assert measured(outcome) == pytest.approx(outcome.certificate.sensitivity, rel=1e-9)  # and it is tight
    assert realised_epsilon(measured(outcome), outcome.certificate.sigma, 1e-5) == pytest.approx(1.0, abs=1e-6)


def test_check_13_a_tenth_of_the_noise_is_flagged_on_the_tight_oracle():
    trained = tight_oracle()
    outcome, check = worlds(trained, R2D(rewind=79 / 80), Weak())
    assert not check.passed and check.detail["epsilon_lower"] > 1.0
    evidence = measure(outcome, QUICK)
    replay = {item.name: item for item in evidence.checks}["replay"]
    assert not replay.passed and evidence.outcome.verdict == Verdict.VOID
    # the retrain check with the noise that was really added: far above what was promised
    realised = realised_epsilon(measured(outcome), replay.detail["standard_deviation"], 1e-5)
    assert realised > 5 > outcome.certificate.epsilon


def test_check_13_forgotten_rows_left_in_the_batch_are_flagged_on_the_tight_oracle():
    trained = tight_oracle()
    outcome, check = worlds(trained, OtherRows(rewind=79 / 80, lies=True, left_in=10), SystemNoise())
    assert not check.passed and check.detail["epsilon_lower"] > 1.0
    assert refuted(outcome) >= {"retrain check", "replayed steps"}


def test_check_13_a_reused_noise_vector_is_flagged_on_the_tight_oracle():
    noise = Reused()
    task, rows, recipe = oracle_2(60)
    trained = planning.train(task, rows, replace(recipe, rewinds=(0.5, 1.0)))
    trained = planning.publish(trained, Budget(1.0, 1e-5, 10), method=R2D(rewind=0.5), noise=noise)
    outcome = run(trained, R2D(rewind=0.5), *FORGOTTEN, noise=noise)
    assert refuted(outcome) == {"fresh noise"}
    gap = distance(outcome.releases[0].artifact.tensors, trained.artifact.tensors)
    assert gap == pytest.approx(distance(outcome.after.state, trained.state), rel=1e-9)  # what such reuse reveals


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["r2d", "descent_to_delete"])
def test_check_13_the_honest_implementation_passes_on_the_digits_head(name, seed):
    case = CASES["digits head"]
    first = planning.plan(beside_ledger(case.publish(seed)), samples(2 * seed, 50), method(name)).run()
    assert refuted(first) == set() and first.verdict == Verdict.CERTIFIED
    state = (first.releases[0].artifact.tensors, first.after.state)
    again = planning.plan(case.publish(seed), samples(2 * seed, 50), method(name)).run()
    other = (again.releases[0].artifact.tensors, again.after.state)
    assert noise_reuse_check(state, other, ("linear.weight",)).passed


@pytest.mark.parametrize("name", ["r2d", "descent_to_delete", "retrain"])
@pytest.mark.parametrize("noise", [Weak, Reused])
def test_check_13_broken_noise_is_flagged_on_the_digits_head(name, noise):
    case, source = CASES["digits head"], noise()
    trained = planning.publish(case.train(), case.budget, method=method("r2d"), noise=source)
    outcome = planning.plan(trained, case.request, method(name), noise=source).run()
    assert refuted(outcome) == {"replay" if noise is Weak else "fresh noise"}


@pytest.mark.parametrize("left_in", [1, 5, 10])
def test_check_13_rows_left_in_are_flagged_on_the_digits_head(left_in):
    case = CASES["digits head"]
    told = planning.plan(case.publish(), case.request, OtherRows(left_in=left_in)).run()
    assert told.verdict == Verdict.VOID and violated(told) == {"retained_rows"}  # by the digest
    hidden = planning.plan(case.publish(), case.request, OtherRows(left_in=left_in, lies=True)).run()
    assert hidden.verdict == Verdict.UNREPLAYED and "replayed steps" in refuted(hidden)


def test_check_13_chi_square_alone_sees_rows_left_in_where_noise_does_not_hide_them():
    case = CASES["digits head"]
    loud = planning.publish(case.train(), Budget(None, 1e-5, 10, sigma=1e-4), method=method("r2d"))
    outcome = planning.plan(loud, case.request, NothingShown(rewind=0.5, left_in=10, lies=True)).run()
    assert "replay" in refuted(outcome)
