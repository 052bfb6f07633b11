"""The journal of one run: each stage is computed once and written down before anybody uses it.

A folder holds ``index.json`` (which run, which stages in which order, their digests), ``stages/<name>.<sha256>`` and
``lock``. The index tells a stage that went missing from one that was never computed; the digest in a stage's file name
lets a stage that was written just before a crash be taken over instead of being drawn again.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from expunge.core.digest import canonical_json, digest_bytes
from expunge.core.errors import InputError, TamperedError
from expunge.core.files import in_words, leftovers, make_folder, read_json, sync_folder, write_atomic

try:
    import fcntl
except ImportError:  # no POSIX locks on this platform
    fcntl = None

_LOG = logging.getLogger(__name__)
_FORMAT = "expunge/journal/1"
_NAME = re.compile(r"[a-z0-9][a-z0-9._=+-]{0,99}")  # lower case: some file systems cannot tell A from a
_FILE = re.compile(rf"({_NAME.pattern})\.([0-9a-f]{{64}})")

STAGES_AT_MOST = 8  # of a run of steps: a killed run repeats at most an eighth
STEPS_PER_STAGE = 25  # at least; a shorter run is not worth a cut
STORED_BYTES_AT_MOST = 2**31  # of all stages of a run together


def cuts(length: int, size: int) -> list[int]:
    """Step counts at which a run of ``length`` steps is stored, its end among them, where each stage takes ``size`` bytes."""
    stages = max(1, min(STAGES_AT_MOST, length // STEPS_PER_STAGE, STORED_BYTES_AT_MOST // max(1, size)))
    return [length * (i + 1) // stages for i in range(stages)]


@dataclass(frozen=True)
class Stage:
    """One finished stage: its name, the SHA-256 of its bytes, and how many they are."""

    name: str
    digest: str
    size: int


class Journal:
    """Crash-safe, resumable stages of one run in one folder.

    Use it as a context manager around the whole run: the folder is then locked against other processes (the operating
    system frees the lock when the process dies, however it dies). A method called outside ``with`` locks for itself.
    All files are private: stages may hold iterates without noise.

    Raises:
        InputError: on entry, if another process holds the folder, or the folder is no journal.
        TamperedError: on entry or reading, if a stored stage is missing or differs from its digest.

    Guarantee: once `once` has returned bytes under a name, it returns the same bytes ever after, also after SIGKILL or
    a power cut, until `clear`. Noise drawn inside a stage is therefore never drawn a second time once it was used.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._stages = self.folder / "stages"
        self._index = self.folder / "index.json"
        self._lock: int | None = None
        self._depth = 0

    def __enter__(self) -> Journal:
        if self._depth == 0:
            make_folder(self.folder)
            make_folder(self._stages)
            self._lock = _lock(self.folder)
            try:
                self._recover()
            except BaseException:
                self._unlock()
                raise
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._unlock()

    def bind(self, fingerprint: str) -> None:
        """Tie the folder to one run, named by the digest of everything that defines it.

        Raises:
            InputError: if the folder belongs to another run, or holds stages of a run that was never named.
        """
        with self:
            bound, stages = self._load()
            if bound == fingerprint:
                return
            if bound is not None or stages:
                raise InputError(
                    f"{self.folder} belongs to another run ({_short(bound)}, this one is {_short(fingerprint)}): "
                    "something that defines the run has changed. Choose another folder, or clear this one to start anew"
                )
            self._save(fingerprint, stages)

    def once(self, name: str, compute: Callable[[], bytes]) -> bytes:
        """The bytes of stage ``name``: those stored, else those that ``compute`` gives, stored before returned.

        Raises:
            InputError: if ``name`` cannot name a file.
            TamperedError: if the stored stage is missing or was changed.
            TypeError: if ``compute`` gives something else than bytes.
        """
        if not _NAME.fullmatch(name):
            raise InputError(f"a stage is named by lower-case letters, digits and . _ = + -, got {name!r}")
        with self:
            bound, stages = self._load()
            if name in stages:
                return self._read(stages[name])
            content = compute()
            if not isinstance(content, bytes):
                raise TypeError(f"stage {name!r} must give bytes, got {type(content).__name__}")
            stage = Stage(name, digest_bytes(content), len(content))
            write_atomic(self._path(stage), content, private=True)
            bound, stages = self._load()  # again: ``compute`` may have run stages of its own
            self._save(bound, stages | {name: stage})
            return content

    def once_json(self, name: str, compute: Callable[[], Any]) -> Any:
        """As `once`, for a JSON-like value; the first call and a resumed one return equal values (tuples as lists)."""
        return json.loads(self.once(name, lambda: canonical_json(compute())))

    def has(self, name: str) -> bool:
        """Whether stage ``name`` is finished; asks without a lock, so that another process can watch a run."""
        return name in self._load()[1]

    def entries(self) -> list[Stage]:
        """The finished stages in the order they were finished; asks without a lock."""
        return list(self._load()[1].values())

    def clear(self) -> list[Stage]:
        """Remove every stage and the run's name; return the stages that went.

        A crash on the way leaves a journal that finishes the clearing when it is next entered.
        """
        with self:
            removed = self.entries()
            write_atomic(self._index, canonical_json({"format": _FORMAT, "clearing": True}), private=True)
            self._recover()
            return removed

    def _path(self, stage: Stage) -> Path:
        return self._stages / f"{stage.name}.{stage.digest}"

    def _read(self, stage: Stage) -> bytes:
        try:
            content = self._path(stage).read_bytes()
        except FileNotFoundError:
            raise TamperedError(
                f"stage {stage.name!r} is written in the index of {self.folder} and its file is gone"
            ) from None
        if digest_bytes(content) != stage.digest:
            raise TamperedError(f"stage {stage.name!r} in {self.folder} was changed after it was written")
        return content

    def _load(self) -> tuple[str | None, dict[str, Stage]]:
        if not self._index.exists():
            return None, {}
        record = read_json(self._index)
        try:
            if record["format"] != _FORMAT:
                raise InputError(f"{self._index} has the format {record['format']!r}, expected {_FORMAT!r}")
            if "clearing" in record:
                return None, {}
            stages = [Stage(**stage) for stage in record["stages"]]
            return record["fingerprint"], {stage.name: stage for stage in stages}
        except (TypeError, KeyError):
            raise InputError(f"{self._index} is no index of a journal; choose another folder") from None

    def _save(self, fingerprint: str | None, stages: dict[str, Stage]) -> None:
        record = {"format": _FORMAT, "fingerprint": fingerprint, "stages": [asdict(s) for s in stages.values()]}
        write_atomic(self._index, canonical_json(record), private=True)

    def _recover(self) -> None:
        """Finish what a process that died left half done; runs under the lock."""
        for folder in (self.folder, self._stages):
            for part in leftovers(folder):
                part.unlink()
        files = {path: found.groups() for path in self._stages.iterdir() if (found := _FILE.fullmatch(path.name))}
        if self._index.exists() and "clearing" in read_json(self._index):
            for path in files:
                path.unlink()
            sync_folder(self._stages)
            self._index.unlink()
            sync_folder(self.folder)
            return
        fingerprint, stages = self._load()
        for path, (name, digest) in files.items():
            if name not in stages:  # written, and the process died before it reached the index
                stage = Stage(name, digest, path.stat().st_size)
                self._read(stage)
                stages = stages | {name: stage}
                self._save(fingerprint, stages)
            elif stages[name].digest != digest:
                raise TamperedError(f"{path} is a second content of stage {name!r}; a run writes only one")

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lock(folder: Path) -> int:
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if fcntl is None:
            _LOG.warning("this platform has no file locks: take care that only one process works in %s", folder)
            return handle
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        return handle
    except BlockingIOError:
        holder = os.read(handle, 32).decode(errors="replace")
        os.close(handle)
        raise InputError(
            f"another run (process {holder or 'unknown'}) is working in {folder}; wait for it or choose another folder"
        ) from None
    except OSError as error:
        os.close(handle)
        raise in_words(error, f"{folder} cannot be locked; choose a folder on a local disk") from None


def _short(fingerprint: str | None) -> str:
    return "unnamed" if fingerprint is None else fingerprint[:12]
