"""Sensitivity bounds: the spec's table, the literal recursion, orders, domains."""

import itertools
import math
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.core.errors import InputError
from expunge.privacy.descent_run import GradientDescentRun
from expunge.privacy.gaussian import sigma_of
from expunge.privacy.minibatch import coupled_minibatch
from expunge.privacy.rewind import rewind_for_noise, rewind_for_sensitivity, rewind_in_closed_form
from expunge.privacy.sensitivity import (
    bounds,
    convex,
    extra_recovery_error,
    log_h,
    path,
    published,
    recovery_error,
    strongly_convex,
    tight,
    tightest,
)

EICU = GradientDescentRun(
    samples=94449, forget=1079, steps=3666, rewind=376, lr=0.01, smoothness=0.2065, gradient_bound=0.5946
)
TABLE = [  # R2D spec 1.6: T, K, h, published, tight, path, sigma at (40, 0.1); sigma of T = 78 rows at 5 digits
    (3666, 376, 2079.304, 136.797, 126.478, 23.509, 17.41),
    (3666, 846, 2052.582, 135.039, 126.244, 23.509, 17.19),
    (3666, 1786, 1972.928, 129.799, 124.001, 23.454, 16.52),
    (3666, 2726, 1691.365, 111.275, 108.408, 22.679, 14.16),
    (3666, 3196, 1216.364, 80.024, 78.599, 20.826, 10.19),
    (3666, 3666, 0.0, 0.0, 0.0, 0.0, 0.0),
    (78, 8, None, 0.010519, 0.010390, 0.010390, 0.00134),
    (78, 38, None, 0.006194, 0.006120, 0.006120, 0.00079),
]


def literal_path(run):
    """Spec 1.6(b), word for word."""
    distance = 0.0
    for _ in range(run.steps - run.rewind):
        distance += min(
            run.lr * run.smoothness * distance + run.lr * run.difference * run.forget / run.samples,
            2 * run.lr * run.gradient_bound,
        )
    for _ in range(run.rewind):
        distance += min(run.lr * run.smoothness * distance, 2 * run.lr * run.gradient_bound)
    return distance


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"T{row[0]}K{row[1]}")
def test_check_01_table_of_section_1_6(row):
    steps, rewind, h, *deltas, sigma = row
    run = replace(EICU, steps=steps, rewind=rewind)
    digits = 5e-7 if steps == 78 else 5e-4
    if h is not None:
        assert math.exp(log_h(run)) == pytest.approx(h, abs=5e-4)
    assert [published(run), tight(run), path(run)] == pytest.approx(deltas, abs=digits)
    assert sigma_of(published(run), 40, 0.1) == pytest.approx(sigma, abs=5e-6 if steps == 78 else 5e-3)


def test_check_01_formulas_to_nine_digits_where_nothing_overflows():
    a, b = EICU.lr * EICU.smoothness * EICU.samples / (EICU.samples - EICU.forget), EICU.lr * EICU.smoothness
    scale = 2 * EICU.forget * EICU.gradient_bound / (EICU.smoothness * EICU.samples)
    for rewind in (0, 376, 1786, 3665):
        run = replace(EICU, rewind=rewind)
        assert math.exp(log_h(run)) == pytest.approx(((1 + a) ** (3666 - rewind) - 1) * (1 + b) ** rewind, rel=1e-9)
        assert published(run) == pytest.approx(scale * math.exp(log_h(run)), rel=1e-9)
        assert tight(run) == pytest.approx(scale * ((1 + b) ** 3666 - (1 + b) ** rewind), rel=1e-9)
        assert path(run) == pytest.approx(literal_path(run), rel=1e-9)


def test_check_01_section_1_6_epsilon_if_an_epoch_were_a_step():
    from expunge.privacy.gaussian import epsilon_of

    run = replace(EICU, steps=78, rewind=8)
    assert epsilon_of(published(run) / 0.01, 0.1) == pytest.approx(1.27, abs=0.005)
    assert epsilon_of(published(run) / 0.01, 1e-5) == pytest.approx(4.64, abs=0.005)


RUNS = st.builds(
    lambda n, share, steps, part, lr, smoothness, bound, spread: GradientDescentRun(
        samples=n,
        forget=int(share * n),
        steps=steps,
        rewind=int(part * steps),
        lr=lr,
        smoothness=smoothness,
        gradient_bound=bound,
        gradient_difference=2 * bound * spread,
    ),
    st.integers(2, 10_000),
    st.floats(0, 0.99),
    st.integers(0, 400),
    st.floats(0, 1),
    st.floats(1e-4, 3),
    st.one_of(st.just(0.0), st.floats(1e-3, 10)),
    st.floats(1e-3, 10),
    st.floats(0.01, 1),
)


@settings(deadline=None, max_examples=150)
@given(RUNS)
def test_check_01_closed_form_of_the_path_bound_is_the_literal_loop(run):
    assert path(run) == pytest.approx(literal_path(run), rel=1e-9)


