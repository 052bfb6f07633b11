"""Bounds against measured distances: the oracles of the spec's section 7, and random nonconvex training."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.privacy.constants import logistic_head
from expunge.privacy.descent_run import GradientDescentRun
from expunge.privacy.descent_to_delete import contraction
from expunge.privacy.descent_to_delete import sensitivity as descent_to_delete_sensitivity
from expunge.privacy.minibatch import coupled_minibatch
from expunge.privacy.replay import realised_epsilon, retrain_check
from expunge.privacy.sensitivity import bounds, path, published, recovery_error, tight, tightest

from .worlds import concave_quadratic, descend, logistic, rewound_distance, waves


def test_check_03_oracle_1_convex_quadratic():
    rng = np.random.default_rng(1)
    n, m, curvature, steps = 200, 10, 1.3, 60
    lr, z = 0.4 / curvature, rng.standard_normal((n, 4))
    q = 1 - lr * curvature
    apart = np.linalg.norm(z.mean(axis=0) - z[m:].mean(axis=0))
    spread = curvature * max(np.linalg.norm(z - other, axis=1).max() for other in z)
    for rewind in range(steps + 1):
        measured = rewound_distance(lambda t, ids: curvature * (t - z[ids]), z[0] * 3, n, m, steps, rewind, lr)
        assert measured == pytest.approx(q**rewind * (1 - q ** (steps - rewind)) * apart, abs=1e-11)
        run = GradientDescentRun(
            n, m, steps, rewind, lr, curvature, None, gradient_difference=spread, strong_convexity=curvature
        )
        assert all(measured <= bound.value + 1e-13 for bound in bounds(run).values() if bound.valid)
        assert tightest(bounds(run)).name == "strongly_convex" or rewind == steps
    assert measured == 0.0


@pytest.mark.parametrize(
    ("rewind", "measured", "bound"),
    [
        (0, 2.4838271264918, 3.1809466870372),
        (20, 2.2283805503756, 2.7368256539687),
        (40, 1.8098015911358, 2.1395131985943),
        (79, 0.0703372469876, 0.0781524966529),
        (80, 0.0, 0.0),
    ],
)
def test_check_03_oracle_2_concave_quadratic_attains_the_tight_bound(rewind, measured, bound):
    run = GradientDescentRun(100, 10, 80, rewind, 0.05, 0.5, 1.0)
    found = rewound_distance(concave_quadratic(0.5, 1.0, 10, 3), np.zeros(3), 100, 10, 80, rewind, 0.05)
    assert found == pytest.approx(measured, abs=1e-12)
    assert tight(run) == pytest.approx(found, abs=1e-12)
    assert published(run) == pytest.approx(bound, abs=1e-12)


def test_check_03_oracle_2_shows_that_the_path_bound_needs_a_uniform_gradient_bound():
    gradient, lr = concave_quadratic(5.0, 1.0, 10, 3), 0.5
    measured = rewound_distance(gradient, np.zeros(3), 100, 10, 10, 0, lr)
    wrong = GradientDescentRun(100, 10, 10, 0, lr, 5.0, 1.0)
    honest = GradientDescentRun(100, 10, 10, 0, lr, 5.0, None, gradient_difference=2.0)
    assert measured > path(wrong)
    assert not bounds(honest)["path"].valid and measured <= tightest(bounds(honest)).value * (1 + 1e-12)


@pytest.mark.parametrize(
    ("l2", "rewinds", "expected"),
    [(0.0, (0, 50, 150, 299), (12, 10, 6, 0.04)), (0.01, (0, 50, 150), (3.80, 2.22, 0.69))],
)
def test_check_03_oracle_3_logistic_regression_selects_the_convex_bound(l2, rewinds, expected):
    rng = np.random.default_rng(2)
    n, m, steps = 1000, 20, 300
    x = rng.standard_normal((n, 5))
    x /= np.maximum(1.0, np.linalg.norm(x, axis=1, keepdims=True))
    y = np.sign(x[:, 0] + 0.1 * rng.standard_normal(n))
    x[:m], y[:m] = -x[0] / np.linalg.norm(x[0]) * y[0], 1.0  # adversarial: all forgotten rows pull the same way
    constants = logistic_head(1.0, l2, bias=False)
    for rewind, value in zip(rewinds, expected, strict=True):
        measured = rewound_distance(logistic(x, y, l2), np.zeros(5), n, m, steps, rewind, 1.0)
        run = GradientDescentRun(
            n,
            m,
            steps,
            rewind,
            1.0,
            constants.smoothness,
            constants.gradient_bound,
            convex=True,
            strong_convexity=l2,
            l2=l2,
        )
        chosen = tightest(bounds(run))
        assert chosen.name == ("strongly_convex" if l2 else "convex")
        assert chosen.value == pytest.approx(value, rel=0.005)
        assert 0 < measured <= chosen.value
        assert bounds(run)["tight"].valid and bounds(run)["tight"].value > 1e25


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6),
    st.integers(2, 30),
    st.floats(0.02, 0.9),
    st.integers(1, 40),
    st.floats(0, 1),
    st.floats(0.01, 2),
    st.sampled_from([None, 0.05, 0.3]),
)
def test_check_03_measured_distance_never_exceeds_a_bound(seed, n, share, steps, part, lr, clip):
    rng = np.random.default_rng(seed)
    m, rewind = max(1, int(share * n)), int(part * steps)
    m = min(m, n - 1)
    gradient = waves(rng, n, 3, clip)
    measured = rewound_distance(gradient, rng.standard_normal(3), n, m, steps, rewind, lr)
    run = GradientDescentRun(n, m, steps, rewind, lr, 1.0, clip or 1.0, clipped=clip is not None)
    assert all(measured <= bound.value + 1e-12 for bound in bounds(run).values() if bound.valid)
    assert measured <= 1e-12 or rewind < steps
    # check 14: the realised level never exceeds the certified one
    assert realised_epsilon(measured, 1.0, 1e-5) <= realised_epsilon(path(run) + 1e-12, 1.0, 1e-5)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 40), st.floats(0, 1), st.floats(0.01, 1), st.sampled_from([None, 0.2]))
def test_check_03_coupled_batches_never_exceed_their_bound(seed, steps, part, lr, clip):
    rng = np.random.default_rng(seed)
    n, m, batch, rewind = 24, 7, 4, int(part * steps)
    gradient = waves(rng, n, 3, clip)
    batches = [rng.choice(n, batch, replace=False) for _ in range(steps)]

    def step(theta, ids):
        return theta - lr * gradient(theta, ids).mean(axis=0) if ids.size else theta

    unlearned = retrained = rng.standard_normal(3)
    for t, ids in enumerate(batches):
        unlearned = step(unlearned, ids if t < steps - rewind else ids[ids >= m])
        retrained = step(retrained, ids[ids >= m])
    run = GradientDescentRun(n, m, steps, rewind, lr, 1.0, clip or 1.0, clipped=clip is not None)
    bound = coupled_minibatch(run, [int((ids < m).sum()) for ids in batches], batch)
    assert np.linalg.norm(unlearned - retrained) <= bound.value + 1e-12


def test_check_03_oracle_5_backward_steps_recover_the_checkpoint():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((200, 5)), rng.choice([-1.0, 1.0], 200)
    lr, total = 0.1, 200

    def gradient(theta, ids):  # mean gradient of a 56-parameter tanh network under logistic loss, shape (1, 56)
        w, b, v = theta[:40].reshape(8, 5), theta[40:48], theta[48:]
        hidden = np.tanh(x[ids] @ w.T + b)
        slope = -y[ids] / (1 + np.exp(y[ids] * (hidden @ v)))
        back = slope[:, None] * v * (1 - hidden**2)
        return np.concatenate([(back.T @ x[ids]).ravel(), back.sum(axis=0), hidden.T @ slope])[None] / ids.size

    def hessian(theta):  # central differences, shape (56, 56)
        h = 1e-5 * np.eye(56)
        return np.array([(gradient(theta + row, ids)[0] - gradient(theta - row, ids)[0]) / 2e-5 for row in h])

    ids, iterates = np.arange(200), [rng.standard_normal(56) * 0.5]
    for _ in range(total):
        iterates.append(descend(gradient, iterates[-1], ids, lr, 1))
    theta, inner, errors = iterates[-1], [], {}
    for back in range(1, 101):
        target, used = theta, 0
        while used < 200:
            moved, used = target + lr * gradient(theta, ids)[0], used + 1
            change, theta = np.linalg.norm(moved - theta), moved
            if change < 1e-14:
                break
        inner.append(used)
        errors[back] = float(np.linalg.norm(theta - iterates[total - back]))
    assert np.mean(inner) < 16
    assert errors[1] < 1e-13 and errors[20] < 1e-11 and errors[100] < 1e-8
    smoothness = max(float(np.linalg.norm(hessian(iterates[step]), 2)) for step in range(90, 201, 10)) * 1.1
    for steps in (20, 100):  # a perturbed checkpoint: the residual bounds the error that it was given
        wrong = iterates[total - steps] + 1e-4 * rng.standard_normal(56)
        residual = np.linalg.norm(descend(gradient, wrong, ids, lr, steps) - iterates[-1])
        assert np.linalg.norm(wrong - iterates[total - steps]) <= recovery_error(residual, lr, smoothness, steps)


@pytest.mark.parametrize("training_steps", [100, 5])
def test_check_03_oracle_7_strongly_convex_descent_contracts_to_the_retained_minimiser(training_steps):
    rng = np.random.default_rng(4)
    n, m, l2 = 300, 15, 0.1
    x = rng.standard_normal((n, 4))
    x /= np.maximum(1.0, np.linalg.norm(x, axis=1, keepdims=True))
    gradient = logistic(x, rng.choice([-1.0, 1.0], n), l2)
    constants = logistic_head(1.0, l2, bias=False)
    g, lr = contraction(constants.smoothness, l2), 2 / (constants.smoothness + l2)
    start = 5 * rng.standard_normal(4)
    trained = descend(gradient, start, np.arange(n), 1.0, training_steps)
    retained = np.arange(m, n)
    minimiser = descend(gradient, trained, retained, lr, 400)
    retrained = descend(gradient, start, retained, 1.0, training_steps)
    for steps in (0, 1, 3, 10, 40):
        reached = descend(gradient, trained, retained, lr, steps)
        assert np.linalg.norm(reached - minimiser) <= g**steps * np.linalg.norm(trained - minimiser) + 1e-12
        bound = descent_to_delete_sensitivity(
            samples=n,
            forget=m,
            steps=training_steps,
            lr=1.0,
            unlearn_steps=steps,
            smoothness=constants.smoothness,
            gradient_bound=1.0,
            strong_convexity=l2,
            start_norm=float(np.linalg.norm(start)),
        )
        assert np.linalg.norm(reached - retrained) <= bound


@pytest.mark.parametrize("share_left", [1, 3, 10])
def test_check_13_retrain_check_flags_forgotten_rows_left_in_the_batch(share_left):
    gradient, start = concave_quadratic(0.5, 1.0, 10, 3), np.zeros(3)
    everything, retained, rewind = np.arange(100), np.arange(10, 100), 40
    checkpoint = descend(gradient, start, everything, 0.05, 80 - rewind)
    retrained = descend(gradient, start, retained, 0.05, 80)
    bound = tight(GradientDescentRun(100, 10, 80, rewind, 0.05, 0.5, None, gradient_difference=2.0))
    honest = descend(gradient, checkpoint, retained, 0.05, rewind)
    assert not retrain_check(float(np.linalg.norm(honest - retrained)), bound).refuted
    broken = descend(gradient, checkpoint, np.arange(10 - share_left, 100), 0.05, rewind)
    assert retrain_check(float(np.linalg.norm(broken - retrained)), bound).refuted
