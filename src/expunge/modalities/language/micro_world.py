"""Made-up facts, and a tiny model that learns them from scratch."""

from __future__ import annotations

import numpy as np

from expunge.data import micro_world
from expunge.modalities.language.questions import Facts, right_words
from expunge.modalities.language.recipes import MicroWorld


def micro_facts(world: MicroWorld) -> Facts:
    """The facts about as many entities and cities as the recipe says."""
    from expunge.tasks.micro_language import micro_language

    data, entities = micro_world.micro_world(), micro_world.entities()[: world.entities]
    known = [*entities, *micro_world.cities()[: world.cities]]
    task = micro_language(micro_world.vocabulary(), **world.model)
    facts = data.at(np.flatnonzero(np.isin(data.columns[micro_world.SUBJECT], known)))
    return Facts(task, facts, micro_world.SUBJECT, entities, right_words)
