"""Refusals and answer preservation by a loop over rows, in double precision."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from cases import CASES, UNSURE, facts, forget_facts, method
from descent.languages import moved, work
from expunge import planning
from expunge.core.errors import InputError, RefusedError
from expunge.data.texts import Texts
from expunge.descent.schedule import Turn
from expunge.methods.idk_ap import IDKAP, answer_preference
from expunge.tasks.prompts import NO_LABEL

REFUSALS = (UNSURE, "please what is")


def summed(on: Any, ids: Tensor, labels: Tensor) -> Tensor:
    """-log p of the labels of one row, by a pass over that row alone."""
    length = int((ids != on.task.prompts.padding).nonzero().max()) + 1
    length = max(length, int((labels != NO_LABEL).nonzero().max()) + 1)
    logs = on.model(input_ids=ids[None, :length]).logits[0].log_softmax(-1)
    return -sum(logs[t - 1, labels[t]] for t in range(1, length) if labels[t] != NO_LABEL)


@pytest.mark.parametrize("beta", [0.1, 1.5])
@pytest.mark.parametrize("seed", range(3))
def test_retained_answers_are_held_against_refusals_of_the_same_questions(seed, beta):
    on = moved(work(seed=seed), seed=seed)
    ready = IDKAP(refusals=REFUSALS, beta=beta, alpha=0.7).prepare(on)
    batch = ready.streams["retain"].take(torch.tensor([5, 1, 2]))
    by_hand = []
    for i in range(3):
        answer = summed(on, batch["input_ids"][i], batch["labels"][i])
        refusal = summed(on, batch["refusal_input_ids"][i], batch["refusal_labels"][i])
        by_hand.append(-logsigmoid(beta * (refusal - answer)) / beta)
    assert torch.allclose(ready.loss("retain", batch, Turn("retain", 0, 1, 0, True, {})), 0.7 * sum(by_hand) / 3)
    for i, position in enumerate((5, 1, 2)):  # the question is the row's own, and the answer is a refusal
        asked = on.task.prompts.prompt_tokens([on.deletion.after.records[position]["question"]])[0]
        assert batch["refusal_input_ids"][i, : len(asked)].tolist() == asked
        said = [int(label) for label in batch["refusal_labels"][i] if label != NO_LABEL]
        known = [ids for ids in on.task.prompts.tokenizer(list(REFUSALS))["input_ids"]]
        assert said[:-1] in known


def test_forgotten_questions_are_refused_by_a_mean_of_their_own():
    on = moved(work())
    ready = IDKAP(refusals=REFUSALS).prepare(on)
    batch = ready.streams["forget"]
    sums = [summed(on, ids, labels) for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True)]
    joint = Turn("joint", 0, 1, 0, True, {"forget": torch.arange(4), "retain": torch.arange(4)})
    count = int((batch["labels"] != NO_LABEL).sum())
    assert torch.allclose(ready.loss("forget", batch, joint), sum(sums) / count)


def test_answer_preference_where_both_are_as_likely_and_where_the_answer_is():
    same = torch.tensor([3.0, 50.0], dtype=torch.float64)
    assert torch.allclose(answer_preference(same, same, 0.1), torch.tensor(math.log(2) / 0.1).double())
    assert answer_preference(torch.tensor([500.0]), torch.tensor([1.0]), 0.1) < 1e-6


def test_what_it_cannot_do_is_refused():
    case = CASES["language"]
    texts = Texts.of(
        [{"text": record["question"]} for record in facts().records], {"entity": facts().columns["entity"]}
    )
    model = planning.adopt(case.task, case.task.build(), texts)
    with pytest.raises(RefusedError, match="a plain text asks none"):
        planning.plan(model, forget_facts(1), method("idk_ap"))
    for bad, match in (({"retain": "nll"}, "a retain loss ap"), ({"beta": 0.0}, "above 0 as beta")):
        with pytest.raises(InputError, match=match):
            IDKAP(**bad)
