"""Check an evidence folder again, offline: nothing in it is believed that can be computed, and nothing of it is trusted.

What passes is *consistent*: nobody changed it since it was signed, and everything in it follows from what it says it was made
from. Who signed it is known only with a key that came another way, and whether the signer was honest is never shown.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from expunge.core.digest import digest_bytes, digest_json
from expunge.core.errors import ExpungeError, InputError, TamperedError
from expunge.core.yaml_events import yaml_events
from expunge.ledger import Ledger, verify_excerpt
from expunge.report import checkpoint as checkpoints
from expunge.report import signing
from expunge.report.folder import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CONFIG,
    ENVIRONMENT,
    EVIDENCE,
    EXCERPT,
    IN_FOLDER,
    LIVE,
    MODELS,
    PDF,
    PREDICATE,
    REPORT,
    STATEMENT,
    as_json,
    models_of,
    predicate,
)  # fmt: skip
from expunge.report.record import FORMAT
from expunge.report.verify import ledger as ledgers
from expunge.report.verify import pages
from expunge.report.verify import record as records
from expunge.report.verify.findings import Finding as Finding
from expunge.report.verify.findings import Verification as Verification
from expunge.report.verify.findings import found
from expunge.report.verify.reading import (
    BYTES_OF_A_NUMBER,
    LARGEST,
    LONGEST,
    Clock,
    Skipped,
    UntrustedFolder,
    bounded_json,
    digest_of_tensors,
    single,
)

Record = Mapping[str, Any]
_LARGEST_CONFIG = 2**20
_MOST_RUNS, _MOST_MEASUREMENTS, _MOST_CHECKS = 64, 20_000, 10_000
_OF_A_MODEL = 20  # measurements of each model of a network; ours have 11
# Formats of before, and what the versions that wrote them did not promise.
_WORDS = "the words of its certificates and pages are an earlier version's and are not compared"
NOTES = {
    records.FORMAT_1: (
        "written by a version before 0.2, which did not establish by itself that noise entered the release as stated, that "
        "what left without noise owed nothing to the rows, that no release was left out and that noise was fixed first, and "
        "which published numbers that depend on forgotten rows: read certified as certified under declared constants, and do "
        f"not hand the folder on; {_WORDS}"
    ),
    records.FORMAT_2: (
        "written by an early version of 0.2, which did not record what a certificate was made from, nor name the record on the "
        f"ledger: a rewritten record whose numbers fit each other is found only with the key; {_WORDS}"
    ),
}


def verify_folder(
    folder: Path | str,
    public_key: Ed25519PublicKey | None = None,
    *,
    ledger: Path | None = None,
    checkpoint: Path | None = None,
    seconds: float = LONGEST,
) -> Verification:
    """Check everything in an evidence folder that can be checked without asking anyone. Writes nothing.

    Args:
        public_key: the key of the expected signer; without it the signer stays unknown.
        ledger: the ledger that the request was recorded in, where it does not lie in the folder.
        checkpoint: a file that ``expunge ledger checkpoint`` wrote, kept since: a ledger that was cut, rolled back or rewritten
            is found with it, and only with it.
        seconds: of processor time, at most (our choice: 50). Checks of weights that are too large for it are skipped, by name.

    Raises:
        InputError: if ``folder`` is no evidence folder at all, or ``ledger`` or ``checkpoint`` cannot be read. Whatever is
            wrong *inside* the folder is a finding.

    Guarantee: with the key, no file can be changed, added or removed unseen by someone who lacks the private key. A ledger
    in the folder grows after signing: it is checked against the excerpt, and against the checkpoint where there is one; what
    was appended since bears no signature, and its number is said.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; name the folder that holds {EVIDENCE}.")
    if not (folder / EVIDENCE).is_file() and not (folder / STATEMENT).is_file():
        raise InputError(f"{folder} holds neither {EVIDENCE} nor {STATEMENT}: it is no evidence folder.")
    if ledger is not None and not ledger.is_file():
        raise InputError(f"There is no ledger {ledger}.")
    point = None if checkpoint is None else bounded_json(single(checkpoint, "a checkpoint"), str(checkpoint))
    try:
        untrusted = UntrustedFolder(folder, Clock(seconds))
    except (TamperedError, OSError) as error:
        return Verification((Finding("files", str(error)),), "unknown")
    seen = _Folder(untrusted, public_key, ledger, point)
    checks = tuple(found(name, check, untrusted.clock) for name, check in seen.all())
    note = ""
    with suppress(ExpungeError, OSError):
        note = NOTES.get(str(seen.record.get("format")), "")
    read = ""
    with suppress(ExpungeError, OSError):
        read = digest_bytes(seen.evidence_bytes)
    return Verification(checks, "known" if public_key is not None and checks[0].ok else "unknown", note, read)


