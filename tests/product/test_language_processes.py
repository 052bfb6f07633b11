"""``expunge run`` in two processes: one record, the weights of one process, and nobody waits for ever."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from tests.descent.launching import FSDP, two
from tests.product.language import write_job
from tests.product.test_language_jobs import stored

from expunge.report.verify import verify_folder

LORA = {"name": "npo", "steps": 6, "lr": 0.01, "batch_size": 4, "lora": {"r": 2}}


@pytest.mark.parametrize(
    ("method", "how"),
    [
        pytest.param(LORA, {}, marks=pytest.mark.slow),
        pytest.param(LORA, FSDP, marks=pytest.mark.slow),
        pytest.param({**LORA, "lora": None}, FSDP, marks=pytest.mark.slow),
    ],
)
def test_two_processes_make_the_release_of_one(cli, tmp_path, method, how):
    training = stored(tmp_path)
    evidence = {"replicates": None, "reference": "none"}
    job = str(write_job(tmp_path, training=training, evidence=evidence, method=method, ledger="book.sqlite"))
    first, second = two("expunge", "run", job, "--out", "out", "--json", folder=tmp_path, cwd=tmp_path, **how)
    assert (first.code, second.code) == (4, 0), first.err + second.err  # undecidable, and nobody accepts it
    assert json.loads(first.out)["runs"][0]["method"] == "npo" and second.out == ""
    assert verify_folder(tmp_path / "out").consistent

    alone = tmp_path / "alone"
    alone.mkdir()
    stored(alone)
    job = write_job(alone, training=training, evidence=evidence, method=method)
    assert cli("run", job, "--out", alone / "out").code == 4
    (released,), (expected,) = ((folder / "out").glob("models/*.safetensors") for folder in (tmp_path, alone))
    found, wanted = load_file(released), load_file(expected)
    assert found.keys() == wanted.keys()
    idle = {
        name for name in wanted if name.endswith("k_proj.bias")
    }  # attention does not depend on it: its gradient is rounding
    for name in wanted.keys() - idle:
        torch.testing.assert_close(found[name], wanted[name], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_request_that_was_fulfilled_lets_the_other_process_go(cli, tmp_path):
    training = stored(tmp_path)
    job = write_job(tmp_path, training=training, evidence={"replicates": None, "reference": "none"}, method=LORA)
    assert cli("run", job, "--out", tmp_path / "out").code == 4
    first, second = two("expunge", "run", str(job), "--out", "out", "--json", folder=tmp_path, cwd=tmp_path)
    assert (first.code, second.code) == (4, 0), first.err + second.err
    assert "carried out already" in first.err and json.loads(first.out)


@pytest.mark.slow
def test_what_is_refused_is_refused_by_both(tmp_path):
    training = stored(tmp_path)
    method = {**LORA, "name": "undial", "lora": None}
    job = str(write_job(tmp_path, training=training, method=method))
    ended = two("expunge", "run", job, "--out", "out", folder=tmp_path, cwd=tmp_path, **FSDP)
    assert all(process.code and "Share out rows only" in process.err for process in ended)
    assert not (tmp_path / "out").exists()
