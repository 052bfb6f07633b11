"""One small evidence folder, made as a job makes it, and what a forger does to copies of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from expunge.core.data import Deletion, Ids
from expunge.core.digest import digest_file
from expunge.core.request import Request, Target
from expunge.core.trained import Budget
from expunge.data.rows import Rows, by_reader
from expunge.jobs.carry_out import carry_out
from expunge.jobs.releasing import Case, Setting
from expunge.ledger import Ledger
from expunge.measuring import MeasureSettings
from expunge.methods import registry
from expunge.model_folder import ModelFolder
from expunge.planning import publish, train
from expunge.report import html, signing
from expunge.report import pdf as portable
from expunge.report.folder import PREDICATE, as_json, predicate
from expunge.requests_book import RequestBook
from expunge.tasks.classification import Classification
from expunge.tasks.networks import SoftmaxHead
from expunge.training.recipes import GradientDescent

FORGER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
QUICK = MeasureSettings(shadow_models=0, replicates=1, trials=40, audit=False)
Record = dict[str, Any]


def rows(count: int, seed: int) -> Rows:
    x = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    who = np.asarray(["0"] * 5 + [str(i) for i in range(1, count - 4)])
    return Rows.of(x, (x[:, 0] > 0).long(), {"who": who}, preprocessing=by_reader("fixed", "drawn as they are"))


def build(place: Path, *, pdf: bool = False, published: bool = True) -> Path:
    """An evidence folder; see :func:`serve`."""
    return serve(place, pdf=pdf, published=published)()


def serve(place: Path, *, pdf: bool = False, published: bool = True, who: Sequence[str] = ("0",)) -> Callable[[], Path]:
    """What serves a request, each time it is called: ``place/evidence``, signed with the installation's key.

    Args:
        published: the model was published first, its ledger lies beside it (``place/model/ledger.sqlite``); otherwise it is
            trained and served in one breath, and the ledger lies in the evidence folder.
        who: the people of the request, and before it those of requests that this model served already.
    """
    out, task = place / "evidence", Classification(lambda: SoftmaxHead(2, 2), dtype=torch.float64)
    data, method = rows(60, 0), registry.make("r2d", {"rewind": 0.5})
    budget, folder = Budget(epsilon=1.0, delta=1e-5, capacity=8), ModelFolder(place / "model")
    trained = train(task, data, GradientDescent(steps=40, lr=1.0, l2=0.05))
    request = Request("Jane Doe", (Target("user", {"who": who[-1]}),), "consent withdrawn")
    gone = Ids.union([data.select(Target("user", {"who": name})) for name in who[:-1]]) if who[1:] else None
    setting = Setting(
        "A small deletion", "drawn rows", Deletion.of(data, request, {"test": rows(30, 1)}, gone),
        "method: {name: r2d, rewind: 0.5}\ntraining: {kind: gradient_descent, steps: 40, l2: 0.05}\n", pdf=pdf,
    )  # fmt: skip
    if published and gone is None:
        publish(trained, budget, method=method, to=folder)
        with Ledger(folder.book.path) as ledger:
            RequestBook(ledger).file_request({"id": "req-other", "targets": [{"kind": "user"}]})
    if published:
        case = Case("model", lambda _: folder.load(task, data), None, method, QUICK, folder=folder)
    else:
        case = Case("model", lambda _: trained, budget, method, QUICK)

    def run() -> Path:
        carry_out(request, [case], setting, out)
        return out

    return run


def copy(source: Path, place: Path) -> Path:
    return Path(shutil.copytree(source, place / "copy", symlinks=True))


def record_of(folder: Path) -> Record:
    return json.loads((folder / "evidence.json").read_text())


def certificate(record: Record) -> Record:
    return record["runs"][0]["certificate"]


def names(folder: Path) -> set[str]:
    """Regular files by their names in the folder."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}


def sign(folder: Path, key: Ed25519PrivateKey = FORGER) -> Path:
    """Sign what lies there anew, as the forger's own evidence."""
    record = record_of(folder)
    subjects = {name: digest_file(folder / name) for name in names(folder) - {"statement.json", "ledger.sqlite"}}
    said = predicate(record, (folder / "report.pdf").exists())
    (folder / "statement.json").write_bytes(as_json(signing.sign(signing.statement(subjects, PREDICATE, said), key)))
    return folder


def rewrite(folder: Path, change: Callable[[Record], object], *, pdf: bool = False) -> Path:
    """Change the record, render everything anew from it, and sign it."""
    record = record_of(folder)
    change(record)
    (folder / "environment.json").write_bytes(as_json(record["environment"]))
    if record["ledger"] is None:
        (folder / "ledger.json").unlink(missing_ok=True)
    else:
        (folder / "ledger.json").write_bytes(as_json(record["ledger"]))
    if "files" in record:
        pages = {"evidence.json", "statement.json", "report.html", "report.pdf", "ledger.sqlite"}
        record["files"] = {name: digest_file(folder / name) for name in sorted(names(folder) - pages)}
        record["pdf"] = pdf
    evidence = as_json(record)
    (folder / "evidence.json").write_bytes(evidence)
    try:
        (folder / "report.html").write_text(html.render(record))
    except (KeyError, TypeError, ValueError, ArithmeticError):
        (folder / "report.html").write_text("a record that cannot be drawn")
    (folder / "report.pdf").unlink(missing_ok=True)
    if pdf:
        (folder / "report.pdf").write_bytes(portable.render(record, evidence))
    return sign(folder)
