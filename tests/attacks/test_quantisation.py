"""Rounding to few bits, LLM spec 5.14 and check B10."""

from __future__ import annotations

import pytest
import torch
from tests.attacks.worlds import world

from expunge.attacks.quantisation import linear_weights, quantisation_attack, quantise, quantised
from expunge.attacks.recall import recall_of
from expunge.core.errors import InputError

SCHEMES = ("symmetric", "asymmetric")


def weights(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("group", "columns"), [(32, 96), (32, 40), (8, 7), (1, 3)])
def test_no_weight_moves_by_more_than_half_a_step_and_values_are_few(scheme, bits, group, columns):
    for seed in range(3):
        weight = weights(seed, 5, columns) + (2.0 if scheme == "asymmetric" else 0.0)
        rounded, step = quantised(weight, bits, group=group, scheme=scheme)
        assert rounded.shape == step.shape == weight.shape
        assert ((rounded - weight).abs() <= step / 2 * (1 + 1e-9)).all()
        for row in range(5):
            for start in range(0, columns, group):
                assert rounded[row, start : start + group].unique().numel() <= 2**bits
        if bits == 2 and group > 1:
            assert ((rounded - weight).abs() > step / 4).any()  # it does round


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_step_follows_from_the_group_alone(scheme):
    weight = torch.tensor([[-7.0, 3.2, 0.4, 7.0, 70.0, 0.0, 0.0, 35.5]], dtype=torch.float64)
    rounded, step = quantised(weight, 4, group=4, scheme=scheme)
    if scheme == "symmetric":  # max |w| / 7
        assert step.tolist() == [[1.0] * 4 + [10.0] * 4]
        assert rounded.tolist() == [[-7.0, 3.0, 0.0, 7.0, 70.0, 0.0, 0.0, 40.0]]
    else:  # (max - min) / 15
        torch.testing.assert_close(step, torch.tensor([[14 / 15] * 4 + [14 / 3] * 4], dtype=torch.float64))
        assert rounded[0, 0] == -7 and rounded[0, 3] == pytest.approx(7) and rounded[0, 4] == pytest.approx(70)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_rounded_stays_so_and_groups_of_one_value_stay_themselves(scheme):
    weight = weights(3, 4, 64)
    once = quantised(weight, 4, scheme=scheme)[0]
    torch.testing.assert_close(quantised(once, 4, scheme=scheme)[0], once, rtol=1e-12, atol=1e-12)
    for value in (0.0, 0.3):
        same = torch.full((2, 40), value, dtype=torch.float64)
        torch.testing.assert_close(quantised(same, 4, scheme=scheme)[0], same, rtol=1e-12, atol=0)
    half = quantised(weight.bfloat16(), 4, scheme=scheme)[0]
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize("change", [0.2, 0.4])
def test_a_change_below_half_a_step_is_rounded_away_and_a_larger_one_is_not(change):
    """Why unlearning at tiny rates comes undone."""
    before = torch.arange(-7.0, 8.0).repeat(4, 1)
    after = before.clone()
    after[:, 3:9] += change
    assert torch.equal(quantised(after, 4, group=15)[0], before)
    after[:, 3:9] += 0.5
    assert not torch.equal(quantised(after, 4, group=15)[0], before)


def test_linear_layers_are_rounded_and_nothing_else():
    w = world()
    names = linear_weights(w.task.build())
    assert len(names) == 6 and not any(
        "embed" in name or "lm_head" in name for name in names
    )  # q, k, v, out, two inner
    small = quantise(w.task, w.unlearned, 4)
    for name, tensor in w.unlearned.items():
        assert torch.equal(small[name], tensor) == (name not in names)


def test_check_b10_the_table_has_both_models_at_each_precision():
    w = world()
    score = recall_of(w.task, {"forget": w.forget, "retain": w.retain})
    table = quantisation_attack(w.task, w.unlearned, score, retrained=w.retrained)
    assert [row.bits for row in table.rows] == [None, 4, 8] and (table.scheme, table.group) == ("symmetric", 32)
    for row in table.rows:
        assert row.unlearned.keys() == row.retrained.keys() == {"forget", "retain"}
        assert 0 <= row.error <= 0.5 + 1e-4 and (row.error > 0) == (row.bits is not None)
        tensors = (w.unlearned, w.retrained)
        if row.bits:
            tensors = tuple(quantise(w.task, each, row.bits) for each in tensors)
        assert (score(tensors[0]), score(tensors[1])) == (row.unlearned, row.retrained)
    assert table.rows[0].retrained["retain"] == 1
    # 8 bits change little; two bits do harm, and the table shows it
    assert abs(table.rows[2].unlearned["retain"] - table.rows[0].unlearned["retain"]) <= 0.2
    alone = quantisation_attack(w.task, w.retrained, score, bits=(2,), group=32, scheme="asymmetric")
    assert alone.rows[1].retrained == {} and alone.rows[1].unlearned["retain"] <= 1


def test_nonsense_is_refused():
    with pytest.raises(InputError, match="bits from 2 to 16"):
        quantised(weights(0, 2, 2), 1)
    with pytest.raises(InputError, match="scheme among symmetric, asymmetric"):
        quantised(weights(0, 2, 2), 4, scheme="odd")
    with pytest.raises(InputError, match="finite"):
        quantised(torch.tensor([[float("nan")]]), 4)
    with pytest.raises(InputError, match="no linear layer"):
        quantise(world().task, {}, 4)
