"""Which state of a ledger file this installation has verified: the same file need not be read again from its first entry.

A state is known by what the file system says of it: device, inode, size, and the times when its content and it itself were last
changed. Whoever can set back all of these can also write a whole ledger anew, which no check of the file alone finds (see
``docs/threat_model.md``). The file itself is not opened: closing it would end SQLite's locks in this process.
"""

from __future__ import annotations

import json
import secrets
import time
from contextlib import suppress
from pathlib import Path

from expunge.core.digest import digest_json
from expunge.core.errors import ExpungeError
from expunge.core.files import private_folder
from expunge.core.keys import state_folder

_TICK = 10_000_000  # nanoseconds within which a file system may give two changes the same time; Linux: 4 ms at 250 Hz


def state(path: Path) -> list[int]:
    """What tells this state of the file from every other one."""
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def is_known(path: Path) -> bool:
    """Whether the file is as it was when it was last verified or written here."""
    try:
        return json.loads(_note(path).read_bytes()) == state(path)
    except (OSError, ValueError, ExpungeError):
        return False


def keep(path: Path, verified: list[int]) -> None:
    """From now on the file is known as it is, if that is the ``verified`` state.

    Where nothing can be kept, the file is verified again next time.
    """
    with suppress(OSError, ExpungeError):
        age = time.time_ns() - verified[-1]
        if 0 <= age < _TICK:  # a change that comes now would bear the same time
            time.sleep((_TICK - age) / 1e9)
        if state(path) != verified:
            return
        note = _note(path)
        part = note.with_name(f"{note.name}.{secrets.token_hex(4)}")
        part.write_text(json.dumps(verified))
        part.replace(note)


def _note(path: Path) -> Path:
    return private_folder(state_folder() / "ledgers") / digest_json(str(path.resolve()))[:32]
