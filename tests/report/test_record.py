from __future__ import annotations

import doctest
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import torch

from expunge.core.errors import InputError
from expunge.core.method import Release
from expunge.core.trained import Artifact, Origin
from expunge.report import numbers, record
from expunge.report.record import build, plain, slug

from . import worlds


def test_numbers_are_written_as_their_docstrings_say():
    assert doctest.testmod(numbers).failed == 0


def test_everything_in_it_is_json(certified):
    made = worlds.record_of(certified)
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert made["format"] == "expunge-evidence/3" and made["runs"][0]["verdict"] == certified.verdict
    assert made["runs"][0]["paper"].startswith("Rewind-to-Delete")
    assert made["runs"][0]["budget"]["used"] == 5 and made["runs"][0]["budget"]["capacity"] == 8
    assert made["data"] | {"digest": 0, "retained_digest": 0} == {
        "name": "toy rows", "note": "synthetic", "rows": 60, "retained": 55, "forgotten": 5, "member": True,
        "digest": 0, "retained_digest": 0, "probes": {"test": 30},
    }  # fmt: skip


def test_nothing_personal_and_no_score_is_in_it(certified):
    text = json.dumps(worlds.record_of(certified))
    for secret in (worlds.SUBJECT, worlds.USER, str(worlds.SECRET)):
        assert secret not in text


def test_plain_values():
    day = datetime(2026, 1, 2, tzinfo=UTC).date()
    assert plain({"a": float("inf"), 2: np.float32(1.5), "t": torch.ones(2)}) == {"a": None, "2": 1.5, "t": [1.0, 1.0]}
    assert plain({"n": np.array([np.nan]), "o": Origin.PROVED, "s": {2, 1}}) == {
        "n": [None],
        "o": "proved",
        "s": [1, 2],
    }
    assert plain([Path("/home/someone/x.csv"), day, np.True_]) == ["x.csv", "2026-01-02", True]
    with pytest.raises(InputError, match="Expected something that a record can hold"):
        plain(object())


def test_time_is_utc(certified):
    moment = datetime(2026, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert worlds.record_of(certified, created=moment)["created"] == "2026-02-28T23:30:00Z"


def test_runs_must_belong_together(certified):
    found = worlds.evidence(certified)
    options = {"request": certified.request, "title": "t", "dataset": "d"}
    with pytest.raises(InputError, match="at least one run"):
        build([], **options)
    with pytest.raises(InputError, match="file names"):
        build([("Head 1", certified, found), ("head-1", certified, found)], **options)
    elsewhere = replace(certified, deletion=replace(certified.deletion, after=worlds.rows(7, 9)))
    with pytest.raises(InputError, match="same data"):
        build([("a", certified, found), ("b", elsewhere, found)], **options)


def test_every_view_of_a_network_is_in_it(certified):
    second = Release("peer/1", Artifact({"w": torch.zeros(3)}), None)
    network = replace(certified, releases=(*certified.releases, second))
    run = worlds.record_of(network)["runs"][0]
    assert run["verdict"] == "no-certificate", "the weakest view decides"
    assert run["other_views"][0]["model"]["file"] == "models/toy-head-peer-1.safetensors"
    assert run["other_views"][0]["model"]["parameters"] == 3


def test_environment_names_no_machine():
    import socket

    text = json.dumps(record.environment())
    assert socket.gethostname() not in text and str(Path.home()) not in text
    assert {"expunge", "python", "torch", "threads"} <= record.environment().keys()


@pytest.mark.parametrize(
    ("name", "file"), [("Linear Head", "linear-head"), ("../../x", "x"), ("é", "model"), ("a_b.1", "a_b.1")]
)
def test_names_become_file_names(name, file):
    assert slug(name) == file
