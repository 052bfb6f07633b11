"""A model that the operator's own loop left as a file, with the loop itself to compare with."""

from __future__ import annotations

import sys
import textwrap

import pytest
import torch

LOOP = """
    import torch
    from expunge.tasks.networks import SoftmaxHead


    def fit(data, seed):
        torch.manual_seed(seed)
        model = SoftmaxHead(64, 10).double()
        x, y = data.x.double(), data.y
        optimizer = torch.optim.SGD(model.parameters(), lr=2.0)
        for _ in range(60):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        return model
"""
VOUCHED = {"start": "independent", "selection": "fixed"}


@pytest.fixture
def loop(tmp_path, monkeypatch):
    """The module ``own_fit`` and the checkpoint that its loop left, under another seed than the job's."""
    from expunge.data.digits import digits

    (tmp_path / "own_fit.py").write_text(textwrap.dedent(LOOP))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_fit", raising=False)
    import own_fit  # pyright: ignore[reportMissingImports]

    model = own_fit.fit(digits()[0], 7)
    torch.save({"model": {f"module.{k}": v for k, v in model.state_dict().items()}, "epoch": 60}, tmp_path / "mine.pt")
    yield model
    sys.modules.pop("own_fit", None)


def with_loop(job, method, **training):
    return job(training={"kind": "user", "function": "own_fit:fit", **training}, publish=None, method=method)


def test_a_checkpoint_with_its_loop_is_the_original_and_is_compared_with_what_the_loop_makes(loop, job, cli):
    from expunge.data.digits import digits

    path = with_loop(job, {"name": "retrain"}, path="mine.pt", declares=VOUCHED)
    dry = cli("run", path, "--dry-run", "--json").json
    assert dry["promises"] == {"epsilon": 0.0} and dry["cautions"] == []
    rows, _ = digits()
    forgotten = torch.as_tensor(rows.columns["person"].astype(str) == "17")
    with torch.no_grad():
        right, known = (
            float((loop(each.x.double()).argmax(1) == each.y).double()[chosen].mean())
            for each, chosen in ((rows, forgotten), (rows, slice(None)))
        )
    assert dry["knows"] == f"{known:.3f} on its own training rows"
    ran = cli("run", path, "--out", "evidence", "--json")
    assert ran.code == 0, ran.err
    accuracy = ran.json["runs"][0]["accuracy"]["forget"]
    assert accuracy["original"] == pytest.approx(right) and accuracy["retrained"] is not None

    # the next request finds the model in its folder, and the loop in the job
    nobody = job(
        "next.yaml", publish=None, method={"name": "retrain"}, ledger="evidence.private/ledger.sqlite",
        training={"kind": "stored", "folder": "evidence.private/next-softmaxhead"},
        request={"subject": "person 23", "targets": [{"kind": "user", "where": {"person": 23}}]},
    )  # fmt: skip
    refused = cli("run", nobody, "--dry-run", "--set", "ledger=null")
    assert refused.code == 2 and "function: package.module:fit" in refused.err
    again = cli("run", nobody, "--dry-run", "--json", "--set", "training.function=own_fit:fit", "--set", "ledger=null")
    assert again.code == 0, again.err
    assert (
        again.json["forgotten"] == 10 and again.json["cautions"] == []
    )  # the folder keeps what was declared of the model


def test_what_a_certificate_of_retraining_needs_to_hear_is_said_before_the_run(loop, job, cli):
    dry = cli("run", with_loop(job, {"name": "retrain"}, path="mine.pt"), "--dry-run", "--json").json
    (caution,) = dry["cautions"]
    assert dry["promises"] == {} and "declares: {start: independent, selection: fixed}" in caution
    half = with_loop(job, {"name": "retrain"}, path="mine.pt", declares={"start": "independent", "selection": "tuned"})
    (caution,) = cli("plan", half, "--json").json["cautions"]
    assert "selection: fixed" in caution and "start" not in caution
