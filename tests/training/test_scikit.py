"""Linear models of scikit-learn: what comes out equals refitting, and certificates say whose word they rest on."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

import expunge
from expunge.core.errors import InputError

NORM = 2.0


def rows(classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    x = np.hstack([draw.normal(size=(120, 3)), np.ones((120, 1))])
    x /= np.maximum(1, np.linalg.norm(x, axis=1, keepdims=True) / NORM)
    y = (x[:, :classes].argmax(1) + (draw.random(120) < 0.2)) % classes
    return x, y


def fitted(x, y, c: float) -> LogisticRegression:
    return LogisticRegression(C=c, fit_intercept=False, tol=1e-10, solver="newton-cg", max_iter=1000).fit(x, y)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("method", ["retrain", "newton"])
def test_what_comes_out_equals_refitting_without_the_rows(classes, method):
    (x, y), gone = rows(classes), [3, 7, 50]
    model = fitted(x, y, 0.5)
    trained = expunge.from_sklearn(model, x, y, norm=NORM)
    stay = np.setdiff1d(np.arange(len(x)), gone)
    again = fitted(x[stay], y[stay], 0.5 * len(x) / len(stay))
    if method == "retrain":
        request = expunge.Request("a", expunge.Target("samples", {"ids": gone}))
        outcome = expunge.plan(trained, request, expunge.methods.Retrain()).run()
        after = outcome.after
    else:  # Newton's method, converged on the rows that stay
        after = trained.recipe.fit(trained.task, trained.data.without(expunge.Ids.rows(gone)))
    found = expunge.to_sklearn(after, model)
    assert np.abs(found.coef_ - again.coef_).max() < 1e-6
    assert np.abs(found.predict_proba(x) - again.predict_proba(x)).max() < 1e-6
    assert abs(found.C - again.C) < 1e-12 and found.predict(x).tolist() == again.predict(x).tolist()
    assert np.abs(model.coef_ - again.coef_).max() > 1e-4, "the rows made a difference"


def test_a_model_goes_in_and_out_unchanged():
    x, y = rows(3)
    model = fitted(x, np.array(["a", "b", "c"])[y], 0.5)
    back = expunge.to_sklearn(expunge.from_sklearn(model, x, np.array(["a", "b", "c"])[y], norm=NORM), model)
    assert np.array_equal(back.coef_, model.coef_) and abs(back.C - 0.5) < 1e-12
    assert back.predict(x).tolist() == model.predict(x).tolist()


def test_newton_s_certificate_rests_on_somebody_s_word():
    x, y = rows(2)
    trained = expunge.from_sklearn(
        fitted(x, y, 0.05), x, y, norm=NORM, users={"who": [f"P{i // 4}" for i in range(120)]}
    )
    method = expunge.methods.Newton()
    published = expunge.publish(trained, expunge.Budget(1.0, 1e-5, 4), method=method)
    outcome = expunge.plan(published, expunge.Request("a", expunge.Target("user", {"who": "P3"})), method).run()
    assert outcome.verdict == "certified-under-declared-constants" and outcome.deletion.size == 4
    assert outcome.certificate.epsilon <= 1 + 1e-9


@pytest.mark.parametrize(
    ("settings", "changes", "said"),
    [
        ({"fit_intercept": True}, {}, "a column of ones"),
        ({"class_weight": "balanced"}, {}, "class_weight=None"),
        ({"C": np.inf}, {}, "finite C"),
        ({}, {"norm": 0.5}, "norm of at most 0.5"),
        ({}, {"norm": -1}, "finite norm"),
        ({}, {"x": "fewer"}, "rows of 4 numbers"),
        ({}, {"y": "others"}, "labels among"),
        ({}, {"x": "shuffled"}, "not the minimiser"),
    ],
)
def test_what_was_fitted_otherwise_is_refused(settings, changes, said):
    x, y = rows(2)
    model = LogisticRegression(**{"fit_intercept": False, "C": 5.0, "tol": 1e-8, **settings}).fit(x, y)
    given = {"fewer": x[:, :2], "shuffled": x[::-1].copy()}.get(changes.get("x"), x)
    labels = y + 5 if changes.get("y") == "others" else y
    with pytest.raises(InputError, match=said):
        expunge.from_sklearn(model, given, labels, norm=changes.get("norm", NORM))


def test_another_estimator_is_refused():
    with pytest.raises(InputError, match="LogisticRegression"):
        expunge.from_sklearn(Ridge(), np.eye(2), [0, 1], norm=1)
    with pytest.raises(InputError, match="Call fit first"):
        expunge.from_sklearn(LogisticRegression(fit_intercept=False), np.eye(2), [0, 1], norm=1)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("targets", [1, 2])
def test_the_downdate_of_ridge_equals_refitting(intercept, targets):
    draw = np.random.default_rng(1)
    x, y = draw.normal(size=(80, 5)), draw.normal(size=(80, targets))
    y = y[:, 0] if targets == 1 else y
    model = Ridge(alpha=0.7, fit_intercept=intercept).fit(x, y)
    gone = [0, 5, 79]
    found = expunge.downdate_ridge(model, x, y, gone)
    again = Ridge(alpha=0.7, fit_intercept=intercept).fit(np.delete(x, gone, 0), np.delete(y, gone, 0))
    assert np.abs(found.coef_ - again.coef_).max() < 1e-10
    assert np.abs(found.predict(x) - again.predict(x)).max() < 1e-10
    assert np.abs(model.coef_ - again.coef_).max() > 1e-3


def test_a_downdate_that_cannot_be_made_is_refused():
    draw = np.random.default_rng(1)
    x, y = draw.normal(size=(20, 2)), draw.normal(size=20)
    model = Ridge().fit(x, y)
    for given, rows_, said in ((x, [20], "positions from 0"), (x, [], "positions from 0"), (x, [0.5], "positions"),
                               (x, range(20), "some rows that stay"), (x[::-1], [0], "not the minimiser"),
                               (x[:, :1], [0], "fitted on")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            expunge.downdate_ridge(model, given, y, list(rows_))
    with pytest.raises(InputError, match="no constraint on signs"):
        expunge.downdate_ridge(Ridge(positive=True).fit(x, y), x, y, [0])
    with pytest.raises(InputError, match="a fitted Ridge"):
        expunge.downdate_ridge(Ridge(), x, y, [0])
