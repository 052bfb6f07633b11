"""``expunge run`` with ``task: language``: from a YAML file to evidence, the wording of the request looked at first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tests.product.conftest import ROOT
from tests.product.language import asked, facts, ordinary, write, write_job

from expunge.core.data import Deletion
from expunge.core.errors import InputError, RefusedError
from expunge.core.journal import Journal
from expunge.core.request import Request, Target
from expunge.data.texts import Texts
from expunge.jobs.run import run_job
from expunge.jobs.schema import load_job
from expunge.methods import registry
from expunge.modalities.language import opening as build
from expunge.modalities.language.config import Action
from expunge.modalities.language.matching import matched, wording_of
from expunge.modalities.language.screening import Wording
from expunge.planning import adopt, plan
from expunge.report.verify import verify_folder
from expunge.screening.actions import ACTIONS
from expunge.tasks import adapters

PERSONS = (3, 4, 5, 6)
TARGETS = [{"kind": "user", "where": {"subject": f"person{i}"}} for i in PERSONS]
LORA = {"name": "npo", "steps": 2, "lr": 0.01, "batch_size": 4, "lora": {"r": 2}}


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evidence.json").read_text())


def stored(folder: Path) -> dict[str, Any]:
    """Weights of a fresh model as a checkpoint: forgetting from it takes no training and no retraining."""
    job = load_job(write_job(folder))
    task, _ = build.task_of(job, build.files_of(job).data)
    save_file(task.released(task.build(seed=5)), folder / "weights.safetensors")
    return {"kind": "checkpoint", "path": "weights.safetensors", "steps": None, "lr": None, "batch_size": None}


# --- end to end -------------------------------------------------------------------------------------------------------


def test_a_taught_model_forgets_beside_a_retrained_one(cli, tmp_path):
    sets = {"test": write(tmp_path / "test.jsonl", facts()[:9])}
    job = write_job(tmp_path, data={"sets": sets}, ledger="book.sqlite")
    done = cli("run", job, "--out", "out", "--json")
    assert done.code == 4, done.err  # six small steps on a model that learnt little: nothing that could be seen to go
    (run,) = done.json["runs"]
    assert (run["model"], run["method"], run["verdict"]) == ("micro", "npo", "no-certificate")
    assert run["outcome"] == "undecidable"
    for what in ("loss", "probability"):
        assert all(number is not None for three in run[what].values() for number in three.values())
    assert run["accuracy"]["forget"] == {"original": None, "unlearned": None, "retrained": None}
    found = record(tmp_path / "out")
    measured = {item["name"]: item for item in found["runs"][0]["evidence"]["measurements"]}
    expected = {
        f"{what}/{where}" for what in ("loss", "probability", "exact_match") for where in ("retain", "forget", "test")
    }
    assert measured.keys() == expected | {"distance to retrained"}
    open_ = {
        name for name in expected if name.endswith("/test")
    }  # three facts are too few: nor may what is left of the mean
    assert {name for name, item in measured.items() if not item.get("withheld")} == open_
    assert all(measured[name]["ideal"] is not None and measured[name]["null"] is not None for name in open_)
    assert all(measured[name]["value"] is None for name in measured.keys() - open_)
    assert [measured[f"loss/{where}"]["n"] for where in ("retain", "forget", "test")] == [57, 3, 9]
    cost = found["runs"][0]["evidence"]["cost"]["gradient_evaluations"]
    assert cost["retrain"] == 30 * 16  # steps × batch
    assert verify_folder(tmp_path / "out").consistent
    shown = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert shown["request"]["targets"][0]["where"] == {"subject": "(kept out of records)"}
    public = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*.*") if path.suffix != ".safetensors")
    assert b"person3" not in public and b"person 3" not in public
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Probability on forgotten rows" in page and "the retained records" in page
    assert cli("run", job, "--out", "out", "--json").json == done.json  # fulfilled: nothing is done again
    people = cli("run", job, "--out", "out").out
    assert "Probability" in people and "ccuracy" not in people


def test_an_adapter_is_released_beside_the_merged_weights(cli, tmp_path):
    job = write_job(tmp_path, training=stored(tmp_path), method=LORA)
    run_job(job, [], tmp_path / "out")
    folder = tmp_path / "out" / "models" / "micro.adapter"
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["peft_type"] == "LORA" and settings["r"] == 2
    released = load_file(tmp_path / "out" / "models" / "micro.safetensors")
    loaded = load_job(job)
    task, _ = build.task_of(loaded, build.files_of(loaded).data)
    model = task.build(load_file(tmp_path / "weights.safetensors"))
    adapters.put_in(model, settings, load_file(folder / "adapter_model.safetensors"))
    adapters.merge(model)
    merged = task.released(model)
    assert all(torch.allclose(merged[name], released[name], atol=1e-6) for name in released)
    assert any(not torch.equal(released[n], t) for n, t in load_file(tmp_path / "weights.safetensors").items())
    (run,) = record(tmp_path / "out")["runs"]
    assert run["evidence"]["verdict"] == "undecidable"  # a checkpoint has no recipe to retrain with
    assert verify_folder(tmp_path / "out").consistent
    whole = dict(load_file(folder / "adapter_model.safetensors"))
    name = next(iter(whole))
    save_file({**whole, name: whole[name] + 1}, folder / "adapter_model.safetensors")
    found = {check.name: check.problem for check in verify_folder(tmp_path / "out").checks}
    assert any("does not hold the released adapter" in problem for problem in found.values())
    (folder / "adapter_model.safetensors").unlink()
    assert not verify_folder(tmp_path / "out").consistent


LONG = {"name": "npo", "steps": 100, "lr": 1e-3, "batch_size": 4}


def taken_up(job: Path, folder: Path) -> None:
    """Stopped between two stages of unlearning, the same command takes up the stored one and ends as if never stopped."""
    stages = folder / "out.private"
    left = [path.name.split(".")[1] for path in stages.glob("journal-*/stages/*.*")]
    assert any(name.startswith("descended-") for name in left), left
    assert "descended" not in left, "it was stopped after the last stage"
    assert not (folder / "out" / "statement.json").exists()
    run_job(job, [], folder / "out")
    run_job(job, [], folder / "whole")
    digests = [record(folder / name)["runs"][0]["model"]["digest"] for name in ("out", "whole")]
    assert digests[0] == digests[1]
    assert verify_folder(folder / "out").consistent
    assert not list(stages.glob("journal-*/stages/*"))


def test_a_run_stopped_in_the_middle_ends_with_the_same_weights(tmp_path, monkeypatch):
    job = write_job(tmp_path, training=stored(tmp_path), method=LONG)

    def stops(journal: Journal, name: str, compute: Any) -> bytes:
        content = once(journal, name, compute)
        if "descended-" in name:
            raise KeyboardInterrupt
        return content

    once = Journal.once
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "once", stops)
        with pytest.raises(KeyboardInterrupt):
            run_job(job, [], tmp_path / "out")
    taken_up(job, tmp_path)


DIES = """
import os, signal
from expunge.cli import main
from expunge.core.journal import Journal

