"""Spec checks 3 and 14: measured distances against the certificate's bounds, through the real pipeline."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import CASES, method, samples
from expunge import planning
from expunge.core.certificate import Verdict
from expunge.core.data import Ids
from expunge.measuring import MeasureSettings, measure
from expunge.privacy.replay import realised_epsilon

from .oracles import bounds_of, measured, oracle_1, oracle_2, oracle_3, oracle_4, published, unlearn, wavy

QUICK = MeasureSettings(shadow_models=0, replicates=0, trials=40, audit=False)


@pytest.mark.parametrize("seed", range(3))
def test_check_03_oracle_1_convex_quadratic(seed):
    task, rows, recipe = oracle_1(seed)
    trained = published(task, rows, recipe)
    z, q = rows.x.numpy(), 1 - 0.4
    apart = np.linalg.norm(z.mean(0) - z[10:].mean(0))
    for rewind in (0, 1, 15, 30, 45, 59, 60):
        outcome = unlearn(trained, 10, rewind)
        found = measured(outcome)
        assert found == pytest.approx(q**rewind * (1 - q ** (60 - rewind)) * apart, abs=1e-11)
        assert all(found <= bound + 1e-13 for bound in bounds_of(outcome).values())
        assert outcome.certificate.sensitivity == bounds_of(outcome)["strongly_convex"] or rewind == 60
    assert found == 0.0


O2 = [(0, 2.4838271264918, 3.1809466870372), (20, 2.2283805503756, 2.7368256539687)]
O2 += [(40, 1.8098015911358, 2.1395131985943), (79, 0.0703372469876, 0.0781524966529), (80, 0.0, 0.0)]


@pytest.mark.parametrize(("rewind", "distance", "bound"), O2)
def test_check_03_oracle_2_attains_the_certified_sensitivity(rewind, distance, bound):
    outcome = unlearn(published(*oracle_2()), 10, rewind)
    assert measured(outcome) == pytest.approx(distance, abs=1e-12)
    assert outcome.certificate.sensitivity == pytest.approx(distance, abs=1e-12)  # equality: no tighter bound exists
    assert set(bounds_of(outcome)) == {"tight"}  # gradients are unbounded here: only their differences are known
    with_bound = unlearn(published(*oracle_2(known="gradient_bound")), 10, rewind)
    assert bounds_of(with_bound)["published"] == pytest.approx(bound, abs=1e-12)
    assert bounds_of(with_bound)["tight"] == pytest.approx(distance, abs=1e-12)


@pytest.mark.parametrize(
    ("l2", "expected"), [(0.0, {0: 12, 50: 10, 150: 6, 299: 0.04}), (0.01, {0: 3.80, 50: 2.22, 150: 0.69})]
)
def test_check_03_oracle_3_logistic_regression_takes_the_convex_bound(l2, expected):
    trained = published(*oracle_3(l2), m=20)
    for rewind, value in expected.items():
        outcome = unlearn(trained, 20, rewind)
        bounds, found = bounds_of(outcome), measured(outcome)
        assert outcome.certificate.sensitivity == bounds["strongly_convex" if l2 else "convex"]
        assert outcome.certificate.sensitivity == pytest.approx(value, rel=0.01)
        assert 0 < found <= outcome.certificate.sensitivity
        assert bounds["tight"] > 1e25 or rewind == 299  # valid, and useless


@cache
def network(seed: int):
    return published(*oracle_4(seed), m=8, seed=seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rewind", [0, 50, 100, 150, 199])
def test_check_03_oracle_4_tanh_network_stays_far_within_its_bounds(seed, rewind):
    outcome = unlearn(network(seed), 8, rewind)
    bounds, found = bounds_of(outcome), measured(outcome)
    assert 0 < found <= outcome.certificate.sensitivity == min(bounds.values())
    assert 1e3 < bounds["tight"] / found < 1e10
    assert outcome.verdict == Verdict.HEURISTIC


@settings(deadline=None, max_examples=20, derandomize=True)
@given(
    st.integers(0, 10**6), st.integers(3, 24), st.floats(0.02, 0.9), st.integers(1, 20), st.floats(0, 1),
    st.floats(0.01, 2), st.sampled_from([None, 0.3]),
)  # fmt: skip
def test_check_03_and_14_measured_distance_never_exceeds_the_certified_one(seed, n, share, steps, part, lr, clip):
    m, rewind = min(max(1, int(share * n)), n - 1), int(part * steps)
    outcome = unlearn(published(*wavy(seed, n, steps, lr, clip), m=m), m, rewind)
    found, certificate = measured(outcome), outcome.certificate
    assert all(found <= bound + 1e-12 for bound in bounds_of(outcome).values())
    assert realised_epsilon(found, certificate.sigma, certificate.delta) <= certificate.epsilon + 1e-9
    assert found == 0.0 or rewind < steps


BOUNDED = ("r2d", "descent_to_delete", "newton", "retrain")
TOYS = [(case, name) for case in CASES for name in BOUNDED if name in CASES[case].serves and CASES[case].budget]


@pytest.mark.parametrize(("case", "name"), TOYS)
@pytest.mark.parametrize("seed", [0, 1])
def test_check_14_realised_epsilon_is_at_most_the_certified_one_on_every_toy(case, name, seed):
    outcome = CASES[case].plan(CASES[case].publish(seed), name).run()
    evidence = measure(outcome, QUICK)
    assert evidence.outcome.verdict == outcome.verdict != Verdict.VOID, evidence.checks
    assert all(check.passed for check in evidence.checks) and len(evidence.checks) >= (
        1 if (case, name) == ("peers", "retrain") else 2
    )  # one model, not a replay
    if name != "retrain":
        assert evidence.private["distance"] <= outcome.certificate.sensitivity
        assert evidence.private["realised_epsilon"] <= outcome.certificate.epsilon
        names = {check.name for check in evidence.checks}
        assert {"replay", "replayed steps", "fresh noise", "retrain check"} <= names


@pytest.mark.parametrize("seed", [0, 1])
def test_check_14_holds_after_every_request_of_a_sequence(seed):
    case = CASES["head"]
    trained = case.publish(seed)
    for ids in ((3, 4), (5,), (9, 11)):
        outcome = planning.plan(trained, samples(*ids), method("r2d", rewind=0.5)).run()
        evidence = measure(outcome, QUICK)
        assert evidence.private["distance"] <= outcome.certificate.sensitivity
        assert evidence.private["realised_epsilon"] <= outcome.certificate.epsilon
        trained = outcome.after
    assert trained.removed == Ids.rows([3, 4, 5, 9, 11])
