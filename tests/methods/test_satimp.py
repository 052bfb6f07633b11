"""SatImp against the formula of its weights, in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from expunge.core.errors import InputError
from expunge.methods.satimp import SatImp, satimp
from expunge.objectives.language import token_mean, weighted_ascent

MASK = torch.tensor([[True, True, False], [True, False, False]])


def tokens() -> Tensor:
    return torch.tensor([[0.3, 2.0, 7.0], [4.0, 9.0, 9.0]], dtype=torch.float64, requires_grad=True)


def slope(value: Tensor, by: Tensor) -> Tensor:
    return torch.autograd.grad(value, by)[0]


@pytest.mark.parametrize(("beta1", "beta2"), [(5.0, 1.0), (0.3, 0.3), (0.0, 2.0), (1.0, 0.0)])
def test_satimp_weighs_tokens_by_how_well_and_how_little_they_are_known(beta1, beta2):
    losses = tokens()
    p = torch.exp(-losses.detach())
    weight = MASK * p**beta1 * (1 - p) ** beta2 / 3
    value = satimp(losses, MASK, beta1, beta2)
    assert torch.allclose(value, (weight * p.log()).sum(), rtol=1e-12)
    assert torch.allclose(slope(value, losses), -weight, rtol=1e-12)  # nothing flows through the weight


def test_satimp_without_exponents_is_ascent_and_without_the_second_is_wga():
    for beta1, beta2, other in (
        (0.0, 0.0, lambda losses: -token_mean(losses * MASK, MASK)),
        (2.0, 0.0, lambda losses: weighted_ascent(losses, MASK, 2.0)),
    ):
        first, second = tokens(), tokens()
        assert torch.allclose(satimp(first, MASK, beta1, beta2), other(second), rtol=1e-12)
        assert torch.allclose(slope(satimp(first, MASK, beta1, beta2), first), slope(other(second), second), rtol=1e-12)


def test_satimp_weighs_most_where_p_is_beta1_over_the_sum():
    """The maximum of p^beta1 (1 - p)^beta2, and nothing at either end."""
    p = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    losses = (-p.log()).clone().requires_grad_()
    weight = -slope(satimp(losses[None], torch.ones(1, 999, dtype=torch.bool), 5.0, 1.0), losses)
    assert abs(float(p[weight.argmax()]) - 5 / 6) < 0.002
    certain = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    assert slope(satimp(certain, torch.ones(1, 1, dtype=torch.bool), 5.0, 1.0), certain).item() == 0


def test_satimp_keeps_precision_where_a_token_is_nearly_certain():
    losses = torch.tensor([[1e-9]], requires_grad=True)  # float32: 1 - exp(-1e-9) is 0 there
    weight = -slope(satimp(losses, torch.ones(1, 1, dtype=torch.bool), 5.0, 1.0), losses)
    assert weight.item() == pytest.approx(1e-9, rel=1e-5)


@pytest.mark.parametrize("bad", [{"beta1": -1.0}, {"beta2": -0.1}])
def test_exponents_below_zero_are_refused(bad):
    with pytest.raises(InputError, match="finite number at least 0 as beta"):
        SatImp(**bad)
