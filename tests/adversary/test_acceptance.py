"""A result that a person accepts after it was delivered: its pages are signed anew, and nothing can be slipped under that."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from expunge.core.data import Deletion
from expunge.core.digest import digest_bytes, digest_file, digest_json
from expunge.core.errors import ExpungeError, TamperedError
from expunge.core.files import write_atomic
from expunge.core.request import Request, Target
from expunge.core.trained import Artifact, Trained
from expunge.jobs import closed
from expunge.jobs.carry_out import carry_out
from expunge.jobs.releasing import Accepted, Case, Setting
from expunge.ledger import Ledger
from expunge.methods import registry
from expunge.planning import train
from expunge.report import acceptance, html, signing
from expunge.report import folder as folders
from expunge.report.folder import as_json
from expunge.report.outcome import ACCEPTED_SINCE
from expunge.report.record import environment
from expunge.report.verify import Finding, Verification, pages, verify_folder
from expunge.requests_book import ACCEPTANCE, NOT_ACCEPTED, RequestBook
from expunge.tasks.classification import Classification
from expunge.tasks.networks import SoftmaxHead
from expunge.training.recipes import GradientDescent

from .folders import QUICK, record_of, rewrite, rows

PERSON = {"by": "A. Officer", "reason": "no recipe to compare with"}
Run = Callable[..., dict]


@pytest.fixture(scope="module", autouse=True)
def cheap_pages():
    """A page that is a function of the record but draws nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html, "render", lambda record: f"<p>{digest_json(record)}</p>")
        yield


@functools.cache
def trained() -> Trained:
    task = Classification(lambda: SoftmaxHead(2, 2), dtype=torch.float64)
    return train(task, rows(60, 0), GradientDescent(steps=40, lr=1.0, l2=0.05))


def serve(place: Path, collapses: bool = False) -> Run:
    """What serves a request and, called with ``accept=True``, lets a person accept its result; the folder is
    ``place/evidence``, the ledger lies in it. What was measured is undecidable, or a model that ``collapses``.
    """
    model = trained()
    assert model.data is not None
    request = Request("Jane Doe", (Target("user", {"who": "0"}),), "consent withdrawn")
    method = registry.make("gradient_ascent", {"epochs": 20, "lr": 10.0 if collapses else 1e-6})
    setting = Setting(
        "A small deletion", "drawn rows", Deletion.of(model.data, request, {"test": rows(30, 1)}),
        "method: {name: gradient_ascent}\n", pdf=False, private_below=1,
    )  # fmt: skip
    case = Case("model", lambda _: model, None, method, replace(QUICK, reference="none", replicates=0))

    def run(accept: bool = False, by: str = PERSON["by"]) -> dict:
        who = Accepted(by, PERSON["reason"]) if accept else None
        return carry_out(request, [case], replace(setting, accepted=who), place / "evidence")

    return run


@pytest.fixture(scope="module")
def delivered(tmp_path_factory, cheap_pages) -> tuple[Path, Run]:
    """The parent of a folder that was delivered and waits for a person, and what served it."""
    place = tmp_path_factory.mktemp("delivered")
    run = serve(place)
    assert not run()["accepted"]
    return place, run


@pytest.fixture
def mine(delivered, tmp_path, monkeypatch) -> tuple[Path, Run]:
    """A copy of it, served by the same job."""
    place, _ = delivered
    for name in ("evidence", "evidence.private"):
        shutil.copytree(place / name, tmp_path / name)
    return tmp_path / "evidence", serve(tmp_path)


def status(folder: Path) -> str:
    with Ledger(folder / "ledger.sqlite") as ledger:
        return RequestBook(ledger).status_of(record_of(folder)["request"]["id"])


def by_the_owner(folder: Path) -> bool:
    """Whether a statement of the owner's stands in the folder."""
    try:
        signing.verify(json.loads((folder / "statement.json").read_text()), signing.signing_key().public_key())
    except (ExpungeError, OSError):
        return False
    return True


def checks_of(result: Verification, name: str) -> list[Finding]:
    return [check for check in result.checks if check.name == name]


def verified(folder: Path) -> bool:
    return verify_folder(folder, signing.signing_key().public_key()).consistent


def another_model(folder: Path) -> None:
    """Weights of zeros under the name of the release, and a record that says that they are the release."""
    model = record_of(folder)["runs"][0]["model"]
    weights = {name: tensor * 0 for name, tensor in load_file(folder / model["file"]).items()}
    (folder / model["file"]).write_bytes(save(weights, {"format": "pt"}))
    digest = Artifact(weights, model["form"], model["extra"]).digest
    rewrite(folder, lambda record: record["runs"][0]["model"].update(digest=digest))


