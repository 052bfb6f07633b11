"""Proved constants dominate what is measured, and are nearly reached."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.core.errors import InputError
from expunge.privacy.constants import logistic_head, softmax_head, squared_loss_head


def softmax(z):
    p = np.exp(z - z.max())
    return p / p.sum()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 6), st.floats(0.1, 5), st.floats(0, 30), st.booleans())
def test_softmax_constants_hold(seed, classes, radius, size, bias):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(3)
    x = np.append(x / np.linalg.norm(x) * radius, 1.0) if bias else x / np.linalg.norm(x) * radius
    constants = softmax_head(radius, 0.0, bias)
    w, direction = size * rng.standard_normal((classes, x.size)), rng.standard_normal((classes, x.size))
    direction /= np.linalg.norm(direction)
    p = softmax(w @ x)
    hessian = np.diag(p) - np.outer(p, p)
    gradients = [np.outer(p - np.eye(classes)[label], x) for label in range(classes)]
    assert max(np.linalg.norm(g) for g in gradients) <= constants.gradient_bound * (1 + 1e-12)
    assert np.linalg.norm(gradients[0] - gradients[1]) <= constants.gradient_difference * (1 + 1e-12)
    assert np.linalg.norm(hessian, 2) * (x @ x) <= constants.smoothness * (1 + 1e-12)
    u = direction @ x
    third = p @ (u - p @ u) ** 3
    assert abs(third) <= constants.hessian_lipschitz * (1 + 1e-12)


def test_softmax_constants_are_nearly_reached():
    constants = softmax_head(2.0, 0.0, bias=False)
    x, w = np.array([2.0, 0.0]), np.array([[40.0, 0.0], [0.0, 0.0]])
    assert np.linalg.norm(np.outer(softmax(w @ x) - [0, 1], x)) == pytest.approx(constants.gradient_bound, rel=1e-6)
    p = np.array([0.5, 0.5])
    assert np.linalg.norm(np.diag(p) - np.outer(p, p), 2) * 4 == pytest.approx(constants.smoothness)
    share = (1 - 1 / math.sqrt(3)) / 2  # the most skewed coin
    p, u = np.array([share, 1 - share]), np.array([1, -1]) / math.sqrt(2) * 2.0
    assert abs(p @ (u - p @ u) ** 3) == pytest.approx(constants.hessian_lipschitz, rel=1e-9)


def test_logistic_constants_bound_the_derivatives():
    t = np.linspace(-30, 30, 60_001)
    s = 1 / (1 + np.exp(-t))
    constants = logistic_head(3.0, 0.5, bias=False)
    assert np.max(s) * 3 <= constants.gradient_bound == 3.0
    assert np.max(s * (1 - s)) * 9 + 0.5 == pytest.approx(constants.smoothness, rel=1e-12)
    assert np.max(np.abs(s * (1 - s) * (1 - 2 * s))) * 27 == pytest.approx(constants.hessian_lipschitz, rel=1e-6)
    assert constants.strong_convexity == 0.5


def test_section_6_1_formulas_and_the_bias():
    assert softmax_head(3.0, 0.1, bias=False).gradient_bound == pytest.approx(math.sqrt(2) * 3)
    assert softmax_head(3.0, 0.1, bias=False).smoothness == pytest.approx(4.6)
    assert softmax_head(3.0, 0.1).gradient_bound == pytest.approx(math.sqrt(20))
    assert softmax_head(3.0, 0.1).smoothness == pytest.approx(5.1)
    assert logistic_head(1.0, 0.01).smoothness == pytest.approx(0.51)
    assert "bias" in softmax_head(3.0, 0.1).formulas["smoothness"]
    assert set(softmax_head(1.0, 0.0).formulas) == {
        "gradient_bound",
        "gradient_difference",
        "smoothness",
        "strong_convexity",
        "hessian_lipschitz",
    }


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.floats(0.1, 3), st.floats(0.1, 3), st.floats(0, 3))
def test_squared_loss_constants_hold_in_the_ball(seed, radius, ball, target):
    rng = np.random.default_rng(seed)
    x, w, y = (
        v / np.linalg.norm(v) for v in (rng.standard_normal(3), rng.standard_normal((2, 3)), rng.standard_normal(2))
    )
    x, w, y = radius * x, ball * w, target * y
    constants = squared_loss_head(radius, 0.0, target_bound=target, parameter_bound=ball, bias=False)
    assert np.linalg.norm(np.outer(w @ x - y, x)) <= constants.gradient_bound * (1 + 1e-12)
    assert constants.smoothness == pytest.approx(radius**2) and constants.hessian_lipschitz == 0.0


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_check_17_radius_outside_its_domain(bad):
    for head in (logistic_head, softmax_head):
        with pytest.raises(InputError, match="radius"):
            head(bad, 0.1)
    with pytest.raises(InputError, match="l2"):
        softmax_head(1.0, -0.1)
