"""What is known of training when a certificate is made: its record, as far as model, recipe and rows still are what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.trained import Fact, OnRecord, Origin, Trained
from expunge.privacy.certify import weakened
from expunge.training.descent import Step
from expunge.training.facts import prepared, proved_constants


def known_now(before: Trained, parts: Sequence[Any]) -> dict[str, Fact]:
    """The record of training, where how rows were prepared is believed only of the rows as they are after the run.

    Args:
        parts: the rows of the run, all of them.
    """
    facts = _proved_again(before)
    now = [prepared(part).get("preprocessing") for part in parts if "preprocessing" in facts]
    if all(item is not None and item.origin is Origin.ENFORCED for item in now):
        return facts
    note = "the rows are not, or not any more, as a reader made them"
    return {**facts, "preprocessing": weakened(facts["preprocessing"], note)}


def _proved_again(before: Trained) -> dict[str, Fact]:
    """What the record calls proved is proved again of the model as it is now, or is somebody's word; so is all of it where the
    recipe is another one."""
    if not _of_this_recipe(before.recipe, before.facts):
        note = "the recipe is not the one that the record speaks of"
        return {name: weakened(fact, note) for name, fact in before.facts.items()}
    proved = [name for name, fact in before.facts.items() if fact.origin is Origin.PROVED]
    if not proved:
        return dict(before.facts)
    step = Step(1.0, before.fact("l2", 0.0) or 0.0)
    now = proved_constants(before.task, before.task.build(), step)
    wrong = [name for name in proved if name not in now or now[name].value != before.facts[name].value]
    note = "recorded as proved; the model as it is given now does not prove it"
    return {**before.facts, **{name: weakened(before.facts[name], note) for name in wrong}}


def _of_this_recipe(recipe: Any, facts: Mapping[str, Fact]) -> bool:
    own = recipe.on_record() if isinstance(recipe, OnRecord) else {}
    return all(facts[name].value == value for name, value in own.items() if name in facts)