def ledger_of_a_forger(folder: Path) -> None:
    """A ledger that says of the folder's record what an honest one says: it needs no key, a chain of hashes has none."""
    record = record_of(folder)
    with Ledger(folder / "ledger.sqlite") as ledger:
        own = [entry for entry in ledger.entries() if entry.key.split("/")[0] == record["request"]["id"]]
    (folder / "ledger.sqlite").unlink()
    model, told = record["runs"][0]["model"], {**record, ACCEPTED_SINCE: PERSON}
    with Ledger(folder / "ledger.sqlite", create=True) as ledger:
        for entry in own:
            payload = json.loads(json.dumps(entry.payload))
            if entry.kind == "release":
                payload["releases"][0]["digest"] = model["digest"]
            if entry.kind == "fulfilment":
                payload["evidence"] = digest_bytes(as_json(record))
            ledger.append(entry.kind, entry.key, payload)
        said = {"decision": "accept", **PERSON, "evidence": digest_bytes(as_json(told))}
        ledger.append(ACCEPTANCE, record["request"]["id"], said)


def test_a_person_accepts_and_all_of_it_verifies(mine):
    folder, run = mine
    assert run(accept=True)["accepted"] and status(folder) == "fulfilled" and verified(folder)
    assert record_of(folder)[ACCEPTED_SINCE] == PERSON


def test_a_forged_folder_without_a_statement_is_never_signed(mine):
    """Whoever may write the folder that is shown, and has no key, forges record, weights and ledger and takes the statement
    away, as if a crash had come while the owner signed."""
    folder, run = mine
    another_model(folder)
    ledger_of_a_forger(folder)
    (folder / "statement.json").unlink()
    with pytest.raises(ExpungeError):
        run(accept=True)
    assert not by_the_owner(folder)


def test_a_forged_folder_with_the_statement_of_before_is_never_signed(mine):
    folder, run = mine
    kept = (folder / "statement.json").read_bytes()
    another_model(folder)
    ledger_of_a_forger(folder)
    (folder / "statement.json").write_bytes(kept)
    with pytest.raises(ExpungeError):
        run(accept=True)
    assert (folder / "statement.json").read_bytes() == kept


def test_an_entry_that_a_stranger_appends_accepts_nothing(mine):
    """A ledger in the folder grows after signing, and its chain needs no key."""
    folder, run = mine
    record = record_of(folder)
    with Ledger(folder / "ledger.sqlite") as ledger:
        told = digest_bytes(as_json({**record, ACCEPTED_SINCE: PERSON}))
        RequestBook(ledger).accept(record["request"]["id"], **PERSON, evidence=told)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for accept in (False, True):
        with pytest.raises(TamperedError, match="signed neither"):
            run(accept=accept)
    assert {path: path.read_bytes() for path in before} == before
    checked = verify_folder(folder, signing.signing_key().public_key())
    assert any("not signed by" in check.problem for check in checks_of(checked, "ledger"))
    (unknown,) = checks_of(verify_folder(folder), "ledger")
    assert "whose signature was not checked says" in unknown.note


def test_an_entry_that_says_of_another_result_that_a_person_accepted_it_is_found(tmp_path):
    folder, run = tmp_path / "evidence", serve(tmp_path, collapses=True)
    assert run(accept=True)["runs"][0]["outcome"] == "utility-collapse" and status(folder) == NOT_ACCEPTED
    record = record_of(folder)
    identity, digest = record["request"]["id"], digest_bytes(as_json(record))
    with Ledger(folder / "ledger.sqlite") as ledger:
        word = acceptance.signature(identity, PERSON, digest, signing.signing_key())
        RequestBook(ledger).accept(identity, **PERSON, evidence=digest, signature=word)
    (ledger,) = checks_of(verify_folder(folder, signing.signing_key().public_key()), "ledger")
    assert "not one that waits for a person" in ledger.problem


