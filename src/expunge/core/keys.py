"""Secret keys of this installation, in one private folder that outlives runs and caches."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from expunge.core.errors import InputError
from expunge.core.files import create_once, private_folder

_BYTES = 32


def state_folder() -> Path:
    """The private folder of keys: ``EXPUNGE_HOME``, else ``expunge`` in the user's state folder; created if missing.

    Raises:
        InputError: if it cannot be created, is a symbolic link, or others may enter it.
    """
    chosen = os.environ.get("EXPUNGE_HOME")
    if chosen:
        return private_folder(Path(chosen).expanduser())
    base = os.environ.get("XDG_STATE_HOME")
    return private_folder((Path(base) if base else Path.home() / ".local" / "state") / "expunge")


def key_path(name: str) -> Path:
    """Where the key file called ``name`` lies; the folder is created, the file is not."""
    return state_folder() / name


def audit_key() -> bytes:
    """The key that decides which examples an audit trains on and forgets again: 32 random bytes, made on first use.

    Raises:
        InputError: if the file is damaged or others have access to it.

    Guarantee: who cannot read or replace the key cannot make a request, or choose settings, so that an audit looks elsewhere.
    """
    return _kept("audit.key", "a new key would choose other examples than the audits of before")


def subject_key() -> bytes:
    """The key of `keyed_hash` for people's names: 32 random bytes, made on first use, the same ever after.

    Raises:
        InputError: if the file is damaged or others have access to it.

    Guarantee: all processes of one user get the same key, also when they ask for the first time at the same moment.
    Who has the key can test guesses of names against a ledger; who loses it can no longer find a person's entries.
    """
    return _kept("subject.key", "a new key would not find the requests that were filed under the old one")


def _kept(name: str, otherwise: str) -> bytes:
    """A key of this installation, made where it is missing."""
    path = key_path(name)
    key = create_once(path, secrets.token_bytes(_BYTES))
    if len(key) != _BYTES:
        raise InputError(
            f"{path} should hold {_BYTES} bytes and holds {len(key)}; restore it from a backup: {otherwise}"
        )
    return key
