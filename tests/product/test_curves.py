"""expunge calibrate curves: what it draws is what the theorem and the models say."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from expunge.core.errors import InputError
from expunge.jobs.curves import REWINDS, curves
from expunge.privacy.gaussian import sigma_of

DIGITS = Path(__file__).parents[2] / "examples/jobs/digits.yaml"
PLAIN = ["model=torch.nn:Linear", "model_settings={in_features: 64, out_features: 10}", "training.estimate=true"]
SMALL = ["training.steps=60", "training.lr=0.5", "training.l2=0.01"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curves")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("expunge.jobs.curves.RESAMPLINGS", 1)
        return [curves(DIGITS, [*SMALL, f"seed={seed}"], folder / str(seed)) for seed in (0, 1)], folder


def test_noise_rises_with_what_goes_and_falls_with_rewind_and_epsilon(drawn):
    for record in drawn[0]:
        for axis, sign in (("share", 1), ("rewind", -1), ("epsilon", -1)):
            sigmas = [item["sigma"] for item in record["noise"][axis]]
            assert all(sign * (b - a) >= 0 for a, b in pairwise(sigmas)), (axis, sigmas)
        assert record["noise"]["rewind"][-1]["sigma"] == 0  # all of training is done again


def test_sigma_over_epsilon_is_that_of_one_sensitivity(drawn):
    """Along epsilon nothing but the tail of the normal distribution changes."""
    for record in drawn[0]:
        points = {item["at"]: item["sigma"] for item in record["noise"]["epsilon"]}
        for epsilon, sigma in points.items():
            ratio = sigma_of(1.0, epsilon, record["delta"]) / sigma_of(1.0, 1.0, record["delta"])
            assert sigma / points[1.0] == pytest.approx(ratio, rel=1e-6)


def test_rewinding_everything_is_retraining_from_the_same_start(drawn):
    """A softmax head starts at its seed's weights: the un-noised model is the retrained one as far as accuracies go."""
    for record in drawn[0]:
        clean = {item["name"]: item for item in record["models"] if item["sigma"] == 0}
        for of in ("retain", "forget", "test"):
            assert clean["r2d 100%"]["accuracy"][of] == pytest.approx(clean["retrained"]["accuracy"][of], abs=0.02)


def test_the_loss_stays_below_its_bound_at_every_rewind(drawn):
    for record in drawn[0]:
        assert not record["convergence"]["no_bound"]
        points = record["convergence"]["points"]
        assert [p["rewind"] for p in points] == [*REWINDS]
        assert all(0 <= p["excess"] <= p["bound"] for p in points)


def test_noise_costs_the_retrained_model_too(drawn):
    """At a sigma that drowns the weights both are near chance; without noise both are far above."""
    for record in drawn[0]:
        at = {(item["name"], item["sigma"]): item["accuracy"] for item in record["accuracy"]}
        for name in ("retrained", "r2d 36%"):
            assert at[name, 0.0] > 0.7 and at[name, 0.0] > at[name, 0.3]


def test_page_and_json_are_written_and_say_that_nothing_is_guaranteed(drawn):
    records, folder = drawn
    page = (folder / "0/curves.html").read_text()
    assert "mathdefault" not in page and ">10⁻³<" in page  # powers of ten as a reader sees them
    assert page.count("<svg") == 3 and "<script" not in page and "Nothing on this page is a guarantee" in page
    assert json.loads((folder / "0/curves.json").read_text()) == json.loads(json.dumps(records[0]))


def test_without_a_proved_constant_there_is_no_bound_and_the_page_says_sampled(tmp_path, monkeypatch):
    """The same job with an ordinary layer: its constants are estimated."""
    monkeypatch.setattr("expunge.jobs.curves.RESAMPLINGS", 1)
    record = curves(DIGITS, [*SMALL, *PLAIN, "training.steps=20"], tmp_path)
    assert record["convergence"]["no_bound"] and all(p["bound"] is None for p in record["convergence"]["points"])
    assert "estimated" in record["origins"].values()
    assert "sampled, not proved" in (tmp_path / "curves.html").read_text()


def test_a_job_that_cannot_be_rewound_is_refused_before_training(tmp_path):
    with pytest.raises(InputError, match="only that can be rewound"):
        curves(
            DIGITS,
            ["training={kind: stochastic, epochs: 1, lr: 0.1}", "publish=null", "method.name=fine_tune"],
            tmp_path,
        )
    with pytest.raises(InputError, match="method is newton"):
        curves(DIGITS, ["method={name: newton}"], tmp_path)
    with pytest.raises(InputError, match="there is nothing to forget"):
        curves(DIGITS, [*SMALL, *PLAIN, "training.steps=2", "training.lr=1e-9"], tmp_path)
    assert not list(tmp_path.iterdir())