def test_a_private_folder_of_another_result_decides_nothing(delivered, tmp_path):
    """The review says what was measured in full; the one of another result would let a person accept what forgets nothing."""
    folder, run = tmp_path / "evidence", serve(tmp_path, collapses=True)
    assert not run()["accepted"]
    right = tmp_path / "evidence.private" / "review.json"
    shutil.copy(delivered[0] / "evidence.private" / "review.json", right)
    with pytest.raises(TamperedError, match="is not the review"):
        run(accept=True)
    right.write_text("[]")
    with pytest.raises(TamperedError, match="is not the review"):
        run()
    right.unlink()
    assert run(accept=True)["runs"][0]["outcome"] == "utility-collapse"
    assert status(folder) == NOT_ACCEPTED and verified(folder)


@pytest.mark.parametrize("at", range(5))
def test_a_crash_at_any_write_is_repaired_and_never_leaves_a_folder_that_verifies_in_part(mine, monkeypatch, at):
    folder, run = mine
    writes = iter(range(100))

    def dies(*arguments, **options):
        if next(writes) == at:
            raise OSError(5, "the machine died")
        return write_atomic(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(folders, "write_atomic", dies)
        with pytest.raises(OSError, match="died"):
            run(accept=True)
    assert status(folder) == "fulfilled" and verified(folder) is (at == 0), (
        "nothing was written yet, or it does not verify"
    )
    assert run()["accepted"] and verified(folder) and record_of(folder)[ACCEPTED_SINCE] == PERSON
    review = json.loads((folder.parent / "evidence.private" / "review.json").read_text())
    assert review[ACCEPTED_SINCE] == PERSON


def test_what_is_swapped_after_it_was_verified_is_not_signed(mine, monkeypatch):
    """Another process changes record and weights between the checks and the signature."""
    folder, run = mine
    kept = folder.parent / "kept"

    def and_then_swapped(*arguments, **options):
        result = verify_folder(*arguments, **options)
        shutil.copytree(folder, kept)
        another_model(folder)
        return result

    monkeypatch.setattr(closed, "verify_folder", and_then_swapped)
    assert run(accept=True)["accepted"]
    signed = signing.verify(json.loads((folder / "statement.json").read_text()), signing.signing_key().public_key())
    digests = {item["name"]: item["digest"]["sha256"] for item in signed["subject"]}
    (weights,) = (name for name in digests if name.startswith("models/"))
    assert digests[weights] == digest_file(kept / weights) != digest_file(folder / weights)
    assert record_of(folder) == {**record_of(kept), ACCEPTED_SINCE: PERSON}, (
        "the record that was verified was written again"
    )
    (folder / weights).write_bytes((kept / weights).read_bytes())
    (folder / "config.yaml").write_bytes((kept / "config.yaml").read_bytes())
    assert verified(folder)


def test_of_two_people_who_accept_at_once_the_first_counts(mine, monkeypatch):
    folder, run = mine

    def and_then_the_other(*arguments, **options):
        result = verify_folder(*arguments, **options)
        monkeypatch.setattr(closed, "verify_folder", verify_folder)
        assert serve(folder.parent)(accept=True)["accepted"]
        return result

    monkeypatch.setattr(closed, "verify_folder", and_then_the_other)
    with pytest.raises(ExpungeError, match="is fulfilled"):
        run(accept=True, by="B. Clerk")
    assert record_of(folder)[ACCEPTED_SINCE] == PERSON and verified(folder)
    assert run(accept=True, by="B. Clerk")["accepted"] and record_of(folder)[ACCEPTED_SINCE] == PERSON


def test_evidence_of_another_version_keeps_its_pages_when_a_person_accepts_it(mine, monkeypatch):
    """Pages that this version makes would not be those that the record's own version makes again."""
    folder, run = mine
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".sqlite"}
    here = {**environment(), "source": "0" * 64}
    monkeypatch.setattr(pages, "environment", lambda: here)
    assert run(accept=True)["accepted"] and status(folder) == "fulfilled"
    assert {path: path.read_bytes() for path in before} == before and verified(folder)
    (ledger,) = checks_of(verify_folder(folder, signing.signing_key().public_key()), "ledger")
    assert (
        ledger.note.partition("; ")[2]
        .partition("; ")[2]
        .startswith("the request was accepted after it was delivered by A.")
    )


def test_what_a_ledger_says_is_printed_in_one_line(mine):
    folder, _ = mine
    identity = record_of(folder)["request"]["id"]
    with Ledger(folder / "ledger.sqlite") as ledger:
        RequestBook(ledger).accept(identity, "x\nok    signature", "\x1b[2Jconsistent, signer known")
    (found,) = checks_of(verify_folder(folder), "ledger")
    assert "\n" not in found.note and "\x1b" not in found.note and "ok    signature" in found.note
