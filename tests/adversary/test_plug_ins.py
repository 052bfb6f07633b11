"""What a method says of itself certifies nothing: noise is watched, steps are done again, or a verdict of its own says so."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import expunge
from expunge import GradientDescent
from expunge.core.certificate import Claim, Verdict
from expunge.core.errors import InputError
from expunge.core.method import Capabilities, Estimate, Unlearned
from expunge.core.trained import Artifact, Fact, Origin
from expunge.methods.noisy_fine_tune import NoisyFineTune
from expunge.privacy.noise import SystemNoise, add_noise

from .worlds import forget, head, measured, never_certified, not_holding, published, r2d, rows

CAN = Capabilities(("samples",), ("*",), ("retained data",), "weights", True)
YES = ("noise_source", "noise_precision", "noise_covers", "noise_resolved", "noise_level", "noise_entered", "converged")
SETTINGS = {"epsilon": 1.0, "delta": 1e-5, "clip_model": 1.0, "clip": 1.0, "lr": 0.01, "l2": 10.0, "steps": 50}


@dataclass(frozen=True, kw_only=True)
class Lazy:
    """Hands back the old model, a little moved, and claims a theorem; draws the noise beside it where asked to."""

    theorem: str = "noisy-fine-tuning"
    draws: int = 0
    name: ClassVar[str] = "lazy"
    capabilities: ClassVar[Capabilities] = CAN

    def check(self, context):
        return Estimate(0)

    def run(self, context):
        old = {name: tensor + 1e-6 for name, tensor in context.trained.artifact.tensors.items()}
        facts = {name: Fact(True, Origin.ENFORCED) for name in YES}
        moved = {name: torch.zeros_like(tensor) for name, tensor in old.items()}
        for _ in range(self.draws):
            moved, _ = context.noise.add(moved, 0.35)
        p = {**SETTINGS, "sigma": 0.35, "residual": 0.0, "forget": 1, "rewind": 10, "unlearn_steps": 50}
        claim = Claim(self.theorem, p, facts, context.deletion.after.digest)
        return Unlearned(views={"model": Artifact(old)}, claim=claim, state=old)


@pytest.mark.parametrize(
    "theorem", ["noisy-fine-tuning", "retrain", "rewind-to-delete", "certified-removal", "langevin"]
)
@pytest.mark.parametrize("draws", [0, 50])
def test_a_plug_in_that_returns_the_old_model_is_never_certified(theorem, draws):
    lazy = Lazy(theorem=theorem, draws=draws)
    trained = published(head(), rows(), recipe=GradientDescent(steps=20, lr=1.5, l2=1e-2))
    if theorem == "langevin":  # which needs what only noisy training records
        with pytest.raises(InputError, match="lacks an input"):
            forget(trained, lazy)
        return
    outcome = forget(trained, lazy)
    assert outcome.verdict in (Verdict.UNREPLAYED, Verdict.VOID)
    never_certified(outcome)


def test_honest_steps_of_a_plug_in_count_once_our_own_code_did_them_again():
    @dataclass(frozen=True, kw_only=True)
    class Mine(type(r2d())):
        pass

    outcome = forget(published(head(), rows()), Mine(rewind=0.5))
    assert outcome.verdict == Verdict.UNREPLAYED
    assert measured(outcome).outcome.verdict == Verdict.CERTIFIED
    assert measured(outcome, "none").outcome.verdict == Verdict.CERTIFIED


def test_a_plug_in_that_moves_the_centre_of_its_noise_is_void():
    class Shifts(type(r2d())):
        def run(self, context):
            class Source:
                name, secret = "source", True

                def add(self, tensors, sigma):
                    return context.noise.add({name: tensor + 6 * sigma for name, tensor in tensors.items()}, sigma)

            return super().run(replace(context, noise=Source()))

    outcome = forget(published(head(), rows()), Shifts(rewind=0.5))
    assert outcome.verdict == Verdict.VOID and "noise_entered" in not_holding(outcome)
    never_certified(outcome)


def test_noise_on_some_tensors_only_is_void():
    from expunge import Classification
    from expunge.tasks.networks import SoftmaxHead

    class Some(type(r2d())):
        def run(self, context):
            class Source:
                name, secret = "source", True

                def add(self, tensors, sigma):
                    some = {name: tensor for name, tensor in tensors.items() if not name.endswith("bias")}
                    noisy, precision = context.noise.add(some, sigma)
                    return {**tensors, **noisy}, precision

            return super().run(replace(context, noise=Source()))

    task = Classification(lambda: SoftmaxHead(2, 2, bias=True), dtype=torch.float64)
    outcome = forget(published(task, rows(outlier=1.0)), Some(rewind=0.5))
    assert outcome.verdict == Verdict.VOID and "noise_covers" in not_holding(outcome)


@pytest.mark.parametrize("name", ["_rewound", "parameters"])
def test_an_attribute_on_an_instance_makes_a_method_somebody_elses(name):
    method = r2d()
    object.__setattr__(method, name, getattr(method, name))
    assert forget(published(head(), rows()), method).verdict == Verdict.UNREPLAYED


def test_a_retrain_object_whose_run_was_replaced_resets_nothing():
    trained = published(head(), rows(), budget=expunge.Budget(1.0, 1e-5, 4))
    first = forget(trained, r2d())
    method = expunge.methods.Retrain()
    object.__setattr__(method, "run", lambda context: Lazy(theorem="retrain").run(context))
    outcome = forget(first.after, method, 4)
    assert len(outcome.after.spent) == 2 and len(trained.book.spent()) >= 1


def test_a_subclass_of_retrain_resets_nothing():
    class Mine(expunge.methods.Retrain):
        def run(self, context):
            return Lazy(theorem="retrain").run(context)

    outcome = forget(published(head(), rows()), Mine())
    assert len(outcome.after.spent) == 1 and len(outcome.after.removed) == 1
    never_certified(outcome)


class Predictable(SystemNoise):
    """A faster generator under the name of the system's."""

    def __init__(self):
        self.generator = np.random.default_rng(0)

    def add(self, tensors, sigma):
        return add_noise(tensors, sigma, self.generator.standard_normal)


