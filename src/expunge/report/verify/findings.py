"""What came of checking a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from expunge.core.errors import ExpungeError, of_the_machine
from expunge.report.verify.reading import Clock, Skipped, TooLong, limited

VERIFIED, TAMPERED, SIGNER_UNKNOWN, INCOMPLETE = 0, 1, 5, 6  # exit codes


@dataclass(frozen=True)
class Finding:
    """One check of a folder: what was looked at, and the problem or the reason why it was skipped, if any.

    Attributes:
        note: how it was made, or that there was nothing to be checked.
    """

    name: str
    problem: str = ""
    skipped: str = ""
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing was found; a skipped check found nothing."""
        return not self.problem


@dataclass(frozen=True)
class Verification:
    """What came of checking a folder.

    Attributes:
        checks: all that were made, also those that passed.
        signer: ``known`` where the given key signed the folder, else ``unknown``.
        note: what the version that wrote the folder did not promise; empty for this version's.
        evidence: digest of evidence.json as it was checked, so that whoever reads it afterwards reads the same; empty where
            it cannot be read.
    """

    checks: tuple[Finding, ...]
    signer: str
    note: str = ""
    evidence: str = ""

    @property
    def consistent(self) -> bool:
        """Whether no check found a problem."""
        return all(check.ok for check in self.checks)

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of the checks that could not be made here."""
        return tuple(check.name for check in self.checks if check.skipped)

    @property
    def exit_code(self) -> int:
        """0: everything was checked and the signer is known; 1: a problem; 6: a check was skipped; 5: only the signer was not
        checked."""
        if not self.consistent:
            return TAMPERED
        if self.skipped:
            return INCOMPLETE
        return VERIFIED if self.signer == "known" else SIGNER_UNKNOWN

    @property
    def message(self) -> str:
        """The result in one line."""
        if not self.consistent:
            count = sum(not check.ok for check in self.checks)
            return f"NOT consistent: {count} of {len(self.checks)} checks found a problem; signer {self.signer}"
        skipped = f"; not checked: {', '.join(self.skipped)}" if self.skipped else ""
        return f"consistent, signer {self.signer}{skipped}" + (f"; {self.note}" if self.note else "")

    def to_json(self) -> dict[str, Any]:
        """JSON-like form."""
        checks = [{**asdict(check), "ok": check.ok} for check in self.checks]
        return {
            "consistent": self.consistent, "signer": self.signer, "message": self.message, "note": self.note,
            "exit_code": self.exit_code, "skipped": list(self.skipped), "checks": checks,
        }  # fmt: skip


def found(name: str, check: Callable[[], str | None], clock: Clock) -> Finding:
    """What a check found: it returns a note, raises :class:`Skipped` where it cannot be made, and else what is wrong."""
    finding = _found(name, check, clock)
    return replace(
        finding, **{part: printable(getattr(finding, part)) for part in ("name", "problem", "skipped", "note")}
    )


def printable(text: str) -> str:
    """``text`` in one line: what a folder or a ledger says must not look like lines of ours, or steer a terminal."""
    return "".join(
        each if each.isprintable() else " " if each.isspace() else "\N{REPLACEMENT CHARACTER}" for each in text
    )


def _found(name: str, check: Callable[[], str | None], clock: Clock) -> Finding:
    try:
        with limited(clock):
            return Finding(name, note=check() or "")
    except Skipped as reason:
        return Finding(name, skipped=str(reason))
    except (ExpungeError, TooLong) as error:
        return Finding(name, str(error) or type(error).__name__)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, OSError) as error:
        if of_the_machine(error):
            raise
        return Finding(name, f"cannot be read: {type(error).__name__}: {error}"[:2000])
    except (Exception, RecursionError, MemoryError) as error:  # a renderer fed with a changed record may raise anything
        return Finding(name, f"cannot be checked: {type(error).__name__}: {error}"[:2000])
