"""Where a run writes: the evidence folder, the private folder beside it, and the ledger; judged before the first byte."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from expunge.core.errors import InputError
from expunge.core.files import must_be_private

LEDGER = "ledger.sqlite"  # in the evidence folder, where the job names none
LONGEST = 255 - len(
    ".0123456789abcdef.part"
)  # bytes of a name that file systems take, less what a file in the making adds


@dataclass(frozen=True)
class Places:
    """What one run writes to.

    Attributes:
        out: the folder of what may be shown.
        private: the folder of what may not: journal, next models, per-example scores.
        ledger: the file of the ledger.
        of_a_model: whether it lies beside a published model, which may be anywhere.
    """

    out: Path
    private: Path
    ledger: Path
    of_a_model: bool = False

    @classmethod
    def of(cls, out: Path, ledger: Path | None, *, of_a_model: bool = False) -> Places:
        """The places of a run whose evidence goes to ``out``; a ledger that no job names lies in it."""
        out = out if out.name not in ("", "..") else out.resolve()
        return cls(out, out.with_name(out.name + ".private"), ledger or out / LEDGER, of_a_model)

    def check(self) -> None:
        """Refuse places that cannot be written to, or that would be taken for each other.

        Raises:
            InputError: for a link, a file where a folder is needed, a name that is too long, a folder that may not be
                written, a private folder that others may enter, or a ledger among the files of the evidence.
        """
        if self.out.is_symlink():
            raise InputError(f"{self.out} is a symbolic link; name the folder that it leads to.")
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"Expected a folder for the evidence; {self.out} is a file.")
        for path in (self.out, self.private, self.ledger):
            if long := [part for part in path.parts if len(os.fsencode(part)) > LONGEST]:
                raise InputError(f"A name of {len(os.fsencode(long[0]))} bytes is too long: {long[0]:.40}… Shorten it.")
            _must_be_writable_above(path)
        if self.private.exists() or self.private.is_symlink():
            must_be_private(self.private)
        inside = [self.out, self.private] if self.ledger != self.out / LEDGER else [self.private]
        inside = [] if self.of_a_model else inside
        ledger = self.ledger.resolve()
        if within := [folder for folder in inside if ledger.is_relative_to(folder.resolve())]:
            raise InputError(
                f"The ledger {self.ledger} would lie in {within[0]}, among the files of one request. Name a file outside of it."
            )
        if self.ledger.is_symlink() and not self.ledger.exists():
            raise InputError(f"{self.ledger} is a link that leads nowhere; mend it, or name the file itself.")
        if self.ledger.exists() and not stat.S_ISREG(self.ledger.stat().st_mode):
            kind = "a folder" if self.ledger.is_dir() else "no regular file"
            raise InputError(f"{self.ledger} is {kind}; a ledger is one file.")
        for path in (self.ledger, self.ledger.parent, self.out, self.private):
            if path.exists() and not os.access(path, os.W_OK | (os.R_OK if path.is_file() else os.X_OK)):
                raise InputError(f"{path} may not be written. Get the right to, or name another place.")

    @property
    def unfinished(self) -> bool:
        """Whether a run of this job began here and did not end."""
        return any(self.private.glob("journal-*/index.json"))

    def must_be_free(self, own: Collection[str]) -> None:
        """Refuse places that hold something else than unfinished work of this job, and the model that it is served from.

        Args:
            own: names of folders that may be in the private one: the journals that the run would make first.

        Raises:
            InputError: naming what is there.
        """
        if self.unfinished:
            return
        if self.out.exists() and any(self.out.iterdir()):
            raise InputError(
                f"{self.out} holds something already, perhaps the evidence of another request. Name a new folder."
            )
        own, ledger, private = {*own}, self.ledger.resolve(), self.private.resolve()
        if self.of_a_model and ledger.is_relative_to(private):
            own.add(ledger.relative_to(private).parts[0])
        for path in sorted(self.private.iterdir()) if self.private.exists() else ():
            if path.name not in own or path.is_symlink() or not path.is_dir():
                raise InputError(
                    f"{self.private} holds {path.name} already, perhaps of an earlier request. Name a new folder."
                )


def _must_be_writable_above(path: Path) -> None:
    """Raise InputError unless the folder that would hold ``path`` exists and may be written, or can be made."""
    above = path.parent
    while not above.exists() and above != above.parent:
        if above.is_symlink():
            raise InputError(f"{above} is a link that leads nowhere; mend it, or name another place than {path}.")
        above = above.parent
    if not above.is_dir():
        raise InputError(f"{above} is no folder, so that {path} cannot be made in it. Name another place.")
    if not path.exists() and not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{above} may not be written, so that {path} cannot be made. Name another place.")
