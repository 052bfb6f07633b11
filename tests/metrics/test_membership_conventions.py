from __future__ import annotations

import numpy as np
import pytest
from sklearn.svm import SVC

from expunge.core.errors import InputError
from expunge.metrics import membership_conventions
from expunge.metrics.membership_conventions import (
    entropy,
    entropy_member_percent,
    svc_nonmember_percent,
    true_label_confidence,
)


def test_check_18_entropy_convention_counts_members():
    members, others = np.full(40, 0.1), np.full(30, 1.0)
    assert entropy_member_percent(members, others, np.full(7, 0.1)).value.value == 100
    assert entropy_member_percent(members, others, np.full(7, 1.0)).value.value == 0


def test_check_18_svc_convention_counts_nonmembers():
    members, others = np.full(40, 0.99), np.full(30, 0.5)
    found = svc_nonmember_percent(members, others, np.full(7, 0.5))
    assert found.value.value == 100 and found.value.high == 100 and found.value.low < 70
    assert (found.members, found.nonmembers) == (30, 30)
    assert svc_nonmember_percent(members, others, np.full(7, 0.99)).value.value == 0


def test_check_18_the_two_move_in_opposite_directions_on_the_same_data():
    generator = np.random.default_rng(0)

    def outputs(strength, rows):
        logits = generator.normal(size=(rows, 5))
        logits[:, 0] += strength
        p = np.exp(logits)
        return p / p.sum(1, keepdims=True)

    retain, test = outputs(6.0, 600), outputs(2.0, 400)
    labels = np.zeros(600, int)
    nonmembers, members = [], []
    for strength in (6.0, 4.0, 2.0):  # forgetting more and more
        forget = outputs(strength, 300)
        sides = (retain, test, forget)
        nonmembers.append(svc_nonmember_percent(*(true_label_confidence(p, labels[: len(p)]) for p in sides)))
        members.append(entropy_member_percent(*(entropy(p) for p in sides)))
    assert nonmembers[0].value.high < nonmembers[1].value.low < nonmembers[2].value.high
    assert members[0].value.low > members[1].value.high > members[2].value.low
    assert {found.convention for found in nonmembers} == {"mia_svc_nonmember"}
    assert {found.convention for found in members} == {"mia_entropy_member"}


@pytest.fixture(params=["saturated", "apart", "alike", "few values", "other way round", "one row", "close to 1"])
def confidences(request):
    g = np.random.default_rng(1)
    return {
        "saturated": (
            1 - np.minimum(1, np.exp(g.normal(-7, 1.5, 400))),
            1 - np.minimum(1, np.exp(g.normal(-6, 3, 400))),
        ),
        "apart": (1 - g.random(200) * 0.01, g.random(200) * 0.9),
        "alike": (g.random(50), g.random(50)),
        "few values": (np.round(g.beta(50, 1, 500), 2), np.round(g.beta(5, 1, 500), 2)),
        "other way round": (g.beta(2, 5, 300), g.beta(5, 2, 300)),
        "one row": (np.array([1.0]), np.array([0.0])),
        "close to 1": (1 - g.random(300) * 1e-4, 1 - g.random(300) * 2e-4),
    }[request.param]


def test_our_support_vector_machine_is_the_one_of_scikit_learn(confidences):
    members, others = confidences
    grid = np.linspace(0, 1, 301)
    machine = SVC(C=3, gamma="auto", kernel="rbf", tol=1e-6)
    machine.fit(np.concatenate(confidences)[:, None], np.repeat([1, 0], [len(members), len(others)]))
    expected = machine.decision_function(grid[:, None])
    found = membership_conventions._support_vectors(members, others, grid)
    assert found == pytest.approx(expected, abs=1e-3)
    clear = np.abs(expected) > 1e-3
    assert (np.sign(found) == np.sign(expected))[clear].all()


def test_without_convergence_scikit_learn_decides(monkeypatch):
    generator = np.random.default_rng(2)
    members, others, rows = generator.beta(9, 1, 80), generator.beta(2, 1, 80), generator.random(50)
    expected = membership_conventions._support_vectors(members, others, rows)
    monkeypatch.setattr(membership_conventions, "_ITERATIONS", 1)
    assert membership_conventions._support_vectors(members, others, rows) == pytest.approx(expected, abs=0.02)


def test_members_are_the_first_rows_and_sides_stay_equal():
    generator = np.random.default_rng(3)
    retain, test, forget = generator.beta(9, 1, 300), generator.beta(3, 1, 100), generator.beta(5, 1, 80)
    assert svc_nonmember_percent(retain, test, forget) == svc_nonmember_percent(retain[:100], test, forget)
    few = svc_nonmember_percent(retain[:40], test, forget)
    assert few.members == few.nonmembers == 40 and few == svc_nonmember_percent(retain[:40], test[:40], forget)


def test_where_members_and_nonmembers_are_alike_rows_count_one_half():
    same = np.full(20, 0.5)
    assert svc_nonmember_percent(same, same, np.linspace(0, 1, 11)).value.value == 50


def test_features_of_the_other_convention_are_refused():
    good = np.full(9, 0.5)
    with pytest.raises(InputError, match="neither entropies nor losses"):
        svc_nonmember_percent(good, good, np.full(9, 1.6))
    with pytest.raises(InputError, match="not negative"):
        entropy_member_percent(good, good, -good)
    with pytest.raises(InputError, match="softmax"):
        entropy(np.ones((3, 4)))


def test_entropy_and_confidence():
    p = np.array([[0.5, 0.5], [1.0, 0.0]])
    assert entropy(p) == pytest.approx([np.log(2), 0])
    assert true_label_confidence(p, np.array([1, 0])) == pytest.approx([0.5, 1.0])
    for labels in (np.array([0, 2]), np.array([0.0, 1.0]), np.array([0])):
        with pytest.raises(InputError, match="label"):
            true_label_confidence(p, labels)
