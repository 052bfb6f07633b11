"""One state or two: exact traces, isolation, equivalence with plain torch, memory (vision spec 6.1, checks 1 to 4, 8, 9)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.core.errors import InputError
from expunge.descent.members import BLOCK, SMALLEST_8BIT, AdamW8bit, Lion, Member
from expunge.descent.optimizer import Dual, NonFiniteError, Shared, Stepper

STREAM = [("forget", 2.0), ("retain", -0.5), ("forget", 1.0), ("retain", 0.3), ("retain", 0.3), ("forget", -4.0)]
ADAM = Member("adam", 1e-2)
SGD = Member("sgd", 0.1, momentum=0.9)


def scalar(optimizers, start: float = 1.0) -> Stepper:
    return optimizers.build({"w": torch.tensor([start], dtype=torch.float64, requires_grad=True)})


def trace(stepper: Stepper, stream=STREAM) -> list[float]:
    seen = []
    for role, gradient in stream:
        stepper.step(role, [torch.tensor([gradient], dtype=torch.float64)])
        seen.append(float(stepper.parameters["w"].detach()))
    return seen


def copied(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


# --- checks 1 to 4 -----------------------------------------------------------------------------------------------------


def test_check_01_golden_trace_of_adam_and_sgd():
    stepper = scalar(Dual(ADAM, SGD))
    expected = [0.990000000, 1.040000000, 1.030678204, 1.045678204, 1.029178204, 1.031241774]
    assert trace(stepper) == pytest.approx(expected, abs=1e-9)
    state = stepper.state()
    assert float(state["forget/step/w"]) == 3
    assert float(state["forget/exp_avg/w"]) == pytest.approx(-0.1480, abs=5e-5)
    assert float(state["forget/exp_avg_sq/w"]) == pytest.approx(0.0210, abs=5e-5)
    assert float(state["retain/momentum_buffer/w"]) == pytest.approx(0.1650, abs=5e-5)


def test_check_01_golden_trace_with_the_decays_of_the_released_code():
    dual = Dual(Member("adamw", 1e-2, weight_decay=0.05), replace(SGD, weight_decay=5e-4))
    expected = [0.989500000, 1.039450525, 1.029609003, 1.044512996, 1.027874363, 1.029423996]
    assert trace(scalar(dual)) == pytest.approx(expected, abs=1e-9)


def test_check_01_one_shared_adam_is_another_trace():
    expected = [0.990000000, 0.985305318, 0.979250577, 0.973577590, 0.968119170, 0.970269049]
    assert trace(scalar(Shared(ADAM))) == pytest.approx(expected, abs=1e-9)


MEMBERS = {
    "sgd": SGD,
    "sgd with decay": Member("sgd", 0.03, momentum=0.9, weight_decay=5e-4),
    "adam": Member("adam", 1e-2),
    "adamw": Member("adamw", 1e-2, weight_decay=0.05),
    "lion": Member("lion", 1e-3, weight_decay=1e-2),
    "8 bit": Member("adamw", 1e-2, weight_decay=0.05, bits=8),
}


def weights(rows: int = 70, seed: int = 0) -> dict[str, torch.Tensor]:
    """One tensor above and one below the size from which states are packed."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a/b": (rows, 70), "bias": (7,)}  # names may hold the separator of stored states
    return {name: torch.randn(shape, generator=generator).requires_grad_() for name, shape in shapes.items()}


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1000 + step)
    return [torch.randn(tensor.shape, generator=generator) for tensor in weights().values()]


@pytest.mark.parametrize("forget", MEMBERS)
@pytest.mark.parametrize("retain", MEMBERS)
def test_check_02_a_step_leaves_the_other_state_as_it_was_bit_for_bit(forget, retain):
    stepper = Dual(MEMBERS[forget], MEMBERS[retain]).build(weights())
    for i, role in enumerate(("forget", "retain", "forget", "forget", "retain")):
        before = copied(stepper.state())
        stepper.step(role, gradients(i))
        after = stepper.state()
        other = "retain" if role == "forget" else "forget"
        theirs = [name for name in before if name.startswith(other)]
        assert theirs or i == 0
        assert all(torch.equal(before[name], after[name]) for name in theirs)
        own = [name for name in after if name.startswith(role)]
        assert own and any(name not in before or not torch.equal(before[name], after[name]) for name in own)
    counters = {name: float(value) for name, value in stepper.state().items() if "/step/" in name}
    assert all(count == (3 if name.startswith("forget") else 2) for name, count in counters.items())


