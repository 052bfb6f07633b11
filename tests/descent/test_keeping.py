"""The best state of a run is kept by a named criterion, which sees neither a retrained model nor test examples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load as load_tensors

from cases import CASES, blobs
from descent.worlds import restless, run, same, work
from expunge import planning
from expunge.core import journal as journals
from expunge.core.errors import InputError, RefusedError
from expunge.core.method import InMemory
from expunge.descent.descend import Descend
from expunge.descent.keeping import CRITERIA, LOOKS, guard_of
from expunge.descent.members import Member
from expunge.descent.optimizer import Shared
from expunge.descent.schedule import Passes
from expunge.methods import registry
from expunge.objectives.supervised import Ascent


class Untouchable:
    """Test examples: whoever looks at them fails."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"test examples were asked for {name}")

    def __len__(self) -> int:
        raise AssertionError("test examples were counted")


def losses(on: Any, tensors: dict[str, torch.Tensor], rows: Any) -> float:
    """Mean cross entropy in evaluation mode, by hand."""
    model = restless().eval()
    model.load_state_dict(tensors)
    with torch.no_grad():
        logs = model(rows.x.float()).log_softmax(-1)
    return -float(logs[torch.arange(len(rows)), rows.y].double().mean())


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("criterion", sorted(CRITERIA))
def test_the_state_that_is_kept_is_the_best_of_those_that_were_looked_at(monkeypatch, criterion, seed):
    monkeypatch.setattr(journals, "STEPS_PER_STAGE", 1)
    monkeypatch.setattr(journals, "STAGES_AT_MOST", 10**6)
    held_out = blobs(30, seed=9)
    on = work(restless, seed=seed, probes={"validation": held_out, "test": Untouchable()})
    steps = 2 * LOOKS + 1  # every second one is looked at, and the last
    plain = Descend(Ascent(), Passes(41, retain=0), Shared(Member("sgd", 0.02)))
    on = replace(on, batch_size={**on.batch_size, "forget": 10})
    journal = InMemory()
    done = run(replace(plain, guard=guard_of(criterion, steps)), on, journal)

    assert sum(done.steps.values()) == steps
    looked = [*range(2, steps, 2), steps]
    assert [at for at, _ in done.scores] == [0, *looked]
    states = {}
    for step in looked:
        stored = load_tensors(journal.stages["descended" if step == steps else f"descended-{step}"])
        states[step] = {name.removeprefix("model:"): t for name, t in stored.items() if name.startswith("model:")}
    forget, retain = on.deletion.forget, on.deletion.after
    by_hand = {
        "retained": lambda state: -losses(on, state, retain),
        "margin": lambda state: losses(on, state, forget) - losses(on, state, retain),
        "validation": lambda state: -abs(losses(on, state, forget) - losses(on, state, held_out)),
    }[criterion]
    scores = {step: by_hand(state) for step, state in states.items()}
    assert [score for at, score in done.scores if at] == pytest.approx([*scores.values()], abs=1e-5)
    best = max(scores, key=scores.__getitem__)
    assert same(dict(done.tensors), states[best]) and len({*scores.values()}) > 1
    assert criterion == "margin" or best < steps, "there was something to choose"


def planned(settings: dict[str, Any], probes: Any = None, name: str = "gradient_ascent") -> Any:
    case = CASES["network, not published"]
    method = registry.make(name, {"epochs": 4, "batch_size": 8, **settings})
    return planning.plan(case.ready(), case.request, method, probes=probes or {}, seed=1)


def test_the_step_that_was_kept_is_on_record_and_a_setting_that_is_off_is_not():
    outcome = planned({"keep_best": "retained", "lr": 0.05}).run()
    kept = outcome.details["kept"]
    assert kept["criterion"] == "retained" and 0 < kept["step"] <= kept["of"]
    assert kept["score"] == max(score for at, score in outcome.details["guard"] if at)
    assert outcome.method["settings"]["keep_best"] == "retained"
    plain = planned({}).run()
    assert "kept" not in plain.details and "keep_best" not in plain.method["settings"]
    again = registry.make(outcome.method["name"], outcome.method["settings"])
    assert registry.settings_of(again)["digest"] == outcome.method["digest"] != plain.method["digest"]


def test_what_cannot_be_kept_is_refused_before_anything_is_trained():
    with pytest.raises(RefusedError, match="looks at a set called validation"):
        planned({"keep_best": "validation"})
    with pytest.raises(RefusedError, match="rule of its own"):
        planned({"keep_best": "retained", "rewind": True}, {"validation": blobs(30, seed=9)}, "scrub")
    with pytest.raises(InputError, match="keep_best"):
        planned({"keep_best": "accuracy"})
    with pytest.raises(InputError, match="no setting keep_best"):
        registry.make("r2d", {"keep_best": "retained"})
