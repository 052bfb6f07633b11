"""What is asked about a concept to see whether it is still recognised: which records of a set are about it, and further sets.

MMUBench (arXiv 2405.12523) asks open questions and questions by yes or no; each record says which concept it mentions, and the
rest follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from expunge.core.measurement import SHOWN_PICTURE
from expunge.core.request import Kind, Target
from expunge.core.texts import Record
from expunge.data.concepts import OTHERS, TARGET
from expunge.data.negatives import mentions
from expunge.data.picture_world import World
from expunge.data.pictures import IMAGE
from expunge.data.texts import Texts
from expunge.evidence.membership import FORGET
from expunge.metrics.recognition import affirmed, named
from expunge.modalities.modality import Asked
from expunge.modalities.vision_language.config import ConceptSettings, VisionLanguageJob, WorldData

# Keys of a record: names of a concept that it mentions; one fact, two modalities; what an answer that recognises it says
MENTIONS, PAIR, PHRASES = "mentions_concept", "pair", "phrases"
WORDINGS = 10  # questions about the picture that was shown; our choice
PAIRS, PAIRS_OTHERS = "pairs", "pairs_others"
EACH = 5  # pictures of each other concept whose look is asked in both modalities; our choice


def measured(job: VisionLanguageJob, asked: Asked[Texts]) -> Asked[Texts]:
    """``asked`` with records marked that mention a concept of the request, and further sets: the picture that was shown,
    and, of a world, facts in both modalities. Requests for anything but concepts stay as they are.
    """
    targets = [target for target in asked.request.targets if target.kind == Kind.CONCEPT]
    if not targets or asked.material is None:
        return asked
    concepts = called(job.request.concept, targets)
    sets: dict[str, Any] = dict(asked.probes)
    if shown := about_shown(asked.material.records, sets[FORGET].records):
        sets[SHOWN_PICTURE] = Texts.of(shown)
    if isinstance(job.data, WorldData):
        gone = {name for names in concepts for name in names}
        sets |= {name: Texts.of(each) for name, each in both_modalities(job.data.world(), gone).items() if each}
    return replace(asked, probes={name: marked(texts, concepts) for name, texts in sets.items()})


def called(settings: ConceptSettings, targets: Sequence[Target]) -> list[list[str]]:
    """The names of each concept that ``targets`` ask for, as ``concept.concepts_of`` has them."""
    if settings.names:
        return [list(settings.names)]
    found: list[list[str]] = []
    for target in targets:
        values = [[str(value) for value in target.values(column)] for column in target.where]
        found += [[value] for value in values[0]] if len(values) == 1 else [[own for each in values for own in each]]
    return found


def marked(texts: Texts, concepts: Sequence[Sequence[str]]) -> Texts:
    """``texts`` whose records say, under :data:`MENTIONS`, the names of the concept that their question or answer mentions."""

    def one(record: Record) -> Record:
        said = f"{record.get('question', '')}\n{record.get('answer', '')}"
        found = [list(names) for names in concepts if mentions(said, names)]
        return {**record, MENTIONS: found[0]} if found else record  # type: ignore[return-value]

    return texts.worded([one(record) for record in texts.records])


def about_shown(material: Sequence[Mapping[str, Any]], forget: Sequence[Record]) -> list[Record]:
    """The picture that the concept is forgotten through with its right answer, in the wordings that training asked in."""
    pictures = {r[IMAGE] for r in material if IMAGE in r and r.get(TARGET) != OTHERS}
    wordings = list(dict.fromkeys(str(record["question"]) for record in forget))[:WORDINGS]
    own = {record[IMAGE]: record for record in forget if record.get(IMAGE) in pictures}
    return [{**record, "question": wording} for record in own.values() for wording in wordings]


def both_modalities(world: World, gone: Collection[str]) -> dict[str, list[Record]]:
    """How the concepts ``gone`` look and how the others do, each asked in words and about a held-out picture."""
    others = set(world.names) - set(gone)
    return {PAIRS: looks_of(world, gone), PAIRS_OTHERS: looks_of(world, others, EACH)}


def looks_of(world: World, names: Collection[str], each: int | None = None) -> list[Record]:
    """How concepts look, asked in words and about a held-out picture: two records with one :data:`PAIR`."""
    found: list[Any] = []
    for name in world.names:
        words = [fact for fact in world.facts.get(name, ()) if fact.get("relation") == "look"] if name in names else []
        pictures = [picture for picture, shows in world.held_out if shows == name][:each]
        for i, picture in enumerate(pictures if words else ()):
            asked, pair = world.speech.asked_look, {PAIR: f"{name} {i}"}
            seen = {IMAGE: picture, "question": asked[i % len(asked)]}
            found += [
                {**pair, **{key: words[i % len(words)][key] for key in ("question", "answer")}},
                {**pair, **seen, "answer": world.speech.look.format(look=world.looks[name])},
            ]
    return found


def names_in(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the concept that a record mentions; none where it mentions none."""
    return tuple(record.get(MENTIONS, ()))


def recognises(answer: str, record: Mapping[str, Any], names: Sequence[str]) -> bool:
    """Whether an answer names the concept ``names`` that ``record`` asks about: one of the record's own phrases, as a whole,
    or, where it has none, a word of a name.
    """
    return mentions(answer, record[PHRASES]) if record.get(PHRASES) else bool(named([answer], names)[0])


def is_open(record: Mapping[str, Any]) -> bool:
    """Whether a record is an open question about a picture of the concept: the right answer names it, the question does not."""
    if IMAGE not in record or not names_in(record):
        return False
    return mentions(record["answer"], names_in(record)) and not mentions(str(record["question"]), names_in(record))


def asks_by_name(record: Mapping[str, Any]) -> bool:
    """Whether a record asks by yes or no if a picture shows the concept, which it does."""
    if IMAGE not in record or not names_in(record):
        return False
    return mentions(str(record["question"]), names_in(record)) and bool(affirmed([record["answer"]])[0])


def positions(records: Sequence[Mapping[str, Any]], which: Callable[[Any], bool]) -> list[int]:
    """Positions of the records of which ``which`` holds."""
    return [i for i, record in enumerate(records) if which(record)]