def test_check_02_a_shared_state_is_moved_by_both():
    """The negative control of the test above."""
    stepper = Shared(SGD).build(weights())
    stepper.step("retain", gradients(0))
    before = copied(stepper.state())
    stepper.step("forget", gradients(1))
    assert not any(torch.equal(before[name], tensor) for name, tensor in stepper.state().items())


TORCH = {
    "sgd": lambda ps: torch.optim.SGD(ps, 0.1, momentum=0.9),
    "adam": lambda ps: torch.optim.Adam(ps, 1e-2),
    "adamw": lambda ps: torch.optim.AdamW(ps, 1e-2, weight_decay=0.05),
}


@settings(max_examples=25, deadline=None)
@given(
    forget=st.sampled_from(sorted(TORCH)), retain=st.sampled_from(sorted(TORCH)),
    roles=st.lists(st.sampled_from(["forget", "retain"]), min_size=1, max_size=12),
)  # fmt: skip
def test_check_03_dual_is_two_plain_optimizers_on_the_same_weights(forget, retain, roles):
    ours, theirs = ({n: w.detach().double().requires_grad_() for n, w in weights(4).items()} for _ in range(2))
    stepper = Dual(MEMBERS[forget], MEMBERS[retain]).build(ours)
    plain = {"forget": TORCH[forget](list(theirs.values())), "retain": TORCH[retain](list(theirs.values()))}
    for i, role in enumerate(roles):
        these = [torch.full_like(tensor, (-1) ** i * (0.1 + i)) * tensor.detach().sign() for tensor in theirs.values()]
        stepper.step(role, [gradient.clone() for gradient in these])
        for tensor, gradient in zip(theirs.values(), these, strict=True):
            tensor.grad = gradient
        plain[role].step()
        for tensor in theirs.values():
            tensor.grad = None
    for name, tensor in ours.items():
        assert torch.allclose(tensor, theirs[name], rtol=1e-10, atol=1e-12)  # fused kernels round otherwise
        assert tensor.grad is None


def test_check_03_lion_by_hand():
    w = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    stepper = Shared(Member("lion", 0.1, weight_decay=0.01)).build({"w": w})
    m, expected = torch.zeros(2, dtype=torch.float64), w.detach().clone()
    for g in (torch.tensor([1.0, 0.5]), torch.tensor([-0.05, 0.2]), torch.tensor([-3.0, 0.0])):
        g = g.double()
        expected = expected * (1 - 0.1 * 0.01) - 0.1 * torch.sign(0.9 * m + 0.1 * g)
        m = 0.99 * m + 0.01 * g
        stepper.step("forget", [g.clone()])
    assert torch.allclose(w.detach(), expected, atol=1e-12)


def test_check_04_momentum_law_shared_and_decoupled():
    member = Member("sgd", 1.0, momentum=0.9)
    ups, downs = (1, 2, 3), (-1, 0.5, -0.5)
    stream = [turn for up, down in zip(ups, downs, strict=True) for turn in (("forget", up), ("retain", down))]
    shared = trace(scalar(Shared(member), 0.0), stream)[1::2]
    dual = trace(scalar(Dual(member, member), 0.0), stream)[1::2]
    assert shared == pytest.approx([-0.9, -5.029, -14.02349], abs=1e-9)
    assert dual == pytest.approx([0.0, -2.5, -7.25], abs=1e-9)

    def a(k: int) -> float:
        return sum(0.9**i for i in range(k + 1))

    t = 2  # the third round
    assert shared[t] == pytest.approx(-sum(a(2 * (t - i) + 1) * ups[i] + a(2 * (t - i)) * downs[i] for i in range(3)))
    assert dual[t] == pytest.approx(-sum(a(t - i) * (ups[i] + downs[i]) for i in range(3)))


def test_a_rate_of_its_own_for_forget_steps_and_annealing_change_no_state():
    slow, fast = scalar(Shared(SGD, forget_lr=0.01)), scalar(Shared(SGD))
    assert trace(slow, STREAM[:1]) == [pytest.approx(1 - 0.02)] and trace(fast, STREAM[:1]) == [pytest.approx(1 - 0.2)]
    assert slow.state().keys() == fast.state().keys()
    assert all(torch.equal(tensor, fast.state()[name]) for name, tensor in slow.state().items())
    half = scalar(Shared(SGD))
    half.step("retain", [torch.tensor([2.0], dtype=torch.float64)], factor=0.5)
    assert float(half.parameters["w"].detach()) == pytest.approx(1 - 0.1)
    half.step("retain", [torch.tensor([0.0], dtype=torch.float64)])
    assert float(half.parameters["w"].detach()) == pytest.approx(0.9 - 0.1 * 1.8), "the factor lasts for one step"