class Weak(SystemNoise):
    """Adds nothing."""

    def add(self, tensors, sigma):
        return super().add(tensors, sigma * 0)


@pytest.mark.parametrize("source", [Predictable, Weak])
@pytest.mark.parametrize("method", [r2d(), NoisyFineTune(recovery_epochs=0, steps=5)], ids=lambda method: method.name)
def test_a_noise_source_is_known_by_its_exact_type(source, method):
    outcome = forget(published(head(), rows(), method=method), method, noise=source())
    assert outcome.verdict == Verdict.VOID and "noise_source" in not_holding(outcome)


def test_a_source_whose_method_was_replaced_is_not_the_systems():
    source: Any = SystemNoise()
    source.add = Weak().add
    outcome = forget(published(head(), rows()), r2d(), noise=source)
    assert outcome.verdict == Verdict.VOID and "noise_source" in not_holding(outcome)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (lambda draw: lambda tensors, sigma: draw(tensors, 0.1 * sigma), "noise_covers"),
        (lambda draw: lambda tensors, sigma: _half(draw, tensors, sigma), "noise_covers"),
        (lambda draw: _Once(draw), "noise_covers"),
    ],
    ids=["a tenth", "half of the coordinates", "one vector for all steps"],
)  # fmt: skip
@pytest.mark.parametrize("method", [r2d(), NoisyFineTune(recovery_epochs=0, steps=5)], ids=lambda method: method.name)
def test_noise_that_is_not_what_it_should_be_is_seen_while_it_is_drawn(wrong, rule, method, monkeypatch):
    data = rows(60, 32, outlier=1.0)
    trained = published(head(32, 4), data, method=method)
    honest = SystemNoise.add
    bad = wrong(lambda tensors, sigma: honest(SystemNoise(), tensors, sigma))
    monkeypatch.setattr(SystemNoise, "add", lambda self, tensors, sigma: bad(tensors, sigma))
    outcome = forget(trained, method)
    reused = isinstance(bad, _Once) and method.name == "r2d"  # a single draw cannot repeat itself
    assert reused or (outcome.verdict == Verdict.VOID and rule in not_holding(outcome))


def _half(draw, tensors, sigma):
    """Half of the coordinates with more noise, the other half without: the squared norm is as it should be."""
    noisy, precision = draw(tensors, sigma * 2**0.5)
    for name, tensor in noisy.items():
        flat, before = tensor.view(-1), tensors[name].reshape(-1)
        flat[1::2] = before[1::2]
    return noisy, precision


class _Once:
    """Draws one vector and adds it in every step."""

    def __init__(self, draw):
        self.draw, self.vector = draw, None

    def __call__(self, tensors, sigma):
        if self.vector is None:
            noisy, _ = self.draw(tensors, sigma)
            self.vector = {name: noisy[name] - tensors[name] for name in tensors}
        return {name: tensors[name] + self.vector[name] for name in tensors}, "float64"


@pytest.mark.parametrize("bug", ["gradients", "model"])
def test_noisy_fine_tuning_without_clipping_is_seen_from_its_steps(bug, monkeypatch):
    import expunge.methods.noisy_fine_tune as module

    method = NoisyFineTune(recovery_epochs=0, steps=5, clip=1e-3, clip_model=1e-2)
    trained = published(head(), rows(), method=method)
    honest, radius = module._clipped, {"gradients": method.clip, "model": method.clip_model}[bug]
    monkeypatch.setattr(
        module, "_clipped", lambda tensors, limit: dict(tensors) if limit == radius else honest(tensors, limit)
    )
    outcome = forget(trained, method)
    assert outcome.verdict == Verdict.VOID and set(not_holding(outcome)) == {"steps_bounded"}


def test_a_recovery_that_goes_back_to_the_old_weights_is_refuted(monkeypatch):
    method = NoisyFineTune(recovery_epochs=1, steps=5)
    trained = published(head(), rows(), method=method)
    honest = NoisyFineTune.recover
    monkeypatch.setattr(
        NoisyFineTune, "recover", lambda self, context, certified: {
            name: tensor + 1e-3 for name, tensor in context.trained.artifact.tensors.items()
        },
    )  # fmt: skip
    outcome = forget(trained, method)
    monkeypatch.setattr(NoisyFineTune, "recover", honest)
    assert measured(outcome).outcome.verdict == Verdict.VOID


def test_facts_typed_by_hand_are_somebodys_word():
    class Recipe(GradientDescent):
        """Plain descent by name; momentum by what it does."""

        def fit(self, task, data, *, seed=0, watch=None):
            trained = super().fit(task, data, seed=seed, watch=watch)
            faster = {name: 1.5 * tensor for name, tensor in trained.artifact.tensors.items()}
            return replace(trained, artifact=Artifact(faster))

    outcome = forget(published(head(), rows(), recipe=Recipe(steps=50, lr=1.5, l2=1e-2)), r2d())
    never_certified(outcome)
    assert "momentum" in not_holding(outcome)
