"""An earlier release comes back, with its model, only where it knows nobody whose request was released since."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file
from tests.product.test_deadlines_and_batches import BY, LEDGER, rows, table_job
from tests.product.test_gone_for_good import PUBLISHED

from expunge.core.digest import digest_file
from expunge.ledger import Ledger

CLERK = ("--by", "A. Clerk", "--why", "the new model is too weak", "--json")
GENTLE = {"name": "fine_tune", "epochs": 1, "lr": 1e-6}  # nothing can be seen of it: it is delivered and not accepted


def releases(cli: Any, ledger: str = LEDGER) -> list[dict[str, Any]]:
    return cli("requests", "releases", "--ledger", ledger, "--json").json


@pytest.fixture
def three(cli, tmp_path) -> list[dict[str, Any]]:
    """P3 by one method, P4 by a second one that nobody accepted, and P4 by a third."""
    assert cli("run", table_job(tmp_path, "P3"), "--out", "one").code in (0, 4)
    cli("run", table_job(tmp_path, "P4", method={"name": "gradient_ascent", "epochs": 1}), "--out", "two")
    *_, request = rows()  # nothing was measured beside a retrained model, so neither result is accepted
    assert cli("requests", "supersede", request, *BY).code == 0
    again = cli("run", table_job(tmp_path, "P4", method={"name": "fine_tune", "epochs": 2}), "--out", "three")
    assert again.code in (0, 4), again.err
    return releases(cli)


def test_an_earlier_release_comes_back_with_its_model_and_only_where_it_knows_nobody_released_since(
    cli, tmp_path, three
):
    first, second, third = (item["digest"] for item in three)
    assert [(item["in_use"], item["may_return"]) for item in three] == [(False, False), (False, True), (True, True)]

    def roll(digest: str, evidence: str, out: str) -> Any:
        return cli("requests", "rollback", digest, "--ledger", LEDGER, "--evidence", evidence, "--out", out, *CLERK)

    def refused(digest: str, evidence: str, out: str = "new") -> str:
        result = roll(digest, evidence, out)
        assert result.code == 2 and not Path("new").exists() and not list(tmp_path.glob(".*.part")), result.err
        with Ledger(Path(LEDGER)) as ledger:
            assert len(ledger.entries("rollback")) == done
        return result.err

    done = 0
    knows = refused(first, "one")
    assert "knows what was forgotten since" in knows and second[:12] in knows and third[:12] in knows
    assert "in use already" in refused(third, "three")
    assert "at least 8 digits" in refused(second[:5], "two") and "Expected the digest" in refused("0" * 16, "two")
    assert "holds release" in refused(second, "three") and "no evidence folder" in refused(second, "home")
    Path("taken").mkdir()
    (Path("taken") / "a.txt").write_text("mine")
    assert "is there already" in refused(second, "two", "taken")
    shutil.copytree("two", "changed")
    (Path("changed") / "models" / "perceptron.safetensors").write_bytes(b"other weights")
    assert "does not verify" in refused(second, "changed")

    # people are told what to deploy, what to take down, and what a later request starts from
    listed = cli("requests", "releases", "--ledger", LEDGER).out
    assert "in use" in listed and "may come back" in listed and "knows somebody" in listed
    Path("two.private").rename("elsewhere")
    told = cli("requests", "rollback", second, "--ledger", LEDGER, "--evidence", "two", "--out", "b/c", *CLERK[:-1])
    assert told.code == 0 and "Deploy:       b/c/perceptron.safetensors" in told.out, told.err
    assert f"Take down:    release {third[:12]} of {three[2]['request']}" in told.out
    assert "can only adopt the model as a checkpoint" in " ".join(told.out.split())
    Path("elsewhere").rename("two.private")
    assert roll(third, "three", "back").json["from"] == second

    back = roll(second[:10], "two", "again")
    assert back.code == 0, back.err
    assert (back.json["digest"], back.json["from"], back.json["by"]) == (second, third, "A. Clerk")
    assert back.json["from_request"] == three[2]["request"] and back.json["deploy"] == ["again/perceptron.safetensors"]
    held, original = Path("again/perceptron.safetensors"), Path("two/models/perceptron.safetensors")
    assert held.read_bytes() == original.read_bytes() != Path("three/models/perceptron.safetensors").read_bytes()
    statement = json.loads(Path("again/release.json").read_text())
    assert statement["files"] == {held.name: digest_file(original)} and statement["from"] == third
    assert [item["in_use"] for item in releases(cli)] == [False, True, False]

    # the next request starts from it
    stored = {"training": back.json["next"]["training"], "method": {"name": "no_op"}}
    run = cli("run", table_job(tmp_path, "P5", **stored), "--out", "four")
    assert run.code in (0, 4), run.err
    assert all(
        load_file("four/models/perceptron.safetensors")[name].equal(value) for name, value in load_file(held).items()
    )
    done = 3
    assert "knows what was forgotten since" in refused(third, "three")  # it was made before P5 was asked for

    for folder, words in (("two", "put in use again"), ("three", "taken out of use")):
        checked = cli("verify", folder, "--ledger", LEDGER)
        assert checked.code in (0, 5), checked.out
        assert f"its model was {words} by A. Clerk: the new model is too weak" in " ".join(checked.out.split())


def test_a_published_model_goes_back_where_its_earlier_state_is_restored_and_serves_the_next_request(cli, tmp_path):
    promise = {"publish": {"epsilon": 1.0, "capacity": 20, "releases": 4}}
    job = table_job(tmp_path, "P3", **{**PUBLISHED, **promise})
    assert cli("publish", job, "--to", "model").code == 0
    ledger = "model/ledger.sqlite"

    def serve(who: str, out: str, method: dict[str, Any]) -> Any:
        content = yaml.safe_load(job.read_text()) | {"method": method}
        content["request"] = {"subject": f"subject {who}", "targets": [{"kind": "user", "where": {"patient": who}}]}
        job.write_text(yaml.safe_dump(content))
        return cli("run", job, "--model", "model", "--out", out, "--json")

    first = serve("P3", "one", GENTLE)
    assert first.code == 4, first.err
    request = first.json["request"]["id"]
    shutil.copytree(f"model/after-{request}", "backup")
    assert cli("requests", "supersede", request, "--ledger", ledger, *CLERK).code == 0
    second = serve("P3", "two", {"name": "fine_tune", "epochs": 2})
    assert second.code == 4, second.err
    digest = releases(cli, ledger)[0]["digest"]

    def roll() -> Any:
        return cli("requests", "rollback", digest, "--ledger", ledger, "--evidence", "one", "--out", "again", *CLERK)

    lost = roll()
    assert lost.code == 2 and "does not hold the model" in lost.err and not Path("again").exists()
    shutil.copytree("backup", f"model/after-{request}")
    back = roll()
    assert back.code == 0 and back.json["next"] == {"model": "model"}, back.err
    released = load_file(back.json["deploy"][0])
    assert all(load_file("one/models/softmaxhead.safetensors")[name].equal(value) for name, value in released.items())

    third = serve("P4", "three", {"name": "no_op"})
    assert third.code in (0, 4), third.err
    after = load_file("three/models/softmaxhead.safetensors")
    assert all(after[name].equal(value) for name, value in released.items())
    assert cli("verify", "three", "--ledger", ledger).code in (0, 5)
