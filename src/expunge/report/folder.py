"""The evidence folder: what may be shown, in files that are listed and signed; what may not, in a private folder beside it.

``report.html``, ``report.pdf`` and ``evidence.json`` hold what ``report.shown`` lets out; ``review.html`` and ``review.json``
in the private folder hold the whole record, single forgotten examples and un-noised state included.

Every file is written atomically, and the signed statement last: a folder whose writing was interrupted has no statement
and does not verify. ``ledger.sqlite`` may live in the folder; it keeps growing, so no digest of it is signed (the excerpt
in the record is, and a live ledger must extend it).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from expunge.core.certificate import Verdict
from expunge.core.digest import digest_arrays, digest_bytes
from expunge.core.errors import HeldBackError, InputError
from expunge.core.files import in_words, leftovers, private_folder, read_json, write_atomic
from expunge.core.measurement import PRIVATE_BELOW, Evidence
from expunge.core.method import Outcome
from expunge.core.trained import Artifact, Spent, Tensors
from expunge.model_folder import ModelLedger
from expunge.report import html, signing
from expunge.report import pdf as portable
from expunge.report.bottom_line import reply
from expunge.report.outcome import ACCEPTED_SINCE, HELD
from expunge.report.record import FORMAT, build, plain, released, slug
from expunge.report.shown import shown

EVIDENCE, STATEMENT, REPORT, PDF = "evidence.json", "statement.json", "report.html", "report.pdf"
CONFIG, ENVIRONMENT, EXCERPT, MODELS = "config.yaml", "environment.json", "ledger.json", "models"
ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"  # PEFT's names
PREDICATE = "urn:expunge:evidence:1"
REVIEW, REVIEWED, REPLY = "review.html", "review.json", "reply.txt"  # in the private folder
LIVE = ("ledger.sqlite",)  # grows after signing
IN_FOLDER = "in the folder"  # where the record says that it lies there
_OF_A_FOLDER = (".safetensors", ".json", ".jinja", ".txt", ".model")  # as transformers and PEFT end the names of theirs
_METADATA = {"format": "pt"}  # transformers 4 refuses weights without it


def write_evidence(
    folder: Path,
    record: Mapping[str, Any],
    outcomes: Mapping[str, Outcome],
    config: str,
    *,
    private: Mapping[str, Any] | None = None,
    signing_key: Ed25519PrivateKey | None = None,
    pdf: bool = True,
    private_below: int = PRIVATE_BELOW,
) -> dict[str, Path]:
    """Write the evidence of a record, sign it, and return the files by their names in the folder.

    Args:
        folder: a new or empty one, one that holds only a ledger, or one with evidence of the same request.
        record: the whole record, see `report.record.build`; what of it goes into the folder says `report.shown`.
        outcomes: run name → what came of it: the releases are taken from here. An adapter is written as PEFT writes it, and a
            language model that came from a folder as a folder of ``transformers``.
        config: the resolved configuration as YAML text, without names of people.
        private: run name → per-record scores and the like; goes to ``<folder>.private`` (mode 0700).
        signing_key: this installation's key where not given.
        pdf: also write report.pdf. Without the extra ``pdf`` there is none and the signed statement says so.
        private_below: values on fewer forgotten examples than this stay in the private folder.

    Raises:
        InputError: if the folder holds something else, a model is missing, or its tensors are not the release.

    Guarantee: nothing of ``private`` is in the folder; a process that dies leaves a folder that does not verify, and the
    same call repairs it.
    """
    folder, whole = Path(folder), record
    record = {**shown(whole, private_below), "live_ledger": _place_of_ledger(folder, whole)}
    files = _files(record, outcomes, config)
    record |= {
        "files": {name: digest_bytes(data) for name, data in files.items()},
        "pdf": pdf and portable.available(),
    }
    content = _pages(record) | files  # the record first: by it a folder that was not finished is known again
    _prepare(folder, record["request"]["id"], content)
    paths = {name: folder / name for name in content}
    for name, data in content.items():
        _open_folder(paths[name].parent)
        write_atomic(paths[name], data)
    write_review(folder, whole, private or {})
    envelope = signing.sign(_statement(record, content), signing_key or signing.signing_key())
    paths[STATEMENT] = folder / STATEMENT
    write_atomic(paths[STATEMENT], as_json(envelope))
    return paths


def write_accepted(folder: Path, record: Mapping[str, Any], whole: Mapping[str, Any] | None) -> None:
    """Write the pages of an evidence folder again, and sign them, when a person has accepted its result since.

    In the private folder the review and the reply to the person follow. Models and all else stay as they are: what is signed
    of them are the digests that ``record`` lists, whatever lies there.

    Args:
        record: of the folder, verified, with ``accepted_since``. whole: that of the private folder, where there is one.

    Guarantee: a process that dies leaves either the folder of before, or one that does not verify and whose statement still
        vouches for the record without ``accepted_since``; the same call repairs it.
    """
    content = _pages(record)
    for name, data in content.items():
        write_atomic(folder / name, data)
    if whole is not None:
        write_review(folder, {**whole, ACCEPTED_SINCE: record[ACCEPTED_SINCE]}, {})
    signed = signing.sign(_statement(record, content), signing.signing_key())
    write_atomic(folder / STATEMENT, as_json(signed))


def write_report(
    evidence: Evidence,
    folder: Path | str,
    *,
    name: str = "model",
    title: str = "Evidence of a deletion",
    dataset: str = "",
    note: str = "",
    config: str | None = None,
    ledger: Mapping[str, Any] | None = None,
    signing_key: Ed25519PrivateKey | None = None,
    pdf: bool = True,
    private_below: int = PRIVATE_BELOW,
    accepted: Mapping[str, str] | None = None,
) -> dict[str, Path]:
    """Write the evidence of one run: ``expunge.write_report(expunge.measure(outcome), "evidence/")``.

    Args:
        evidence: what `measure` returned; its outcome is reported as it stands after the checks.
        name, title, dataset, note: headings of the report, and what a reader should know of the data.
        config: YAML text; the method's settings where not given.
        ledger: an excerpt that shows the request's entries, if a ledger is kept; of a model that lies beside its ledger it is
            taken from there.
        signing_key: signs the statement; this installation's key where not given.
        pdf: whether to write ``report.pdf`` too (extra ``pdf``).
        private_below: see `write_evidence`.
        accepted: ``{"by": …, "reason": …}``: who shows a model whose certificate is void all the same, and why.

    Raises:
        InputError: see `write_evidence`.
        HeldBackError: for a void certificate that nobody accepted; the review is written to the private folder.
    """
    outcome = evidence.outcome
    decision: Mapping[str, Any] | None = None
    if ledger is None and isinstance(book := outcome.after.book, ModelLedger):
        ledger, decision = book.shown(outcome.request["id"])
    record = build(
        [(name, outcome, evidence)], request={**outcome.request, "decision": decision}, title=title, dataset=dataset,
        note=note, ledger=ledger, accepted=accepted,
    )  # fmt: skip
    if outcome.verdict == Verdict.VOID and not accepted:
        write_review(Path(folder), {**record, HELD: True}, {name: evidence.private})
        raise HeldBackError(
            "The certificate is void: nothing bounds what the model tells of the forgotten records. "
            f"{private_path(Path(folder)) / REVIEW} says why. "
            'Give accepted={"by": …, "reason": …} to write its evidence all the same.'
        )
    if outcome.verdict == Verdict.VOID and outcome.request["id"] not in {s.request for s in outcome.after.book.spent()}:
        last = outcome.after.spent[-1] if outcome.after.spent else Spent(outcome.request["id"], 0, math.inf)
        outcome.after.book.add(
            replace(last, mu=math.inf), digest=outcome.releases[0].artifact.digest, views=outcome.digests
        )
    if config is None:
        import yaml

        config = yaml.safe_dump({"method": plain(outcome.method)}, sort_keys=False)
    private = {name: evidence.private} if evidence.private else None
    return write_evidence(
        Path(folder), record, {name: outcome}, config, private=private, signing_key=signing_key, pdf=pdf,
        private_below=private_below,
    )  # fmt: skip


def write_review(folder: Path, record: Mapping[str, Any], private: Mapping[str, Any]) -> None:
    """Write the whole record as a page and as JSON, and per-record scores, to ``<folder>.private``.

    Raises:
        InputError: if that folder is open to others.
    """
    place = private_folder(private_path(folder))
    write_atomic(place / REVIEWED, as_json(record), private=True)
    write_atomic(place / REVIEW, html.render(record).encode(), private=True)
    write_atomic(place / REPLY, reply(record).encode(), private=True)
    write_private(folder, private)


def write_private(folder: Path, private: Mapping[str, Any]) -> list[Path]:
    """Write what may not be shown to ``<folder>.private`` (mode 0700, files 0600), one file for each run.

    Raises:
        InputError: if that folder is open to others.
    """
    place = private_folder(private_path(folder))
    paths = [place / f"measured-{slug(name)}.json" for name in private]
    for path, value in zip(paths, private.values(), strict=True):
        write_atomic(path, as_json(plain(value)), private=True)
    return paths


def private_path(folder: Path) -> Path:
    """The private sibling of an evidence folder."""
    folder = Path(folder).absolute()
    return folder.with_name(f"{folder.name}.private")


def models_of(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every released model that a record speaks of."""
    for run in record["runs"]:
        yield run["model"]
        yield from (view["model"] for view in run.get("other_views", ()))