@settings(deadline=None, max_examples=150)
@given(RUNS)
def test_check_01_path_below_tight_below_published(run):
    assert path(run) <= tight(run) * (1 + 1e-11)
    assert tight(run) <= published(run) * (1 + 1e-11)


@settings(deadline=None, max_examples=60)
@given(RUNS)
def test_check_01_every_bound_falls_with_the_rewind_and_ends_at_zero(run):
    run = replace(run, convex=True, lr=min(run.lr, 1 / max(run.smoothness, 1)), strong_convexity=run.smoothness / 2)
    rewinds = sorted({0, run.steps // 3, run.steps // 2, max(0, run.steps - 1), run.steps})
    for name in bounds(run):
        values = [bounds(replace(run, rewind=rewind))[name] for rewind in rewinds]
        if values[0].valid:
            assert all(a.value >= b.value * (1 - 1e-11) for a, b in itertools.pairwise(values))
            assert values[-1].value == 0.0


def test_check_01_h_falls_and_ends_at_zero():
    values = [log_h(replace(EICU, rewind=rewind)) for rewind in range(0, 3667, 94)]
    assert all(a > b for a, b in itertools.pairwise(values))
    assert log_h(replace(EICU, rewind=3666)) == -math.inf


def test_check_16_no_overflow_at_eta_l_t_of_ten_thousand():
    run = replace(EICU, lr=1.0, smoothness=0.1, steps=100_000, rewind=10)
    assert published(run) == tight(run) == math.inf
    assert log_h(run) == pytest.approx(99_990 * math.log1p(0.1 * 94449 / 93370) + 10 * math.log1p(0.1))
    assert math.isfinite(path(run)) and path(run) <= 2 * run.gradient_bound * run.steps
    assert published(replace(run, rewind=run.steps)) == 0.0


def lines_run(call) -> int:
    """How many lines of Python a call runs through: what it costs, on any machine."""
    count, before = 0, sys.gettrace()

    def counted(_frame, event, _argument):
        nonlocal count
        count += event == "line"
        return counted

    sys.settrace(counted)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def test_check_16_bounds_of_a_hundred_thousand_steps_cost_what_those_of_a_hundred_cost():
    run = replace(EICU, steps=100_000, rewind=40_000, lr=0.001)
    few = replace(run, steps=100, rewind=40)
    assert 50 < lines_run(lambda: tightest(bounds(run))) < 2 * lines_run(lambda: tightest(bounds(few)))
    assert lines_run(lambda: literal_path(run)) > 100_000, "the count sees a loop over steps"
    assert path(run) == pytest.approx(literal_path(run), rel=1e-9)


def test_check_17_nothing_forgotten_and_impossible_runs():
    assert [bound.value for bound in bounds(replace(EICU, forget=0)).values() if bound.valid] == [0.0, 0.0, 0.0]
    for change in (
        {"forget": 94449},
        {"forget": 94450},
        {"forget": -1},
        {"rewind": 3667},
        {"rewind": -1},
        {"lr": 0.0},
        {"lr": math.nan},
        {"smoothness": -1.0},
        {"gradient_bound": math.nan},
        {"gradient_bound": None},
        {"strong_convexity": 0.3},
        {"steps": 10.5},
    ):
        with pytest.raises(InputError):
            replace(EICU, **change)


@pytest.mark.parametrize(
    "extreme", [{"smoothness": 1e-320}, {"lr": 1e-320}, {"smoothness": 1e308}, {"gradient_bound": 1e308}]
)
def test_extreme_numbers_give_bounds_and_no_overflow(extreme):
    for bound in bounds(replace(EICU, **extreme)).values():
        assert not bound.valid or bound.value >= 0


def test_bounds_say_why_they_do_not_hold():
    run = GradientDescentRun(1000, 20, 300, 50, 1.0, 0.26, 1.0, convex=True, strong_convexity=0.01)
    assert all(bound.valid for bound in bounds(run).values())
    assert tightest(bounds(run)).name == "strongly_convex"
    assert tightest(bounds(run).values()) == tightest(bounds(run))
    edge = bounds(replace(run, lr=2 / 0.265))  # above 2/(L+mu), below 2/L
    assert (edge["convex"].valid, edge["strongly_convex"].valid) == (True, False)
    assert "2/(L+mu)" in edge["strongly_convex"].reason
    fast = bounds(replace(run, lr=8.0))
    assert (fast["convex"].valid, fast["convex"].value) == (False, math.inf) and "2/L" in fast["convex"].reason
    clipped = bounds(replace(run, clipped=True))
    assert not clipped["convex"].valid and not clipped["strongly_convex"].valid and clipped["path"].valid
    unbounded = bounds(replace(run, gradient_bound=None, gradient_difference=2.0))
    assert not unbounded["path"].valid and not unbounded["published"].valid and unbounded["tight"].valid
    assert not bounds(replace(run, lr=5.0, l2=0.5))["path"].valid
    for refused in (lambda: convex(replace(run, lr=8.0)), lambda: strongly_convex(replace(run, strong_convexity=0.0))):
        with pytest.raises(InputError, match="must hold"):
            refused()
    with pytest.raises(InputError, match="valid bound"):
        tightest({"convex": fast["convex"]})


def test_gradient_difference_replaces_twice_the_gradient_bound():
    near = replace(EICU, gradient_difference=0.1)
    assert tight(near) == pytest.approx(tight(EICU) * 0.1 / (2 * 0.5946), rel=1e-12)
    assert published(near) == published(EICU)
    assert replace(EICU, gradient_difference=9.0).difference == 2 * 0.5946


def test_section_1_6_halving_the_noise_needs_a_rewind_of_nine_tenths():
    half = tight(replace(EICU, rewind=0)) / 2
    rewind = rewind_for_sensitivity(EICU, half, "tight")
    assert rewind / 3666 == pytest.approx(0.908, abs=0.001)
    assert math.log(2) / math.log1p(EICU.lr * EICU.smoothness) == pytest.approx(336, abs=0.5)


@settings(deadline=None, max_examples=60)
@given(RUNS, st.floats(0, 1.2))
def test_corollary_3_2_smallest_rewind(run, share):
    allowed = share * min(tight(replace(run, rewind=0)), 1e300)
    for name in ("published", "tight", "path"):
        rewind = rewind_for_sensitivity(run, allowed, name)
        assert bounds(replace(run, rewind=rewind))[name].value <= allowed
        assert rewind == 0 or bounds(replace(run, rewind=rewind - 1))[name].value > allowed
    closed = rewind_in_closed_form(run, allowed)  # differs from bisection where the bound does not change in floats
    rounding = 1e-9 * min(tight(replace(run, rewind=0)), 1e300)
    assert tight(replace(run, rewind=closed)) <= allowed + rounding
    assert closed == 0 or tight(replace(run, rewind=closed - 1)) >= allowed - rounding
    assert rewind_for_sensitivity(run, allowed) <= rewind_for_sensitivity(run, allowed, "tight")


def test_rewind_for_noise_meets_its_target():
    from expunge.privacy.gaussian import epsilon_of

    rewind = rewind_for_noise(EICU, sigma=5.0, epsilon=4.0, delta=1e-5)
    assert epsilon_of(path(replace(EICU, rewind=rewind)) / 5.0, 1e-5) <= 4.0
    assert epsilon_of(path(replace(EICU, rewind=rewind - 1)) / 5.0, 1e-5) > 4.0
    for bad in ("best", "convex"):
        with pytest.raises(InputError):
            rewind_for_noise(EICU, 5.0, 4.0, 1e-5, bad)


def test_recovery_errors():
    assert extra_recovery_error(0.1, EICU) == pytest.approx(0.1 * (1 + EICU.lr * EICU.smoothness) ** 376)
    flat = GradientDescentRun(1000, 20, 300, 50, 1.0, 0.26, 1.0, convex=True)
    assert extra_recovery_error(0.1, flat) == 0.1
    assert extra_recovery_error(0.1, replace(flat, strong_convexity=0.1)) == pytest.approx(0.1 * 0.9**50)
    assert extra_recovery_error(1.0, replace(EICU, lr=100.0, steps=10**6, rewind=10**6)) == math.inf
    assert recovery_error(1e-3, 0.1, 2.0, 3) == pytest.approx(1e-3 / 0.8**3)
    with pytest.raises(InputError, match="below 1"):
        recovery_error(1e-3, 0.5, 2.0, 3)


def test_coupled_batches_generalise_the_full_batch():
    run = GradientDescentRun(1000, 100, 120, 40, 0.3, 0.7, 1.0)
    assert coupled_minibatch(run, [100] * 120, 1000).value == pytest.approx(path(run), rel=1e-12)
    smooth = replace(run, convex=True)
    assert coupled_minibatch(smooth, [100] * 120, 1000).value == pytest.approx(convex(smooth), rel=1e-12)
    # a fully forgotten batch is one step of length at most eta G, in training only
    assert coupled_minibatch(replace(run, steps=1, rewind=0), [8], 8).value == pytest.approx(0.3)
    assert coupled_minibatch(replace(run, steps=1, rewind=1), [8], 8).value == 0.0
    assert coupled_minibatch(run, [0] * 120, 32).value == 0.0
    for forgotten, sizes in (([1] * 119, 32), ([33] * 120, 32), ([1] * 120, [32] * 5)):
        with pytest.raises(InputError):
            coupled_minibatch(run, forgotten, sizes)
    with pytest.raises(InputError, match="fully forgotten"):
        coupled_minibatch(replace(run, gradient_bound=None, gradient_difference=2.0), [8] * 120, 8)
