"""Pictures of concepts that a model recognises, as MMUBench (arXiv 2405.12523) selects them, and what is asked about them.

``python -m expunge.modalities.vision_language.construction PICTURES MODEL OUT`` reads one folder of pictures for each concept
(``data.concept_folders``) and a model's folder, and writes a folder that jobs read as ``image_folder`` and recipes as
``concept_folder``. What the paper leaves open is marked.
"""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from expunge.core.errors import InputError
from expunge.core.files import make_folder, read_json
from expunge.core.texts import CONTEXT, Record
from expunge.data.concept_folders import ConceptPictures, read_concept_folders
from expunge.data.concepts import KINDS, Templates
from expunge.data.negatives import mentions
from expunge.data.picture_records import FILE_NAME, METADATA
from expunge.data.picture_world import CONCEPT, WORDS
from expunge.data.pictures import IMAGE
from expunge.modalities.language.speaking import spoken
from expunge.modalities.vision_language.questions import PHRASES
from expunge.objectives.concept import STOP_WORDS
from expunge.tasks.picture_features import picture_features
from expunge.tasks.vision_language import VisionLanguage

ALIKE = (
    0.3  # least similarity to the seed picture; measured on handwritten digits (docs/vision_language.md). Our choice
)
LEAST = 2  # pictures that a concept must have left: one is shown, the rest are tests. The paper collects 50
YES = "Yes."
COUNTS, OPEN, YES_NO = "counts.json", "open.jsonl", "yes_no.jsonl"
Similarity = Callable[[Sequence[str], Sequence[int]], np.ndarray]  # n pictures, the seed of each → (n,)


