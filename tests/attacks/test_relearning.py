"""Relearning, LLM spec 5.14 and check B10."""

from __future__ import annotations

import pytest
import torch
from tests.attacks.worlds import world

from expunge.attacks.recall import recall, recall_of
from expunge.attacks.relearning import CLIP, DECAY, relearning_attack
from expunge.core.errors import InputError
from expunge.data.texts import Texts
from expunge.metrics.metric_quality import relearning_robustness
from expunge.training.batches import epoch_order

LOOKS = (0, 5, 40)
FAST = {"steps": LOOKS, "lr": 3e-3, "batch_size": 4}


def sets(shown: int = 2) -> tuple[Texts, dict[str, Texts]]:
    w = world()
    first, rest = w.forget.first(shown), w.forget.at(range(shown, len(w.forget)))
    return first, {"shown": first, "other": rest, "retain": w.retain}


def test_check_b10_facts_shown_are_learnt_by_both_models_and_every_curve_has_a_twin():
    w = world()
    for seed in range(2):
        shown, named = sets()
        curves = relearning_attack(
            w.task, w.unlearned, shown, recall_of(w.task, named), retrained=w.retrained, seed=seed, **FAST
        )
        for curve, start in ((curves.unlearned, w.unlearned), (curves.retrained, w.retrained)):
            assert [point.steps for point in curve] == list(LOOKS)
            assert curve[0].scores == recall_of(w.task, named)(start)  # before the first step it is the model itself
            assert curve[-1].scores["shown"] >= 0.9  # within 40 steps, as B10 asks
            assert set(curve[-1].scores) == {"shown", "other", "retain"}
        assert curves.records == 2 and curves.seed == seed
        rises = curves.rise("shown", 40)
        assert rises[0] == (curves.unlearned[0].scores["shown"], curves.unlearned[-1].scores["shown"])
        assert 0 < relearning_robustness(*rises) <= 1


def test_benign_relearning_shows_other_peoples_records():
    w = world()
    _, named = sets()
    before = recall_of(w.task, named)(w.unlearned)["retain"]
    curves = relearning_attack(w.task, w.unlearned, w.retain, recall_of(w.task, named), **{**FAST, "batch_size": 18})
    assert curves.retrained == () and curves.unlearned[-1].scores["retain"] >= max(before, 0.9)
    with pytest.raises(InputError, match="retrained twin"):
        curves.rise("shown", 40)


def test_the_steps_are_those_of_adamw_on_the_same_rows_in_the_same_order():
    """Against a loop of its own."""
    w = world()
    shown, _ = sets(5)
    seen = []
    relearning_attack(
        w.task, w.unlearned, shown, lambda t: seen.append(t) or {}, steps=(0, 1, 4), lr=1e-3, batch_size=3, seed=7
    )
    model = w.task.build(w.unlearned).train()
    # the same kernel: a bias of keys has a gradient of rounding errors alone, which Adam makes as large as any other
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=DECAY, fused=True)
    for step in range(4):
        epoch, at = divmod(step, 2)
        index = epoch_order(5, 7, epoch + 1)[3 * at : 3 * at + 3]
        loss = w.task.losses(model, dict(model.named_parameters()), w.task.encode(shown.at(index).records)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
    for name, tensor in w.task.released(model).items():
        torch.testing.assert_close(seen[2][name], tensor, rtol=1e-5, atol=1e-6)
    for name, tensor in w.unlearned.items():
        assert torch.equal(seen[0][name], tensor)  # the model that is attacked is left alone
    assert any(not torch.equal(seen[0][name], seen[1][name]) for name in seen[0])


def test_recall_is_the_share_of_answers_in_what_is_said():
    w = world()
    model = w.task.build(w.before)
    assert recall(w.task, model, w.retain) == 1
    wrong = [{**record, "answer": "unsure"} for record in w.retain.records]
    assert recall(w.task, model, w.retain.worded([*wrong[:6], *w.retain.records[6:]])) == pytest.approx(12 / 18)
    with pytest.raises(InputError, match="set 'forget'"):
        recall_of(w.task, {"forget": Texts.of([{"text": "He was born."}])})


def test_nonsense_is_refused():
    w = world()
    shown, named = sets()
    for settings, reason in [
        ({"steps": (5, 0)}, "rising numbers of steps"),
        ({"steps": ()}, "rising numbers of steps"),
        ({"lr": 0.0}, "lr above 0"),
    ]:
        with pytest.raises(InputError, match=reason):
            relearning_attack(w.task, w.unlearned, shown, recall_of(w.task, named), **{**FAST, **settings})
    curves = relearning_attack(w.task, w.unlearned, shown, lambda _: {"x": 1.0}, retrained=w.retrained, steps=(1,))
    with pytest.raises(InputError, match="look at step 0"):
        curves.rise("x", 1)
