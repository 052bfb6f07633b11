"""Composition, groups and Rényi conversions against the spec's numbers."""

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.core.errors import InputError
from expunge.core.trained import Spent
from expunge.privacy.composition import (
    ORDERS,
    EarlierReleases,
    absorb_failure,
    compose_gaussian,
    group_privacy,
    markov_sensitivity,
    renyi_to_epsilon,
    zcdp_to_epsilon,
    zcdp_to_mu,
)
from expunge.privacy.gaussian import delta_of, epsilon_of, mu_of


@pytest.mark.parametrize(("releases", "epsilon"), [(2, 1.46517), (5, 2.44208), (10, 3.61859)])
def test_check_09_composition_of_releases(releases, epsilon):
    mu = compose_gaussian([mu_of(1.0, 1e-5)] * releases)
    assert epsilon_of(mu, 1e-5) == pytest.approx(epsilon, abs=5e-6)


def test_check_09_one_infinite_release_spoils_all():
    assert compose_gaussian([0.1, math.inf]) == math.inf
    assert compose_gaussian([]) == 0.0
    with pytest.raises(InputError):
        compose_gaussian([0.1, -0.1])


def releases(count: int) -> list[Spent]:
    """As many releases, each by one record more and a tenth as revealing as the budget, under two theorems in turn."""
    return [Spent(f"req-{i}", i + 1, 0.1, ("newton", "rewind-to-delete")[i % 2]) for i in range(count)]


@pytest.mark.parametrize("count", [2, 3, 2000])
def test_earlier_releases_come_to_numbers_that_do_not_grow_in_size(count):
    known = EarlierReleases.of(releases(count), count)
    assert known.mu == pytest.approx(0.1 * math.sqrt(count), rel=1e-12)
    assert (known.releases, known.theorems) == (count, ("newton", "rewind-to-delete"))
    assert (known.removed, known.since) == (count, 0) and len(json.dumps(asdict(known))) < 150


def test_releases_that_were_given_up_since_still_count():
    of = lambda removed: EarlierReleases.of(releases(4), removed)  # noqa: E731
    assert [(of(n).removed, of(n).since) for n in (4, 3, 1, 0)] == [(4, 0), (3, 1), (1, 3), (0, 4)]
    assert {of(n).mu for n in range(5)} == {of(4).mu}
    assert (of(7).removed, of(7).since) == (4, 0), "no release left a model without seven records: it does not agree"
    assert EarlierReleases.of([], 0) == EarlierReleases()
    assert EarlierReleases.of([Spent("a", 1, math.inf), Spent("b", 2, 0.1)], 2).mu == math.inf


CONVERSIONS = {  # R2D spec 5.2, delta = 1e-5: zCDP closed form, plain, improved, exact Gaussian
    0.01: (0.6886, 0.6886, 0.5458, 0.4970),
    0.1: (2.2460, 2.2466, 1.9142, 1.7601),
    0.5: (5.2985, 5.2985, 4.7284, 4.3772),
    1.0: (7.7861, 7.7861, 7.0772, 6.5730),
    2.0: (11.5971, 11.5971, 10.7248, 9.9973),
}


@pytest.mark.parametrize("rho", CONVERSIONS)
def test_check_10_conversion_table_of_section_5_2(rho):
    found = (
        zcdp_to_epsilon(rho, 1e-5),
        renyi_to_epsilon(lambda order: rho * order, 1e-5, improved=False).epsilon,
        renyi_to_epsilon(lambda order: rho * order, 1e-5).epsilon,
        epsilon_of(zcdp_to_mu(rho), 1e-5),
    )
    assert found == pytest.approx(CONVERSIONS[rho], abs=1e-3)
    assert found[0] == pytest.approx(CONVERSIONS[rho][0], abs=6e-5)


