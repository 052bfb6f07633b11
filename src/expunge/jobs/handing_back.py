"""The model of an earlier release, out of its evidence folder into one that can be deployed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from expunge.core.digest import digest_bytes, digest_file
from expunge.core.errors import InputError, TamperedError
from expunge.core.files import PART, in_words, parse_json, sync_folder
from expunge.report.folder import EVIDENCE, MODELS, as_json, models_of, private_path
from expunge.report.record import slug
from expunge.report.signing import signing_key
from expunge.report.verify import verify_folder

STATEMENT = "release.json"  # in the new folder: which release it is, and the digest of each file
FORMAT = "expunge-release/1"


@dataclass(frozen=True)
class Kept:
    """The models of one run in an evidence folder that was verified.

    Attributes:
        folder: the evidence folder.
        files: their names below ``models/``, with the digest that the signed record lists for each.
        deploy: what to load: a file of weights, or a folder that loaders of ``transformers`` take. Of a network, one for each
            view.
        next: the private folder from which a later request starts; ``None`` where it is not beside the evidence.
    """

    folder: Path
    files: Mapping[str, str]
    deploy: tuple[str, ...]
    next: Path | None


def kept_in(evidence: Path, digest: str, ledger: Path) -> Kept:
    """The models of the run whose first release has ``digest``, after every check of ``expunge verify``.

    Raises:
        InputError: where ``evidence`` is no evidence folder, or is that of another release.
        TamperedError: where the folder does not verify with this installation's key and ``ledger``.
    """
    result = verify_folder(evidence, signing_key().public_key(), ledger=ledger)
    if not result.consistent:
        problems = "; ".join(f"{check.name}: {check.problem}" for check in result.checks if not check.ok)
        raise TamperedError(
            f"{evidence} does not verify, so that its model cannot be used again: {problems[:1000]}. Restore the folder from a "
            "backup."
        )
    content = (evidence / EVIDENCE).read_bytes()
    if digest_bytes(content) != result.evidence:
        raise TamperedError(f"{evidence / EVIDENCE} changed while it was checked. Try again.")
    record = parse_json(content, str(evidence / EVIDENCE))
    run = next((run for run in record["runs"] if run["model"]["digest"] == digest), None)
    if run is None:
        has = ", ".join(model["digest"][:12] for model in models_of(record)) or "none"
        raise InputError(
            f"{evidence} holds release {has}, not {digest[:12]}. Name the evidence folder of that release (--evidence)."
        )
    places = [model["file"] for model in (run["model"], *(view["model"] for view in run["other_views"]))]
    whole = [place for place in places if PurePosixPath(place).parent.as_posix() == MODELS]
    deploy = [place if place in whole else PurePosixPath(place).parent.as_posix() for place in places]
    adapters = [model["adapter"]["folder"] for model in models_of({"runs": [run]}) if model["adapter"]]
    wanted = (*deploy, *adapters)
    files = {
        name.removeprefix(f"{MODELS}/"): of
        for name, of in record["files"].items()
        if any(name == place or name.startswith(f"{place}/") for place in wanted)
    }
    place = private_path(evidence) / f"next-{slug(run['name'])}"
    return Kept(
        evidence, files, tuple(place.removeprefix(f"{MODELS}/") for place in deploy),
        place if (place / "trained.json").is_file() else None,
    )  # fmt: skip


def must_be_new(out: Path) -> None:
    """Raise InputError where the folder for the model is a file, or holds something."""
    if out.name in ("", "..") or out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise InputError(f"Expected a new folder for the model; {out} is there already. Name another one (--out).")


def hand_back(kept: Kept, out: Path, statement: Mapping[str, Any]) -> None:
    """Copy the models to ``out``, with a statement of what they are; the folder appears when all of it is there.

    Raises:
        InputError: as :func:`must_be_new`, and where ``out`` cannot be made.
        TamperedError: where a copy is not the file that the record lists.
    """
    must_be_new(out)
    making = out.with_name(f".{out.name}{PART}")
    try:
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        for name, digest in kept.files.items():
            (making / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(kept.folder / MODELS / name, making / name)
            if digest_file(making / name) != digest:
                raise TamperedError(f"{kept.folder / MODELS / name} changed while it was copied. Try again.")
        (making / STATEMENT).write_bytes(as_json({"format": FORMAT, **statement, "files": dict(kept.files)}))
        if out.exists():
            out.rmdir()
        making.replace(out)
        sync_folder(out.parent)
    except OSError as error:
        raise in_words(error, f"{out} cannot be written") from None
    finally:
        shutil.rmtree(making, ignore_errors=True)
