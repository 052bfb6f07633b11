"""What a job on a model that sees asks to be forgotten, where that is a concept."""

from __future__ import annotations

from typing import Any

import numpy as np

from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.core.request import Kind
from expunge.data import digits_world
from expunge.data.texts import Texts
from expunge.evidence.membership import FORGET
from expunge.modalities.language.asking import fitted
from expunge.modalities.modality import Asked, Opened
from expunge.modalities.vision_language import concept
from expunge.modalities.vision_language.config import DigitsData, VisionLanguageJob

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
    if settings.names and len(request.targets) > 1:
        raise InputError(
            "Expected one concept where request.concept.names are given; leave them out, or ask one by one."
        )
    material, forget, every = [], [], Ids.none()
    model = (opened.task, opened.weights) if opened.recipe is None and opened.weights is not None else None
    names: list[str] = []
    absences = [concept.absent_of(opened.data, target) for target in request.targets]
    every = Ids.union(absences)
    for target, absent in zip(request.targets, absences, strict=True):
        called = concept.names_of(settings, target)
        names += called
        forget += concept.named_pictures(opened.data, absent, called).ids.tolist()
        material += concept.material_of(settings, opened.data, absent, called, job.seed, model)
    fit = fitted(job, opened.task, opened.files, every)
    sets = {**fit.sets, FORGET: opened.data.at(np.flatnonzero(np.isin(opened.data.ids, forget)))}
    if isinstance(job.data, DigitsData):
        sets = {**digit_sets(digits_world.digits_world(job.data.views, job.data.seed), names), **sets}
    note = f"Pictures of the concept: {len(every):,} training records, which retraining leaves out."
    return Asked(
        request,
        lost=fit.dropped - every,
        probes=sets,
        note=f"{note} {fit.note}".strip(),
        material=Texts.of(material),
        absent=every,
    )


def digit_sets(world: digits_world.DigitsWorld, names: list[str]) -> dict[str, Texts]:
    """Held-out pictures of the digits to be forgotten, of the others, yes-or-no questions, and facts."""
    gone = [name for name in digits_world.NAMES if name in names]
    others = [name for name in digits_world.NAMES if name not in names]
    sets = {
        "unseen": world.named(*gone), "yes_no": world.yes_no(*gone), "test": world.named(*others),
        "yes_no_others": [*world.yes_no(*others), *world.yes_no(*others, right=False)],
        "facts": [fact for name in gone for fact in digits_world.facts_of(name)],
        "facts_others": [fact for name in others for fact in digits_world.facts_of(name)],
    }  # fmt: skip
    return {name: Texts.of(records) for name, records in sets.items() if records}
