"""The evidence record: one JSON-able value that holds everything a report says and a reader re-checks.

The whole of it is private; ``report.shown`` says which part of it may be shown. It names nobody (subjects, users and ids
appear as keyed hashes), holds no weights and no per-record score, and every number in it is finite or ``None``: infinity is
written as ``None`` and means that no finite value is known.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import Any

from expunge.core.data import conversations_in
from expunge.core.digest import digest_arrays
from expunge.core.errors import InputError
from expunge.core.measurement import FOR_A_PERSON, Evidence
from expunge.core.method import Outcome, Release
from expunge.core.source import source_digest
from expunge.report.measurement_names import recorded_name
from expunge.report.outcome import outcome_of
from expunge.report.shown import supported

FORMAT = "expunge-evidence/3"
RENDERED_BY = ("expunge", "jinja2", "matplotlib")  # versions that decide how a page is drawn; typst besides for a PDF
_PACKAGES = ("torch", "numpy", "scipy", "matplotlib", "jinja2", "safetensors", "typst", "transformers", "peft")


def build(
    runs: Sequence[tuple[str, Outcome, Evidence]],
    *,
    request: Mapping[str, Any],
    title: str,
    dataset: str,
    note: str = "",
    ledger: Mapping[str, Any] | None = None,
    created: datetime | None = None,
    accepted: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The record of one request carried out on one or more models.

    Args:
        runs: a name (a heading and a file name), what came of it, what was measured about it.
        request: the request's record with ``matched``, and ``decision`` where there is one.
        dataset, note: what the data are called, and what a reader should know about them.
        ledger: excerpt that shows this request's entries.
        created: the moment to write down; now where not given.
        accepted: by whom and why a result was let out that would have been held back.

    Raises:
        InputError: if there is no run, two runs share a name, or they were made on different data.
    """
    if not runs:
        raise InputError("Expected at least one run to report on; got none.")
    names = [name for name, _, _ in runs]
    if len({slug(name) for name in names}) < len(names):
        raise InputError(f"Expected runs whose names differ also as file names; got {', '.join(names)}.")
    data = _data(runs[0][1], dataset, note)
    for name, outcome, _ in runs[1:]:
        other = _data(outcome, dataset, note)
        if any(data[key] != other[key] for key in ("digest", "retained_digest")):
            raise InputError(
                f"Expected runs on the same data; {names[0]!r} and {name!r} differ. Write one record for each."
            )
    moment = (created or datetime.now(UTC)).astimezone(UTC)
    return plain(
        {
            "format": FORMAT,
            "created": moment.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "expunge": _version("expunge"),
            "salt": secrets.token_hex(32),
            "title": title,
            "accepted": accepted,
            "request": {"decision": None, **request},
            "data": data,
            "runs": [_run(name, outcome, evidence) for name, outcome, evidence in runs],
            "environment": environment(),
            "ledger": ledger,
        }
    )


