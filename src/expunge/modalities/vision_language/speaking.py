"""What a model answers in words, with as many tokens as its context has room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from expunge.core.task import Task, autoregressive
from expunge.core.texts import Record
from expunge.tasks.generation import generate

NEW_TOKENS = 24  # of an answer; the facts of TOFU need no more


def spoken(task: Task, tensors: Mapping[str, Tensor], records: Sequence[Record]) -> list[str]:
    """The greedy answer to each question, at most :data:`NEW_TOKENS` tokens and no more than fit behind the longest."""
    if not records:
        return []
    task = autoregressive(task)
    longest = max(len(prompt) for prompt in task.prompts.prompt_tokens(records))
    most = max(1, min(NEW_TOKENS, task.prompts.context - longest))
    return generate(task, task.build(tensors, share=True), records, max_new_tokens=most)
