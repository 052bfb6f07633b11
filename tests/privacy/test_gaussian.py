"""The exact Gaussian mechanism against the spec's table, a specialist library, 60-digit values and a histogram."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.core.errors import InputError
from expunge.privacy.gaussian import (
    check_target,
    classic_sigma,
    curve,
    delta_of,
    epsilon_of,
    log_delta_of,
    mu_of,
    sigma_of,
)

DELTAS = (1e-6, 1e-5, 1e-3, 0.1)
SIGMA_TABLE = {  # R2D spec 5.1
    0.1: (36.30469, 30.749566, 17.404396, 2.846924),
    0.5: (8.057618, 7.031827, 4.610128, 1.556288),
    1: (4.224679, 3.730632, 2.574657, 1.085878),
    2: (2.230476, 1.993812, 1.445239, 0.731955),
    4: (1.193519, 1.081162, 0.823078, 0.485540),
    8: (0.652935, 0.600229, 0.480014, 0.321456),
    10: (0.541087, 0.499889, 0.406060, 0.281812),
    20: (0.309085, 0.290041, 0.246722, 0.188397),
    40: (0.183620, 0.174854, 0.154834, 0.127297),
}


@pytest.mark.parametrize("epsilon", SIGMA_TABLE)
def test_check_02_table_of_section_5_1(epsilon):
    found = [sigma_of(1.0, epsilon, delta) for delta in DELTAS]
    assert found == pytest.approx(SIGMA_TABLE[epsilon], abs=1e-5)


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 1, 8, 40])
@pytest.mark.parametrize("delta", [1e-12, 1e-5, 0.1, 0.9])
def test_check_02_agrees_with_dp_accounting(epsilon, delta):
    import dp_accounting

    sigma = sigma_of(1.0, epsilon, delta)
    assert sigma == pytest.approx(dp_accounting.get_sigma_gaussian(epsilon, delta), rel=1e-6)
    assert epsilon_of(1 / sigma, delta) == pytest.approx(dp_accounting.get_epsilon_gaussian(sigma, delta), rel=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    st.floats(-6, 3).map(lambda x: 10**x), st.floats(-300, -0.001).map(lambda x: 10**x), st.floats(-6, 6).map(math.exp)
)
def test_check_02_achieved_delta_never_exceeds_the_target(epsilon, delta, sensitivity):
    mu = mu_of(epsilon, delta)
    sigma = sigma_of(sensitivity, epsilon, delta)
    assert delta_of(epsilon, mu) <= delta
    assert delta_of(epsilon, sensitivity / sigma) <= delta
    assert log_delta_of(epsilon, mu * (1 + 1e-6)) > math.log(delta)  # and the noise is not larger than needed
    assert epsilon_of(mu, delta) <= epsilon * (1 + 1e-9)


def test_check_02_classic_formula():
    assert classic_sigma(1.0, 1.0, 1e-5) == pytest.approx(math.sqrt(2 * math.log(1.25e5)))
    assert classic_sigma(1.0, 1.0, 1e-5) / sigma_of(1.0, 1.0, 1e-5) == pytest.approx(1.30, abs=0.005)
    with pytest.raises(InputError, match="epsilon <= 1"):
        classic_sigma(1.0, 1.001, 1e-5)


@pytest.mark.parametrize(("delta", "turn"), [(1e-5, 8.43), (1e-2, 6.78), (0.1, 5.74)])
def test_check_02_where_the_classic_formula_adds_too_little_noise(delta, turn):
    # R2D spec 5.1: enough noise just below the turning point, too little just above
    for epsilon, enough in ((turn - 0.02, True), (turn + 0.02, False)):
        mu = epsilon / math.sqrt(2 * math.log(1.25 / delta))
        assert (delta_of(epsilon, mu) <= delta) is enough
    mu = 40 / math.sqrt(2 * math.log(1.25e5))
    assert delta_of(40, mu) == pytest.approx(0.20, abs=0.005)


@pytest.mark.parametrize(
    ("epsilon", "mu", "log_delta"),
    [  # computed with 400 digits by arbitrary-precision arithmetic
        (1.0, 0.025, -811.487525838502187),
        (1.0, 1.0, -2.06406644650039053),
        (1e-7, 4.229484026902021e-05, -10.992748816944698),
        (3.0, 0.6, -15.7972597164996351),
        (50.0, 12.0, -0.0414649570752044541),
        (0.0, 1e-6, -14.7344490911689886),
    ],
)
def test_check_02_log_delta_to_eleven_digits(epsilon, mu, log_delta):
    assert log_delta_of(epsilon, mu) == pytest.approx(log_delta, rel=1e-11)


@settings(deadline=None, max_examples=60)
@given(st.floats(1e-4, 50), st.floats(1e-4, 50), st.floats(1.0001, 3))
def test_delta_grows_with_mu_and_falls_with_epsilon(epsilon, mu, factor):
    here = log_delta_of(epsilon, mu)
    assert log_delta_of(epsilon, mu * factor) >= here
    assert log_delta_of(epsilon * factor, mu) <= here


def test_check_16_and_17_edges():
    assert sigma_of(0.0, 1.0, 1e-5) == 0.0
    assert sigma_of(math.inf, 1.0, 1e-5) == math.inf
    assert epsilon_of(0.0, 1e-5) == 0.0
    assert epsilon_of(math.inf, 1e-5) == math.inf
    assert epsilon_of(1e200, 1e-5) == math.inf
    assert (delta_of(1.0, 0.0), delta_of(1.0, math.inf)) == (0.0, 1.0)
    assert epsilon_of(1e-9, 1e-5) == 0.0  # total variation is below delta already
    assert 0 < mu_of(1.0, 1e-300) < mu_of(1.0, 1e-299)


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [(0, 1e-5), (-1, 1e-5), (math.inf, 1e-5), (math.nan, 1e-5), (1, 0), (1, 1), (1, -0.1), (1, math.nan)],
)
def test_check_17_targets_outside_their_domain_are_refused(epsilon, delta):
    for use in (check_target, mu_of, lambda e, d: sigma_of(1.0, e, d), lambda e, d: classic_sigma(1.0, e, d)):
        with pytest.raises(InputError, match="must"):
            use(epsilon, delta)


@pytest.mark.parametrize("bad", [-1.0, math.nan])
def test_check_17_negative_sensitivity_is_refused(bad):
    for use in (lambda: sigma_of(bad, 1.0, 1e-5), lambda: delta_of(1.0, bad), lambda: epsilon_of(bad, 1e-5)):
        with pytest.raises(InputError):
            use()


def test_oracle_8_histogram_of_one_dimensional_noise():
    rng = np.random.default_rng(0)
    draws, mu = 400_000, 1.3
    edges = np.linspace(-6, 7, 131)
    here = np.histogram(rng.standard_normal(draws) + mu, edges)[0] / draws
    there = np.histogram(rng.standard_normal(draws), edges)[0] / draws
    for epsilon, expected in zip((0.1, 0.5, 1.0, 2.0), curve(mu, [0.1, 0.5, 1.0, 2.0]), strict=True):
        measured = np.maximum(here - math.exp(epsilon) * there, 0).sum()
        assert measured == pytest.approx(expected, abs=0.006)
        assert abs(measured - delta_of(epsilon, 1.2 * mu)) > 0.02  # 20% less noise would be seen