def test_clipping_acts_on_its_role_only_and_only_above_the_norm():
    for size, moved in ((3.0, 1.0), (0.5, 0.5)):
        w = {"a": torch.zeros(1, requires_grad=True), "b": torch.zeros(1, requires_grad=True)}
        stepper = Shared(Member("sgd", 1.0)).build(w, {"forget": 1.0})
        stepper.step("forget", [torch.tensor([0.6 * size]), torch.tensor([0.8 * size])])
        assert torch.stack([w["a"], w["b"]]).norm().item() == pytest.approx(moved)
    stepper.step("retain", [torch.tensor([30.0]), torch.tensor([40.0])])
    assert torch.stack([w["a"], w["b"]]).norm().item() > 49


# --- state: memory, round trip, 8 bits -----------------------------------------------------------------------------------


def test_check_08_bytes_of_state():
    tensors = weights()
    words = 4 * sum(tensor.numel() for tensor in tensors.values())
    counters = {"sgd": 0, "adam": 1, "adamw": 1}
    for forget, retain, times in (("adam", "sgd", 3), ("adam", "adamw", 4), ("sgd", "sgd", 2)):
        stepper = Dual(MEMBERS[forget], MEMBERS[retain]).build(tensors)
        assert stepper.state_bytes == 0
        for i, role in enumerate(("forget", "retain")):
            stepper.step(role, gradients(i))
        assert stepper.state_bytes == times * words + 4 * len(tensors) * (counters[forget] + counters[retain])
    shared = Shared(ADAM).build(tensors)
    shared.step("forget", gradients(0))
    assert shared.state_bytes == 2 * words + 4 * len(tensors)


def test_check_08_eight_bits_take_less_than_a_third_and_go_the_same_way():
    start = weights(400)
    ends, sizes = [], []
    for bits in (32, 8):
        tensors = weights(400)
        stepper = Shared(Member("adamw", 1e-2, bits=bits)).build(tensors)
        for step in range(20):
            generator = torch.Generator().manual_seed(step)
            noise = [torch.randn(t.shape, generator=generator) for t in tensors.values()]
            stepper.step("forget", [t.detach() + 0.5 * n for t, n in zip(tensors.values(), noise, strict=True)])
        ends.append(torch.cat([t.detach().flatten() for t in tensors.values()]))
        sizes.append(stepper.state_bytes)
    origin = torch.cat([t.detach().flatten() for t in start.values()])
    assert sizes[1] <= 0.30 * sizes[0]
    assert (ends[0] - ends[1]).norm() < 0.02 * ends[0].norm()
    assert (ends[0] - ends[1]).norm() < 0.05 * (ends[0] - origin).norm(), "not only because little moved"


