"""What a job on a model that sees asks to be forgotten, where that is a concept."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.core.measurement import PART
from expunge.core.request import Kind
from expunge.data.picture_world import CONCEPT, World
from expunge.data.texts import Texts
from expunge.evidence.membership import FORGET
from expunge.modalities.language.asking import fitted
from expunge.modalities.modality import Asked, Opened
from expunge.modalities.settings import StoredTraining
from expunge.modalities.vision_language import concept
from expunge.modalities.vision_language.config import VisionLanguageJob, WorldData
from expunge.training.store import stored_ids

RECOGNISED = (
    0.5  # share of the pictures of a concept that the model must name before: below it EM would measure ignorance; ours
)


def concept_asked(job: VisionLanguageJob, opened: Opened[Any, Texts]) -> Asked[Texts]:
    """The request, the training records that show the concept, and the material that it is forgotten through.

    Raises:
        InputError: for concepts beside other targets, a wording of a concept's own, or as :mod:`.concept`.
    """
    settings, request = job.request.concept, job.request.asked()
    if {target.kind for target in request.targets} != {Kind.CONCEPT} or job.request.wording or job.request.records:
        raise InputError(
            "Expected concepts alone in a request for concepts: records and wordings of others belong into another."
        )
    held = stored_ids(job.training.folder) if isinstance(job.training, StoredTraining) else None
    data = opened.data if held is None else opened.data.only(held)  # what earlier requests took is no part of it
    model = (opened.task, opened.weights) if opened.recipe is None and opened.weights is not None else None
    concepts = concept.concepts_of(settings, data, request.targets)
    every = Ids.union(each.absent for each in concepts)
    world = job.data.world() if isinstance(job.data, WorldData) else None
    material = concept.items_of(settings, data, concepts, job.seed, world, model)
    fit = fitted(job, opened.task, opened.files, every)
    shown = [concept.named_pictures(data, each.absent, each.names) for each in concepts]
    sets = {**fit.sets, FORGET: data.only(Ids.rows(np.concatenate([each.ids for each in shown])))}
    if len(concepts) > 1:
        sets |= {f"{FORGET}{PART}{number}": each for number, each in enumerate(shown, 1)}
    if world is not None:
        there = {*data.columns[CONCEPT].tolist()}
        sets = {**world_sets(world, [each.names for each in concepts], there), **sets}
    note = f"Pictures of the concept: {len(every):,} training records, which retraining leaves out."
    return Asked(
        request,
        lost=fit.dropped - every,
        probes=sets,
        note=f"{note} {fit.note}".strip(),
        material=Texts.of(material),
        absent=every,
    )


def world_sets(world: World, concepts: Sequence[Sequence[str]], there: Collection[str]) -> dict[str, Texts]:
    """Held-out pictures of what is to be forgotten, of the others, yes-or-no questions, and facts; of several concepts also
    those of each, and pictures of concepts that earlier requests took, which are not among ``there``.
    """
    going = [name for name in world.names if any(name in names for names in concepts)]
    others = [name for name in world.names if name in there and name not in going]
    sets = {
        "unseen": world.named(*going), "yes_no": world.yes_no(*going), "test": world.named(*others),
        "yes_no_others": [*world.yes_no(*others), *world.yes_no(*others, right=False)],
        "facts": [fact for name in going for fact in world.facts[name]],
        "facts_others": [fact for name in world.names if name not in going for fact in world.facts[name]],
        "other_style": world.named(*going, other_style=True),
        "forgotten_before": world.named(*(name for name in world.names if name not in there)),
    }  # fmt: skip
    for number, names in enumerate(concepts if len(concepts) > 1 else (), 1):
        sets[f"unseen{PART}{number}"] = world.named(*names)
        sets[f"yes_no{PART}{number}"] = world.yes_no(*names)
        sets[f"facts{PART}{number}"] = [fact for name in names if name in world.facts for fact in world.facts[name]]
    return {name: Texts.of(records) for name, records in sets.items() if records}
