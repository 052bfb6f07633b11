"""Two processes under accelerate make the run of one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tests.descent.launching import FSDP, two
from tests.descent.together import run

from expunge.core.errors import InputError
from expunge.descent.processes import processes

RUNS: dict[str, dict[str, Any]] = {
    "npo+su": {"kind": "npo", "steps": 6, "su": 2.0, "dual": False},
    "undial+dual": {"kind": "undial", "steps": 4, "su": 0.0, "dual": True, "retain": "kl"},
    "kept": {"kind": "wga", "steps": 6, "su": 0.0, "dual": False, "folder": "journal"},
    "taken up": {"kind": "wga", "steps": 6, "su": 0.0, "dual": False, "folder": "journal"},
    "one row": {"kind": "npo", "steps": 2, "su": 0.0, "dual": False, "batch": 1},
}


SHARDED: dict[str, dict[str, Any]] = {
    "npo+su": RUNS["npo+su"],
    "wga+dual": {"kind": "wga", "steps": 4, "su": 0.0, "dual": True},
    "lora": {"kind": "undial", "steps": 6, "su": 1.0, "dual": False, "retain": "kl", "lora": True},
    "kept": RUNS["kept"],
    "taken up": RUNS["taken up"],
}


def launched(runs: dict[str, dict[str, Any]], make: Any, **environment: str) -> dict[str, list[dict[str, Any]]]:
    """Run → what each of two processes says at its end."""
    journals = make("journals")  # the first process alone writes there
    done = two(
        "tests.descent.together", json.dumps(list(runs.values())), str(journals), folder=make("own"), **environment
    )
    answers = []
    for process in done:
        assert process.code == 0, process.err[-2000:]
        answers.append([json.loads(line) for line in process.out.splitlines() if line.startswith("{")])
    assert [len(of) for of in answers] == [len(runs), len(runs)]
    return {name: list(each) for name, *each in zip(runs, *answers, strict=True)}


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> dict[str, list[dict[str, Any]]]:
    return launched(RUNS, tmp_path_factory.mktemp)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory) -> dict[str, list[dict[str, Any]]]:
    return launched(SHARDED, tmp_path_factory.mktemp, **FSDP)


@pytest.mark.parametrize("name", ["npo+su", pytest.param("undial+dual", marks=pytest.mark.slow)])
def test_two_processes_have_the_losses_of_one(together, name):
    first, second = together[name]
    alone = run(**RUNS[name])
    assert len(alone["losses"]) >= 4 and len(set(alone["losses"])) > 1
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=1e-5)
    assert {**first, "stages": 0} == {**second, "stages": 0}
    np.testing.assert_allclose(first["weights"], alone["weights"], atol=1e-5)


def test_the_first_process_keeps_the_journal_and_all_take_it_up(together):
    whole, again = together["kept"], together["taken up"]
    assert [each["weights"] for each in again] == [each["weights"] for each in whole]
    assert [each["losses"] for each in again] == [each["losses"] for each in whole]
    assert [each["stages"] for each in whole] == [3, 0] and [each["stages"] for each in again] == [0, 0]


def test_a_batch_smaller_than_the_processes_is_refused(together):
    assert all("has 1 row(s) for 2 processes" in each["error"] for each in together["one row"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["npo+su", "wga+dual", "lora"])
def test_two_processes_with_half_of_each_weight_have_the_losses_of_one(sharded, name):
    first, second = sharded[name]
    alone = run(**SHARDED[name])
    assert len(alone["losses"]) >= 4 and len(set(alone["losses"])) > 1
    for each in (first, second):
        np.testing.assert_allclose(each["losses"], alone["losses"], rtol=1e-5)
        np.testing.assert_allclose(each["weights"], alone["weights"], atol=1e-5)
        assert len(each["scores"]) == len(alone["scores"])
        np.testing.assert_allclose(each["scores"], alone["scores"], rtol=1e-5)
    steps = (
        alone["state_bytes"] - first["state_bytes"] - second["state_bytes"]
    )  # each process counts the steps of its own
    assert first["state_bytes"] < 0.6 * alone["state_bytes"] and -2000 < steps <= 0


@pytest.mark.slow
def test_sharded_weights_are_stored_by_the_first_process_and_taken_up_by_all(sharded):
    whole, again = sharded["kept"], sharded["taken up"]
    assert [each["weights"] for each in again] == [each["weights"] for each in whole]
    assert [each["losses"] for each in again] == [each["losses"] for each in whole]
    assert whole[0]["stages"] == 3 and again[0]["stages"] == 0


def test_deepspeed_is_refused_in_words(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(InputError, match="DeepSpeed owns the optimizer"):
        processes()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FSDP_VERSION", "1", "Expected fsdp_version: 2"),
        ("FSDP_RESHARD_AFTER_FORWARD", "false", "fsdp_reshard_after_forward: true"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true", "fsdp_activation_checkpointing: false"),
    ],
)
def test_an_fsdp_configuration_that_cannot_be_followed_is_refused_in_words(monkeypatch, name, value, said):
    for switch, each in {"WORLD_SIZE": "2", **FSDP, name: value}.items():
        monkeypatch.setenv(switch, each)
    with pytest.raises(InputError, match=said):
        processes()
