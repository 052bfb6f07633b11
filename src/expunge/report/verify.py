"""Check an evidence folder again, offline: nothing in it is believed that can be computed.

What passes is *consistent*: nobody changed it since it was signed, and its numbers follow from each other. Who signed it
is known only with a key that came another way, and whether the signer was honest is never shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from expunge.core.digest import digest_arrays, digest_file
from expunge.core.errors import ExpungeError, InputError, TamperedError
from expunge.core.files import read_json
from expunge.report import html, recompute, signing
from expunge.report import pdf as portable
from expunge.report.folder import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    ENVIRONMENT,
    EVIDENCE,
    EXCERPT,
    LIVE,
    PDF,
    PREDICATE,
    REPORT,
    STATEMENT,
    models_of,
    names_in,
    predicate,
)  # fmt: skip
from expunge.report.record import FORMAT, RENDERED_BY, environment

Record = Mapping[str, Any]
# Formats of before, and what the versions that wrote them did not promise.
NOTES = {
    "expunge-evidence/1": (
        "written by a version before 0.2, which did not establish by itself that noise entered the release as stated, that "
        "what left without noise owed nothing to the rows, that no release was left out and that noise was fixed first, and "
        "which published numbers that depend on forgotten rows: read certified as certified under declared constants, and do "
        "not hand the folder on"
    )
}


@dataclass(frozen=True)
class Finding:
    """One check of a folder: what was looked at, and the problem or the reason why it was skipped, if any."""

    name: str
    problem: str = ""
    skipped: str = ""

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
    """

    checks: tuple[Finding, ...]
    signer: str

    note: str = ""

    @property
    def consistent(self) -> bool:
        """Whether no check found a problem."""
        return all(check.ok for check in self.checks)

    @property
    def message(self) -> str:
        """The result in one line."""
        if self.consistent:
            return f"consistent, signer {self.signer}" + (f"; {self.note}" if self.note else "")
        count = sum(not check.ok for check in self.checks)
        return f"NOT consistent: {count} of {len(self.checks)} checks found a problem; signer {self.signer}"

    def to_json(self) -> dict[str, Any]:
        """JSON-like form."""
        checks = [{**asdict(check), "ok": check.ok} for check in self.checks]
        return {
            "consistent": self.consistent, "signer": self.signer, "message": self.message, "note": self.note,
            "checks": checks,
        }  # fmt: skip


