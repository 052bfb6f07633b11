"""Files of public benchmarks of forgetting with pictures: MLLMU-Bench, CLEAR and FIUBench, as their authors publish them.

Each is read from disk: a Parquet file, a folder of Parquet files, a folder of ``datasets``, JSON lines, or a JSON list.
Pictures lie inside Parquet files (``{"bytes", "path"}``), or are paths seen from the folder of images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.core.errors import InputError
from expunge.core.files import read_json
from expunge.core.texts import Record
from expunge.data.pictures import IMAGE, picture_from, read_picture
from expunge.data.texts import Texts, objects_of

PERSON = "person"  # column that says whom a record is about
UNNAMED = "nobody by name"  # of texts that name none of the people in the pictures
TASKS = ("profile", "classification", "generation", "cloze")  # of MLLMU-Bench
CAPTION = "What is shown in this picture?"  # put to CLEAR's pictures; the authors draw one of nine wordings


def read_mllmu(path: Path, images: Path | None = None, tasks: Sequence[str] = TASKS) -> Texts:
    """MLLMU-Bench (arXiv 2410.22108): people with questions about them in words and with their picture.

    A row has ``ID``, ``image`` (or ``images``), ``question`` and ``answer`` (``profile``), ``Classification_Task`` with
    ``Image_Textual_Questions`` and ``Pure_Text_Questions``, ``Generation_Task`` and ``Mask_Task`` (``cloze``). Options stand
    under the question, and the right answer is its letter with its text.

    Args:
        path: the file or folder of one split. images: folder that paths of pictures are seen from; ``None``: that of the file.
        tasks: which kinds of questions, some of :data:`TASKS`.

    Raises:
        InputError: for a missing file or column, a picture that is missing or cannot be read, a question without a right
            answer, an unknown task, or rows without any question of these tasks.
    """
    unknown = sorted({*tasks} - {*TASKS})
    if unknown or not tasks:
        raise InputError(f"Expected tasks among {', '.join(TASKS)}; got {', '.join(unknown) or 'none'}.")
    records, people = [], []
    for where, row in _rows(path):
        who = str(_there(row, "ID", where))
        several = row.get("images")
        pictures = [_picture(each, where, images or _folder(path)) for each in several or [_there(row, IMAGE, where)]]
        for task, shown, question, answer in _asked_of_person(row, tasks, where):
            for picture in pictures if shown else [None]:
                records.append(_record(picture, question, answer, task=task))
                people.append(who)
    return _texts(records, people, path, f"questions of the tasks {', '.join(tasks)}")


def read_clear(path: Path, images: Path | None = None) -> Texts:
    """CLEAR (arXiv 2410.18057): pictures of fictitious authors with captions, and TOFU's questions where the split has them.

    A row has ``image``, ``caption`` and ``name``; or no image, and ``question`` and ``answer``. A text is about whoever of the
    names in the pictures stands in it, or :data:`UNNAMED`.

    Raises:
        InputError: as :func:`read_mllmu`, and for several captions of one picture (the perturbed splits).
    """
    records, people = [], list[str | None]()
    for where, row in _rows(path):
        if row.get(IMAGE) is None and row.get("caption") is None:
            records.append(_record(None, _text(row, "question", where), _text(row, "answer", where)))
            people.append(None)
            continue
        picture = _picture(_there(row, IMAGE, where), where, images or _folder(path))
        records.append(_record(picture, CAPTION, _text(row, "caption", where)))
        people.append(_text(row, "name", where))
    names = sorted({name for name in people if name is not None})
    spelled = {name: re.compile(rf"(?<!\w){re.escape(name)}(?!\w)") for name in names}

    def about(record: Record) -> str | list[str]:
        said = f"{record['question']}\n{record['answer']}"  # type: ignore[typeddict-item]
        mentioned = [name for name, pattern in spelled.items() if pattern.search(said)] or [UNNAMED]
        return mentioned[0] if len(mentioned) == 1 else mentioned

    found = [about(record) if name is None else name for record, name in zip(records, people, strict=True)]
    return _texts(records, found, path, "pictures with captions or questions")


def read_fiubench(path: Path, images: Path | None = None) -> Texts:
    """FIUBench (arXiv 2411.03554): faces of fictitious people with questions about their private facts.

    A row has ``image_path`` (or ``image``), ``name`` and ``qa_list`` of ``question``, ``answer`` and, kept under these names,
    ``paraphrased_answer`` and ``perturbed_answer``.

    Raises:
        InputError: as :func:`read_mllmu`.
    """
    records, people = [], []
    for where, row in _rows(path):
        given = row.get("image_path") if row.get(IMAGE) is None else row[IMAGE]
        if given is None:
            raise InputError(
                f"Expected image_path or image in {where}; got neither, only {', '.join(row) or 'nothing'}."
            )
        picture, name = _picture(given, where, images or _folder(path)), _text(row, "name", where)
        asked = _there(row, "qa_list", where)
        if not isinstance(asked, list) or not all(isinstance(each, Mapping) for each in asked):
            raise InputError(f"Expected a list of questions under qa_list of {where}; got {asked!r:.60}.")
        for pair in asked:
            more = {key: pair[key] for key in ("paraphrased_answer", "perturbed_answer") if pair.get(key)}
            records.append(_record(picture, _text(pair, "question", where), _text(pair, "answer", where), **more))
            people.append(name)
    return _texts(records, people, path, "questions under qa_list")


READERS: Mapping[str, Callable[..., Texts]] = {"mllmu": read_mllmu, "clear": read_clear, "fiubench": read_fiubench}


def _asked_of_person(row: Mapping[str, Any], tasks: Sequence[str], where: str) -> Iterator[tuple[str, bool, str, str]]:
    """Task, whether the picture is shown, question and right answer of every question of a row of MLLMU-Bench."""
    if "profile" in tasks and row.get("question") and row.get("answer"):
        yield "profile", True, _text(row, "question", where), _text(row, "answer", where)
    if "classification" in tasks:
        parts = row.get("Classification_Task") or {}
        for name, shown in (("Image_Textual_Questions", True), ("Pure_Text_Questions", False)):
            for asked in parts.get(name) or ():
                yield "classification", shown, *_choice(asked, where)
    for task, column in (("generation", "Generation_Task"), ("cloze", "Mask_Task")):
        for asked in (row.get(column) or ()) if task in tasks else ():
            shown = not str(_there(asked, "Type", where)).lower().startswith("pure")
            yield task, shown, _text(asked, "Question", where), _text(asked, "Ground_Truth", where)


def _choice(asked: Mapping[str, Any], where: str) -> tuple[str, str]:
    """A question with its options, and the right one."""
    options = {key: value for key, value in (_there(asked, "Options", where) or {}).items() if value is not None}
    right = _text(asked, "Correct_Answer", where)
    if right not in options:
        raise InputError(
            f"Expected Correct_Answer among the options {', '.join(options) or 'none'} in {where}; got {right!r:.40}."
        )
    listed = "\n".join(f"{letter}. {text}" for letter, text in options.items())
    return f"{_text(asked, 'Question', where)}\n{listed}", f"{right}. {options[right]}"


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows with what messages call their place."""
    pairs: Any
    if path.is_dir() and (parts := sorted(path.glob("*.parquet"))):
        pairs = (pair for part in parts for pair in objects_of(part))
    elif path.suffix.lower() == ".json":
        listed = read_json(path)
        if not isinstance(listed, list) or not listed:
            raise InputError(f"Expected a list of people in {path.name}; got {type(listed).__name__}, or nobody.")
        pairs = ((f"entry {i} of {path.name}", each) for i, each in enumerate(listed, 1))
    else:
        pairs = objects_of(path)
    for where, row in pairs:
        if not isinstance(row, Mapping):
            raise InputError(f"Expected an object as {where}; got {row!r:.60}.")
        yield where, {key: None if isinstance(each, float) and each != each else each for key, each in row.items()}


