from __future__ import annotations

import copy

import pytest

from expunge.metrics.catalogue import METRICS
from expunge.report import html
from expunge.report.measurement_names import key_of, keyed, recorded_name
from expunge.report.shown import shown
from expunge.report.verify.record import measurement_problems

PLACES = [("retain", None), ("forget", "peer 1"), ("my own set", None)]


def without_keys(record: dict) -> dict:
    """As records were written before measurements had metric, set and view."""
    record = copy.deepcopy(record)
    for item in record["runs"][0]["evidence"]["measurements"]:
        for field in ("metric", "set", "view"):
            del item[field]
    return record


def test_names_of_records_are_what_they_were(record):
    names = [item["name"] for item in record["runs"][0]["evidence"]["measurements"]]
    assert names == ["accuracy/retain", "accuracy/forget", "accuracy/test", "membership/loss"]
    told = {("distance", None, None): "distance to retrained", ("exact_memorization", "test", None): "exact_match/test"}
    assert {key: recorded_name(key) for key in told} == told


@pytest.mark.parametrize("metric", METRICS)
def test_a_recorded_name_says_what_its_fields_say(metric):
    for key in [(metric, None, None), (metric, None, "peer 1"), *((metric, *place) for place in PLACES)]:
        if METRICS[metric].recorded and key[1] and metric in ("distance", *(m for m in METRICS if METRICS[m].attack)):
            continue  # these are on no set
        assert key_of(recorded_name(key)) == key


def test_an_attack_of_an_unknown_version_is_on_no_set():
    assert key_of("membership/label only") == ("membership_label only", None, None)


def test_a_record_with_names_alone_reads_and_shows_the_same(record):
    old = without_keys(record)
    assert html.render(old) == html.render(record)
    assert not measurement_problems(old["runs"][0]["evidence"])
    whole = shown(record | {"salt": "00" * 32}, private_below=20)
    assert shown(old | {"salt": "00" * 32}, private_below=20)["runs"] == whole["runs"]


def test_a_name_that_belies_its_fields_is_a_problem(record):
    evidence = copy.deepcopy(record)["runs"][0]["evidence"]
    assert not measurement_problems(evidence)
    evidence["measurements"][1]["set"] = "retain"
    assert "accuracy/forget is accuracy/retain" in measurement_problems(evidence)[0]


def test_fields_that_are_there_are_believed_over_the_name():
    item = {"name": "accuracy/retain", "metric": "accuracy", "set": "forget", "view": None}
    assert keyed(item) == item