def verify_folder(folder: Path | str, public_key: Ed25519PublicKey | None = None) -> Verification:
    """Check everything in an evidence folder that can be checked without asking anyone.

    Args:
        public_key: the key of the expected signer; without it the signer stays unknown.

    Raises:
        InputError: if ``folder`` is no evidence folder at all. Whatever is wrong *inside* one is a finding.

    Guarantee: with the key, no file can be changed, added or removed unseen by someone who lacks the private key.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; name the folder that holds {EVIDENCE}.")
    if not (folder / EVIDENCE).is_file() and not (folder / STATEMENT).is_file():
        raise InputError(f"{folder} holds neither {EVIDENCE} nor {STATEMENT}: it is no evidence folder.")
    seen = _Folder(folder, public_key)
    checks = tuple(_found(name, check) for name, check in seen.all())
    note = ""
    with suppress(ExpungeError, OSError):
        note = NOTES.get(str(seen.record().get("format")), "")
    return Verification(checks, "known" if public_key is not None and checks[0].ok else "unknown", note)


def _found(name: str, check: Callable[[], str | None]) -> Finding:
    """What a check found: it returns a reason where it was skipped, and raises where something is wrong."""
    try:
        return Finding(name, skipped=check() or "")
    except ExpungeError as error:
        return Finding(name, str(error))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, OSError) as error:
        return Finding(name, f"cannot be read: {type(error).__name__}: {error}")
    except Exception as error:  # a renderer or a tensor reader fed with a changed file may raise anything
        return Finding(name, f"cannot be checked: {type(error).__name__}: {error}")


class _Folder:
    """An evidence folder and its checks; each returns why it was skipped, or raises what is wrong."""

    def __init__(self, folder: Path, public_key: Ed25519PublicKey | None):
        self.folder, self.public_key = folder, public_key

    def all(self) -> list[tuple[str, Callable[[], str | None]]]:
        """Name and check, the signature first."""
        checks: list[tuple[str, Callable[[], str | None]]] = [
            ("signature", self.signature),
            ("every file as signed, and no other", self.files),
            ("evidence record", self.evidence),
            ("statement agrees with the record", self.predicate),
            ("copies of the record", self.copies),
        ]
        runs: list[Any] = []
        with suppress(ExpungeError, KeyError, TypeError):
            runs = list(self.record()["runs"])
        for run in runs:
            name = run.get("name", "?") if isinstance(run, Mapping) else "?"
            checks += [
                (f"{name}: certificate computed again", lambda run=run: self.certificate(run)),
                (f"{name}: released model", lambda run=run: self.models(run)),
                (f"{name}: measurements", lambda run=run: self.measurements(run)),
            ]
        return [*checks, ("ledger", self.ledger), (REPORT, self.report), (PDF, self.pdf)]

    def record(self) -> Record:
        """The evidence record."""
        found = read_json(self.folder / EVIDENCE)
        if not isinstance(found, dict):
            raise InputError(f"{EVIDENCE} holds no record")
        return found

    def statement(self) -> dict[str, Any]:
        """What was signed, by whomever."""
        return signing.consistent(read_json(self.folder / STATEMENT))

    def signature(self) -> None:
        """By the given key, or at least by the one that the envelope carries."""
        if not (self.folder / STATEMENT).is_file():
            raise TamperedError(f"{STATEMENT} is missing: the folder was never finished, or the signature was removed")
        if self.public_key is not None:
            signing.verify(read_json(self.folder / STATEMENT), self.public_key)
        else:
            self.statement()

    def files(self) -> None:
        """The signed digests against the files, and the files against the signed names."""
        signed = {item["name"]: item["digest"]["sha256"] for item in self.statement()["subject"]}
        here = names_in(self.folder) - {STATEMENT}
        problems = [f"{name} is missing" for name in sorted(signed.keys() - here)]
        problems += [f"{name} is not signed" for name in sorted(here - signed.keys())]
        for name in sorted(here & signed.keys()):
            path = self.folder / name
            if path.is_symlink():
                problems.append(f"{name} is a link")
            elif digest_file(path) != signed[name]:
                problems.append(f"{name} was changed after it was signed")
        _none(problems)

    def evidence(self) -> None:
        """The record's format and its parts."""
        record = self.record()
        if record.get("format") not in (FORMAT, *NOTES):
            raise InputError(f"expected a record in the format {FORMAT!r}, got {record.get('format')!r}")
        parts = ("created", "expunge", "title", "request", "data", "runs", "environment", "ledger")
        if missing := [part for part in parts if part not in record]:
            raise TamperedError(f"the record lacks {', '.join(missing)}")
        if not record["runs"]:
            raise TamperedError("the record tells of no run")

    def predicate(self) -> None:
        """What the signature says against what the record says."""
        signed = self.statement()
        if signed.get("predicateType") != PREDICATE:
            raise TamperedError(f"the statement is of type {signed.get('predicateType')!r}, expected {PREDICATE!r}")
        if signed["predicate"] != predicate(self.record(), (self.folder / PDF).exists()):
            raise TamperedError("request, verdicts, time, version or presence of a PDF differ from the record")

    def copies(self) -> None:
        """Files that repeat a part of the record."""
        record = self.record()
        for name, part in ((ENVIRONMENT, record["environment"]), (EXCERPT, record["ledger"])):
            if part is None and not (self.folder / name).exists():
                continue
            if read_json(self.folder / name) != part:
                raise TamperedError(f"{name} differs from the record")

    def certificate(self, run: Record) -> str | None:
        """Numbers, verdict and bindings of every view."""
        _none(recompute.certificate_problems(self.record(), run))
        return None if run["certificate"] else "there is no certificate"

    def models(self, run: Record) -> None:
        """The tensors on disk against the digest that certificates are bound to."""
        from safetensors.torch import load

        from expunge.core.trained import Artifact

        signed = names_in(self.folder)
        for model in models_of({"runs": [run]}):
            if model["file"] not in signed:  # also keeps names from leading out of the folder
                raise TamperedError(f"{model['file']} is missing")
            tensors = load((self.folder / model["file"]).read_bytes())
            if Artifact(tensors, model["form"], model["extra"]).digest != model["digest"]:
                raise TamperedError(f"{model['file']} does not hold the released model")
            if model.get("adapter") is not None:
                self._adapter(model, signed)

    def _adapter(self, model: Record, signed: set[str]) -> None:
        """PEFT's two files against the record."""
        from safetensors.torch import load

        weights, config = (f"{model['adapter']['folder']}/{name}" for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG))
        if missing := [name for name in (weights, config) if name not in signed]:
            raise TamperedError(f"{' and '.join(missing)} missing")
        if digest_arrays(load((self.folder / weights).read_bytes())) != model["adapter"]["digest"]:
            raise TamperedError(f"{weights} does not hold the released adapter")
        if read_json(self.folder / config) != model["extra"]["adapter"]:
            raise TamperedError(f"{config} is not the configuration of the released adapter")

    def measurements(self, run: Record) -> None:
        """Whether each value agrees with its ideal, and what all of them come to."""
        _none(recompute.measurement_problems(run["evidence"]))

    def ledger(self) -> str | None:
        """The excerpt's chain, its entries against the record, and a live ledger against the excerpt."""
        from expunge.ledger import Ledger, verify_excerpt

        record = self.record()
        excerpt, live = record["ledger"], self.folder / LIVE[0]
        if excerpt is None:
            return "there is no excerpt"
        _none(recompute.ledger_problems(record, verify_excerpt(excerpt)))
        if live.exists():
            with Ledger(live) as ledger:
                ledger.extends(excerpt)
        return None

    def report(self) -> str | None:
        """report.html drawn again from the record."""
        record = self.record()
        here = environment()
        for name in (*RENDERED_BY, "system", "machine"):
            if record["environment"].get(name) != here[name]:
                return f"made with {name} {record['environment'].get(name)}, here is {here[name]}: its digest is signed"
        if (self.folder / REPORT).read_bytes() != html.render(record).encode():
            raise TamperedError("the page does not say what the record says")
        return None

    def pdf(self) -> str | None:
        """The record inside the PDF."""
        path = self.folder / PDF
        if not path.exists():
            return "there is none"
        if portable.attachments(path.read_bytes()) != [(self.folder / EVIDENCE).read_bytes()]:
            raise TamperedError(f"the record attached to {PDF} is not {EVIDENCE}")
        return None


def _none(problems: list[str]) -> None:
    if problems:
        raise TamperedError("; ".join(problems))
