"""Folders of images: any, and two public ones whose parts belong to people."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from expunge.core.data import Ids
from expunge.core.errors import InputError, foreign
from expunge.core.on_disk import room, whole
from expunge.data.csv_files import open_csv
from expunge.data.damage import PILLOW
from expunge.data.image_files import Files, hint
from expunge.data.pixels import normalised
from expunge.data.places import located
from expunge.data.rows import ROWS_AS_GIVEN, Rows, by_reader

SUFFIXES = (".png", ".jpg", ".jpeg", ".pgm", ".ppm", ".pbm", ".bmp", ".gif", ".webp", ".tif", ".tiff")
# What is decoded, whatever a file is called: by default Pillow opens what it knows, and hands PostScript to a program that
# runs it.
FORMATS = ("PNG", "JPEG", "PPM", "BMP", "GIF", "WEBP", "TIFF")
PIXELS = 89_478_485  # of one image, Pillow's own limit: 256 MiB in colours
_DECODED = 64  # images that are held as bytes at a time
Size = int | Sequence[int]  # side of a square, or (height, width)

# Omniglot, images_background_small1: characters of each alphabet. A constant, so that no row decides which labels exist.
ALPHABETS = {"Balinese": 24, "Early_Aramaic": 22, "Greek": 24, "Korean": 40, "Latin": 26}
DRAWERS = 20
PEOPLE, PHOTOGRAPHS = 40, 10  # of the ORL faces


def image_folder(
    path: str | Path, size: Size | None = None, *, channels: int = 3, users: str | Path | None = None,
    classes: Sequence[str] | None = None, mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
    formats: Sequence[str] = FORMATS,
) -> Rows:  # fmt: skip
    """Every image below ``path``; the class is the folder that it lies in.

    Folders and files are taken in natural order (``s2`` before ``s10``), so that ids and labels are the same on every
    machine: the id of an image is its position in that order, from 0. Requests may name its path instead (``Target("samples",
    {"path": "cats/7.png"})``). Files that are no images by their suffix are left out, as is everything whose name begins with
    a dot. Links to folders and files are followed.

    Args:
        size: to which images are scaled, as a side or (height, width); by default all must have one size already.
        channels: 1 (grey) or 3 (colours).
        users: a regular expression with named groups, searched in each path below ``path`` (with ``/``); each group
            becomes a column that names users. ``_(?P<drawer>[0-9]+)[.]png$``. A ``Path`` is a CSV table with a column
            ``path`` (below this folder, with ``/``) and columns that name people; two lines for a path name two people.
        classes: folders in the order of their labels. Without it the labels are the folders that are there, and the
            rows' preparation counts as fitted: the folders would be fewer without a class's rows.
        mean, std: a channel each, applied after pixels / 255; by default 0 and 1.
        formats: that are decoded, among ``FORMATS``: pixels and nothing else. What a file holds counts, not its name.

    Shapes:
        x: (n, channels, height, width) float32.

    Raises:
        InputError: for a missing or empty folder, a file that is damaged, of another format or size or of more than
            ``PIXELS`` pixels, a path that ``users`` does not match, or a folder that is not among ``classes``.
    """
    base = Path(path)
    if not base.is_dir():
        raise InputError(f"There is no folder {base}; give one with a subfolder of images for each class.")
    if channels not in (1, 3):
        raise InputError(f"Expected 1 channel (grey) or 3 (colours); got {channels}.")
    names = images_below(base)
    folders = [name.rpartition("/")[0] for name in names]
    if "" in folders:
        raise InputError(f"{names[folders.index('')]} lies in {base} itself; put it in a folder that names its class.")
    known = list(classes) if classes is not None else list(dict.fromkeys(folders))
    label_of = {name: label for label, name in enumerate(known)}
    if unknown := sorted(set(folders) - label_of.keys()):
        raise InputError(f"Expected the folders {', '.join(known):.200} in {base}; there is also {unknown[0]}.")
    columns = columns_of(users, names) if users else {}
    paths = [base / name for name in names]
    wanted = _one_size(paths, names, size, formats)
    x, fixed = room((len(paths), channels, *wanted), torch.float32), ROWS_AS_GIVEN
    for start in range(0, len(paths), _DECODED):
        pixels = np.stack([_pixels(path, wanted, channels, formats) for path in paths[start : start + _DECODED]])
        part, fixed = normalised(pixels, mean or [0.0] * channels, std or [1.0] * channels)
        x[start : start + len(part)] = part
    if classes is None:
        fixed = by_reader("fitted", "labels are the folders that were there; declare classes to fix them")
    rows = Rows.of(x, np.array([label_of[name] for name in folders]), columns, preprocessing=fixed, names=known)
    return replace(rows, files=Files(base, np.array(names)))


def class_folders(path: str | Path) -> list[str]:
    """The folders below ``path`` that hold images, in the order in which :func:`image_folder` labels them."""
    return list(dict.fromkeys(name.rpartition("/")[0] for name in images_below(Path(path))))


def omniglot(
    root: str | Path | None = None, size: int = 28, *, split: Literal["drawers", "drawings"] = "drawers",
    share: float = 0.2,
) -> tuple[Rows, Rows]:  # fmt: skip
    """Training and test rows of Omniglot small 1 (Lake et al. 2015): 136 characters, each drawn once by 20 drawers.

    Columns: ``drawer`` (``01`` to ``20``), ``alphabet``, ``character``. Ink is 1, paper 0. The numbers of the drawers are
    the data set's own; it does not say whether ``07`` is one person in two alphabets, so a request that means one
    alphabet's drawer names both columns.

    What to hold out decides what forgetting one drawer can be compared with:

    * ``drawers`` (the default): the last ``share`` of the drawers, with everything they drew. A model retrained without
      drawer 07 stands to 07's drawings as it stands to the test drawers': nobody's hand was learnt. Membership scores
      of the two compare like with like, so this is the split for forgetting a drawer.
    * ``drawings``: every 1/share-th drawing of each character, such that every drawer and every character is in both
      parts. Measures how well known hands are read; forgetting a drawer then also lowers accuracy on the test rows of
      that drawer, as it should, and test rows are no stand-in for rows that were never trained on.

    Args:
        root: a folder of data sets (``EXPUNGE_DATA`` by default) with ``omniglot/images_background_small1``, or this.
        size: side to which the 105 x 105 images are scaled.
        share: of the rows to test on, below one half for ``drawings``.

    Shapes:
        x: (n, 1, size, size) float32.

    Raises:
        InputError: where files are missing or damaged, or for another split or share.
    """
    if split not in ("drawers", "drawings"):
        raise InputError(f"Expected split drawers or drawings; got {split!r}.")
    if not 1 / DRAWERS <= share <= 0.5:
        raise InputError(f"Expected a share of test rows from {1 / DRAWERS:g} to 0.5; got {share}.")
    folder = located(
        root, ["omniglot/images_background_small1", "images_background_small1"], sorted(ALPHABETS),
        "Get images_background_small1.zip of Omniglot (brendenlake/omniglot on GitHub, folder python) and unpack it.",
    )  # fmt: skip
    classes = [f"{name}/character{i:02d}" for name, count in ALPHABETS.items() for i in range(1, count + 1)]
    users = r"^(?P<alphabet>[^/]+)/(?P<character>[^/]+)/[0-9]+_(?P<drawer>[0-9]{2})[.]png$"
    rows = image_folder(folder, size, channels=1, users=users, classes=classes, formats=("PNG",))
    fixed = by_reader("fixed", "1 - pixels / 255; the characters are a constant list")
    rows = Rows.of(1 - whole(rows.x), rows.y, rows.columns, preprocessing=fixed, names=rows.names)
    drawer = rows.columns["drawer"].astype(int)  # 1 to 20
    if split == "drawers":
        test = drawer > DRAWERS - round(share * DRAWERS)
    else:
        test = (rows.y.numpy() + drawer) % round(1 / share) == 0
    return _split(rows, test)


def orl_faces(
    root: str | Path | None = None, size: Size = (56, 46), *, test: Sequence[int] = (9, 10)
) -> tuple[Rows, Rows]:
    """Training and test rows of the ORL faces (Samaria and Harter 1994): 40 people, 10 photographs each.

    The people are the classes and also the column ``person`` (1 to 40, label + 1), so that one person can go as a class
    or as a user. A person who is a class cannot be held out: the test rows are other photographs of the same people.

    Args:
        root: a folder of data sets (``EXPUNGE_DATA`` by default) with ``orl_faces``, or this folder.
        size: to which the photographs, 112 high and 92 wide, are scaled, as a side or (height, width).
        test: numbers of the photographs to test on, from 1 to 10.

    Shapes:
        x: (n, 1, height, width) float32, pixels / 255.

    Raises:
        InputError: where files are missing or damaged, or for numbers outside 1 to 10.
    """
    if not 0 < len(set(test)) < PHOTOGRAPHS or not set(test) <= set(range(1, PHOTOGRAPHS + 1)):
        raise InputError(f"Expected some, not all, numbers from 1 to {PHOTOGRAPHS} to test on; got {list(test)}.")
    folder = located(
        root, ["orl_faces"], [f"s{i}" for i in range(1, PEOPLE + 1)],
        "Get the ORL (AT&T) Database of Faces, folders s1 to s40; it is for research, with credit.",
    )  # fmt: skip
    people = [f"s{i}" for i in range(1, PEOPLE + 1)]
    photographs = r"/(?P<photograph>[0-9]+)[.]pgm$"
    rows = image_folder(folder, size, channels=1, users=photographs, classes=people, formats=("PPM",))
    photograph = rows.columns["photograph"].astype(int)
    rows = replace(rows, columns={"person": rows.y.numpy() + 1})
    return _split(rows, np.isin(photograph, list(test)))


def _split(rows: Rows, test: np.ndarray) -> tuple[Rows, Rows]:
    ids = Ids.rows(rows.ids[test])
    return rows.without(ids), rows.only(ids)


def images_below(base: Path) -> list[str]:
    """Paths of all images below ``base``, with ``/``, in natural order."""
    names = sorted(_walked(base, "", (base.resolve(),)), key=_natural)
    if not names:
        raise InputError(
            f"There is no image in {base}; expected a subfolder for each class with {', '.join(SUFFIXES)}."
        )
    return names


def _walked(folder: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[str]:
    """Names of images in ``folder`` and below, through links too, with ``prefix``; ``above`` are the folders on the way."""
    with os.scandir(folder) as entries:
        listed = list(entries)
    for entry in listed:
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            if Path(entry.name).suffix.lower() in SUFFIXES:
                yield prefix + entry.name
            continue
        real = Path(entry.path).resolve()
        if real in above:
            raise InputError(f"{entry.path} is a link to a folder that it lies in. Take it out: it would never end.")
        yield from _walked(Path(entry.path), f"{prefix}{entry.name}/", (*above, real))


def _natural(name: str) -> list[tuple]:
    """Sorts part by part, numbers in names as numbers; the text itself decides between ``1`` and ``01``."""
    pieces = [re.split(r"([0-9]+)", part) for part in name.split("/")]
    return [tuple((int(p), p) if i % 2 else (-1, p) for i, p in enumerate(part)) for part in pieces]


def columns_of(users: str | Path, names: Sequence[str]) -> dict[str, Any]:
    """Whose each image is: by a regular expression over its path, or by a table of paths and users; see :func:`image_folder`.

    Raises:
        InputError: for an image that belongs to nobody, or a table that names files which are not there.
    """
    if isinstance(users, Path):
        return _listed(users, names)
    try:
        pattern = re.compile(users)
    except re.error as error:
        raise InputError(f"{users!r} is no regular expression: {error}.") from None
    if not pattern.groupindex:
        raise InputError(f"Expected a named group such as (?P<user>[0-9]+) in users; {users!r} has none.")
    found = [pattern.search(name) for name in names]
    for name, match in zip(names, found, strict=True):
        if match is None or None in match.groupdict().values():
            raise InputError(
                f"{name} does not match users {users!r}. A row that belongs to nobody could not be found again."
            )
    return {group: np.array([match[group] for match in found if match]) for group in pattern.groupindex}


def _listed(table: Path, names: Sequence[str]) -> dict[str, Any]:
    """The columns of a table beside ``path``: of each image the values of its rows, several where it has several."""
    opened = open_csv(table)
    people = [name for name in opened.names if name != "path"]
    if "path" not in opened.names or not people:
        raise InputError(
            f"Expected a column path and at least one that names people in {table.name}; it has {', '.join(opened.names)}."
        )
    texts = opened.read(opened.names)
    found: dict[str, dict[str, list[str]]] = {name: {} for name in people}
    for row, path in enumerate(texts["path"].tolist()):
        for name in people:
            value = texts[name].iat[row]
            if not value.strip():
                raise InputError(
                    f"Column {name!r} of {table.name} names nobody for {path}. Name its user, or drop the image."
                )
            found[name].setdefault(path, []).append(value)
    listed, there = found[people[0]].keys(), set(names)
    if unknown := [path for path in listed if path not in there]:
        meant = hint(unknown[0], names) or f"; an image is called, for example, {names[0]!r}"
        raise InputError(
            f"{table.name} names {unknown[0]}, which is not among the images ({len(unknown)} such paths){meant}. Paths "
            "begin in the folder of images (data.path)."
        )
    if absent := [name for name in names if name not in listed]:
        raise InputError(
            f"{table.name} does not say whose {absent[0]} is ({len(absent)} such images). An image that belongs to nobody "
            "could not be found again: add a line for it."
        )
    one = {name: all(len(set(of[path])) == 1 for path in names) for name, of in found.items()}
    return {
        name: [of[path][0] if one[name] else list(dict.fromkeys(of[path])) for path in names]
        for name, of in found.items()
    }


def _one_size(paths: list[Path], names: list[str], size: Size | None, formats: Sequence[str]) -> tuple[int, ...]:
    """(height, width) of all images; where it is not given, their own, which are looked at before any is decoded."""
    wanted = None if size is None else (size, size) if isinstance(size, int) else tuple(size)
    if wanted is not None and (len(wanted) != 2 or min(wanted) < 1):
        raise InputError(f"Expected size as a side or (height, width) in pixels; got {size}.")
    if wanted is None:
        wanted = _size(paths[0], formats)
        for path, name in zip(paths, names, strict=True):
            if (own := _size(path, formats)) != wanted:
                raise InputError(
                    f"{name} has {own[0]} x {own[1]} pixels, {names[0]} {wanted[0]} x {wanted[1]}. Give a size to scale all "
                    "images to."
                )
    return wanted


@contextmanager
def _opened(path: Path, formats: Sequence[str]) -> Iterator[Any]:
    """An image of one of ``formats`` and no more than ``PIXELS``; whatever goes wrong in it is an InputError."""
    from PIL import Image

    if not path.is_file():  # a pipe would wait for ever, and a link may lead nowhere
        raise InputError(f"{path} cannot be read as an image (it is no file). Replace it or take it out.")

    def words(error: Exception) -> str:
        if isinstance(error, Image.UnidentifiedImageError):
            return f"{path} cannot be read as an image (it is none of {', '.join(formats)}). Save it as PNG, or take it out."
        return f"{path} cannot be read as an image ({error!s:.200}). Replace it or take it out."

    bombs = (Image.DecompressionBombWarning, Image.DecompressionBombError)
    with foreign(words, *PILLOW, *bombs), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=tuple(formats)) as image:
            if math.prod(image.size) > PIXELS:
                raise ValueError(f"it has {image.size[0]} x {image.size[1]} pixels, more than {PIXELS} in all")
            yield image


def _size(path: Path, formats: Sequence[str]) -> tuple[int, int]:
    """(height, width) as the file says, before it is decoded."""
    with _opened(path, formats) as image:
        return image.size[1], image.size[0]


def _pixels(path: Path, size: tuple[int, ...], channels: int, formats: Sequence[str]) -> np.ndarray:
    """One image as (channels, h, w) uint8."""
    from PIL import Image

    with _opened(path, formats) as image:
        if image.mode.startswith(("I", "F")):
            raise InputError(f"{path.name} has more than 8 bits a channel; save it with 8.")
        image = image.convert("L" if channels == 1 else "RGB")
        if image.size != (size[1], size[0]):
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