@pytest.mark.parametrize("rho", [1e-7, 1e-3, 0.5, 30.0])
def test_check_10_grid_finds_the_closed_form_and_reaches_high_orders(rho):
    assert ORDERS[-1] >= 1e4
    found = renyi_to_epsilon(lambda order: rho * order, 1e-5, improved=False)
    assert found.epsilon == pytest.approx(zcdp_to_epsilon(rho, 1e-5), abs=1e-4)
    assert found.epsilon >= zcdp_to_epsilon(rho, 1e-5) - 1e-12  # a grid can only lose
    assert found.order == pytest.approx(1 + math.sqrt(math.log(1e5) / rho), rel=0.02)
    assert not found.at_edge


def test_check_10_epsilon_depends_on_the_order():
    # The defect of a public implementation: eps_alpha used as if it were alpha-free, giving 1.005 for a divergence alpha*1.
    proper = renyi_to_epsilon(lambda order: 1.0 * order, 1e-5, improved=False).epsilon
    defect = renyi_to_epsilon(lambda order: 1.0 + 0 * order, 1e-5, improved=False)
    assert proper == pytest.approx(7.79, abs=0.005)
    assert defect.epsilon < 1.01 and defect.at_edge


def test_check_10_koloskova_epsilon_one_is_really_six_and_a_half():
    assert epsilon_of(math.sqrt(2), 1e-5) == pytest.approx(6.57, abs=0.005)
    assert renyi_to_epsilon(lambda order: order, 1e-5).epsilon == pytest.approx(7.08, abs=0.005)


@settings(deadline=None, max_examples=40)
@given(st.floats(-5, 1.5).map(lambda x: 10**x), st.floats(-12, -1).map(lambda x: 10**x))
def test_check_10_conversions_are_ordered_and_sound(rho, delta):
    improved = renyi_to_epsilon(lambda order: rho * order, delta).epsilon
    plain = renyi_to_epsilon(lambda order: rho * order, delta, improved=False).epsilon
    assert epsilon_of(zcdp_to_mu(rho), delta) <= improved + 1e-9 <= plain + 2e-9
    assert delta_of(improved, zcdp_to_mu(rho)) <= delta * (1 + 1e-9)


def test_renyi_input_is_checked():
    for orders, divergence in (([1.0], lambda a: a), ([2.0], lambda a: -a), ([2.0], lambda a: np.ones(3))):
        with pytest.raises(InputError):
            renyi_to_epsilon(divergence, 1e-5, orders=np.array(orders))


@pytest.mark.parametrize(("total", "true_delta"), [(50.0, 5.0e-5), (1.0, 1.4e-3)])
def test_section_4_7_group_delta_of_a_dp_baseline(total, true_delta):
    group = 225
    one = total / group
    claimed = 1e-5 / math.exp((group - 1) * one)  # what is believed to give 1e-5 for the group
    epsilon, delta = group_privacy(one, claimed, group)
    assert epsilon == pytest.approx(total)
    assert delta == pytest.approx(true_delta, rel=0.02)


@settings(deadline=None, max_examples=60)
@given(st.floats(0, 3), st.floats(0, 1e-3), st.integers(1, 30))
def test_group_privacy_is_the_k_fold_recursion(epsilon, delta, size):
    folded = 0.0
    for _ in range(size):
        folded = folded * math.exp(epsilon) + delta
    assert group_privacy(epsilon, delta, size) == pytest.approx((size * epsilon, min(1.0, folded)), rel=1e-9)


def test_group_privacy_does_not_overflow():
    assert group_privacy(10.0, 1e-5, 10_000) == (100_000.0, 1.0)
    assert group_privacy(10.0, 0.0, 10_000) == (100_000.0, 0.0)
    with pytest.raises(InputError):
        group_privacy(1.0, 1e-5, 0)


def test_section_3_failure_probability_and_markov():
    assert absorb_failure(1.0, 0.5, 0.7) == (1.0, 1.0)
    assert markov_sensitivity(2.0, 0.1) == pytest.approx(20.0)
    for bad in (0.0, 1.0, math.nan):
        with pytest.raises(InputError):
            markov_sensitivity(2.0, bad)
