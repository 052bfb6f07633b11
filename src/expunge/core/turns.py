"""A conversation as the question of a record: earlier turns, and the one that is answered, in one text.

Whatever handles questions as texts (caches, requests, metrics, generation) handles conversations so. A question of one user
turn is that turn itself. Separators are characters that text does not hold: U+001E before a turn, U+001F after its role.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TURN, SAYS = "\x1e", "\x1f"
ROLES = ("system", "user", "assistant")


def as_question(turns: Sequence[Mapping[str, str]]) -> str:
    """Turns (each with ``role`` and ``content``) that end with one of the user, as a question."""
    if len(turns) == 1:
        return turns[0]["content"]
    return "".join(f"{TURN}{turn['role']}{SAYS}{turn['content']}" for turn in turns)


def turns_of(question: str) -> list[dict[str, str]]:
    """The turns of a question; a text that was put before a conversation belongs to the turn that is answered."""
    before, *turns = question.split(TURN)
    if not turns:
        return [{"role": "user", "content": question}]
    found = []
    for turn in turns:
        role, _, content = turn.partition(SAYS)
        found.append({"role": role, "content": content})
    found[-1]["content"] = before + found[-1]["content"]
    return found


def last_turn(question: str) -> str:
    """The turn that is answered."""
    return turns_of(question)[-1]["content"]


def with_last_turn(question: str, text: str) -> str:
    """The same conversation with ``text`` as the turn that is answered."""
    return as_question([*turns_of(question)[:-1], {"role": "user", "content": text}])