class _Folder:
    """An evidence folder and its checks: each returns a note, or raises what is wrong or why it cannot be made."""

    def __init__(self, files: UntrustedFolder, public_key: Ed25519PublicKey | None, ledger: Path | None, point: Any):
        self.files, self.public_key, self.ledger_path, self.point = files, public_key, ledger, point
        with suppress(ExpungeError, KeyError, TypeError, AttributeError, ValueError, OSError):
            files.largest = {name: LARGEST + BYTES_OF_A_NUMBER * count for name, count in self._weights()}

    def all(self) -> list[tuple[str, Callable[[], str | None]]]:
        """Name and check, the signature first."""
        checks: list[tuple[str, Callable[[], str | None]]] = [
            ("signature", self.signature),
            ("every file as signed, and no other", self.signed_files),
            ("evidence record", self.evidence),
            ("statement agrees with the record", self.predicate),
            ("copies of the record", self.copies),
        ]
        runs: list[Any] = []
        with suppress(ExpungeError, KeyError, TypeError, OSError):
            runs = list(self.record["runs"])[:_MOST_RUNS]
        for run in runs:
            name = str(run.get("name", "?") if isinstance(run, Mapping) else "?")[:200]
            checks += [
                (f"{name}: certificate made again", lambda run=run: self.certificate(run)),
                (f"{name}: released model", lambda run=run: self.models(run)),
                (f"{name}: measurements", lambda run=run: self.measurements(run)),
            ]
            if isinstance(run, Mapping) and "outcome" in run:  # records of before have none
                checks.append((f"{name}: outcome judged again", lambda run=run: self.outcome(run)))
        checks += [("ledger's excerpt", self.excerpt), ("ledger", self.ledger)]
        checks += [("checkpoint", self.checkpoint)] if self.point is not None else []
        return [*checks, (REPORT, self.report), (PDF, self.pdf)]

    def _weights(self) -> Iterator[tuple[str, int]]:
        """Files that hold weights, and how many numbers the record says that they hold."""
        for model in models_of(self.record):
            yield model["file"], model["parameters"]
            if (adapter := model.get("adapter")) is not None:
                yield f"{adapter['folder']}/{ADAPTER_WEIGHTS}", adapter["parameters"]

    @functools.cached_property
    def evidence_bytes(self) -> bytes:
        """evidence.json as it is."""
        return self.files.bytes(EVIDENCE)

    @functools.cached_property
    def record(self) -> Record:
        """The evidence record."""
        value = bounded_json(self.evidence_bytes, EVIDENCE)
        if not isinstance(value, dict):
            raise InputError(f"{EVIDENCE} holds no record")
        return value

    @property
    def old(self) -> bool:
        """Whether an earlier version wrote the record."""
        return self.record["format"] != FORMAT

    @property
    def live(self) -> tuple[str, ...]:
        """The ledger, where the record says that it lies in the folder: it grows after signing."""
        return LIVE if self.record.get("live_ledger", IN_FOLDER) == IN_FOLDER else ()

    @functools.cached_property
    def statement(self) -> dict[str, Any]:
        """What was signed, by whomever."""
        return signing.consistent(self.files.json(STATEMENT))

    def signature(self) -> None:
        """By the given key, or at least by the one that the envelope carries; in the very form in which we write it."""
        if STATEMENT not in self.files.names | self.files.strange:
            raise TamperedError(f"{STATEMENT} is missing: the folder was never finished, or the signature was removed")
        content = self.files.bytes(STATEMENT)
        envelope = bounded_json(content, STATEMENT)
        if self.public_key is not None:
            signing.verify(envelope, self.public_key)
        else:
            signing.consistent(envelope)
        if signing.written_again(envelope) != envelope or as_json(envelope) != content:
            raise TamperedError(
                f"{STATEMENT} holds something besides one signed statement, or is written in another way"
            )

    def signed_files(self) -> None:
        """The signed digests against the files, and the files against the signed names."""
        signed = {item["name"]: item["digest"]["sha256"] for item in self.statement["subject"]}
        if self.statement["subject"] != signing.listed(signed):
            raise TamperedError("the statement names its files in another way than ours")
        here = self.files.names - {STATEMENT, *self.live}
        problems = [f"{name} is a link, an empty folder or no regular file" for name in sorted(self.files.strange)]
        problems += [f"{name} is missing" for name in sorted(signed.keys() - here - self.files.strange)]
        problems += [f"{name} is not signed" for name in sorted(here - signed.keys())]
        for name in sorted(here & signed.keys()):
            if self.files.digest(name) != signed[name]:
                problems.append(f"{name} was changed after it was signed")
        _none(problems)

    def evidence(self) -> None:
        """The record's format, its parts, and their order in time."""
        record = self.record
        if record.get("format") not in (FORMAT, *NOTES):
            raise InputError(f"expected a record in the format {FORMAT!r}, got {record.get('format')!r}")
        parts = ["created", "expunge", "title", "request", "data", "runs", "environment", "ledger"]
        parts += [] if self.old else ["live_ledger", "private_below"]
        if missing := [part for part in parts if part not in record]:
            raise TamperedError(f"the record lacks {', '.join(missing)}")
        if not record["runs"]:
            raise TamperedError("the record tells of no run")
        models = sum(name.startswith(f"{MODELS}/") for name in self.files.names)
        most = max(_MOST_MEASUREMENTS, _OF_A_MODEL * models)
        if len(record["runs"]) > _MOST_RUNS or any(
            len(run["evidence"]["measurements"]) > most or len(run["evidence"]["checks"]) > _MOST_CHECKS
            for run in record["runs"]
        ):
            raise TamperedError("the record tells of more runs, measurements or checks than any of ours")
        _none(records.size_problems(record, models))
        if not self.old and as_json(record) != self.evidence_bytes:
            raise TamperedError(f"{EVIDENCE} is written in another way than ours")
        _none(records.record_problems(record))

    def predicate(self) -> None:
        """What the signature says against what the record says."""
        signed = self.statement
        if signed.get("predicateType") != PREDICATE:
            raise TamperedError(f"the statement is of type {signed.get('predicateType')!r}, expected {PREDICATE!r}")
        if signed["predicate"] != predicate(self.record, PDF in self.files.names):
            raise TamperedError("request, verdicts, time, version or presence of a PDF differ from the record")

    def copies(self) -> None:
        """Files that the record lists or repeats a part of, and no others."""
        for name, part in ((ENVIRONMENT, self.record["environment"]), (EXCERPT, self.record["ledger"])):
            if part is None and name not in self.files.names:
                continue
            if self.files.json(name) != part:
                raise TamperedError(f"{name} differs from the record")
        import yaml

        text = self.files.bytes(CONFIG, _LARGEST_CONFIG).decode()
        if any(isinstance(event, yaml.AliasEvent) for event in yaml_events(text, CONFIG)):
            raise TamperedError(f"{CONFIG} refers to parts of itself, which ours never does")
        listed = self._unlisted() if "files" in self.record else []  # records of before list none
        _none([*records.config_problems(yaml.safe_load(text), self.record), *listed])

    def _unlisted(self) -> list[str]:
        """Files that are not those of the record, which the ledger's last entry of the request names in turn."""
        listed, pages = self.record["files"], {EVIDENCE, STATEMENT, REPORT, *([PDF] if self.record["pdf"] else [])}
        own = pages | listed.keys() | set(self.live)
        problems = [f"the record lists no {name}" for name in sorted(self.files.names - own)]
        problems += [f"{name} is missing" for name in sorted(own - self.files.names)]
        return problems + [
            f"{name} is not the file that the record lists"
            for name in sorted(listed.keys() & self.files.names)
            if self.files.digest(name) != listed[name]
        ]

    def certificate(self, run: Record) -> str | None:
        """Every certificate made again from what it says it was made from."""
        _none(records.certificate_problems(self.record, run))
        if not run["certificate"]:
            return "there is no certificate"
        if self.old:
            return "numbers, origins and states compared; words are an earlier version's"
        if reason := pages.other_version(self.record):
            raise Skipped(f"numbers, origins and states agree; {reason}")
        return None

    def models(self, run: Record) -> None:
        """The tensors on disk against the digest that certificates are bound to."""
        for model in models_of({"runs": [run]}):
            tensors = digest_of_tensors(self.files, model["file"])
            if digest_json([tensors, model["form"], model["extra"]]) != model["digest"]:
                raise TamperedError(f"{model['file']} does not hold the released model")
            if (adapter := model.get("adapter")) is not None:  # PEFT's two files
                weights, config = (f"{adapter['folder']}/{name}" for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG))
                if digest_of_tensors(self.files, weights) != adapter["digest"]:
                    raise TamperedError(f"{weights} does not hold the released adapter")
                if self.files.json(config) != model["extra"]["adapter"]:
                    raise TamperedError(f"{config} is not the configuration of the released adapter")

    def measurements(self, run: Record) -> None:
        """Whether each value agrees with its ideal, and what all of them come to."""
        _none(records.measurement_problems(run["evidence"]))

    def outcome(self, run: Record) -> str | None:
        """The outcome derived again from the measurements it rests on, where the record has them."""
        _none(records.outcome_problems(self.record, run))
        if records.outcome_is_private(self.record, run):
            return "it rests on values that are in the private record alone; what is shown does not speak against it"
        return None

    def excerpt(self) -> str | None:
        """The excerpt's proofs, and its entries against the record."""
        excerpt = self.record["ledger"]
        if excerpt is None:
            if ledgers.needs_excerpt(self.record):
                raise TamperedError("a certificate rests on a ledger, and the record shows nothing of it")
            if self.old:
                return "there is none"
            raise Skipped(
                "the record shows nothing of a ledger: when it was made and what else was released is unknown"
            )
        _none(ledgers.excerpt_problems(self.record, verify_excerpt(excerpt)))
        return None

    @contextmanager
    def _ledger(self) -> Iterator[Ledger | None]:
        """The ledger, opened so that nothing is written: the one that was named, or the one that lies in the folder."""
        path = self.ledger_path or (self.files.root / LIVE[0] if self.files.names.intersection(self.live) else None)
        if path is None:
            yield None
            return
        with Ledger(path, read_only=True) as ledger:
            yield ledger

    def ledger(self) -> str | None:
        """The whole ledger, the excerpt as its beginning, and what it says of this request."""
        evidence = (digest_bytes(self.evidence_bytes), digest_json(self.record))
        with self._ledger() as ledger:
            if ledger is not None:
                _none(ledgers.live_problems(self.record, ledger, evidence, self.ledger_path is None, self.public_key))
                return ledgers.since(self.record, ledger, self.public_key)
        if self.record.get("live_ledger") == IN_FOLDER:
            raise TamperedError(f"{LIVE[0]} lay in the folder and is gone")
        if self.record["ledger"] is None:
            return "there is none"
        raise Skipped("it lies elsewhere; name it with --ledger")

    def checkpoint(self) -> str | None:
        """The history that somebody kept a checkpoint of is the one of this ledger, or of this excerpt."""
        point = checkpoints.opened(self.point, self.public_key)
        with self._ledger() as ledger:
            if reason := ledgers.checkpoint_problems(self.record, ledger, point):
                raise Skipped(reason)
        return None if self.public_key else "signed by the key that it carries"

    def report(self) -> str | None:
        """report.html rendered again from the record."""
        content = self.files.bytes(REPORT)
        self._renderable()
        return pages.page(self.record, content)

    def pdf(self) -> str | None:
        """report.pdf rendered again from the record, which is attached to it."""
        if PDF not in self.files.names:
            return "there is none, as the statement says"
        content = self.files.bytes(PDF)
        self._renderable()
        if not pages.portable.available():
            raise Skipped("the extra pdf (typst) is not installed here: its pages cannot be made again")
        return pages.portable_page(self.record, content, self.evidence_bytes)

    def _renderable(self) -> None:
        """Raise Skipped where this version makes other pages of the record than the one that wrote it."""
        self.evidence()
        if self.old:
            raise Skipped("made by an earlier version, whose pages had other words; their digest is signed")
        if reason := pages.other_version(self.record):
            raise Skipped(reason)


def _none(problems: list[str]) -> None:
    if problems:
        raise TamperedError("; ".join(problems)[:4000])
