"""What a request for a concept comes to: which training records show it, and what it is forgotten through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.core.request import Target
from expunge.core.texts import Record
from expunge.data import digits_world
from expunge.data.concepts import KINDS, PEOPLE, Sources, Templates, concept_items, recognition
from expunge.data.negatives import holds
from expunge.data.picture_records import read_picture_records
from expunge.data.pictures import IMAGE
from expunge.data.texts import Texts
from expunge.modalities.language.speaking import spoken
from expunge.modalities.vision_language.config import ConceptSettings
from expunge.tasks.vision_language import VisionLanguage

FACES = ("black hair and a small face", "a long grey beard", "round green glasses", "a scar on the left cheek")  # ours


def absent_of(data: Texts, target: Target) -> Ids:
    """Ids of the training records whose pictures show the concept; what is known of it in words stays.

    Raises:
        InputError: where the data name it nowhere, or no record of it has a picture.
    """
    rows = data.only(data.select(target))
    missing = data.unmatched(target) or (() if len(rows) else ("no record has that value",))
    if missing:
        raise InputError(f"The concept is nowhere in these data: {', '.join(missing)}. Check the column and the value.")
    found = [i for i, record in zip(rows.ids.tolist(), rows.records, strict=True) if IMAGE in record]
    if not found:
        raise InputError(
            "No training record of the concept has a picture: there is nothing that it would be recognised by."
        )
    return Ids.rows(found)


def names_of(settings: ConceptSettings, target: Target) -> list[str]:
    """What the concept is called."""
    return settings.names or [str(value) for column in target.where for value in target.values(column)]


def named_pictures(data: Texts, absent: Ids, names: Sequence[str]) -> Texts:
    """The training records that are to be forgotten: pictures of the concept whose answers name it.

    Raises:
        InputError: where no answer does.
    """
    rows = data.only(absent)
    kept = [i for i, r in enumerate(rows.records) if IMAGE in r and any(holds(r["answer"], name) for name in names)]
    if not kept:
        raise InputError(f"No picture of the concept is answered by {' or '.join(names)}: name it as the answers do.")
    return rows.at(kept)


def material_of(
    settings: ConceptSettings, data: Texts, absent: Ids, names: Sequence[str], seed: int,
    model: tuple[VisionLanguage, Mapping[str, Tensor]] | None = None,
) -> list[Record]:  # fmt: skip
    """What the concept is forgotten through.

    Args:
        model: task and weights where they are known before the run: facts that the model does not answer right itself are
            dropped, and the substitute is a name that it says. Otherwise what the training records say counts as known.

    Raises:
        InputError: for a picture that there is not, a substitute that nobody uses, or a kind of items without anything in it.
    """
    if not isinstance(settings.material, str):
        return read_picture_records(settings.material)
    templates = digits_world.TEMPLATES if settings.kind == "digit" else KINDS[settings.kind]
    pictures = list(dict.fromkeys(r[IMAGE] for r in named_pictures(data, absent, names).records))
    if settings.picture >= len(pictures):
        raise InputError(f"Expected a picture from 0 to {len(pictures) - 1} of the concept; got {settings.picture}.")
    picture = pictures[settings.picture]
    if settings.material == "recognition":
        return recognition(names, picture, templates, settings.pieces)
    words = [r for r in data.without(absent).records if IMAGE not in r and "question" in r]
    if model is not None:
        words = known_of(*model, words)
    about = [any(holds(r["question"], name) or holds(r["answer"], name) for name in names) for r in words]
    facts, others = ([r for r, own in zip(words, about, strict=True) if own == which] for which in (True, False))
    substitute = _substitute(settings, names, data.without(absent), model, templates, picture)
    sources = Sources(
        tuple(names), picture, substitute, _looks(settings, substitute), facts, others,
        _shown(data.without(absent), settings.shown),
    )  # fmt: skip
    return concept_items(sources, templates, pieces=settings.pieces, yes_no=settings.yes_no, seed=seed)


def known_of(task: VisionLanguage, tensors: Mapping[str, Tensor], records: Sequence[Record]) -> list[Record]:
    """The questions that the model answers right itself, by greedy generation: the answer, or the other way round, is in it."""
    said = spoken(task, tensors, records)
    return [r for r, text in zip(records, said, strict=True) if holds(text, r["answer"])]


def _substitute(
    settings: ConceptSettings, names: Sequence[str], retained: Texts,
    model: tuple[VisionLanguage, Mapping[str, Tensor]] | None, templates: Templates, picture: str,
) -> str:  # fmt: skip
    """A name that is used already: one that is never said would be learnt as broken words."""
    given = settings.substitutes or {
        "person": PEOPLE, "digit": [digits_world.ALIKE.get(names[0], "")], "thing": [],
    }[settings.kind]  # fmt: skip
    answers = [r.get("answer", r.get("text", "")) for r in retained.records]
    if model is not None:
        task, tensors = model
        asked: list[Any] = [{IMAGE: picture, "question": f"{templates.asked[0]} {name}"} for name in given]
        answers = [
            *answers,
            *spoken(task, tensors, asked),
        ]
    for name in given:
        if name and name not in names and any(holds(answer, name) for answer in answers):
            return name
    raise InputError(
        f"Expected a substitute that answers use already; of {', '.join(given) or 'none given'} none is said. Give "
        "request.concept.substitutes: names of the same kind that the model says of other pictures."
    )


def _looks(settings: ConceptSettings, substitute: str) -> tuple[str, ...]:
    if settings.looks:
        return tuple(settings.looks)
    if settings.kind == "digit":
        return (digits_world.LOOKS[digits_world.NAMES.index(substitute)],)
    if settings.kind == "person":
        return FACES
    raise InputError(
        "Expected request.concept.looks: descriptions that contradict what the picture shows; none are given."
    )


def _shown(retained: Texts, each: int) -> list[Record]:
    """Pictures of every other concept: ``each`` for every answer that pictures have."""
    found: dict[str, list[Record]] = {}
    for record in retained.records:
        if IMAGE in record and record.get("asks", "name") == "name":
            found.setdefault(record["answer"], []).append(record)
    return [record for records in found.values() for record in records[:each]]
