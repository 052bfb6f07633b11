"""DualOptim, SU and adapters in the loop that all methods share, on a language model (LLM spec 3, check A9)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cases import CASES, UNSURE, facts, forget_facts, method, small_language
from descent.languages import language, work
from expunge import planning
from expunge.core.errors import FailedError, InputError, RefusedError
from expunge.core.journal import Journal
from expunge.core.method import InMemory
from expunge.data.texts import Texts
from expunge.descent.descend import Descend
from expunge.descent.members import Member
from expunge.descent.optimizer import Dual, Shared
from expunge.descent.schedule import FORGET, RETAIN, Alone, Interleave, Joint
from expunge.methods import registry
from expunge.methods.grad_diff import GradDiff
from expunge.methods.npo import NPO
from expunge.objectives.language import token_mean

ADAMW = Member("adamw", 3e-3, weight_decay=0.01)
SIZES = {"forget": 4, "retain": 20}


def single(on: Any) -> Any:
    """Gradient of the retain loss at the start, by name."""
    batch = on.task.batch(on.deletion.after)
    loss = token_mean(*on.task.token_losses(on.model, on.params, batch))
    return list(torch.autograd.grad(loss, list(on.params.values())))


def test_a9_with_equal_gradients_both_states_are_those_of_one_adamw_on_its_own():
    on = work(language(torch.float32))
    stepper = Dual(ADAMW, ADAMW).build(on.params)
    gradient = single(on)
    for _ in range(3):
        stepper.step(FORGET, [g.clone() for g in gradient])
        stepper.step(RETAIN, [g.clone() for g in gradient])
    alone = work(language(torch.float32))
    reference = Shared(ADAMW).build(alone.params)
    for _ in range(3):
        reference.step(RETAIN, [g.clone() for g in gradient])
    state, expected = stepper.state(), reference.state()
    assert {name.split("/")[0] for name in state} == {FORGET, RETAIN}
    for name, tensor in expected.items():
        path = name.partition("/")[2]
        assert torch.equal(state[f"{FORGET}/{path}"], tensor) and torch.equal(state[f"{RETAIN}/{path}"], tensor)


@pytest.mark.parametrize("bits", [32, 8])
def test_a9_the_state_of_one_objective_is_untouched_by_steps_of_the_other(bits, monkeypatch):
    from expunge.descent import optimizer

    on, seen, plainly = work(language(torch.float32, width=64)), [], optimizer.Stepper.step

    def watched(self: Any, role: str, *args: Any) -> None:
        other = RETAIN if role == FORGET else FORGET
        of = lambda who: {n: t.clone() for n, t in self.state().items() if n.startswith(f"{who}/")}  # noqa: E731
        before, own = of(other), of(role)
        plainly(self, role, *args)
        assert before.keys() == of(other).keys() and all(torch.equal(t, of(other)[n]) for n, t in before.items())
        assert any(n not in own or not torch.equal(t, own[n]) for n, t in of(role).items())
        seen.append(role)

    monkeypatch.setattr(optimizer.Stepper, "step", watched)
    member = Member("adamw", 3e-3, bits=bits)
    done = Descend(NPO(), Interleave(1, 5, 10), Dual(member, member)).run(on, InMemory())
    assert seen == [FORGET, *[RETAIN] * 5] * 2 and done.steps == {"forget": 2, "retain": 10}


@pytest.mark.parametrize(("settings", "rounds"), [({"steps": 3}, 3), ({"steps": None, "epochs": 2}, 4)])
def test_a9_one_forget_step_then_five_retain_steps(settings, rounds):
    made = registry.make("npo+dual", {"batch_size": 2, **settings})
    roles = [turn.role for turn in made.schedule().turns(SIZES, made.batch_sizes(), 0)]
    assert roles == [FORGET, *[RETAIN] * 5] * rounds
    longer = registry.make("npo+dual", {"batch_size": 2, **settings, "retain_steps": 2})
    assert [turn.role for turn in longer.schedule().turns(SIZES, longer.batch_sizes(), 0)] == [
        FORGET,
        RETAIN,
        RETAIN,
    ] * rounds


@pytest.mark.parametrize("seed", [0, 1])
def test_a9_with_decoupling_off_it_is_torch_adamw_bit_for_bit(seed):
    on, by_hand = (work(language(torch.float32), seed) for _ in range(2))
    schedule = Interleave(1, 5, 10)
    Descend(GradDiff(), schedule, Shared(ADAMW)).run(on, InMemory())
    ready = GradDiff().prepare(by_hand)
    weights = list(by_hand.params.values())
    adamw = torch.optim.AdamW(weights, 3e-3, weight_decay=0.01, fused=True)
    for turn in schedule.turns(SIZES, by_hand.batch_size, seed):
        (role,) = turn.index
        batch = ready.streams[role].take(turn.index[role])
        adamw.zero_grad()
        ready.loss(role, batch, turn).backward()
        adamw.step()
    assert all(torch.equal(a, b) for a, b in zip(on.params.values(), by_hand.params.values(), strict=True))
    apart = work(language(torch.float32), seed)
    Descend(GradDiff(), schedule, Dual(ADAMW, ADAMW)).run(apart, InMemory())
    assert any(not torch.equal(a, b) for a, b in zip(on.params.values(), apart.params.values(), strict=True))


def test_a9_two_rates_and_two_losses_or_a_word_about_it():
    made = registry.make("npo+dual", {"lr": 1e-3, "forget_lr": 1e-4})
    assert (made.optimizer().forget.lr, made.optimizer().retain.lr) == (1e-4, 1e-3)
    with pytest.raises(InputError, match="forget_lr needs forget steps of their own"):
        registry.make("npo", {"forget_lr": 1e-4}).optimizer()
    with pytest.raises(InputError, match="DualOptim needs two objectives; alpha = 0 leaves one"):
        registry.make("undial+dual").schedule()
    assert isinstance(registry.make("undial").schedule(), Alone)  # no retained row is run for nothing
    assert isinstance(registry.make("undial+su").schedule(), Joint)
    with pytest.raises(InputError, match="above 0 or null as forget_lr of npo"):
        registry.make("npo+dual", {"forget_lr": 0.0}).optimizer()


# --- variants in names --------------------------------------------------------------------------------------------------


def test_variants_in_names_and_in_settings_are_the_same_methods():
    assert registry.make("npo+su").su == 5.0 and registry.make("npo+su", {"su": 2.0}).su == 2.0
    assert registry.make("npo+alternate") == registry.make("npo", {"alternate": True})
    both = registry.make("npo+su+dual")
    assert both == registry.make("npo+dual+su") == registry.make("npo", {"su": 5.0, "dual": True})
    assert registry.row_name(both) == "npo+su+dual" and registry.row_name(registry.make("npo", {"su": 2})) == "npo+su"
    assert registry.row_name(registry.make("npo")) == "npo"
    for name, match in (
        ("ga+su", r"Expected \+su after one of grad_diff, npo.*; got ga\+su"),
        ("ga+dual", r"Expected \+dual after one of .*npo.*two objectives; got ga\+dual"),
        ("salun+su+dual", r"Expected \+su after one of .*; got salun\+su"),
        ("npo+dual+dual", r"Expected each variant once; got npo\+dual\+dual"),
        ("npo+fast", r"Expected \+su or \+dual or \+alternate after a method's name; got npo\+fast"),
        ("nobody+su", "Expected a method among"),
    ):
        with pytest.raises(InputError, match=match):
            registry.make(name)
    with pytest.raises(InputError, match="its settings turn it off"):
        registry.make("npo+su", {"su": 0.0})


def test_mappings_and_tuples_travel_as_json():
    made = registry.make("dpo+su", {"lora": {"r": 4, "target_modules": ["q_proj"]}, "refusals": ["no", "never"]})
    record = registry.settings_of(made)
    assert record["settings"]["lora"] == {"r": 4, "target_modules": ["q_proj"]}
    assert record["settings"]["refusals"] == ["no", "never"] and made.refusals == ("no", "never")
    again = registry.make(record["name"], record["settings"])
    assert again == made and registry.settings_of(again) == record
    with pytest.raises(InputError, match=r"a mapping as npo's lora.x; got object"):
        registry.settings_of(registry.make("npo", {"lora": {"x": object()}}))
    with pytest.raises(InputError, match=r"finite settings; got npo's lora.lora_dropout=nan"):
        registry.settings_of(registry.make("npo", {"lora": {"lora_dropout": float("nan")}}))


# --- refusals before work is lost ---------------------------------------------------------------------------------------


def refused(name: str, data: Texts, match: str, **settings: Any) -> None:
    task = small_language()
    with pytest.raises(RefusedError, match=match):
        planning.plan(planning.adopt(task, task.build(), data), forget_facts(1), method(name, **settings))


def test_what_cannot_run_is_refused_in_words():
    columns = {"entity": facts().columns["entity"]}
    texts = Texts.of([{"text": record["question"]} for record in facts().records], columns)
    for name in ("idk", "dpo"):
        refused(name, texts, "a plain text asks none.*Take npo or grad_diff")
    refused("rmu", facts(), r"The model has 1 layers, from 0; there is no layer 1", layer=1)
    refused("rmu", facts(), r"there is no layer -2", layer=-2)
    refused("rmu", facts(), r"has a name that ends in mlp.up; it has .*mlp.down_proj", trained=("mlp.up",))
    copied = Texts.of([facts().records[3], *facts().records[1:]], columns)
    refused("npo", copied, r"1 forgotten record\(s\) are retained as well, word for word")
    task = small_language()
    with pytest.raises(InputError, match=r"LoRA settings .*rank.* cannot be used"):
        planning.plan(planning.adopt(task, task.build(), facts()), forget_facts(1), method("npo", lora={"rank": 8}))


# --- RMU moves few weights, none above its layer ------------------------------------------------------------------------


@pytest.mark.parametrize("retain", ["activations", "nll"])
@pytest.mark.parametrize(("layer", "layers"), [(0, 3), (1, 3), (-2, 1), (2, 2)])
def test_rmu_moves_the_second_matrices_up_to_its_layer_alone(layer, layers, retain):
    task = small_language(layers=3)
    trained = planning.adopt(task, task.build(seed=1), facts())
    settings = {"layer": layer, "layers": layers, "retain": retain}
    outcome = planning.plan(trained, forget_facts(1), method("rmu", **settings)).run()
    top = layer % 3
    moved = {name for name, size in outcome.change.items() if size > 0}
    assert moved == {f"model.layers.{at}.mlp.down_proj.weight" for at in range(max(0, top + 1 - layers), top + 1)}


@pytest.mark.parametrize("layer", [0, 1, -2])
def test_rmu_with_an_adapter_moves_nothing_above_its_layer(layer):
    task = small_language(layers=3)
    trained = planning.adopt(task, task.build(seed=1), facts())
    outcome = planning.plan(trained, forget_facts(1), method("rmu", layer=layer, lora={"r": 2})).run()
    moved = {name for name, size in outcome.change.items() if size > 0}
    layers = {int(name.split(".")[2]) for name in moved if ".layers." in name}
    assert layers == set(range(layer % 3 + 1)) and not moved & {"model.norm.weight", "model.embed_tokens.weight"}


# --- a run that is taken up again, and one that fails -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["npo+su+dual", "dpo", "rmu"])
def test_a_run_with_an_adapter_is_taken_up_from_its_journal(name, tmp_path):
    case, settings = CASES["language"], {"lora": {"r": 2, "lora_dropout": 0.2}}
    trained = planning.adopt(case.task, case.task.build(seed=1), case.data)
    runs = [
        planning.plan(trained, case.request, method(name, **settings), journal=Journal(tmp_path)).run() for _ in "12"
    ]
    first, again = (run.releases[0].artifact for run in runs)
    assert first.digest == again.digest and first.adapter is not None and again.adapter is not None
    assert all(torch.equal(first.adapter[n], again.adapter[n]) for n in first.adapter)
    assert first.digest != trained.artifact.digest


def test_a_rate_that_blows_up_releases_nothing_and_leaves_the_base_alone():
    task = small_language()
    trained = planning.adopt(task, task.build(seed=1), facts())
    before = {name: tensor.clone() for name, tensor in trained.artifact.tensors.items()}
    for settings in ({}, {"lora": {"r": 2}}):
        with pytest.raises(FailedError, match="nothing was released"):
            planning.plan(trained, forget_facts(1), method("ga", lr=1e30, clip=None, **settings)).run()
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.artifact.tensors.items())
    assert UNSURE in task.prompts.tokenizer.ids