def predicate(record: Mapping[str, Any], with_pdf: bool) -> dict[str, Any]:
    """What the signature says of the files."""
    return {
        "format": record["format"],
        "request": record["request"]["id"],
        "created": record["created"],
        "expunge": record["expunge"],
        "verdicts": {run["name"]: run["verdict"] for run in record["runs"]},
        "pdf": with_pdf,
    }


def as_json(value: Any) -> bytes:
    """JSON for people and machines: indented, in UTF-8, ending in a line break."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def names_in(folder: Path) -> set[str]:
    """Files and links under ``folder`` by their relative names, without those of a live ledger."""
    found = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    }
    return found - set(LIVE)


def _files(record: Mapping[str, Any], outcomes: Mapping[str, Outcome], config: str) -> dict[str, bytes]:
    """What the record lists by digest, as bytes: whatever can go wrong does so before the first file is written."""
    content = {CONFIG: config.encode(), ENVIRONMENT: as_json(record["environment"])}
    if record.get("ledger") is not None:
        content[EXCERPT] = as_json(record["ledger"])
    given = {
        key: (release.artifact, outcome.after.task)
        for name, outcome in outcomes.items()
        for key, release in released(name, outcome).items()
    }
    for model in models_of(record):
        if model["key"] not in given:
            raise InputError(f"Expected the release of {model['key']!r}; got {', '.join(given) or 'none'}.")
        artifact, task = given[model["key"]]
        content |= _model(model, artifact, task.files()) | _adapter(model, artifact.adapter)
    return content


def _pages(record: Mapping[str, Any]) -> dict[str, bytes]:
    """The record itself, and the pages that follow from it."""
    evidence = as_json(record)
    content = {EVIDENCE: evidence, REPORT: html.render(record).encode()}
    return content | ({PDF: portable.render(record, evidence)} if record["pdf"] else {})


def _model(model: Mapping[str, Any], artifact: Artifact, beside: Mapping[str, bytes]) -> dict[str, bytes]:
    """The weights, and what makes a folder of them that other programs load."""
    import torch
    from safetensors.torch import save

    tensors = {
        name: torch.as_tensor(tensor).detach().cpu().contiguous().clone() for name, tensor in artifact.tensors.items()
    }
    if Artifact(tensors, model["form"], model["extra"]).digest != model["digest"]:
        raise InputError(
            f"The tensors of {model['key']!r} are not those that the record speaks of; give the release itself."
        )
    place = model["file"].rpartition("/")[0]
    return {model["file"]: save(tensors, _METADATA), **{f"{place}/{name}": data for name, data in beside.items()}}


def _adapter(model: Mapping[str, Any], tensors: Tensors | None) -> dict[str, bytes]:
    """The adapter in PEFT's two files, where there is one."""
    from safetensors.torch import save

    if model["adapter"] is None:
        return {}
    if tensors is None or digest_arrays(tensors) != model["adapter"]["digest"]:
        raise InputError(
            f"Expected the adapter of {model['key']!r} that the record speaks of; got {'another' if tensors else 'none'}."
        )
    place = model["adapter"]["folder"]
    written = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return {
        f"{place}/{ADAPTER_WEIGHTS}": save(written, _METADATA),
        f"{place}/{ADAPTER_CONFIG}": as_json(model["extra"]["adapter"]),
    }