@dataclass(frozen=True)
class Count:
    """What became of the pictures of one concept.

    Attributes:
        concept: its name. pictures: how many were found.
        unlike: files that the first filter dropped; unrecognised: files on which the model did not name it.
        why: why the concept is dropped; empty: it is kept.
    """

    concept: str
    pictures: int
    unlike: tuple[str, ...]
    unrecognised: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Constructed:
    """Concepts that are recognised on every picture, with what is asked about these.

    Attributes:
        train: of each concept its seed picture, asked for its name.
        test: of each concept its other pictures, asked openly; ``yes_no``: asked whether they show it. Each open question has
            under ``phrases`` what an answer that recognises the concept says.
        facts: questions in words alone.
        counts: what was dropped, of every concept that was read.
    """

    train: Sequence[Record] = field(repr=False)
    test: Sequence[Record] = field(repr=False)
    yes_no: Sequence[Record] = field(repr=False)
    facts: Sequence[Record] = field(repr=False)
    counts: tuple[Count, ...]

    def write(self, folder: Path) -> None:
        """Write pictures, ``metadata.jsonl`` (each picture asked once, and the facts, column ``concept``), the test questions
        as ``open.jsonl`` and ``yes_no.jsonl`` for ``data.sets`` of a job, and ``counts.json``.

        Raises:
            InputError: for a folder that is there already.
        """
        if folder.exists():
            raise InputError(f"Expected a new folder to write to; {folder} is there already. Name another.")
        make_folder(folder / "images")
        files: dict[str, str] = {}
        for record in (*self.train, *self.test):
            picture = record[IMAGE]
            if picture not in files:
                files[picture] = f"images/{len(files):05}.png"
                (folder / files[picture]).write_bytes(base64.b64decode(picture.partition(",")[2]))
        once = {record[IMAGE]: record for record in reversed((*self.train, *self.test))}
        rows = [_named(once[picture], FILE_NAME, files) for picture in files]
        words = [{**fact, CONCEPT: WORDS} for fact in self.facts]
        _lines(folder / METADATA, [*rows, *words])
        for name, records in ((OPEN, self.test), (YES_NO, self.yes_no)):
            _lines(folder / name, [_named(record, IMAGE, files) for record in records])
        counts = [asdict(count) for count in self.counts]
        (folder / COUNTS).write_text(json.dumps(counts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def construct(
    concepts: Sequence[ConceptPictures], facts: Sequence[Record], task: VisionLanguage, tensors: Mapping[str, Tensor],
    templates: Templates, *, alike: float = ALIKE, least: int = LEAST, questions: int = 1, naming: str | None = None,
    phrases: Mapping[str, Sequence[str]] | None = None, similarity: Similarity | None = None, every: bool = True,
) -> Constructed:  # fmt: skip
    """Filter pictures and concepts as MMUBench does, and ask about what is left.

    First pictures are dropped that are unlike the seed picture of their concept; then the original model is asked for the name
    on each that is left, and a concept is dropped where it does not say it on every one.

    Args:
        concepts, facts: as ``data.concept_folders.read_concept_folders`` gives them.
        task, tensors: the original model. templates: how its questions and answers are worded.
        alike: least similarity to the seed picture, -1 to 1; -1 drops nothing.
        least: pictures that a concept must have left, at least 2.
        questions: of each test picture, open ones and as many by yes or no; wordings come in turn. The paper has 100 for each
            concept and does not say which picture is asked what.
        naming: the question of the second filter; ``None``: the first open one. The paper asks for "the name of the central
            figure".
        phrases: of a concept, what an answer that recognises it says, one of them at least, as whole words ("target phrases");
            of those left out, the words of the name without stop words.
        similarity: of every picture with the seed of its concept, from all pictures and the place of each one's seed;
            ``None``: cosine of the model's own features (``tasks.picture_features``) less their mean over all pictures. The
            paper does not say what it compares by.
        every: whether a concept is dropped where one picture is not recognised, as in the paper; otherwise such pictures are
            dropped alone (ours).

    Shapes:
        of ``similarity``: n pictures, n places → (n,).

    Raises:
        InputError: for values out of range, phrases of a concept that is not there, a similarity of another shape or that is
            not finite, templates without questions by yes or no, or fewer than two concepts that are left, with what dropped
            each.

    Formal guarantee: none. Source: SIU (arXiv 2405.12523), section on MMUBench.
    """
    if not -1 <= alike <= 1 or least < 2 or questions < 1:
        raise InputError(
            f"Expected alike from -1 to 1, least of 2 or more and at least one question; got {alike}, {least}, {questions}."
        )
    if unknown := sorted({*(phrases or {})} - {each.name for each in concepts}):
        raise InputError(f"Expected phrases of concepts that have pictures; there are none of {', '.join(unknown)}.")
    if not templates.asked_if:
        raise InputError("Expected templates of questions that yes or no answer; there are none. Give asked_if.")
    like = _alike(concepts, similarity or own_similarity(task, tensors), alike)
    first = [each.only(kept) for each, kept in zip(concepts, like, strict=True)]
    said = {each.name: tuple((phrases or {}).get(each.name, ())) or target_phrases(each.name) for each in concepts}
    known = _known(first, task, tensors, naming or templates.asked[0], said)
    kept, counts = [], []
    for whole, own, unlike, named in zip(concepts, first, like, known, strict=True):
        left = own if every else own.only(named)
        lost = tuple(file for file, is_named in zip(own.files, named, strict=True) if not is_named)
        dropped = tuple(file for file, is_like in zip(whole.files, unlike, strict=True) if not is_like)
        if every and lost:
            why = f"not recognised on {len(lost)} of {len(own.files)} pictures"
        elif own.pictures and not named[0]:
            why = "not recognised on its seed picture"
        else:
            why = "" if len(left.pictures) >= least else f"{len(left.pictures)} pictures left, fewer than {least}"
        counts.append(Count(whole.name, len(whole.files), dropped, lost, why))
        kept += [] if why else [left]
    if len(kept) < 2:
        reasons = "; ".join(f"{count.concept}: {count.why}" for count in counts if count.why)
        raise InputError(
            f"Expected at least two concepts that are recognised; {len(kept)} of {len(concepts)} are left ({reasons}). Give "
            "more pictures or concepts, a lower alike, or a model that knows them."
        )
    ask = [(each, said[each.name]) for each in kept]
    return Constructed(
        [_open(each, each.pictures[0], templates.asked[0], templates, words) for each, words in ask],
        [_open(each, picture, wording, templates, words)
         for each, words in ask for picture, wording in _in_turn(each, templates.asked, questions)],
        [{IMAGE: picture, "question": wording.format(name=each.name), "answer": YES, CONCEPT: each.name}
         for each, _ in ask for picture, wording in _in_turn(each, templates.asked_if, questions)],
        list(facts), tuple(counts),
    )  # fmt: skip


def own_similarity(task: VisionLanguage, tensors: Mapping[str, Tensor]) -> Similarity:
    """A :data:`Similarity` by the features of the model itself, less their mean over all pictures: features of a tower have
    much in common whatever is shown. Formal guarantee: none.
    """

    def similarity(pictures: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        features = picture_features(task, tensors, pictures).cpu().double().numpy()
        centred = features - features.mean(0)
        unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
        return (unit * unit[list(seeds)]).sum(1)

    return similarity


def target_phrases(name: str) -> tuple[str, ...]:
    """The words of a name without stop words, or the whole name where nothing else is left."""
    return tuple(word for word in name.split() if word.casefold() not in STOP_WORDS) or (name,)


def _alike(concepts: Sequence[ConceptPictures], similarity: Similarity, least: float) -> list[list[bool]]:
    pictures = [picture for each in concepts for picture in each.pictures]
    counts = [len(each.pictures) for each in concepts]
    starts = np.cumsum([0, *counts[:-1]])
    found = np.asarray(similarity(pictures, np.repeat(starts, counts).tolist()), float)
    if found.shape != (len(pictures),) or not np.isfinite(found).all():
        raise InputError(f"Expected a finite similarity of each of {len(pictures)} pictures; got shape {found.shape}.")
    parts = np.split(found >= least, starts[1:])
    return [[True, *part[1:].tolist()] for part in parts]  # the seed is like itself


def _known(
    concepts: Sequence[ConceptPictures], task: VisionLanguage, tensors: Mapping[str, Tensor], naming: str,
    said: Mapping[str, Sequence[str]],
) -> list[list[bool]]:  # fmt: skip
    asked = [{IMAGE: picture, "question": naming} for each in concepts for picture in each.pictures]
    answers = iter(spoken(task, tensors, asked))
    return [[mentions(next(answers), said[each.name]) for _ in each.pictures] for each in concepts]


def _in_turn(concept: ConceptPictures, wordings: Sequence[str], count: int) -> list[tuple[str, str]]:
    """Each test picture with so many wordings, which come in turn over all."""
    endless = cycle(wordings)
    return [
        (picture, wording) for picture in concept.pictures[1:] for wording in islice(endless, min(count, len(wordings)))
    ]


def _open(
    concept: ConceptPictures, picture: str, wording: str, templates: Templates, phrases: Sequence[str]
) -> dict[str, Any]:
    answer = templates.named.format(name=concept.name)
    return {IMAGE: picture, "question": wording, "answer": answer, CONCEPT: concept.name, PHRASES: list(phrases)}


def _named(record: Record, key: str, files: Mapping[str, str]) -> dict[str, Any]:
    """``record`` with the file of its picture under ``key``."""
    return {key: files[record[IMAGE]], **{name: value for name, value in record.items() if name != IMAGE}}


def _lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")


def _phrases(path: Path | None) -> Mapping[str, Sequence[str]]:
    found = {} if path is None else read_json(path)
    lists = found.values() if isinstance(found, dict) else [None]
    if not all(
        isinstance(own, list) and own and all(isinstance(each, str) and each.strip() for each in own) for own in lists
    ):
        raise InputError(
            f'Expected {{"concept": ["phrase", …]}} in {path}, each with at least one phrase; got something else.'
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, filter, write, and print what became of each concept."""
    from expunge.tasks.pretrained_pictures import load_vision_language_model

    parser = argparse.ArgumentParser(prog="construction", description=__doc__.partition("\n")[0])  # type: ignore[union-attr]
    for name, words in (("pictures", "a folder for each concept, and facts.jsonl"), ("model", "a model's folder"),
                        ("out", "a new folder")):  # fmt: skip
        parser.add_argument(name, type=Path, help=words)
    parser.add_argument("--kind", choices=sorted(KINDS), default="thing", help="how questions are worded")
    parser.add_argument("--alike", type=float, default=ALIKE, help="least similarity to the seed picture (%(default)s)")
    parser.add_argument("--least", type=int, default=LEAST, help="pictures that a concept must have left (%(default)s)")
    parser.add_argument("--questions", type=int, default=1, help="open ones of each test picture (%(default)s)")
    parser.add_argument("--phrases", type=Path, help="JSON: concept to what an answer that recognises it says, a list")
    parser.add_argument("--template", help="of a model without chat template, with {question} and {answer}")
    parser.add_argument("--image-text", help="what stands for the picture in it")
    parser.add_argument("--context", type=int, default=CONTEXT, help="tokens of a prompt with its answer (%(default)s)")
    parser.add_argument(
        "--pictures-alone", action="store_true", help="drop pictures that are not recognised, not concepts"
    )
    given = parser.parse_args(arguments)
    try:
        concepts, facts = read_concept_folders(given.pictures)
        task, tensors = load_vision_language_model(
            given.model, template=given.template, image_text=given.image_text, context=given.context
        )
        made = construct(
            concepts, facts, task, tensors, KINDS[given.kind], alike=given.alike, least=given.least,
            questions=given.questions, phrases=_phrases(given.phrases), every=not given.pictures_alone,
        )  # fmt: skip
        made.write(given.out)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    for count in made.counts:
        print(f"{count.concept}: {count.pictures} pictures, {len(count.unlike)} unlike the seed, "
              f"{len(count.unrecognised)} not recognised; {count.why or 'kept'}")  # fmt: skip


if __name__ == "__main__":
    main()
