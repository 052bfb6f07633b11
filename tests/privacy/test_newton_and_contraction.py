"""Newton steps, Descent-to-Delete, Langevin, noisy fine-tuning: numbers, and exact one-dimensional worlds."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.core.errors import InputError
from expunge.privacy import noisy_fine_tuning as fine
from expunge.privacy.constants import logistic_head
from expunge.privacy.descent_to_delete import contraction, published_sigma, published_stream
from expunge.privacy.descent_to_delete import sensitivity as descent_to_delete_sensitivity
from expunge.privacy.gaussian import delta_of, mu_of, sigma_of
from expunge.privacy.langevin import langevin_epsilon, langevin_sequential_epsilon, sgd_epsilon
from expunge.privacy.model_clipping import model_clipping_steps
from expunge.privacy.newton import (
    guo_budget,
    guo_data_residual,
    guo_spent,
    guo_worst_residual,
    newton_step_error,
    sekhari_sensitivity,
    sekhari_sigma,
)

from .worlds import descend, logistic

NEEL = {"loss_lipschitz": 1, "smoothness": 1, "strong_convexity": 0.1, "samples": 1000, "epsilon": 1, "delta": 1e-3}
CHIEN = {"strong_convexity": 0.011, "lr": 1 / 0.261, "clip": 1.0, "sigma": 0.03, "samples": 11_000, "delta": 1 / 11_000}
KOLOSKOVA = {"epsilon": 1.0, "delta": 1e-5, "clip_model": 1.0, "clip": 1.0, "lr": 0.01}


@pytest.mark.parametrize(("steps", "sigma"), [(10, 0.0477966), (20, 0.00566392)])
def test_check_12_descent_to_delete_sigma(steps, sigma):
    assert published_sigma(unlearn_steps=steps, **NEEL) == pytest.approx(sigma, rel=1e-5)


def test_check_12_descent_to_delete_stream():
    stream = published_stream(**NEEL, dimension=50, deletions=100)
    g = contraction(1, 0.1)
    gap = math.sqrt(2 * math.log(2e3) + 1) - math.sqrt(2 * math.log(2e3))
    assert stream.base_steps - 1 < math.log(math.sqrt(100) / ((1 - g) * gap)) / math.log(1 / g) <= stream.base_steps
    for i in (1, 100):
        extra = math.log(math.log(4 * 50 * i / 1e-3)) / math.log(1 / g)
        assert stream.steps[i - 1] == stream.base_steps + math.ceil(extra)
    gap = math.sqrt(2 * math.log(2e3) + 3) - math.sqrt(2 * math.log(2e3) + 2)
    shrunk = g**stream.base_steps
    assert stream.sigma == pytest.approx(8 * shrunk / (0.1 * 1000 * (1 - shrunk) * gap), rel=1e-9)
    perfect = published_stream(**{**NEEL, "strong_convexity": 1}, dimension=50, deletions=1)
    assert (perfect.base_steps, perfect.sigma) == (1, 0.0)  # L = lambda: one step reaches the minimiser


def test_check_12_descent_to_delete_domain():
    with pytest.raises(InputError, match="at most smoothness"):
        contraction(0.1, 1.0)
    with pytest.raises(InputError, match="unlearn_steps"):
        published_sigma(unlearn_steps=0, **NEEL)
    run = {"samples": 100, "forget": 5, "steps": 50, "unlearn_steps": 10, "gradient_bound": 1.0, "start_norm": 1.0}
    with pytest.raises(InputError, match="2/\\(L"):
        descent_to_delete_sensitivity(**run, smoothness=1.0, strong_convexity=0.1, lr=1.9)


@pytest.mark.parametrize(("steps", "epsilon"), [(0, 0.3559), (1000, 0.2569)])
def test_check_12_langevin(steps, epsilon):
    assert langevin_epsilon(unlearn_steps=steps, forget=1, **CHIEN) == pytest.approx(epsilon, abs=5e-5)
    assert langevin_epsilon(unlearn_steps=steps, forget=1, improved=True, **CHIEN) < epsilon


@pytest.mark.parametrize(("epochs", "epsilon", "digits"), [(1, 0.1118, 5e-5), (2, 0.00275, 5e-6)])
def test_check_12_sgd_unlearning(epochs, epsilon, digits):
    assert sgd_epsilon(epochs, batch=128, **CHIEN) == pytest.approx(epsilon, abs=digits)


def test_check_12_sequences_cost_more_and_reduce_to_one_request():
    assert langevin_sequential_epsilon([1000], forget=1, **CHIEN) == langevin_epsilon(
        unlearn_steps=1000, forget=1, **CHIEN
    )
    single, double = (langevin_sequential_epsilon([1000] * k, forget=1, **CHIEN) for k in (1, 2))
    assert double > single
    assert sgd_epsilon([1], batch=128, **CHIEN) == sgd_epsilon(1, batch=128, **CHIEN)
    assert sgd_epsilon([1, 1], batch=128, **CHIEN) > sgd_epsilon(1, batch=128, **CHIEN)
    for empty in (
        lambda: sgd_epsilon([], batch=128, **CHIEN),
        lambda: langevin_sequential_epsilon([], forget=1, **CHIEN),
    ):
        with pytest.raises(InputError):
            empty()


def test_check_12_sekhari():
    gamma = sekhari_sensitivity(hessian_lipschitz=1, loss_lipschitz=1, strong_convexity=0.1, samples=10_000, forget=10)
    assert gamma == pytest.approx(0.002, rel=1e-12)
    assert sekhari_sigma(gamma, 1, 1e-5) == pytest.approx(0.0074613, abs=5e-8)
    assert sekhari_sigma(gamma, 1, 1e-5, published=True) == pytest.approx(0.0096896, abs=5e-8)
    assert sekhari_sensitivity(hessian_lipschitz=0, loss_lipschitz=9, strong_convexity=0.1, samples=50, forget=49) == 0
    with pytest.raises(InputError):
        sekhari_sensitivity(hessian_lipschitz=1, loss_lipschitz=1, strong_convexity=0.1, samples=10, forget=10)
    with pytest.raises(InputError):
        sekhari_sigma(gamma, 2, 1e-5, published=True)


def test_check_12_guo_budget():
    assert math.sqrt(2 * math.log(1.5 / 1e-4)) == pytest.approx(4.3854, abs=5e-5)
    assert guo_budget(10, 1, 1e-4) == pytest.approx(2.2803, abs=5e-5)
    assert guo_worst_residual(curvature=0.25, gradient_bound=1, strong_convexity=0.1, samples=101) == pytest.approx(1.0)
    assert guo_data_residual(curvature=0.25, data_norm=2, step_norm=3, data_step_norm=4) == 6.0
    spent = guo_spent([1.0, 1.2, 0.08], 10, 1, 1e-4)
    assert not spent.exhausted and guo_spent([1.0, 1.2, 0.09], 10, 1, 1e-4).exhausted
    with pytest.raises(InputError, match="epsilon <= 1"):
        guo_budget(10, 1.5, 1e-4)


@pytest.mark.parametrize(("m", "stopped_early"), [(20, False), (20, True), (0, True)])
def test_newton_step_error_bounds_what_a_newton_step_misses(m, stopped_early):
    rng = np.random.default_rng(0)
    n, l2 = 400, 0.05
    x = rng.standard_normal((n, 3))
    x /= np.maximum(1.0, np.linalg.norm(x, axis=1, keepdims=True))
    x[:m], y = np.array([1.0, 0.0, 0.0]), rng.choice([-1.0, 1.0], n)
    y[:m] = 1.0
    gradient, lr = logistic(x, y, l2), 2 / (0.25 + 2 * l2)
    everything, retained = np.arange(n), np.arange(m, n)
    w = descend(gradient, np.zeros(3), everything, lr, 6 if stopped_early else 2000)
    residual = float(np.linalg.norm(gradient(w, everything).mean(axis=0)))
    s = 1 / (1 + np.exp(x[retained] @ w))
    hessian = (x[retained] * (s * (1 - s))[:, None]).T @ x[retained] / (n - m) + l2 * np.eye(3)
    stepped = w - np.linalg.solve(hessian, gradient(w, retained).mean(axis=0))
    missed = np.linalg.norm(stepped - descend(gradient, w, retained, lr, 3000))
    constants = logistic_head(1.0, l2, bias=False)
    shared = {
        "hessian_lipschitz": constants.hessian_lipschitz,
        "strong_convexity": l2,
        "samples": n,
        "forget": m,
        "loss_lipschitz": 2 * constants.gradient_bound,  # the regulariser's share at the minimiser is at most G
    }
    bound = newton_step_error(**shared, residual=residual)
    assert 1e-12 < missed <= bound
    assert newton_step_error(**shared) < sekhari_sensitivity(**shared) or m == 0
    assert newton_step_error(**{**shared, "hessian_lipschitz": 0.0}, residual=residual) == 0.0  # oracle 6


@pytest.mark.parametrize(("l2", "steps", "sigma"), [(0.0, 100, 1.4923), (10.0, 50, 0.34032)])
def test_check_11_noisy_fine_tuning_sigma(l2, steps, sigma):
    found = fine.sigma_for(**KOLOSKOVA, l2=l2, steps=steps)
    assert found == pytest.approx(sigma, abs=5e-5 if l2 == 0 else 5e-6)
    reached = fine.mu(sigma=found, clip_model=1, clip=1, lr=0.01, l2=l2, steps=steps)
    assert delta_of(1.0, reached) <= 1e-5


def test_check_11_closed_forms_and_plain_output_perturbation():
    assert fine.closed_form_sigma(**KOLOSKOVA, steps=100) == pytest.approx(2.8791, abs=5e-5)
    assert fine.closed_form_sigma(**KOLOSKOVA, steps=100, published=True) == pytest.approx(2.0358, abs=5e-5)
    assert sigma_of(2.0, 1, 1e-5) == pytest.approx(7.4613, abs=5e-5)
    with pytest.raises(InputError, match="3 ln"):
        fine.closed_form_sigma(**{**KOLOSKOVA, "epsilon": 40.0}, steps=100)


@pytest.mark.parametrize("steps", [1, 50, 100, 1000])
def test_check_11_zero_decay_is_the_limit_of_small_decay(steps):
    assert fine.sigma_for(**KOLOSKOVA, l2=0.0, steps=steps) == pytest.approx(
        fine.sigma_for(**KOLOSKOVA, l2=1e-9, steps=steps), rel=1e-6
    )


def test_check_11_minimal_noise_without_decay():
    mu = mu_of(1.0, 1e-5)
    assert fine.best_steps(clip_model=1, clip=1, lr=0.01, l2=0) == 100  # C0/(eta C1)
    assert fine.sigma_for(**KOLOSKOVA, l2=0, steps=100) == pytest.approx(4 * math.sqrt(0.01) / mu, rel=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.05, 5), st.floats(0.1, 5), st.floats(0.01, 0.5), st.floats(0, 1.5))
def test_check_11_best_steps_beats_every_other_number(clip_model, clip, lr, share):
    l2 = share * clip / clip_model if lr * share * clip / clip_model <= 1 else 0.0
    constants = {"clip_model": clip_model, "clip": clip, "lr": lr, "l2": l2}
    best = fine.best_steps(**constants)
    noise = [fine.mu(sigma=1.0, steps=steps, **constants) for steps in range(1, 2000)]
    if best is None:
        assert l2 * clip_model >= clip and noise[-1] <= min(noise) * (1 + 1e-9)
    elif best < 2000:
        assert noise[best - 1] <= min(noise) * (1 + 1e-12)


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 3), st.floats(0, 3), st.floats(0.01, 1), st.floats(0, 1), st.integers(1, 60), st.floats(0.3, 1))
def test_check_11_mu_is_never_below_the_exact_divergence_of_linear_losses(clip_model, clip, lr, part, steps, slope):
    l2 = part / lr * (1 - 1e-9)
    means, variance, sigma = np.array([clip_model, -clip_model]), 0.0, 0.7
    for _ in range(steps):  # two AR(1) chains, opposite starts and opposite slopes: their laws are Gaussian
        means = means - lr * (np.array([-slope * clip, slope * clip]) + l2 * means)
        variance = (1 - lr * l2) ** 2 * variance + sigma**2
    exact = abs(means[0] - means[1]) / math.sqrt(variance)
    bound = fine.mu(sigma=sigma, clip_model=clip_model, clip=clip, lr=lr, l2=l2, steps=steps)
    assert exact <= bound * (1 + 1e-9) + 1e-300
    if slope == 1:
        assert exact == pytest.approx(bound, rel=1e-6, abs=1e-300)


def test_check_11_linear_losses_with_full_slope_attain_mu():
    means, variance = np.array([1.0, -1.0]), 0.0
    for _ in range(50):
        means = means - 0.01 * (np.array([-1.0, 1.0]) + 10 * means)
        variance = 0.9**2 * variance + 0.34032**2
    bound = fine.mu(sigma=0.34032, clip_model=1, clip=1, lr=0.01, l2=10, steps=50)
    assert (means[0] - means[1]) / math.sqrt(variance) == pytest.approx(bound, rel=1e-12)


def test_check_11_domain():
    good = {"clip_model": 1.0, "clip": 1.0, "lr": 0.1, "l2": 1.0, "steps": 10}
    assert fine.mu(sigma=0.0, **good) == math.inf
    assert fine.shift(**{**good, "l2": 10.0}) == pytest.approx(0.2)  # full decay forgets the start in one step
    for change in ({"l2": 11.0}, {"steps": 0}, {"lr": 0.0}, {"clip": -1.0}):
        with pytest.raises(InputError):
            fine.shift(**{**good, **change})


@pytest.mark.parametrize(("clip_model", "sigma", "steps"), [(0.5, 0.5, 6), (1, 0.5, 40), (0.001, 0.01, 1)])
def test_check_11_model_clipping_step_counts(clip_model, sigma, steps):
    assert model_clipping_steps(epsilon=1, delta=1e-5, clip_model=clip_model, sigma=sigma) == steps


def test_check_11_model_clipping_variants():
    target = {"epsilon": 1, "delta": 1e-5, "clip_model": 1, "sigma": 0.5}
    head_start = model_clipping_steps(**target, start_clip=1.0, start_sigma=2.0)
    assert head_start < 40
    assert model_clipping_steps(**target, step_size=0.1, gradient_clip=1.0) > 40
    assert model_clipping_steps(**target, start_clip=1.0, start_sigma=7.5) == 0  # output perturbation alone suffices
    assert model_clipping_steps(**{**target, "epsilon": 800}) >= 1  # no overflow of e^epsilon
    with pytest.raises(InputError, match="max_steps"):
        model_clipping_steps(**target, max_steps=39)
    with pytest.raises(InputError, match="start_clip"):
        model_clipping_steps(**target, start_sigma=1.0)
