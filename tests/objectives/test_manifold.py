"""Curves, neighbours, margins and triplets (vision spec 6.1, checks 23 to 26)."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import normalize

from cases import blobs, pictures, small_pictures_net
from descent.worlds import plain, restless, run, same, work
from expunge.core.errors import InputError
from expunge.descent.descend import Descend
from expunge.descent.members import Member
from expunge.descent.optimizer import Dual, Shared
from expunge.descent.parameters import Encoder
from expunge.descent.schedule import Passes
from expunge.objectives.manifold import Manifold, hinge
from expunge.objectives.margins import (
    LARGEST,
    SelfModeConnectivity,
    centre_of,
    distance,
    gaps,
    neighbourhood,
    represented,
)
from expunge.training.connectivity import Bezier, middle, refreshed_statistics

ADAM = Shared(Member("adam", 5e-3))
CURVE = SelfModeConnectivity(steps=5, batch_size=8)


# --- check 23: curves ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("t", "shares"),
    [(0.1, (0.81, 0.18, 0.01)), (0.3, (0.49, 0.42, 0.09)), (0.5, (0.25, 0.5, 0.25)), (0.7, (0.09, 0.42, 0.49)),
     (0.9, (0.01, 0.18, 0.81))],
)  # fmt: skip
def test_check_23_bezier_weights(t, shares):
    assert Bezier({}, {}, {}).weights(t) == pytest.approx(shares)


def ends(seed: int = 0) -> tuple[dict, dict, dict]:
    def one(i: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed + i)
        return {"w": torch.randn(4, generator=generator), "count": torch.tensor(i)}

    return one(1), one(2), one(3)


@settings(max_examples=30, deadline=None)
@given(t=st.floats(0, 1), seed=st.integers(0, 20))
def test_check_23_shares_sum_to_one_and_the_ends_are_bit_exact(t, seed):
    start, bend, end = ends(seed)
    curve = Bezier(start, bend, end)
    assert sum(curve.weights(t)) == pytest.approx(1) and min(curve.weights(t)) >= 0
    assert torch.equal(curve.at(0)["w"], start["w"]) and torch.equal(curve.at(1)["w"], end["w"])
    assert torch.equal(curve.at(t)["count"], (end if t == 1 else start)["count"])
    constant = Bezier(start, start, start).at(t)["w"]
    assert torch.allclose(constant, start["w"], atol=1e-6)


def test_check_23_only_the_bend_gets_gradients():
    start, bend, end = ends()
    for tensors in (start, bend, end):
        tensors["w"].requires_grad_()
    Bezier(start, bend, end).at(0.5)["w"].sum().backward()
    assert start["w"].grad is None and end["w"].grad is None and torch.allclose(bend["w"].grad, torch.full((4,), 0.5))
    assert middle(ends()[0], ends()[2])["w"].tolist() == pytest.approx(((ends()[0]["w"] + ends()[2]["w"]) / 2).tolist())
    for t in (-0.1, 1.1):
        with pytest.raises(InputError, match="between 0 and 1"):
            Bezier(*ends()).at(t)


class Shifted(nn.Module):
    """A net with a buffer that is no running statistic."""

    def __init__(self):
        super().__init__()
        self.register_buffer("shift", torch.tensor([5.0, -3.0]))
        self.first, self.norm, self.last = nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.norm(self.first(x - self.shift)))


@pytest.mark.parametrize("net", [restless, Shifted])
def test_check_23_refreshing_changes_running_statistics_only(net):
    on = work(net)
    before = {name: tensor.clone() for name, tensor in on.model.state_dict().items()}
    batch = on.task.batch(on.deletion.after)
    fresh = refreshed_statistics(on.task, on.model, before, batch, 25)
    changed = {name for name in before if not torch.equal(fresh[name], before[name])}
    assert {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}
    assert same(dict(on.model.state_dict()), before), "the model itself is not touched"
    layer = "1" if net is restless else "norm"
    inner = batch["x"] - (on.model.shift if net is Shifted else 0)
    seen = (on.model[0] if net is restless else on.model.first)(inner)
    means = torch.stack([part.mean(0) for part in seen.split(25)]).mean(0)
    assert torch.allclose(fresh[f"{layer}.running_mean"], means, atol=1e-5)
    assert all(m.momentum == 0.1 for m in on.model.modules() if isinstance(m, nn.BatchNorm1d))


def test_check_23_nets_without_statistics_are_left_as_they_are():
    on = work(plain)
    assert refreshed_statistics(on.task, on.model, on.base, on.task.batch(on.deletion.after), 8) == dict(on.base)


# --- check 24: the hinge ------------------------------------------------------------------------------------------------


def test_check_24_hinge():
    c, zp, zu = (torch.tensor([row], dtype=torch.float64) for row in ([1.0, 0.0], [0.8, 0.6], [0.0, 1.0]))
    assert float(distance(zp, c)) == pytest.approx(0.4) and float(distance(zu, c)) == pytest.approx(2)
    assert float(hinge(c, zp, zu, 0.5)) == 0 and float(hinge(c, zp, zu, 2.0)) == pytest.approx(0.4)
    assert float(distance(zp, c, "l2")) == pytest.approx(0.4**0.5) and float(
        distance(zp, c, "cosine")
    ) == pytest.approx(0.2)
    assert float(hinge(c, zp, zu, 2.0, keep=0.5)) == pytest.approx(0.2)


def test_check_24_one_hinge_a_row_and_not_one_a_batch():
    """One row far beyond its margin must not pay for another that is short of it."""
    c = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    zp = c.clone()
    zu = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])  # distances 4 and 0
    rows = hinge(c, zp, zu, 1.0)
    assert rows.tolist() == [0.0, 1.0] and float(rows.mean()) == 0.5
    assert float(torch.relu((distance(zp, c) - distance(zu, c) + 1.0).mean())) == 0, "a batch hinge is closed here"


# --- check 25: neighbours -----------------------------------------------------------------------------------------------


def around_of(on, k: int = 5):
    return neighbourhood(
        on.task, on.model, on.base, on.task.batch(on.deletion.forget), on.task.batch(on.deletion.after), k
    )


@pytest.mark.parametrize("k", [1, 5, 50])
def test_check_25_neighbours_are_the_most_similar_retained_rows(k):
    on = work(restless)
    around = around_of(on, k)
    assert around.near.shape == (10, k)
    kept, gone = (
        represented(on.task, on.model, on.base, on.task.batch(d)) for d in (on.deletion.after, on.deletion.forget)
    )
    similar = gone @ kept.T
    found = torch.gather(similar, 1, around.rows[around.near])
    assert torch.allclose(found, similar.sort(1, descending=True).values[:, :k], atol=1e-6), "nearest first"
    assert torch.equal(around.pool["x"], on.task.batch(on.deletion.after)["x"][around.rows])
    erased = {tuple(row.tolist()) for row in on.deletion.forget.x.float()}
    assert not erased & {tuple(row.tolist()) for row in around.pool["x"]}
    assert torch.allclose(around.centre.norm(dim=1), torch.ones(10)) and torch.allclose(
        around.old_pool.norm(dim=1), torch.ones(len(around.rows))
    )


def test_check_25_more_neighbours_than_retained_rows_are_refused():
    small = work(forget=56)
    with pytest.raises(InputError, match="between 1 and 4 neighbours"):
        around_of(small, 5)
    around_of(small, 4)
    with pytest.raises(InputError, match="at least one neighbour"):
        Manifold(k=0)


@pytest.mark.parametrize("margin", ["smc", "fixed"])
def test_check_25_labels_are_never_read_in_mode_rep_and_the_head_stays_bit_for_bit(margin):
    method = Descend(Manifold(margin=margin, k=3, curve=CURVE), Passes(2, retain=0), ADAM, Encoder())
    first = work(restless)
    done = run(method, first)
    data = blobs()
    other = run(method, work(restless, data=replace(data, y=(data.y + 1) % 3)))
    assert same(done.tensors, other.tensors), "a label was read"
    assert torch.equal(done.tensors["6.weight"], first.base["6.weight"]) and torch.equal(
        done.tensors["6.bias"], first.base["6.bias"]
    )
    assert not torch.equal(done.tensors["0.weight"], first.base["0.weight"])
    with_labels = Descend(Manifold(k=3, curve=replace(CURVE, loss="ce")), Passes(2, retain=0), ADAM, Encoder())
    apart = [run(with_labels, work(restless, data=d)).tensors for d in (data, replace(data, y=(data.y + 1) % 3))]
    assert not same(*apart), "the negative control: mode ce reads them"


# --- check 26: margins --------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 100), kind=st.sampled_from(["sq_l2", "l2", "cosine"]))
def test_check_26_margins_lie_between_zero_and_the_largest_distance(seed, kind):
    generator = torch.Generator().manual_seed(seed)
    pool, erased = (normalize(torch.randn((n, 3), generator=generator), dim=1) for n in (8, 5))
    near = torch.randint(0, 8, (5, 2), generator=generator)
    alpha = gaps(pool, erased, near, kind)
    assert alpha.shape == (5, 2) and (alpha >= 0).all() and (alpha <= LARGEST[kind]).all()
    centre = centre_of(pool, near)
    for u in range(5):
        for j in range(2):
            gap = distance(erased[u], centre[u], kind) - distance(pool[near[u, j]], centre[u], kind)
            assert float(alpha[u, j]) == pytest.approx(max(0.0, float(gap)), abs=1e-5)


def margins_of(on, curve: SelfModeConnectivity, around):
    surrogate = curve.surrogate(on.task, on.model, on.model.state_dict(), on.base, around, on.draw("curve", 0), 5)
    pool, rows = (
        represented(on.task, on.model, surrogate, b) for b in (around.pool, on.task.batch(on.deletion.forget))
    )
    return gaps(pool, rows, around.near), surrogate


def test_check_26_where_nothing_differs_the_margin_is_the_plain_gap():
    on = work(plain)
    around = around_of(on)
    alpha, surrogate = margins_of(on, replace(CURVE, steps=0, start="original"), around)
    assert all(torch.allclose(tensor, on.base[name], atol=1e-7) for name, tensor in surrogate.items())
    assert torch.allclose(alpha, gaps(around.old_pool, around.old_erased, around.near), atol=1e-5)
    closed = hinge(around.centre[:, None], around.old_pool[around.near], around.old_erased[:, None], alpha)
    assert (closed < 0.05).float().mean() > 0.5, "the hinge is closed, or nearly so"


def test_check_26_a_trained_bend_comes_closer_to_the_neighbours_and_moves_nothing_else():
    on = work(restless)
    around = around_of(on)
    with torch.no_grad():
        for name, tensor in on.params.items():
            if not name.startswith("6"):
                tensor.add_(0.3)  # the model being unlearned has gone somewhere else
    before = {name: tensor.clone() for name, tensor in on.model.state_dict().items()}

    def apart(steps: int) -> float:
        _, surrogate = margins_of(on, replace(CURVE, steps=steps, start="original"), around)
        return float(distance(represented(on.task, on.model, surrogate, around.pool), around.old_pool).mean())

    assert apart(60) < 0.9 * apart(0)
    assert same(dict(on.model.state_dict()), before) and on.model.training
    fresh, _ = margins_of(on, replace(CURVE, start="fresh"), around)
    assert not fresh.requires_grad


def test_check_26_margins_are_detached_and_measured_when_due():
    on = work(restless)
    prepared = Manifold(k=3, curve=CURVE, refresh_every=2).prepare(on)
    assert prepared.refresh is not None
    spent = [prepared.refresh(epoch) for epoch in range(4)]
    assert spent[1] == spent[3] == 0 and spent[0] == spent[2] == 5 * min(8, len(around_of(on, 3).rows))
    margins = prepared.state["margins"]
    assert margins.shape == (10, 3) and not margins.requires_grad


def test_check_26_a_fixed_margin_that_can_never_be_met_is_refused():
    for kind, largest in LARGEST.items():
        Manifold(margin="fixed", alpha=largest, distance=kind)
        with pytest.raises(InputError, match="could never close"):
            Manifold(margin="fixed", alpha=largest + 0.01, distance=kind)
    with pytest.raises(InputError, match="could never close"):
        Manifold(alpha=-0.1)


# --- what comes of it ---------------------------------------------------------------------------------------------------


def test_erased_rows_move_off_their_centre_the_longer_the_further():
    off = []
    for epochs in (1, 6, 20):
        on = work(plain)
        around = around_of(on, 3)
        done = run(Descend(Manifold(margin="fixed", k=3, preserve=0.1), Passes(epochs, retain=0), ADAM, Encoder()), on)
        erased = represented(on.task, on.model, done.tensors, on.task.batch(on.deletion.forget))
        off.append(float(distance(erased, around.centre).mean()))
    start = float(distance(around.old_erased, around.centre).mean())
    assert start < off[0] < off[1] < off[2] and off[2] > 2 * start


def test_the_original_anchor_pulls_towards_the_neighbours():
    on = work(plain)
    around = around_of(on, 3)
    done = run(Descend(Manifold(margin="fixed", anchor="original", k=3), Passes(10, retain=0), ADAM, Encoder()), on)
    erased = represented(on.task, on.model, done.tensors, on.task.batch(on.deletion.forget))
    assert distance(erased, around.old_erased).mean() > 1e-3


@pytest.mark.parametrize("distance_", ["sq_l2", "l2", "cosine"])
def test_a_convolutional_net_with_repair_under_two_optimizers(distance_):
    start = functools.partial(work, data=pictures(), task=small_pictures_net(), augment=lambda x, generator: x)
    method = Descend(
        Manifold(k=2, curve=CURVE, distance=distance_, repair=True), Passes(1),
        Dual(Member("adamw", 5e-4), Member("sgd", 0.01)), Encoder(),
    )  # fmt: skip
    done = run(method, start())
    assert done.steps["retain"] > 0 and all(torch.isfinite(tensor).all() for tensor in done.tensors.values())


@pytest.mark.parametrize(
    "broken",
    [
        {"margin": "none"}, {"anchor": "class"}, {"distance": "l1"}, {"refresh_every": 0},
        {"curve": SelfModeConnectivity(loss="mse")}, {"curve": SelfModeConnectivity(start="middle")},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(broken):
    with pytest.raises(InputError, match="Expected"):
        Manifold(**broken)
    with pytest.raises(InputError, match="curve steps"):
        SelfModeConnectivity(lr=0.0)
