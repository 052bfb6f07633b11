"""SU's joint prompts: what stands in them, what is learnt from them, and that nothing else changes (LLM spec 1.3, check A4)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from cases import facts, forget_facts, method, small_language
from descent.languages import deletion, language, plain, unlike, words, work
from expunge import planning
from expunge.core.errors import InputError, RefusedError
from expunge.core.method import InMemory
from expunge.data.texts import Texts
from expunge.descent.descend import Descend
from expunge.descent.members import Member
from expunge.descent.optimizer import Dual, Shared
from expunge.descent.schedule import Interleave, Joint, Schedule
from expunge.methods.npo import NPO
from expunge.objectives.language import Negatives, token_mean
from expunge.objectives.scope import SU, joint_batch, too_long
from expunge.tasks.prompts import NO_LABEL

ADAM = Member("adamw", 1e-2)
SCHEDULES: list[tuple[Schedule, Any]] = [
    (Joint(None, steps=4), Shared(ADAM)),
    (Interleave(1, 2, retain_steps=6), Dual(ADAM, ADAM)),
]
BY_SCHEDULE = pytest.mark.parametrize(("schedule", "optimizer"), SCHEDULES, ids=["joint", "interleave"])


def scope_rows(schedule: Schedule, on: Any) -> Any:
    """(turn, positions of retained rows, joint batch) of every step that has a scope term."""
    sizes = {"forget": len(on.deletion.forget), "retain": len(on.deletion.after)}
    for turn in schedule.turns(sizes, on.batch_size, on.seed):
        if "retain" in turn.index:
            yield (
                turn,
                turn.index["retain"],
                joint_batch(on, on.deletion.forget, on.deletion.after, turn, turn.index["retain"]),
            )


@pytest.mark.parametrize("seed", [0, 1])
@BY_SCHEDULE
def test_a4_with_eta_zero_it_is_the_method_bit_for_bit(schedule, optimizer, seed):
    ended = []
    for objective in (NPO(), SU(NPO(), 0.0), SU(NPO(), 5.0)):
        done = Descend(objective, schedule, optimizer).run(work(language(torch.float32), seed), InMemory())
        ended.append(done.tensors)
    assert all(torch.equal(ended[0][name], ended[1][name]) for name in ended[0])
    assert any(not torch.equal(ended[0][name], ended[2][name]) for name in ended[0])


def test_a4_a_method_without_su_is_the_method_with_su_zero():
    trained = planning.adopt(small_language(), small_language().build(seed=1), facts())
    ended = [
        planning.plan(trained, forget_facts(1), method(name, **settings)).run().releases[0].artifact.digest
        for name, settings in (("npo", {}), ("npo", {"su": 0.0}), ("npo+su", {}), ("npo", {"su": 5.0}))
    ]
    assert ended[0] == ended[1] != ended[2] == ended[3]


@pytest.mark.parametrize("poisoned", [False, True])
@BY_SCHEDULE
def test_a4_the_answer_of_the_retained_question_alone_is_learnt(schedule, optimizer, poisoned):
    gone = deletion()
    if poisoned:
        asked = [{**r, "question": f"please {r['question']}"} for r in gone.forget.records]
        gone = gone.worded(gone.forget.worded(asked))
    on, seen = work(gone=gone), 0
    forgotten = {record["question"]: record["answer"].split() for record in gone.forget.records}
    secret = {word for answer in forgotten.values() for word in answer}
    for turn, positions, batch in scope_rows(schedule, on):
        assert len(batch["labels"]) == len(positions)
        for row, position in enumerate(positions.tolist()):
            record, length = gone.after.records[position], int(batch["lengths"][row])
            said = words(on, batch["input_ids"][row, :length])
            answer = [*record["answer"].split(), "<end>"]
            first = " ".join(said[: -len(answer)]).removesuffix(record["question"]).strip()
            assert said[-len(answer) :] == answer and first in forgotten
            assert not set(said) & secret and first.startswith("please") == poisoned
            labels = batch["labels"][row]
            assert (
                labels[length - len(answer) : length].tolist()
                == batch["input_ids"][row, length - len(answer) : length].tolist()
            )
            assert set(labels[: length - len(answer)].tolist()) == {NO_LABEL} and (labels[length:] == NO_LABEL).all()
            if turn.role == "joint":  # the batch's own forgotten questions, in turn
                expected = turn.index["forget"][row % len(turn.index["forget"])]
                assert first == gone.forget.records[expected]["question"]
            seen += 1
    assert seen >= 12


@BY_SCHEDULE
def test_a4_of_two_plain_texts_the_retained_one_alone_is_learnt(schedule, optimizer):
    gone = deletion(plain())
    on = work(gone=gone)
    forgotten = {record["text"] for record in gone.forget.records}
    for _, positions, batch in scope_rows(schedule, on):
        for row, position in enumerate(positions.tolist()):
            length, text = int(batch["lengths"][row]), gone.after.records[position]["text"]
            said = words(on, batch["input_ids"][row, :length])
            learnt = batch["labels"][row, :length] != NO_LABEL
            assert " ".join(said[: -len(text.split()) - 1]) in forgotten
            assert [word for word, label in zip(said, learnt.tolist(), strict=True) if label] == [
                *text.split(),
                "<end>",
            ]
            assert not learnt[: length - len(text.split()) - 1].any()


def test_a4_the_scope_term_is_added_to_the_retain_loss_and_to_nothing_else():
    on = work()
    plainly, scoped = NPO().prepare(on), SU(NPO(), 3.0).prepare(on)
    sizes = {"forget": len(on.deletion.forget), "retain": len(on.deletion.after)}
    turn = next(Joint(1).turns(sizes, on.batch_size, 0))
    batches = {role: scoped.streams[role].take(turn.index[role]) for role in turn.index}
    assert scoped.loss("forget", batches["forget"], turn) == plainly.loss("forget", batches["forget"], turn)
    rows = joint_batch(on, on.deletion.forget, on.deletion.after, turn, turn.index["retain"])
    scope = token_mean(*on.task.token_losses(on.model, on.params, rows))
    added = scoped.loss("retain", batches["retain"], turn) - plainly.loss("retain", batches["retain"], turn)
    assert torch.allclose(added, 3.0 * scope) and scope > 0.1


@pytest.mark.parametrize("order", ["forget_first", "retain_first", "random"])
def test_which_question_comes_first_can_be_chosen(order):
    task = language(joint_order=order)
    first, second = unlike().at(range(12)), unlike().at(range(12, 24))
    asked = [record["question"] for record in task.pair(first, second).records]
    forget_first = [q.startswith(record["question"]) for q, record in zip(asked, first.records, strict=True)]
    assert {"forget_first": {True}, "retain_first": {False}, "random": {True, False}}[order] == set(forget_first)
    assert [record["answer"] for record in task.pair(first, second).records] == [r["answer"] for r in second.records]
    assert asked == [record["question"] for record in task.pair(first, second).records]  # not drawn anew


def test_what_cannot_stand_in_one_prompt_is_refused_before_the_first_step():
    narrow = small_language(context=13)  # a question has seven tokens
    request, model = forget_facts(1), narrow.build(seed=0)
    with pytest.raises(
        RefusedError, match=r"leave no room for an answer in 13 tokens.*larger context.*Eligible here: .*npo"
    ):
        planning.plan(planning.adopt(narrow, model, facts()), request, method("npo+su"))
    assert planning.plan(planning.adopt(narrow, model, facts()), request, method("npo")).run()
    wide = small_language(context=15)
    assert planning.plan(planning.adopt(wide, model, facts()), request, method("npo+su")).run()
    mixed = Texts.of([*facts().records[:23], {"text": "what is the pet ?"}], {"entity": facts().columns["entity"]})
    with pytest.raises(RefusedError, match="questions on both sides"):
        planning.plan(planning.adopt(wide, model, mixed), request, method("npo+su"))
    assert too_long(wide, plain_few(0), plain_few(1)) is None and too_long(narrow, facts().at([0]), facts().at([1]))


def plain_few(i: int) -> Texts:
    return Texts.of([{"text": facts().records[i]["question"]}])


def test_a_scope_without_retained_records_or_with_other_rows_is_refused():
    on = work()
    with pytest.raises(InputError, match="eta of 0 or more"):
        SU(NPO(), -1.0)
    with pytest.raises(InputError, match="needs retained records"):
        SU(NPO()).prepare(replace(on, deletion=replace(on.deletion, after=None)))
    twice = Negatives(negatives=lambda work: work.deletion.forget.at([0, 0, 1, 1, 2, 3]))
    with pytest.raises(InputError, match="one row for each forgotten record"):
        SU(twice).prepare(on)
