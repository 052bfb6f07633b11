"""What a language model answers: greedy generation in batches, so that no answer depends on its neighbours in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.errors import InputError
from expunge.core.task import Autoregressive
from expunge.core.texts import Record
from expunge.tasks.language import in_batches
from expunge.tasks.passes import ANSWERS, evaluating


def with_room(task: Autoregressive, questions: Sequence[str | Record], max_new_tokens: int) -> list[int]:
    """Positions of the questions whose prompt leaves room for ``max_new_tokens`` in the context; the others are not cut."""
    prompts = task.prompts.prompt_tokens(questions)
    return [i for i, prompt in enumerate(prompts) if len(prompt) + max_new_tokens <= task.prompts.context]


@torch.no_grad()
def generate(
    task: Autoregressive,
    model: nn.Module,
    questions: Sequence[str | Record],
    *,
    max_new_tokens: int,
    batch_size: int = ANSWERS,
) -> list[str]:
    """The model's likeliest answer to each question, token by token, up to the end token or ``max_new_tokens``.

    Prompts are filled up on the left and masked by their lengths, so that the filling token may be the end token; a batch
    holds prompts of like length. The model answers in eval mode and is given back in the mode it came in.

    Args:
        questions: texts, or records with a question, whose pictures the model sees where it can.
        max_new_tokens: most tokens of an answer; TOFU takes 200.

    Returns:
        for each question a text without special tokens and without white space around it.

    Raises:
        InputError: if a prompt leaves no room for so many tokens (:func:`with_room` tells before), or holds none.
    """
    if max_new_tokens < 1 or batch_size < 1:
        raise InputError(f"Expected max_new_tokens and batch_size of at least 1; got {max_new_tokens}, {batch_size}.")
    prompts = task.prompts.prompt_tokens(questions)
    _check_room(prompts, max_new_tokens, task.prompts.context)
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))  # longest first: what needs most memory
    answers = [""] * len(prompts)
    with evaluating(model):
        for part in in_batches(len(order), batch_size):
            asked = [questions[i] for i in order[part]]
            found = _greedy(task, model, asked, [prompts[i] for i in order[part]], max_new_tokens)
            for i, tokens in zip(order[part], found, strict=True):
                answers[i] = task.prompts.tokenizer.decode(tokens, skip_special_tokens=True).strip()
    return answers


def _greedy(
    task: Autoregressive, model: Any, asked: Sequence[str | Record], prompts: Sequence[Sequence[int]], most: int
) -> list[list[int]]:
    """The likeliest next tokens after each of ``prompts``, one batch, without the end token."""
    ids, mask = _left_padded(task, prompts)
    options = {"max_new_tokens": most, "do_sample": False, "num_beams": 1, "use_cache": True}
    said = model.generate(
        input_ids=ids,
        attention_mask=mask,
        eos_token_id=task.prompts.end_token,
        pad_token_id=task.prompts.padding,
        **task.seen(model, asked, ids),
        **options,
    )
    return [_before(row, task.prompts.end_token) for row in said[:, ids.shape[1] :].tolist()]


def _before(tokens: list[int], end: int) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens


def _left_padded(task: Autoregressive, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), task.prompts.padding)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):
        ids[i, longest - len(prompt) :] = torch.tensor(prompt)
        mask[i, longest - len(prompt) :] = 1
    return ids.to(task.device), mask.to(task.device)


def _check_room(prompts: Sequence[Sequence[int]], most: int, context: int) -> None:
    if any(not prompt for prompt in prompts):
        raise InputError("Expected prompts with at least one token; one has none. Fill in the question.")
    if full := [i for i, prompt in enumerate(prompts) if len(prompt) + most > context]:
        longest = max(len(prompts[i]) for i in full)
        raise InputError(
            f"{len(full)} of {len(prompts)} prompts leave no room for {most} tokens in a context of {context}, the first at "
            f"position {full[0]}; the longest has {longest}. Take a larger context, a smaller max_new_tokens, or drop them "
            "(with_room) and say how many."
        )