def _prepare(folder: Path, request: str, content: Mapping[str, bytes]) -> None:
    """Make the folder, or check that it may be written again, and take away what would not be written again."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputError(f"{folder} is no folder; name one that is new or empty.")
    here = names_in(folder) if folder.exists() else set()
    places = (folder, folder / MODELS, *(path for path in (folder / MODELS).glob("*") if path.is_dir()))
    parts = {path.relative_to(folder).as_posix() for place in places for path in leftovers(place)}
    if here - parts:
        if not (folder / EVIDENCE).is_file():
            raise InputError(f"{folder} is not empty and holds no evidence; name a new folder.")
        old = read_json(folder / EVIDENCE)
        if not isinstance(old, dict) or old.get("format") != FORMAT:
            raise InputError(f"{folder / EVIDENCE} is not evidence of this version ({FORMAT}); name a new folder.")
        if old["request"]["id"] != request:
            raise InputError(
                f"{folder} holds evidence of request {old['request']['id']}, not of {request}; name a new folder."
            )
    ours = {EVIDENCE, STATEMENT, REPORT, PDF, CONFIG, ENVIRONMENT, EXCERPT, *parts}
    if foreign := {name for name in here - ours if not _is_model(name)}:
        raise InputError(f"{folder} holds files that are not evidence: {', '.join(sorted(foreign))}; move them away.")
    _open_folder(folder)
    # the statement first: from now on the folder is unfinished
    for name in [STATEMENT, *sorted(here - content.keys())]:
        (folder / name).unlink(missing_ok=True)
    for path in sorted((folder / MODELS).glob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _open_folder(folder: Path) -> None:
    """The folder, made where it is missing; everybody may read what may be shown."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise in_words(error, f"{folder} cannot be made a folder") from None


def _place_of_ledger(folder: Path, record: Mapping[str, Any]) -> str | None:
    """Where a reader finds the ledger: a folder that lost its ledger must not look like one that never had it."""
    if (folder / LIVE[0]).is_file():
        return IN_FOLDER
    return None if record.get("ledger") is None else "elsewhere"


def _is_model(name: str) -> bool:
    """Whether a file of this name is a released model, or part of its folder or of its adapter's."""
    top, *inside = name.split("/")
    kinds = (".safetensors",) if len(inside) == 1 else _OF_A_FOLDER
    return top == MODELS and 1 <= len(inside) <= 2 and name.endswith(kinds)


def _statement(record: Mapping[str, Any], pages: Mapping[str, bytes]) -> dict[str, Any]:
    """What is signed: the pages as they were made, and all else as the record lists it. Nothing is read from disk for it."""
    subjects = {**record["files"], **{name: digest_bytes(data) for name, data in pages.items()}}
    return signing.statement(subjects, PREDICATE, predicate(record, PDF in pages))
