"""Arrays from ``.npz`` and ``.safetensors`` files: plain numbers and texts, and no larger than the file can hold."""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from expunge.core.errors import InputError, foreign
from expunge.data.bounds import largest
from expunge.data.damage import NUMPY
from expunge.data.rows import Rows
from expunge.data.values import has_gaps, whole_ids


def read_arrays(path: Path, *, people: bool = True) -> Rows:
    """``x``, ``y`` and user columns from an ``.npz`` (no pickled objects) or ``.safetensors`` file, in any byte order.

    Args:
        path: the file, with arrays ``x``, ``y``, perhaps ``ids`` (whole numbers, each once, by which requests name rows;
            positions where there are none), and one array for each column that names people.
        people: whether its rows can be asked to be forgotten: every row of a user column must then name somebody. Of
            others, for example test rows, a user column with gaps is left out.

    Raises:
        InputError: for a missing or damaged file, a missing array, arrays that would need unpickling or that claim more
            than the file can hold, anything but numbers in x and y, or ids that name two rows.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}; give an .npz or .safetensors file with arrays x and y.")
    if path.suffix not in (".npz", ".safetensors"):
        raise InputError(f"Expected an .npz or .safetensors file; got {path.name}.")
    arrays = read_npz(path) if path.suffix == ".npz" else _safetensors(path)
    if absent := {"x", "y"} - arrays.keys():
        raise InputError(f"{path.name} has no array {', '.join(sorted(absent))}; it has {', '.join(sorted(arrays))}.")
    ids = arrays.pop("ids", None)
    users = {name: values for name, values in arrays.items() if name not in ("x", "y")}
    if not people:
        users = {name: values for name, values in users.items() if not has_gaps(values)}
    try:
        rows = Rows.of(arrays["x"], arrays["y"], users)
        return rows if ids is None or not people else replace(rows, ids=whole_ids(ids, len(rows)))
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    # TypeError, AttributeError, KeyError: types of number that NumPy lacks
    with foreign(_damaged(path), SafetensorError, ValueError, TypeError, AttributeError, KeyError, OSError):
        return dict(load_file(path))


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz`` file: none that would need unpickling, and none that claims more than the file can hold.

    Raises:
        InputError: for such arrays, and for a damaged file.
    """
    with foreign(_damaged(path), *NUMPY), zipfile.ZipFile(path) as archive:
        members = [each for each in archive.infolist() if not each.is_dir()]
        _plain_members(members, path)
        for member in members:
            _claims_no_more(archive, member, path)
    with foreign(_damaged(path), *NUMPY), np.load(path, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def _damaged(path: Path) -> Callable[[Exception], str]:
    return lambda error: (
        f"{path.name} is damaged, or holds pickled objects or types of number that are not read "
        f"({type(error).__name__}: {error!s:.140}). Save plain arrays."
    )


def _plain_members(members: list[zipfile.ZipInfo], path: Path) -> None:
    """Raise InputError unless each member is an array with a name of its own, all of a size that the file can hold."""
    if odd := [each.filename for each in members if not each.filename.endswith(".npy")]:
        raise InputError(f"{path.name} holds {odd[0]!r:.60}, which is no array. Save arrays with numpy.savez.")
    if twice := [name for name, count in Counter(each.filename for each in members).items() if count > 1]:
        raise InputError(
            f"{path.name} holds the array {twice[0].removesuffix('.npy')!r} twice. Keep the one that is meant."
        )
    total, most = sum(each.file_size for each in members), largest(path.stat().st_size)
    if total > most:
        raise InputError(
            f"{path.name} has {path.stat().st_size} bytes and unpacks to {total}, more than {most}; it may have been made to "
            "exhaust memory. If that is right, save it with numpy.savez, not compressed."
        )


def _claims_no_more(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    """Raise InputError for an array whose header asks for more memory than the member has bytes."""
    with archive.open(member) as handle:
        version = np.lib.format.read_magic(handle)
        if version not in ((1, 0), (2, 0)):
            raise InputError(f"{path.name} holds an array with named fields ({member.filename}). Save plain arrays.")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(handle)
    if not kind.hasobject and math.prod(shape) * kind.itemsize > member.file_size:
        raise InputError(
            f"{path.name} is damaged: {member.filename} claims shape {shape} of {kind}, and has {member.file_size} bytes. "
            "Save it anew."
        )
