"""A request is refused where the evidence of it would be larger than what its own verifier reads."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml

from expunge.core.data import Deletion
from expunge.core.errors import RefusedError
from expunge.core.request import Request, Target
from expunge.data.image_files import Files
from expunge.data.rows import Rows
from expunge.planning.matched import matched_record, must_be_recordable
from expunge.report.verify import reading
from expunge.report.verify.record import size_problems

BOUND = 2**20 + 2_000 * 250
ROWS = Rows.of(np.arange(3_001, dtype=np.float32)[:, None], np.zeros(3_001, np.int64))


def asked(count: int) -> tuple[Deletion, Request]:
    """Single examples, each of which leaves a hash of its id and a mark of its content."""
    request = Request("someone", (Target("samples", {"ids": np.arange(count).tolist()}),))
    return Deletion.of(ROWS, request), request


def size(count: int) -> int:
    """Of a record that shows the match itself, the ledger's decision, and that of a request that was given up."""
    matched = matched_record(*asked(count), bytes(32))
    record = {"request": {"matched": matched}, "ledger": {"entries": [{"payload": {"matched": matched}}] * 2}}
    return len(json.dumps(record, indent=2))


def test_as_many_examples_as_a_refusal_allows_fit_in_what_verify_reads_and_not_many_more(monkeypatch):
    monkeypatch.setattr(reading, "LARGEST", BOUND)
    with pytest.raises(RefusedError, match="3,000 examples") as refused:
        must_be_recordable(asked(3_000)[0])
    (most,) = re.findall(r"more than ([\d,]+) it", str(refused.value))
    count = int(most.replace(",", ""))
    must_be_recordable(asked(count)[0])
    assert 0.9 < size(count) / (BOUND - 2**20) < 1


def test_examples_with_files_of_their_own_leave_a_third_line_each(monkeypatch, tmp_path):
    monkeypatch.setattr(reading, "LARGEST", BOUND)
    limits = []
    for rows in (ROWS, replace(ROWS, files=Files(tmp_path, np.array([f"{i}.png" for i in range(len(ROWS))])))):
        request = Request("someone", (Target("samples", {"ids": np.arange(3_000).tolist()}),))
        with pytest.raises(RefusedError) as refused:
            must_be_recordable(Deletion.of(rows, request))
        (most,) = re.findall(r"more than ([\d,]+) it", str(refused.value))
        limits.append(int(most.replace(",", "")))
    assert limits[1] == limits[0] * 2 // 3


def test_what_a_record_may_hold_grows_with_the_models_that_lie_in_the_folder():
    request = {"matched": None, "decision": None}
    of_peers = {"request": request, "measurements": [0.5] * 480_000}  # 1,400 peers that all differ, as measured
    assert size_problems(of_peers, 1_400) == []
    (problem,) = size_problems(of_peers, 1)
    assert "values, more than 300,500" in problem
    of_letters = {"request": request, "names": ["x" * 1_000] * 2_400}
    assert size_problems(of_letters, 1_400) == [] and len(size_problems(of_letters, 0)) == 1


def test_certificates_of_single_models_have_room_of_their_own():
    """600 values and 7,000 letters in the certificate of each of a thousand models, as those of noise have."""
    certificate = {"assumptions": [0.5] * 600, "words": ["x" * 1_000] * 7}
    views = [{"certificate": certificate}] * 1_000
    record = {"request": {"matched": None, "decision": None}, "runs": [{"certificate": None, "other_views": views}]}
    assert size_problems(record, 1_000) == []
    assert len(size_problems(record, 10)) == 2, "files that do not lie there give no room"
    bare = {"certificate": None, "more": certificate}
    assert len(size_problems({**record, "runs": [{**bare, "other_views": [bare] * 1_000}]}, 1_000)) == 1


def test_a_network_of_which_each_model_gets_a_certificate_is_refused_earlier(monkeypatch):
    from expunge.planning import matched

    matched.must_be_few_apart(matched.MOST_APART)
    matched.must_be_few_apart(matched.MOST_CERTIFIED, certified=True)
    with pytest.raises(RefusedError, match="and a certificate; with more than 1,200"):
        matched.must_be_few_apart(matched.MOST_CERTIFIED + 1, certified=True)
    # 21.7 kB of record for each was measured
    assert matched.MOST_CERTIFIED * 21_700 < reading.LARGEST < 33_600_000


def test_a_network_whose_evidence_could_not_be_verified_is_refused_before_it_is_trained(monkeypatch, tmp_path):
    from expunge.jobs import run
    from expunge.planning import matched

    monkeypatch.setattr(matched, "MOST_APART", 9)
    path = tmp_path / "job.yaml"
    content = {
        "model": "expunge.tasks.networks:SoftmaxHead", "model_settings": {"features": 64, "classes": 10},
        "data": {"format": "digits"}, "method": {"name": "network_newton"},
        "request": {"subject": "a", "targets": [{"kind": "samples", "where": {"ids": [3]}}]},
    }  # fmt: skip
    network = {"clients": 10, "topology": {"kind": "ring"}, "recipe": {"kind": "gossip", "rounds": 2, "lr": 0.1}}
    path.write_text(yaml.safe_dump({**content, "network": network}))
    run.opened_of(run.load_job(path))
    path.write_text(yaml.safe_dump({**content, "network": {**network, "mixing": {"consensus": False}}}))
    with pytest.raises(
        RefusedError, match=r"10 peers of this network each keep a model of their own.*mixing.consensus"
    ):
        run.opened_of(run.load_job(path))
