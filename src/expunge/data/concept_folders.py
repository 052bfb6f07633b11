"""Pictures of concepts from disk: a folder that has one folder for each concept, called by its name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from expunge.core.errors import InputError
from expunge.core.texts import Record
from expunge.data.pictures import read_picture
from expunge.data.texts import read_records

FACTS, SEED = (
    "facts.jsonl",
    "seed",
)  # facts in words, beside the folders; the stem of the picture that shows a concept best
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class ConceptPictures:
    """Pictures of one concept: its seed first.

    Attributes:
        name: of the concept.
        files: paths below the folder, one for each picture.
        pictures: as ``data.pictures`` writes them.
    """

    name: str
    files: tuple[str, ...]
    pictures: tuple[str, ...] = field(repr=False)

    def only(self, kept: list[bool]) -> ConceptPictures:
        """Some of them, by position."""
        files, pictures = (
            tuple(x for x, keep in zip(of, kept, strict=True) if keep) for of in (self.files, self.pictures)
        )
        return ConceptPictures(self.name, files, pictures)


def read_concept_folders(folder: Path) -> tuple[list[ConceptPictures], list[Record]]:
    """The pictures of each concept, and the facts of ``facts.jsonl``: one ``{"question": …, "answer": …}`` a line, in words.

    The seed picture of a concept is the file ``seed.*`` in its folder, or else the first by name (numbers count as such).
    What begins with a dot is passed over.

    Raises:
        InputError: for a folder that is missing or has fewer than two concepts, a concept without a picture, a file that is no
            image, an image that cannot be read, a missing ``facts.jsonl``, or a fact with a picture or without a question.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give one that has a folder of pictures for each concept.")
    own = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    if len(own) < 2:
        raise InputError(
            f"Expected at least two concepts in {folder}, a folder of pictures each; found {len(own)}. Other concepts are what "
            "forgetting one is measured against."
        )
    if not (folder / FACTS).is_file():
        raise InputError(
            f"There is no {FACTS} in {folder}; write one object a line, question and answer, about each concept and others: "
            "what is known in words must stay."
        )
    facts = read_records(folder / FACTS)
    if odd := next((i for i, fact in enumerate(facts, 1) if "question" not in fact or "image" in fact), None):
        raise InputError(f"Expected a question with an answer in words on line {odd} of {FACTS}; got something else.")
    return [_concept(each) for each in own], facts


def _concept(folder: Path) -> ConceptPictures:
    files = sorted((each for each in folder.iterdir() if not each.name.startswith(".")), key=_order)
    if odd := next((each for each in files if each.suffix.lower() not in ENDINGS or not each.is_file()), None):
        raise InputError(
            f"Expected images alone ({', '.join(ENDINGS)}) in {folder.name}; got {odd.name}. Take it away."
        )
    if not files:
        raise InputError(f"There is no image in {folder.name}. Give some, or take the folder away.")
    names = tuple(f"{folder.name}/{each.name}" for each in files)
    return ConceptPictures(folder.name, names, tuple(read_picture(each) for each in files))


def _order(path: Path) -> tuple[bool, list[tuple[int, str]]]:
    parts = re.split(r"(\d+)", path.stem.casefold())
    return path.stem.casefold() != SEED, [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
