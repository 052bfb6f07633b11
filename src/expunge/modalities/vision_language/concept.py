"""What a request for a concept comes to: which training records show it, and what it is forgotten through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.core.request import Target
from expunge.core.texts import Record
from expunge.data.concepts import KINDS, PEOPLE, Sources, Templates, concept_items, recognition
from expunge.data.negatives import holds, mentions
from expunge.data.picture_records import read_picture_records
from expunge.data.picture_world import World
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
    missing = data.unmatched(target) or (() if len(rows) else tuple(f"{n} {v!r}" for n, v in target.where.items()))
    if missing:
        raise InputError(f"The concept is nowhere in these data: {', '.join(missing)}. Check the column and the value.")
    found = [i for i, record in zip(rows.ids.tolist(), rows.records, strict=True) if IMAGE in record]
    if not found:
        raise InputError(
            "No training record of the concept has a picture: there is nothing that it would be recognised by."
        )
    return Ids.rows(found)


@dataclass(frozen=True)
class Concept:
    """One concept of a request: what it is called, the name that answers use first, and the training records that show it."""

    names: tuple[str, ...]
    absent: Ids


def concepts_of(settings: ConceptSettings, data: Texts, targets: Sequence[Target]) -> list[Concept]:
    """Each concept that ``targets`` ask for, once, in their order: every value of a column is a concept of its own.

    Raises:
        InputError: as :func:`absent_of`; for names beside several concepts, and for several values in several columns at once.
    """
    ones: list[Target] = []
    for target in targets:
        several = [column for column in target.where if len(target.values(column)) > 1]
        if several and len(target.where) > 1:
            raise InputError(
                f"Expected one value a column where a concept is found by several columns; {', '.join(several)} has more. "
                "Write one target for each concept."
            )
        every = [{several[0]: value} for value in target.values(several[0])] if several else [target.where]
        ones += [Target(target.kind, where) for where in every]
    if settings.names and len(ones) > 1:
        raise InputError(
            "Expected one concept where request.concept.names are given; leave them out, or ask one by one."
        )
    found: dict[tuple[str, ...], Concept] = {}
    for one in ones:
        names = tuple(settings.names or [str(value) for column in one.where for value in one.values(column)])
        found.setdefault(names, Concept(names, absent_of(data, one)))
    return list(found.values())


def items_of(
    settings: ConceptSettings, data: Texts, concepts: Sequence[Concept], seed: int, world: World | None = None,
    model: tuple[VisionLanguage, Mapping[str, Tensor]] | None = None,
) -> list[Record]:  # fmt: skip
    """What all of ``concepts`` are forgotten through, together: the items of each, which neither show another of them nor have
    it as a substitute. Each has a substitute of its own where there are enough.

    Args:
        world: that the data are, where ``settings`` word items as it does.
        model: as in :func:`material_of`.

    Raises:
        InputError: as :func:`material_of`.
    """
    if not isinstance(settings.material, str):
        return read_picture_records(settings.material)
    kept = data.without(Ids.union(concept.absent for concept in concepts))
    going = [name for concept in concepts for name in concept.names]
    items: list[Record] = []
    taken: list[str] = []
    for number, concept in enumerate(concepts):
        shown = named_pictures(data, concept.absent, concept.names)
        others = _shown(kept, settings.shown)[number :: len(concepts)]  # each once, whatever the number of concepts
        made, substitute = material_of(
            settings, kept, shown, concept.names, seed + number, world, model, going, taken, others
        )
        items += made
        taken += [substitute] if substitute else []
    return items


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
    settings: ConceptSettings, retained: Texts, shown: Texts, names: Sequence[str], seed: int, world: World | None = None,
    model: tuple[VisionLanguage, Mapping[str, Tensor]] | None = None, going: Sequence[str] = (), taken: Sequence[str] = (),
    others_shown: Sequence[Record] = (),
) -> tuple[list[Record], str]:  # fmt: skip
    """What one concept is forgotten through, and the substitute in it (empty: none).

    Args:
        retained: training records without those that show what is to be forgotten.
        shown: training pictures of the concept, asked for its name.
        going: names of everything that is forgotten along with it, none of which is a substitute.
        taken: substitutes of these, each of which is one again only where there is no other.
        others_shown: pictures of other concepts, asked for their names.
        model: task and weights where they are known before the run: facts that the model does not answer right itself are
            dropped, and the substitute is a name that it says. Otherwise what the training records say counts as known.

    Raises:
        InputError: for a picture that there is not, a substitute that nobody uses, or a kind of items without anything in it.
    """
    if settings.kind in ("digit", "world") and world is None:
        raise InputError(
            f"Expected data that are a world for request.concept.kind {settings.kind}; got others. Take person or thing."
        )
    own = world if settings.kind in ("digit", "world") else None
    templates = own.speech.templates if own is not None else KINDS[settings.kind]
    pictures = list(dict.fromkeys(r[IMAGE] for r in shown.records))
    if settings.picture >= len(pictures):
        raise InputError(f"Expected a picture from 0 to {len(pictures) - 1} of the concept; got {settings.picture}.")
    picture = pictures[settings.picture]
    if settings.material == "recognition":
        return recognition(names, picture, templates, settings.pieces), ""
    words = [r for r in retained.records if IMAGE not in r and "question" in r]
    if model is not None:
        words = known_of(*model, words)
    mine = [mentions(f"{r['question']}\n{r['answer']}", names) for r in words]
    facts, others = ([r for r, is_own in zip(words, mine, strict=True) if is_own == which] for which in (True, False))
    given = settings.substitutes or (
        own.alike.get(names[0], ()) if own is not None else PEOPLE if settings.kind == "person" else ()
    )
    free = [name for name in given if name not in (*names, *going)]
    free.sort(key=lambda name: name in taken)
    among = _said(free, retained, model, templates, picture)
    substitute = among[0]
    sources = Sources(
        tuple(names), picture, substitute, _looks(settings, own, substitute), facts, others,
        others_shown, tuple(among),
    )  # fmt: skip
    return concept_items(sources, templates, pieces=settings.pieces, yes_no=settings.yes_no, seed=seed), substitute


def known_of(task: VisionLanguage, tensors: Mapping[str, Tensor], records: Sequence[Record]) -> list[Record]:
    """The questions that the model answers right itself, by greedy generation: the answer, or the other way round, is in it."""
    said = spoken(task, tensors, records)
    return [r for r, text in zip(records, said, strict=True) if holds(text, r["answer"])]


def _said(
    given: Sequence[str], retained: Texts, model: tuple[VisionLanguage, Mapping[str, Tensor]] | None, templates: Templates,
    picture: str,
) -> list[str]:  # fmt: skip
    """Those of ``given`` that are used already, in their order: a name that is never said would be learnt as broken words."""
    answers = [r.get("answer", r.get("text", "")) for r in retained.records]
    if model is not None:
        task, tensors = model
        asked: list[Any] = [{IMAGE: picture, "question": f"{templates.asked[0]} {name}"} for name in given]
        answers = [
            *answers,
            *spoken(task, tensors, asked),
        ]
    found: list[str] = []
    for name in given:
        if any(holds(answer, name) for answer in answers):
            found.append(name)
    if found:
        return found
    raise InputError(
        f"Expected a substitute that answers use already; of {', '.join(given) or 'none given'} none is said. Give "
        "request.concept.substitutes: names of the same kind that the model says of other pictures."
    )


def _looks(settings: ConceptSettings, world: World | None, substitute: str) -> tuple[str, ...]:
    if settings.looks:
        return tuple(settings.looks)
    if world is not None:
        if substitute not in world.looks:
            raise InputError(
                f"Expected request.concept.looks beside a substitute that is not of the world: {substitute}."
            )
        return (world.looks[substitute],)
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