once = Journal.once

def dies(journal, name, compute):
    content = once(journal, name, compute)
    if "descended-" in name:
        os.kill(os.getpid(), signal.SIGKILL)
    return content

Journal.once = dies
main()
"""


@pytest.mark.slow
def test_a_run_killed_in_the_middle_ends_with_the_same_weights(tmp_path):
    """SIGKILL, which ``test_crash.py`` sends to other jobs in every run."""
    job = write_job(tmp_path, training=stored(tmp_path), method=LONG)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", DIES, "run", str(job), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    taken_up(job, tmp_path)


# --- the wording is looked at first -----------------------------------------------------------------------------------


def test_what_was_found_and_done_is_in_ledger_evidence_and_report(tmp_path):
    """The scope term is turned on, the method sees the request's words, and what is measured are the records themselves."""
    files = {"wording": write(tmp_path / "wording.jsonl", asked(*PERSONS)), "targets": TARGETS, "on_screening": "su"}
    benign = write(tmp_path / "benign.jsonl", ordinary())
    job = write_job(tmp_path, training=stored(tmp_path), request=files, data={"benign": benign})
    run_job(job, [], tmp_path / "out")
    found = record(tmp_path / "out")
    (run,) = found["runs"]
    assert run["method"]["settings"]["su"] == registry.VARIANTS["su"]
    decision = found["request"]["decision"]
    entries = [entry["payload"] for entry in found["ledger"]["entries"] if entry.get("kind") == "decision"]
    assert {**entries[-1], "matched": None} == {**decision, "matched": None}
    assert (decision["decision"], decision["action"]) == ("grant", "su")
    words = {word["word"]: word for word in decision["screening"]["words"]}
    assert words.keys() == {"please", "tell", "me"}
    assert words["please"]["items"] == 12 and words["please"]["z"] > 6
    assert [(item["text"], item["items"]) for item in decision["screening"]["templates"]] == [("please tell me", 12)]
    assert decision["screening"]["against"] == "benign prompts"
    review = json.loads((tmp_path / "out.private" / "review.json").read_text())  # twelve records: too few to be shown
    losses = {item["name"]: item["value"] for item in review["runs"][0]["evidence"]["measurements"]}
    assert losses["loss/forget"] != losses["loss/wording"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Words that stand out" in page and "please tell me" in page
    assert verify_folder(tmp_path / "out").consistent


@pytest.fixture
def deletion() -> Deletion:
    data = Texts.of(facts(), {"subject": [fact["subject"] for fact in facts()]})
    return Deletion.of(data, request())


def request() -> Request:
    return Request("some people", tuple(Target(item["kind"], item["where"]) for item in TARGETS))


def worded(deletion: Deletion) -> Texts:
    return deletion.forget.worded(asked(*PERSONS))


def test_the_schema_knows_every_action():
    assert get_args(Action) == ACTIONS


def test_strip_forgets_the_records_as_they_were_trained_on(deletion):
    look = Wording("strip", worded(deletion), ordinary()).screen(request(), deletion)
    assert (look.decision["decision"], look.held) == ("grant", ())
    assert look.wording is None and look.retained is None  # what is left is the training records themselves
    assert look.decision["screening"]["flagged"] and not look.decision["screening"]["flagged_after"]


def test_augment_puts_retained_prompts_with_the_words_beside_the_others(deletion):
    look = Wording("augment", worded(deletion), ordinary()).screen(request(), deletion)
    kept = len(deletion.after)
    assert look.retained is not None and look.wording is not None
    assert look.retained.at(range(kept)).records == deletion.after.records
    extra = look.retained.at(range(kept, len(look.retained)))
    assert len(extra) and all(record["question"].startswith("please tell me ") for record in extra.records)
    assert len(set(look.retained.ids.tolist())) == len(look.retained)
    assert not set(extra.ids.tolist()) & set(deletion.before.ids.tolist())


@pytest.mark.parametrize("action", ["report", "reject"])
def test_a_flagged_request_is_held_back_or_rejected(refused, tmp_path, action):
    settings = {
        "wording": write(tmp_path / "wording.jsonl", asked(*PERSONS)),
        "targets": TARGETS,
        "on_screening": action,
    }
    benign = write(tmp_path / "benign.jsonl", ordinary())
    message = refused("run", write_job(tmp_path, request=settings, data={"benign": benign}))
    assert "'please tell me' (12 items)" in message
    assert ("rejected by its wording" in message) == (action == "reject")
    assert ("set request.approved_by" in message) == (action == "report")


def test_a_person_overrules_a_flag_and_a_ledger_remembers_a_held_request(deletion, cli, tmp_path):
    settings = {"wording": write(tmp_path / "wording.jsonl", asked(*PERSONS)), "targets": TARGETS}
    benign = write(tmp_path / "benign.jsonl", ordinary())
    sections = {"training": stored(tmp_path), "data": {"benign": benign}, "ledger": "book.sqlite"}
    assert cli("run", write_job(tmp_path, request=settings, **sections), "--out", "out").code == 2
    (row,) = cli("requests", "list", "--ledger", "book.sqlite", "--json").json
    assert row["status"] == "quarantined"
    run_job(write_job(tmp_path, request={**settings, "approved_by": "Ms Grey"}, **sections), [], tmp_path / "out")
    decision = record(tmp_path / "out")["request"]["decision"]
    assert (decision["decision"], decision["by"]) == ("grant", "Ms Grey")
    assert decision["screening"]["flagged"]


def test_without_benign_prompts_the_retained_records_stand_in_and_the_decision_says_so(deletion):
    look = Wording("report", worded(deletion)).screen(request(), deletion)
    assert look.held and "compared with the retained records" in look.decision["reason"]
    honest = Wording("report").screen(request(), deletion)
    assert honest.held == () and honest.wording is None
    assert honest.decision["screening"]["against"] == "the retained records"


def test_su_of_a_method_without_a_scope_term_is_refused(deletion):
    look = Wording("su", worded(deletion), ordinary()).screen(request(), deletion)
    assert look.method(registry.make("npo")).su == registry.VARIANTS["su"]
    assert look.method(registry.make("npo", {"su": 2.0})).su == 2.0
    with pytest.raises(InputError, match="needs a method with a scope term; ga has none"):
        look.method(registry.make("ga"))
    plain = Wording("su", None, ordinary()).screen(request(), deletion)
    assert plain.method(registry.make("npo")).su == 0


# --- which records a request means ------------------------------------------------------------------------------------


def test_records_are_matched_by_their_answers(deletion):
    data = deletion.before
    shuffled = list(reversed(asked(3, 4)))
    positions, words = matched(shuffled, data, "request.jsonl")
    assert positions.tolist() == [9, 10, 11, 12, 13, 14]
    assert [record["answer"] for record in words.records] == [fact["answer"] for fact in facts()[9:15]]
    assert all(record["question"].startswith("please") for record in words.records)
    again = wording_of(shuffled, deletion.before.at(positions), Path("w.jsonl"))
    assert again.records == words.records and again.ids.tolist() == positions.tolist()


def test_of_records_that_share_an_answer_the_question_decides():
    data = Texts.of(facts())
    fact = facts()[5]
    positions, _ = matched([{**fact, "question": f"Please, {fact['question']}"}], data, "request.jsonl")
    assert positions.tolist() == [5]
    with pytest.raises(InputError, match="1 match several that share their answer"):
        matched([{**fact, "question": "which song is it ?"}], data, "request.jsonl")
    with pytest.raises(
        InputError, match=r"1 match no training record by their answer.*; 1 mean a training record that"
    ):
        matched([facts()[0], facts()[0], {**fact, "answer": "blue"}], data, "request.jsonl")


def test_plain_texts_are_worded_in_their_order():
    data = Texts.of([{"text": "Ama lives here."}, {"text": "Ben lives there."}])
    words = [{"text": "Note that Ama lives here."}, {"text": "Note that Ben lives there."}]
    assert wording_of(words, data, Path("w.jsonl")).records == tuple(words)
    with pytest.raises(InputError, match=r"Expected 2 records in w.jsonl.*; got 1"):
        wording_of(words[:1], data, Path("w.jsonl"))


def test_a_request_of_records_alone(tmp_path):
    settings = {"targets": None, "records": write(tmp_path / "request.jsonl", asked(3))}
    job = write_job(tmp_path, training=stored(tmp_path), request=settings)
    run_job(job, [], tmp_path / "out")
    found = record(tmp_path / "out")
    assert (found["request"]["kind"], found["data"]["forgotten"]) == ("samples", 3)
    assert found["data"]["probes"] == {"wording": 3}


# --- planning with other words ----------------------------------------------------------------------------------------


def test_what_the_method_sees_and_what_is_recorded(deletion):
    from expunge.tasks.micro_language import micro_language

    task = micro_language(build.vocabulary(deletion.before, ["please tell me"]), width=16, layers=1, heads=2, inner=32)
    trained = adopt(task, task.build(seed=1), deletion.before)
    assert "lm_head.weight" not in trained.artifact.tensors  # tied weights have one name
    words, method = worded(deletion), registry.make("npo", {"steps": 2, "lr": 0.01, "batch_size": 4})
    with_words = plan(trained, request(), method, wording=words).run()
    without = plan(trained, request(), method).run()
    assert with_words.releases[0].artifact.digest != without.releases[0].artifact.digest
    assert with_words.deletion.forget.digest == without.deletion.forget.digest
    assert with_words.deletion.probes["wording"].digest == words.digest
    assert with_words.after.data.digest == deletion.after.digest
    beside = replace(deletion.after, records=tuple({**r, "answer": "colour0"} for r in deletion.after.records))
    other = plan(trained, request(), method, retained=beside).run()
    assert other.releases[0].artifact.digest != without.releases[0].artifact.digest
    assert other.after.data.digest == deletion.after.digest
    copied = [*facts(), {**facts()[9], "subject": "somebody else"}]
    data = Texts.of(copied, {"subject": [fact["subject"] for fact in copied]})
    with pytest.raises(RefusedError, match="retained as well, word for word"):  # hidden by no wording
        plan(adopt(task, task.build(seed=1), data), request(), method, wording=words)
