"""Records with pictures from files: JSON lines that name images, and folders of images with ``metadata.jsonl``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from expunge.core.errors import InputError
from expunge.core.texts import Record
from expunge.data.pictures import IMAGE, read_picture
from expunge.data.texts import Texts, people_of, read_records

FILE_NAME, METADATA = "file_name", "metadata.jsonl"  # as the package datasets writes folders of images


def read_picture_records(path: Path) -> list[Record]:
    """The records of a JSONL file; under ``image`` stands the path of an image, seen from the file, or a data URI.

    Raises:
        InputError: as :func:`~expunge.data.texts.read_records` and :func:`~expunge.data.pictures.read_picture`, with the line.
    """
    return [_with_picture(record, IMAGE, path, i) for i, record in enumerate(read_records(path), 1)]


def read_image_folder(folder: Path, columns: Sequence[str] = ()) -> Texts:
    """The records of ``metadata.jsonl`` in ``folder``, each with the image that it names under ``file_name``.

    Args:
        columns: keys that name people or concepts, one column each.

    Raises:
        InputError: for a folder without that file, and as :func:`read_picture_records`.
    """
    path = folder / METADATA
    if not path.is_file():
        raise InputError(f"There is no {METADATA} in {folder}; write one object a line: file_name, question, answer.")
    return texts_of(
        [_with_picture(record, FILE_NAME, path, i) for i, record in enumerate(read_records(path), 1)], columns, path
    )


def texts_of(records: Sequence[Record], columns: Sequence[str], path: Path) -> Texts:
    """``records`` of the file ``path`` as data, with a column for each of the keys ``columns``.

    Raises:
        InputError: for a record without such a key.
    """
    return Texts.of(records, {name: people_of(records, name, path.name) for name in columns})


def _with_picture(record: Record, key: str, path: Path, number: int) -> Record:
    value = record.get(key)
    if value is None or (isinstance(value, str) and value.startswith("data:")):
        return record
    if not isinstance(value, str) or not value.strip():
        raise InputError(
            f"Expected the path of an image under {key!r} in record {number} of {path.name}; got {value!r:.60}."
        )
    rest = {name: item for name, item in record.items() if name != key}
    return {**rest, IMAGE: read_picture(path.parent / value)}
