"""Evidence folders that somebody changed and signed anew with a key of their own: found without the owner's key."""

from __future__ import annotations

import base64
import copy as copies
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from safetensors.torch import load_file, save

from expunge.core.digest import digest_json, finite
from expunge.core.errors import InputError, TamperedError
from expunge.core.trained import Artifact
from expunge.ledger import Ledger
from expunge.ledger.schema import SCHEMA
from expunge.privacy import gaussian
from expunge.privacy.composition import compose_gaussian
from expunge.privacy.theorems import theorem
from expunge.report import html, signing
from expunge.report.checkpoint import checkpoint
from expunge.report.folder import as_json
from expunge.report.verify import Verification, verify_folder

from .folders import FORGER, Record, build, certificate, copy, record_of, rewrite, serve, sign


class Base(NamedTuple):
    """An honest folder, its ledger where it lies elsewhere, and its owner's key."""

    folder: Path
    ledger: Path | None


@pytest.fixture(scope="module", autouse=True)
def cheap_pages():
    """A page that is a function of the record but draws nothing; what pages say is tested in test_forged_pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html, "render", lambda record: f"<p>{digest_json(record)}</p>")
        yield


@pytest.fixture(scope="module")
def published(tmp_path_factory, cheap_pages) -> Base:
    """A certified release of a model that was published first."""
    place = tmp_path_factory.mktemp("published")
    return Base(build(place), place / "model" / "ledger.sqlite")


@pytest.fixture(scope="module")
def in_one_breath(tmp_path_factory, cheap_pages) -> Base:
    """A folder that holds its ledger."""
    return Base(build(tmp_path_factory.mktemp("breath"), published=False), None)


def check(folder: Path, base: Base, **options) -> Verification:
    return verify_folder(folder, ledger=base.ledger, **options)


def found(folder: Path, base: Base, **options) -> dict[str, str]:
    return {finding.name: finding.problem for finding in check(folder, base, **options).checks if finding.problem}


def made_consistent(record: Record) -> None:
    """What a careful forger does: every number of the certificate computed again from its parameters."""
    c = certificate(record)
    p = c["parameters"]
    evaluation = theorem(p["theorem"]).evaluate(p)
    mu = evaluation.mu(c["sigma"])
    composed = compose_gaussian([p["mu_before"], mu])
    c.update(
        sensitivity=finite(evaluation.sensitivity), mu=mu, composed_mu=composed,
        epsilon=gaussian.epsilon_of(composed, c["delta"]), release_epsilon=gaussian.epsilon_of(mu, c["delta"]),
        curve=[[e, gaussian.delta_of(e, composed)] for e, _ in c["curve"]],
        bounds=[
            {"name": b.name, "value": finite(b.value), "source": b.source, "valid": b.valid, "reason": b.reason}
            for b in evaluation.bounds
        ],
    )  # fmt: skip


def parameters(**values) -> Callable[[Record], None]:
    def change(record: Record) -> None:
        certificate(record)["parameters"].update(values)
        made_consistent(record)

    return change


def facts(**values) -> Callable[[Record], None]:
    def change(record: Record) -> None:
        for name, value in values.items():
            record["runs"][0]["facts"][name]["value"] = value

    return change


def all_facts(**values) -> Callable[[Record], None]:
    return lambda record: [fact.update(values) for fact in record["runs"][0]["facts"].values()]


def assumptions(**values) -> Callable[[Record], None]:
    def change(record: Record) -> None:
        for item in certificate(record)["assumptions"]:
            item["value"] = values.get(item["name"], item["value"])

    return change


def checks(**values) -> Callable[[Record], None]:
    return lambda record: [item.update(values) for item in record["runs"][0]["evidence"]["checks"]]


def detailed(record: Record) -> None:
    for item in record["runs"][0]["evidence"]["checks"]:
        item["detail"] = {"p_value": 0.0, "standard_deviation": 1e-9, "coordinates": 6, "relative_distance": 0.7,
                          "epsilon_lower": 9.0, "distance": 1e9, "sensitivity": 1.0}  # fmt: skip


def no_checks(record: Record) -> None:
    certificate(record)["assumptions"] = [a for a in certificate(record)["assumptions"] if a["name"] != "not_refuted"]
    record["runs"][0]["evidence"]["checks"] = []


def refuted(record: Record) -> None:
    checks(passed=False)(record)
    record["runs"][0]["evidence"]["verdict"] = "refuted"


def louder(record: Record) -> None:
    certificate(record)["sigma"] *= 50
    parameters(sigma=certificate(record)["parameters"]["sigma"] * 50)(record)


def other_words(record: Record) -> None:
    certificate(record).update(
        definition="nobody can ever learn anything", covers=["everything"], excludes=[], unit="every person on earth",
        theorem="an older one", adjacency="any",
    )  # fmt: skip
    for item in certificate(record)["assumptions"]:
        item["statement"] = "true"


def no_ledger(record: Record) -> None:
    record["ledger"] = None
    record["live_ledger"] = None


def hidden_decision(record: Record) -> None:
    entries = record["ledger"]["entries"]
    record["ledger"]["entries"] = [entry for entry in entries if entry["kind"] not in ("decision", "release")]
    record["request"]["decision"]["by"] = "the data protection officer"


# change of the record → the check that finds it
FORGED = {
    "f01 computed for one forgotten row": (parameters(forget=1), "certificate"),
    "f02 a gradient bound below the fact": (parameters(gradient_bound=1e-3, gradient_difference=1e-3), "certificate"),
    "f03 a billion training rows": (parameters(rows=10**9), "certificate"),
    "f04 fifty times the noise": (louder, "certificate"),
    "f05 every fact is somebody's word": (all_facts(origin="declared"), "certificate"),
    "f06 momentum and mini-batches": (facts(momentum=0.9, batch="mini-batch"), "certificate"),
    "f07 values that contradict what holds": (assumptions(noise_source="seeded", within_capacity=False), "certificate"),
    "f08 every check failed": (refuted, "certificate"),
    "f09 checks whose numbers refute": (detailed, "certificate"),
    "f10 no check at all": (no_checks, "certificate"),
    "f11 another budget": (lambda r: r["runs"][0]["budget"].update(epsilon=1e-4, capacity=1, used=10**6), "certificate"),
    "f15 no ledger": (no_ledger, "excerpt"),
    "f16 decision and release hidden": (hidden_decision, "excerpt"),
    "f31 made before it was asked for": (lambda r: r.update(created="1999-01-01T00:00:00Z"), "evidence record"),
    "f32 other words": (other_words, "certificate"),
    "f33 stronger convexity than the fact": (parameters(strong_convexity=0.45), "certificate"),
    "f34 five rows of data": (lambda r: r["data"].update(rows=5, retained=10**6, forgotten=0), "certificate"),
    "f35 another trail and model before": (
        lambda r: certificate(r)["binds"].update(trail="0" * 64, before="0" * 64), "excerpt"),
}  # fmt: skip


def finds(published, tmp_path, change, where: str) -> None:
    """The folder with a changed record is not consistent, and the problem is at the place that the change is about."""
    problems = found(rewrite(copy(published.folder, tmp_path), change), published)
    assert any(where in place for place in problems), problems


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_record_is_found(published, tmp_path, name):
    finds(published, tmp_path, *FORGED[name])


def test_an_honest_folder_is_consistent_and_only_the_key_tells_the_signer(published, in_one_breath):
    key = signing.signing_key().public_key()
    for base in (published, in_one_breath):
        assert check(base.folder, base).exit_code == 5, found(base.folder, base)
        assert check(base.folder, base, public_key=key).exit_code == 0
        assert check(base.folder, base, public_key=FORGER.public_key()).exit_code == 1
    assert verify_folder(published.folder, key).exit_code == 6
    assert verify_folder(published.folder, key).skipped == ("ledger",)
    assert verify_folder(published.folder, key).to_json()["skipped"] == ["ledger"]


def test_a_rewriting_that_changes_nothing_is_found_with_the_key_alone(published, tmp_path):
    folder = rewrite(copy(published.folder, tmp_path), lambda record: None)
    assert not found(folder, published)
    assert list(found(folder, published, public_key=signing.signing_key().public_key())) == ["signature"]


def test_f14_other_settings_are_found(published, tmp_path):
    folder = copy(published.folder, tmp_path)
    for text in ("method: {name: retrain}\n", "method: {name: r2d, rewind: 0.1}\n", "training: {steps: 1}\n",
                 "a: &a [1]\nb: *a\n", "[]"):  # fmt: skip
        (folder / "config.yaml").write_text(text)
        assert "copies of the record" in found(sign(folder), published), text


def database(folder: Path, statement: str) -> None:
    """Change the ledger past its guards, and put them back."""
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as db:
        guards = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")]
        db.executescript("".join(f"DROP TRIGGER {name};" for name in guards) + statement)
        for name in guards:
            db.execute(SCHEMA[name])
        db.commit()


def without_ledger(folder: Path) -> None:
    (folder / "ledger.sqlite").unlink()


def without_the_end(folder: Path) -> None:
    length = record_of(folder)["ledger"]["length"]
    database(folder, f"DELETE FROM entries WHERE sequence > {length};"
                     f"DELETE FROM nodes WHERE (position + 1) << level > {length};")  # fmt: skip


def beside_the_ledger(folder: Path) -> None:
    (folder / "ledger.sqlite-wal").write_bytes(b"")
    (folder / "ledger.sqlite-shm").write_text("row 17 = Jane Doe")


def another_type(folder: Path) -> None:
    envelope = json.loads((folder / "statement.json").read_text())
    payload = base64.b64decode(envelope["payload"])
    envelope["payloadType"] = "text/plain"
    envelope["signatures"] = [signature(payload, "text/plain")]
    (folder / "statement.json").write_bytes(as_json(envelope))


def signature(payload: bytes, kind: str = signing.PAYLOAD_TYPE) -> dict[str, str]:
    signed = base64.b64encode(FORGER.sign(signing.pae(kind, payload))).decode()
    return {"keyid": signing.key_id(FORGER), "sig": signed, "publicKey": signing.public_pem(FORGER)}


def two_signatures(folder: Path) -> None:
    envelope = json.loads((folder / "statement.json").read_text())
    envelope["signatures"].insert(0, signature(base64.b64decode(envelope["payload"])))
    (folder / "statement.json").write_bytes(as_json(envelope))


def other_alphabet(folder: Path) -> None:
    text = (folder / "statement.json").read_text()
    (folder / "statement.json").write_text(text.replace("+", "-").replace("=", "=", 1).replace("\n", "\n ", 1))


def a_key_twice(folder: Path) -> None:
    text = (folder / "evidence.json").read_text()
    (folder / "evidence.json").write_text(text.replace('"title":', '"title": "x",\n  "title":', 1))
    envelope = json.loads((folder / "statement.json").read_text())
    statement = json.loads(base64.b64decode(envelope["payload"]))
    (folder / "statement.json").write_bytes(as_json(signing.sign(statement, FORGER)))


def beyond_all_numbers(folder: Path) -> None:
    def change(record: Record) -> None:
        for item in record["runs"][0]["evidence"]["measurements"]:
            item.update(null=1234567.0, agrees=True) if item["ideal"] is not None else None

    rewrite(folder, change)
    text = (folder / "evidence.json").read_text()
    (folder / "evidence.json").write_text(text.replace("1234567.0", "1e999"))


def linked(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        elsewhere = folder.parent / "elsewhere"
        shutil.move(folder / name, elsewhere)
        (folder / name).symlink_to(elsewhere)

    return change


def zeros(folder: Path, *, digests: bool) -> None:
    model = record_of(folder)["runs"][0]["model"]
    path = folder / model["file"]
    weights = {name: tensor * 0 for name, tensor in load_file(path).items()}
    path.write_bytes(save(weights, {"format": "pt"}))

    def change(record: Record) -> None:
        digest = Artifact(weights, model["form"], model["extra"]).digest
        record["runs"][0]["model"]["digest"] = certificate(record)["binds"]["release"] = digest

    rewrite(folder, change if digests else lambda record: None)


# what is done to the files → whether the forger signs anew, and the check that finds it
FILES = {
    "f17 the ledger is gone": (without_ledger, False, "ledger"),
    "f18 the ledger's end is gone": (without_the_end, False, "ledger"),
    "f19 files beside the ledger": (beside_the_ledger, False, "every file"),
    "f20 a number beyond all numbers": (beyond_all_numbers, True, "evidence record"),
    "f22 another type of payload": (another_type, False, "signature"),
    "f23 a key twice": (a_key_twice, False, "evidence record"),
    "f24 the models are a link": (linked("models"), False, "every file"),
    "f25 the statement is a link": (linked("statement.json"), False, "signature"),
    "f26 a file whose name looks the same": (
        lambda f: shutil.copy(f / "report.html", f / "report\u200b.html"), False, "every file"),
    "f28 two signatures": (two_signatures, False, "signature"),
    "f29 another model": (lambda f: zeros(f, digests=False), False, "released model"),
    "f30 a model of zeros with new digests": (lambda f: zeros(f, digests=True), False, "excerpt"),
    "an envelope written in another way": (other_alphabet, False, "signature"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_forged_files_are_found(in_one_breath, tmp_path, name):
    change, signs, where = FILES[name]
    folder = copy(in_one_breath.folder, tmp_path)
    change(folder)
    problems = found(sign_if(folder, signs), in_one_breath)
    assert any(where in place for place in problems), problems


def sign_if(folder: Path, signs: bool) -> Path:
    if signs:
        envelope = json.loads((folder / "statement.json").read_text())
        statement = json.loads(base64.b64decode(envelope["payload"]))
        from expunge.core.digest import digest_file

        for subject in statement["subject"]:
            subject["digest"]["sha256"] = digest_file(folder / subject["name"])
        (folder / "statement.json").write_bytes(as_json(signing.sign(statement, FORGER)))
    return folder


def test_f27_an_old_folder_is_found_with_a_checkpoint_that_was_kept_since(in_one_breath, tmp_path):
    old, key = copy(in_one_breath.folder, tmp_path), signing.signing_key()
    now = Path(shutil.copytree(in_one_breath.folder, tmp_path / "now"))
    with Ledger(now / "ledger.sqlite") as ledger:
        ledger.append("request", "req-later", {"id": "req-later"})
        point, length = checkpoint(ledger, key), record_of(old)["ledger"]["length"]
        proving = checkpoint(ledger, key, since=[length])
    kept = {"point": point, "proving": proving}
    for name, envelope in kept.items():
        (tmp_path / name).write_bytes(as_json(envelope))
    assert check(old, in_one_breath).consistent, "nothing in the folder can tell"
    assert "cut since, or is an old copy" in found(old, in_one_breath, checkpoint=tmp_path / "point")["checkpoint"]
    assert not found(now, in_one_breath, checkpoint=tmp_path / "point")
    (now / "ledger.sqlite").unlink()  # who has the excerpt alone needs the proof
    skipped = {f.name: f.skipped for f in check(now, in_one_breath, checkpoint=tmp_path / "point").checks}
    assert "only the ledger itself" in skipped["checkpoint"]
    assert "checkpoint" not in found(now, in_one_breath, checkpoint=tmp_path / "proving")
    statement = json.loads(base64.b64decode(proving["payload"]))
    statement["predicate"]["root"] = "0" * 64
    (tmp_path / "apart").write_bytes(as_json(signing.sign(statement, FORGER)))
    assert "Expected a checkpoint" in found(now, in_one_breath, checkpoint=tmp_path / "apart")["checkpoint"]
    statement["subject"][0]["digest"]["sha256"] = "0" * 64
    (tmp_path / "forged").write_bytes(as_json(signing.sign(statement, FORGER)))
    assert "another ledger" in found(now, in_one_breath, checkpoint=tmp_path / "forged")["checkpoint"]
    named = check(now, in_one_breath, checkpoint=tmp_path / "forged", public_key=key.public_key())
    assert any("signed by another key" in finding.problem for finding in named.checks)


def grown(record: Record) -> None:
    run = record["runs"][0]
    run["removed"]["now"] = certificate(record)["given"]["removed"] = certificate(record)["parameters"]["forget"] = 1
    record["data"].update(forgotten=1, retained=record["data"]["rows"] - 1)
    record["request"]["matched"].update(count=1, ids=record["request"]["matched"]["ids"][:1])
    made_consistent(record)
    certificate(record)["unit"] = "the group of 1 removed record(s)"
    filed = {name: value for name, value in record["request"].items() if name != "decision"}
    certificate(record)["binds"]["request"] = digest_json(filed)


def spent_nothing(record: Record) -> None:
    counted = {"releases": 1, "mu": 0.1, "theorems": ["rewind-to-delete"], "removed": 3, "since": 0}
    certificate(record)["given"]["earlier"] = counted
    certificate(record)["parameters"].update(releases_before=1, mu_before=0.1)
    made_consistent(record)


def second_run(record: Record) -> None:
    run = copies.deepcopy(record["runs"][0])
    run.update(name="another", verdict="certified")
    record["runs"].append(run)


def better_numbers(record: Record) -> None:
    for item in record["runs"][0]["evidence"]["measurements"]:
        if item["value"] is not None:
            item.update(value=item["ideal"], interval=None, agrees=True)
    record["runs"][0]["evidence"]["verdict"] = "not told from retraining"


def plug_in(record: Record) -> None:
    record["runs"][0]["method"].update(name="retrain", digest="0" * 64)


def older_format(record: Record) -> None:
    record["format"] = "expunge-evidence/2"
    parameters(forget=1)(record)


def given(**values) -> Callable[[Record], None]:
    return lambda record: certificate(record)["given"].update(values)


def later_promise(record: Record) -> None:
    entries = record["ledger"]["entries"]
    promise = next(entry for entry in entries if entry["kind"] == "published")
    promise["payload"]["budget"]["epsilon"] = 0.01
    record["runs"][0]["budget"]["epsilon"] = 0.01


# Fifteen more, made up for this file.
MORE = {
    "g01 all counts say one row": (grown, "excerpt"),
    "g02 a release before that nobody made": (spent_nothing, "certificate"),
    "g03 the same run twice": (second_run, "excerpt"),
    "g04 measurements as good as retraining": (better_numbers, "excerpt"),
    "g05 another method's name": (plug_in, "copies"),
    "g06 an older format to be let through": (older_format, "certificate"),
    "g07 the ledger was nobody's": (given(ledger=False), "certificate"),
    "g08 a hundred million releases at once": (given(together=10**8), "certificate"),
    "g09 the promise rewritten": (later_promise, "excerpt"),
    "g10 an assumption more than there is": (
        lambda r: certificate(r)["assumptions"].append({**certificate(r)["assumptions"][0], "name": "blessed"}), "certificate"),
    "g11 an assumption twice, the second one holds": (
        lambda r: certificate(r)["assumptions"].append({**certificate(r)["assumptions"][0], "value": 0}), "certificate"),
    "g12 delta of a tenth": (lambda r: (certificate(r).update(delta=0.1), made_consistent(r)), "certificate"),
    "g13 accepted by somebody": (lambda r: r.update(accepted={"by": "the minister", "reason": "fine"}), "excerpt"),
    "g14 a proof of another entry": (
        lambda r: r["ledger"]["entries"][0].update(proof=r["ledger"]["entries"][1]["proof"]), "excerpt"),
    "g15 values on few rows shown after all": (lambda r: r.update(private_below=1), "excerpt"),
    "g16 a true value that is the number one": (lambda r: certificate(r)["given"].update(own=1), "certificate"),
}  # fmt: skip


@pytest.mark.parametrize("name", MORE)
def test_one_more_forgery_is_found(published, tmp_path, name):
    finds(published, tmp_path, *MORE[name])


def test_a_run_that_was_fulfilled_does_not_call_a_damaged_folder_its_evidence(tmp_path):
    again = serve(tmp_path, published=False)
    out = again()
    assert again() == out, "nothing is done a second time"
    page = (out / "report.html").read_text()
    (out / "report.html").write_text("<p>Everything was erased.</p>")
    with pytest.raises(TamperedError, match=r"report\.html was changed"):
        again()
    (out / "report.html").write_text(page)
    (out / "ledger.sqlite").rename(tmp_path / "kept")
    with pytest.raises(InputError, match="holds something already"):
        again()
