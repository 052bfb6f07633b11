"""A request is refused where the evidence of it would be larger than what its own verifier reads."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from expunge.core.data import Deletion
from expunge.core.errors import RefusedError
from expunge.core.request import Request, Target
from expunge.data.rows import Rows
from expunge.planning.matched import matched_record, must_be_recordable
from expunge.report.verify import reading

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
