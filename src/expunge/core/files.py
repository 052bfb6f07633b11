"""Careful files: a reader sees the old content or the new one, never half of it, also after a power cut."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from expunge.core.errors import MACHINE, InputError

PART = ".part"  # ending of a file that is being written; one that stays behind belongs to a process that died
_POSIX = os.name == "posix"  # elsewhere folders cannot be synchronised and modes say nothing


def write_atomic(path: Path, content: bytes, private: bool = False) -> None:
    """Replace the file at ``path`` by ``content`` in one step.

    Args:
        path: the file; its folder must exist.
        content: all bytes of the new file.
        private: readable and writable by the owner only (mode 0600), from the first byte on.

    Raises:
        InputError: if the folder is missing, or ``path`` is a folder. ``OSError`` where the machine fails, for example a full
            disk, or a folder that may not be written; the old file is then still there.

    Guarantee: when this returns, content and name are on disk (as far as the disk keeps its word); when the process
    dies earlier, the old file is whole.
    """
    with _part(path, content, private) as part:
        part.replace(path)


def create_once(path: Path, content: bytes) -> bytes:
    """Create the private file ``path`` with ``content`` unless it exists, and return what the file holds.

    Raises:
        InputError: if the folder is missing, or cannot hold hard links; or see `read_private`. ``OSError`` as `write_atomic`.

    Guarantee: of many processes that call this at once exactly one creates the file, all get the same bytes, and no
    reader sees a part of them.
    """
    if not path.exists():
        with _part(path, content, private=True) as part:
            try:
                os.link(part, path)
            except FileExistsError:
                pass  # another process was faster: its content counts
            except OSError as error:
                if error.errno in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                    raise InputError(
                        f"{path} cannot be created in one step ({error.strerror}); "
                        "the folder must be on a file system that knows hard links"
                    ) from None
                raise in_words(error, f"{path} cannot be created") from None
    return read_private(path)


def read_private(path: Path) -> bytes:
    """Bytes of a file that nobody but its owner may read.

    Raises:
        InputError: if it is missing, cannot be read, or others have access to it.
    """
    content = _read(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if _POSIX and mode & 0o077:
        raise InputError(f"{path} must be private, but others have access to it (mode {mode:o}); run: chmod 600 {path}")
    return content


def make_folder(path: Path) -> Path:
    """The folder ``path``, made for its owner only (mode 0700) where it is missing, taken as it is where it exists.

    Raises:
        InputError: if it cannot be made, or is a file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise in_words(error, f"{path} cannot be made a folder") from None
    return path


def private_folder(path: Path) -> Path:
    """The folder ``path``, created with mode 0700 where it is missing.

    A folder that exists is never changed: it may be one that others need.

    Raises:
        InputError: if ``path`` is a symbolic link or a file, belongs to another user, or others may enter it.
    """
    if not path.is_symlink():
        make_folder(path)
    must_be_private(path)
    return path


def must_be_private(path: Path) -> None:
    """Refuse a folder that is not its owner's alone.

    Raises:
        InputError: as :func:`private_folder`.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise InputError(f"{path} is a symbolic link; a private folder must be a real one: name the folder it leads to")
    if not stat.S_ISDIR(found.st_mode):
        raise InputError(
            f"{path} is a file; a private folder must be a folder: take the file away, or name another place"
        )
    if _POSIX and found.st_uid != os.geteuid():
        raise InputError(f"{path} belongs to another user; name a folder of your own")
    mode = stat.S_IMODE(found.st_mode)
    if _POSIX and mode & 0o077:
        raise InputError(
            f"{path} must be private, but others may enter it (mode {mode:o}); "
            f"run chmod 700 {path}, or name a folder that does not exist yet"
        )


def read_json(path: Path) -> Any:
    """The JSON value in a file.

    Raises:
        InputError: if the file is missing, cannot be read or is not JSON (see `parse_json`).
    """
    return parse_json(_read(path), str(path))


def parse_json(content: bytes | str, name: str) -> Any:
    """The JSON value that ``content`` says; ``name`` is how messages call it.

    Raises:
        InputError: if it is not JSON in UTF-8, says NaN or Infinity or a number beyond every finite one (1e999), or names a
            key twice (two readers could then understand two different things).
    """
    try:
        text = content.decode() if isinstance(content, bytes) else content
        return _DECODER.decode(text)
    except RecursionError:
        raise InputError(f"{name} is nested too deeply to be one of our files") from None
    except ValueError as error:
        raise InputError(f"{name} is not JSON: {error}") from None


def leftovers(folder: Path) -> Iterator[Path]:
    """Files in ``folder`` that a process began to write and did not finish (or is writing now)."""
    return folder.glob(f".*{PART}")


def sweep(folder: Path) -> None:
    """Delete what :func:`leftovers` finds in ``folder`` and in all folders in it; nobody may be writing there."""
    for part in folder.rglob(f".*{PART}"):
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Bring the names in ``folder`` to disk; a no-op where the platform has no way to do it."""
    if _POSIX:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def in_words(error: OSError, message: str) -> Exception:
    """``error`` itself where the machine failed (:data:`~expunge.core.errors.MACHINE`), else an InputError that says why."""
    return error if error.errno in MACHINE else InputError(f"{message}: {error.strerror}")


@contextmanager
def _part(path: Path, content: bytes, private: bool) -> Iterator[Path]:
    """A complete temporary file beside ``path``, for the caller to put in place; the folder is synchronised after."""
    part = path.parent / f".{secrets.token_hex(8)}{PART}"
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        yield part
        sync_folder(path.parent)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise in_words(error, f"{path} cannot be read") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} appears twice")
    return value


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is beyond every finite number")
    return value


_DECODER = json.JSONDecoder(  # json.loads makes one for each text
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
)