def environment() -> dict[str, Any]:
    """What this process runs on: versions, machine type and threads; neither host nor user."""
    import platform

    import torch

    packages = {name: _version(name) for name in _PACKAGES}
    return {
        "expunge": _version("expunge"),
        "source": source_digest(),
        "python": platform.python_version(),
        **packages,
        "system": platform.system(),
        "machine": platform.machine(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
    }


def slug(name: str) -> str:
    """``name`` as part of a file name: lower-case letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.") or "model"


def plain(value: Any) -> Any:
    """``value`` as JSON types; numbers that JSON cannot say become ``None``, arrays become lists.

    Raises:
        InputError: if something has no JSON form.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    if callable(as_list := getattr(value, "tolist", None)):
        return plain(as_list())
    if isinstance(value, PurePath):
        return value.name
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise InputError(f"Expected something that a record can hold; got a {type(value).__name__}: write it as text.")


def _data(outcome: Outcome, name: str, note: str) -> dict[str, Any]:
    deletion = outcome.deletion
    before, after = deletion.before, deletion.after
    talks = conversations_in(before) if deletion.member else None
    return {
        "name": name,
        "note": note,
        "rows": None if before is None else len(before),
        "retained": None if after is None else len(after),
        "forgotten": len(deletion.forget),
        "member": deletion.member,
        **({"conversations": {"all": talks, "forgotten": conversations_in(before, deletion.ids)}} if talks else {}),
        **({"absent": len(deletion.absent)} if len(deletion.absent) else {}),
        "digest": None if before is None else before.digest,
        "retained_digest": None if after is None else after.digest,
        "probes": {probe: len(rows) for probe, rows in deletion.probes.items()},
    }


def _run(name: str, outcome: Outcome, evidence: Evidence) -> dict[str, Any]:
    (key, first), *others = released(name, outcome).items()
    before, folder, measured = outcome.before, bool(outcome.after.task.files()), plain(_measured(evidence))
    budget = None if before.budget is None else {**asdict(before.budget), "used": len(outcome.after.removed)}
    return {
        "name": name,
        "model": _model(key, first, folder),
        "view": first.view,
        "views": list(first.views),
        "other_views": [
            {"model": _model(key, item, folder), **_certificate(item), "view": item.view, "views": list(item.views)}
            for key, item in others
        ],
        "method": dict(outcome.method),
        "paper": _paper(outcome.method.get("name", "")),
        "status": outcome.status,
        "own": outcome.own,
        "verdict": outcome.verdict,
        "outcome": outcome_of(measured),
        **_certificate(first),
        "budget": budget,
        "removed": {"before": len(before.removed - outcome.deletion.ids), "now": outcome.deletion.size},
        "facts": {fact: asdict(known) for fact, known in (outcome.facts or before.facts).items()},
        "evidence": measured,
        "change": dict(outcome.change),
        "cost": dict(outcome.cost),
        "purged": list(outcome.purged),
        "remains": list(outcome.remains),
        "details": dict(outcome.details),
        **{name: plain(evidence.private[name]) for name in FOR_A_PERSON if evidence.private.get(name)},
    }


def _measured(evidence: Evidence) -> dict[str, Any]:
    """What was measured, in the digits that intervals support; whether values agree is said of the numbers written down."""
    record = evidence.to_json()
    items = [supported(item) for item in record["measurements"]]
    again = [replace(m, value=i["value"], interval=i["interval"] and tuple(i["interval"]), ideal=i["ideal"], null=i["null"])
             for m, i in zip(evidence.measurements, items, strict=True)]  # fmt: skip
    written = [{**item, "name": recorded_name(m.key), "agrees": m.agrees} for m, item in zip(again, items, strict=True)]
    return {**record, "measurements": written, "verdict": replace(evidence, measurements=tuple(again)).verdict}


def released(name: str, outcome: Outcome) -> dict[str, Release]:
    """The releases of a run by their keys: its name, and ``name/view`` for further models of a network."""
    first, *others = outcome.releases
    return {name: first, **{f"{name}/{item.view}": item for item in others}}


def _model(key: str, release: Release, folder: bool) -> dict[str, Any]:
    artifact = release.artifact
    return {
        "key": key,
        # beside files that make a folder of it, the weights take the name that loaders look for
        "file": f"models/{slug(key)}{'/model' if folder else ''}.safetensors",
        "digest": artifact.digest,
        "form": artifact.form,
        "extra": dict(artifact.extra),
        "parameters": sum(math.prod(shape) for shape in artifact.shape.values()),
        "tensors": len(artifact.tensors),
        "adapter": None if artifact.adapter is None else _adapter(key, artifact.adapter),
    }


def _adapter(key: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The same release as low-rank factors; their configuration is the model's ``extra["adapter"]``."""
    return {
        "folder": f"models/{slug(key)}.adapter",
        "digest": digest_arrays(tensors),
        "parameters": sum(math.prod(tensor.shape) for tensor in tensors.values()),
    }


def _certificate(release: Release) -> dict[str, Any]:
    return {"certificate": None if release.certificate is None else release.certificate.to_json()}


def _paper(method: str) -> str:
    """Where a method comes from, as far as the registry knows it."""
    from expunge.methods import registry

    try:
        return "; ".join(map(str, registry.papers_of(method)))
    except InputError:
        return ""


def _version(package: str) -> str | None:
    if package == "expunge":
        from expunge import __version__

        return __version__
    try:
        return version(package)
    except PackageNotFoundError:
        return None