def test_eight_bits_keep_zero_and_small_second_moments_apart():
    """A second moment rounded to zero would be divided by: gradients five decades apart in one block must step alike."""
    w = torch.zeros(SMALLEST_8BIT, requires_grad=True)
    stepper = Shared(Member("adamw", 1.0, bits=8)).build({"w": w})
    gradient = torch.full((SMALLEST_8BIT,), 1e-5)
    gradient[::BLOCK] = 1.0
    for _ in range(3):
        stepper.step("forget", [gradient.clone()])
    assert torch.isfinite(w).all() and w.abs().max() < 6
    state = stepper.state()
    assert state["retain/exp_avg_codes/w"].dtype == torch.uint8
    assert state["retain/exp_avg_scale/w"].shape == (SMALLEST_8BIT // BLOCK,)


def test_eight_bits_serve_sizes_that_no_block_divides_and_leave_small_tensors_alone():
    w = {"odd": torch.zeros(SMALLEST_8BIT + 3, requires_grad=True), "small": torch.zeros(5, requires_grad=True)}
    stepper = Shared(Member("adamw", 0.1, bits=8)).build(w)
    reference = {name: torch.zeros_like(t).requires_grad_() for name, t in w.items()}
    plain = Shared(Member("adamw", 0.1)).build(reference)
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        these = [torch.randn(t.shape, generator=generator) for t in w.values()]
        stepper.step("forget", [g.clone() for g in these])
        plain.step("forget", these)
    assert torch.allclose(w["small"], reference["small"], rtol=1e-5)
    assert (w["odd"] - reference["odd"]).norm() < 0.05 * reference["odd"].norm()


@pytest.mark.parametrize("forget", MEMBERS)
@pytest.mark.parametrize("dual", [False, True])
def test_a_state_makes_the_round_trip_bit_for_bit(forget, dual):
    member = MEMBERS[forget]
    choice = Dual(member, SGD) if dual else Shared(member)
    going, stored = weights(), None
    stepper = choice.build(going)
    for step in range(6):
        if step == 3:
            stored = copied(stepper.state()), {name: t.detach().clone() for name, t in going.items()}
        stepper.step(("forget", "retain")[step % 2], gradients(step))
    assert stored is not None
    again = {name: tensor.clone().requires_grad_() for name, tensor in stored[1].items()}
    resumed = choice.build(again)
    resumed.load(stored[0])
    assert {n: t.dtype for n, t in resumed.state().items()} == {n: t.dtype for n, t in stored[0].items()}
    for step in range(3, 6):
        resumed.step(("forget", "retain")[step % 2], gradients(step))
    assert all(torch.equal(going[name], again[name]) for name in going)


# --- check 9 at the level of a step ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("poison", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize(
    "choice", [Dual(ADAM, SGD), Shared(SGD), Shared(MEMBERS["8 bit"])], ids=["dual", "shared", "8 bit"]
)
def test_check_09_a_poisoned_gradient_touches_nothing(choice, poison):
    tensors = weights()
    stepper = choice.build(tensors)
    for i, role in enumerate(("forget", "retain", "forget")):
        stepper.step(role, gradients(i))
    before, at = copied(stepper.state()), {name: t.detach().clone() for name, t in tensors.items()}
    bad = gradients(9)
    bad[1][3] = poison
    with pytest.raises(NonFiniteError, match="forget gradient is not finite"):
        stepper.step("forget", bad)
    assert all(torch.equal(before[name], tensor) for name, tensor in stepper.state().items())
    assert all(torch.equal(at[name], tensor) for name, tensor in tensors.items())
    stepper.step("retain", gradients(4))
    assert all(torch.isfinite(tensor).all() for tensor in [*stepper.state().values(), *tensors.values()])


# --- what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"kind": "muon", "lr": 0.1}, "optimizer among"), ({"kind": "sgd", "lr": 0.0}, "above 0"),
        ({"kind": "sgd", "lr": -1.0}, "above 0"), ({"kind": "sgd", "lr": float("nan")}, "above 0"),
        ({"kind": "sgd", "lr": 0.1, "momentum": 1.0}, r"momentum in \[0, 1\)"),
        ({"kind": "adam", "lr": 0.1, "weight_decay": -1.0}, "weight_decay >= 0"),
        ({"kind": "sgd", "lr": 0.1, "bits": 8}, "8 with adamw"), ({"kind": "adamw", "lr": 0.1, "bits": 4}, "32 bits"),
    ],
)  # fmt: skip
def test_members_that_make_no_sense_are_refused(settings_, message):
    with pytest.raises(InputError, match=message):
        Member(**settings_)


@pytest.mark.parametrize("rate", [0.0, -0.1])
def test_a_forget_rate_of_zero_is_not_taken_for_none_given(rate):
    with pytest.raises(InputError, match="above 0"):
        Shared(SGD, forget_lr=rate)


def test_dual_refuses_steps_that_do_not_alternate_and_a_single_objective():
    dual = Dual(ADAM, SGD)
    for roles in ({"joint"}, {"mixed"}, {"forget", "retain", "mixed"}):
        with pytest.raises(InputError, match="alternate"):
            dual.check(frozenset(roles))
    for role in ("forget", "retain"):
        with pytest.raises(InputError, match="two objectives"):
            dual.check(frozenset({role}))
    dual.check(frozenset({"forget", "retain"}))


def test_optimizers_of_our_own_are_torch_optimizers():
    for cls, arguments in ((Lion, (0.1, (0.9, 0.99), 0.0)), (AdamW8bit, (0.1, (0.9, 0.999), 1e-8, 0.0))):
        w = torch.ones(3, requires_grad=True)
        optimizer = cls([w], *arguments)
        optimizer.step()  # no gradient yet: nothing moves
        assert torch.equal(w, torch.ones(3))
        w.grad = torch.ones(3)
        optimizer.step()
        assert (w < 1).all()
