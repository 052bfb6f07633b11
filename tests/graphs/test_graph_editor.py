"""GraphEditor against regressions from dense formulas: one request, several in turn, additions, and what it refuses."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch

from cases import CASES, linear_network, small_graph, small_network
from expunge import planning
from expunge.core.errors import InputError, RefusedError
from expunge.core.request import Request, Target
from expunge.core.trained import Trained
from expunge.curvature.ridge import Ridge, cost_of_change, cost_of_fit, residual
from expunge.data.graphs.graph import Graph
from expunge.data.graphs.propagation import propagated_rows
from expunge.methods.graph_editor import GraphEditor, changed_rows, edited
from expunge.training.graph_ridge import INVERSE, SOLUTION, GraphRidge
from expunge.training.graphs import GraphTraining

L2 = 0.1


def by_hand(graph: Graph) -> np.ndarray:
    """(d, k) from the formula on dense matrices."""
    a = graph.adjacency.toarray().astype(float) + np.eye(len(graph.nodes))
    norm = a / np.sqrt(np.outer(a.sum(1), a.sum(1)))
    z = (norm @ norm @ graph.features.toarray())[graph.positions(graph.examples)]
    y = 2.0 * (graph.labels(graph.examples)[:, None] == np.arange(3)) - 1
    return np.linalg.solve(z.T @ z + L2 * np.eye(z.shape[1]), z.T @ y)


@functools.cache
def trained(seed: int = 0) -> Trained:
    return planning.train(linear_network(), small_graph(seed), GraphRidge(l2=L2))


def request_of(graph: Graph, kind: str, draw: np.random.Generator) -> Request:
    one = lambda pool: pool[int(draw.integers(len(pool)))]  # noqa: E731
    filled = graph.nodes[np.diff(graph.x.indptr) > 0]
    where = {
        "node": lambda: {"ids": [int(one(graph.examples))]},
        "edge": lambda: {"pairs": [one(graph.edges).tolist()]},
        "feature": lambda: {"node": int(one(filled))},
    }
    kinds = ("node", "edge") if kind == "mixed" else (kind,)
    return Request("a", tuple(Target(each, where[each]()) for each in kinds))


def apart(outcome) -> float:
    expected = by_hand(outcome.after.data)
    return float(np.linalg.norm(outcome.after.secret[SOLUTION].numpy() - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("kind", ["node", "edge", "feature", "mixed"])
def test_check_01_an_edit_is_a_new_fit(kind):
    draw = np.random.default_rng(1)
    for seed in range(3):
        model = trained(seed)
        request = request_of(model.data, kind, draw)
        outcome = planning.plan(model, request, GraphEditor(way="edit")).run()
        assert outcome.details["way"] == "edit" and outcome.details["residual"] <= 1e-8 and apart(outcome) <= 1e-8
        refit = planning.plan(model, request, GraphEditor(way="refit")).run()
        assert torch.allclose(refit.after.secret[SOLUTION], outcome.after.secret[SOLUTION], atol=1e-9)


def test_check_01_ten_requests_in_turn_stay_exact_and_ids_keep_their_meaning():
    draw, state, gone = np.random.default_rng(0), trained(), set()
    for number in range(10):
        kind = ("node", "edge", "feature", "mixed")[number % 4]
        outcome = planning.plan(state, request_of(state.data, kind, draw), GraphEditor(way="edit")).run()
        gone |= set(outcome.deletion.ids["node"].tolist())
        state = outcome.after
        assert apart(outcome) <= 1e-8
        assert not state.data.has(np.array(sorted(gone), dtype=int)).any() and len(state.data.nodes) == 45 - len(gone)


def test_check_01_without_its_neighbours_an_edit_is_wrong():
    """The test above would see it."""
    model = trained()
    busy = model.data.examples[
        np.argmax(np.diff(model.data.adjacency.indptr)[model.data.positions(model.data.examples)])
    ]
    ids = model.data.select(Target("node", {"ids": [int(busy)]}))
    after = model.data.without(ids)
    gone, moved = changed_rows(model.data, after, ids, 2)
    ridge = Ridge(model.secret[INVERSE], model.secret[SOLUTION])
    right, wrong = (edited(ridge, model.data, after, gone, rows, 2).weights.numpy() for rows in (moved, moved[:0]))
    size = np.linalg.norm(by_hand(after))
    assert len(moved) and np.linalg.norm(right - by_hand(after)) <= 1e-9 * size < 1e-3 * size
    assert np.linalg.norm(wrong - by_hand(after)) > 1e-3 * size


def test_check_02_what_leaves_and_comes_back_changes_nothing_and_additions_are_exact():
    draw = torch.Generator().manual_seed(0)
    z, y = (torch.randn(30, k, generator=draw, dtype=torch.float64) for k in (6, 2))
    whole, part = Ridge.fit(z, y, L2), Ridge.fit(z[:20], y[:20], L2)
    back = whole.removed(z[:7], y[:7]).added(z[:7], y[:7])
    assert torch.allclose(back.inverse, whole.inverse, atol=1e-9) and torch.allclose(
        back.weights, whole.weights, atol=1e-9
    )
    more = part.added(z[20:], y[20:])
    assert torch.allclose(more.inverse, whole.inverse, atol=1e-10) and torch.allclose(more.weights, whole.weights)
    assert residual(whole.weights, z, y, L2) < 1e-12 < residual(part.weights, z, y, L2)
    model, few = trained(), small_graph().on(small_graph().examples[:-4])  # four more training nodes
    fewer = Ridge.fit(*(torch.from_numpy(part) for part in _rows(few)), L2)
    grown = edited(fewer, few, model.data, few.nodes[:0], few.nodes[:0], 2, come=model.data.examples[-4:])
    assert np.allclose(grown.weights.numpy(), by_hand(model.data), atol=1e-9)


def _rows(graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    y = 2.0 * (graph.labels(graph.examples)[:, None] == np.arange(3)) - 1
    return propagated_rows(graph, 2, graph.examples), y


def test_rows_are_those_of_the_network():
    model = trained()
    built = model.task.build(model.artifact.tensors)
    logits = model.task.outputs(built, dict(built.named_parameters()), model.task.batch(model.data)).logits.detach()
    rows = torch.from_numpy(propagated_rows(model.data, 2, model.data.examples))
    assert torch.allclose(rows @ model.secret[SOLUTION], logits, atol=1e-5)  # features are scaled in single precision
    assert np.allclose(model.secret[SOLUTION].numpy(), by_hand(model.data), atol=1e-9)


def test_the_cheaper_way_is_taken_and_the_inverse_is_kept_for_later():
    model = trained()
    outcome = planning.plan(model, request_of(model.data, "node", np.random.default_rng(0)), GraphEditor()).run()
    predicted = outcome.details["predicted_edit_over_refit"]
    assert outcome.details["way"] == ("edit" if predicted < 1 else "refit") and INVERSE in outcome.after.secret
    assert cost_of_change(10, 500) < cost_of_fit(1000, 500) < cost_of_change(900, 500)
    lost = replace(model, state=None)  # from weights alone: what is missing is computed
    again = planning.plan(lost, request_of(model.data, "edge", np.random.default_rng(0)), GraphEditor(way="edit")).run()
    assert apart(again) <= 1e-8


def test_a_stored_model_keeps_what_later_edits_need(tmp_path):
    from expunge.training.store import load_trained, save_trained

    model = trained()
    first = planning.plan(
        model, request_of(model.data, "node", np.random.default_rng(2)), GraphEditor(way="edit")
    ).run()
    save_trained(tmp_path / "model", first.after)
    again = load_trained(tmp_path / "model", model.task, model.data)
    assert torch.equal(again.secret[INVERSE], first.after.secret[INVERSE]) and again.recipe == model.recipe
    second = planning.plan(
        again, request_of(again.data, "node", np.random.default_rng(3)), GraphEditor(way="edit")
    ).run()
    assert apart(second) <= 1e-8


def test_networks_with_layers_and_other_training_are_refused_with_the_reason():
    from expunge.methods import registry

    other = CASES["graph"].ready()
    assert "linear networks" in str(GraphEditor().check(CASES["graph"].plan(other, "retrain").context))
    plain = planning.train(linear_network(), small_graph(), GraphTraining(epochs=2))
    assert "ridge regression" in str(
        GraphEditor().check(planning.plan(plain, CASES["graph"].request, registry.make("utu")).context)
    )
    with pytest.raises(RefusedError, match="linear networks"):
        planning.plan(other, CASES["graph"].request, GraphEditor())
    with pytest.raises(InputError, match="closed form for linear networks only"):
        planning.train(small_network(), small_graph(), GraphRidge())
    with pytest.raises(InputError, match="l2 above 0"):
        GraphRidge(l2=0.0)