def _there(row: Mapping[str, Any], key: str, where: str) -> Any:
    if row.get(key) is None:
        raise InputError(
            f"Expected {key} in {where}; it has {', '.join(k for k in row if row[k] is not None) or 'nothing'}."
        )
    return row[key]


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = _there(row, key, where)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"Expected a text under {key} of {where}; got {value!r:.60}.")
    return value.strip()


def _picture(value: Any, where: str, folder: Path) -> str:
    """A picture inside the file, or the one that a path names."""
    if isinstance(value, Mapping):
        if isinstance(value.get("bytes"), bytes):
            return picture_from(value["bytes"], f"the picture of {where}")
        value = value.get("path")
    if isinstance(value, str) and value.strip():
        place = (folder / value).resolve()
        if not place.is_relative_to(folder.resolve()):
            raise InputError(
                f"The picture of {where} lies outside of {folder.name} ({value:.80}); that is not read. Move it there."
            )
        return read_picture(place)
    raise InputError(f"Expected a picture in {where}: bytes, or a path seen from {folder.name}; got {value!r:.60}.")


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _record(picture: str | None, question: str, answer: str, **more: Any) -> Record:
    seen = {} if picture is None else {IMAGE: picture}
    return {**seen, "question": question, "answer": answer, **more}  # type: ignore[return-value]


def _texts(records: list[Record], people: list[Any], path: Path, what: str) -> Texts:
    if not records:
        raise InputError(f"{path.name} has no {what}; give a split that has some.")
    return Texts.of(records, {PERSON: people})
