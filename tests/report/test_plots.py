from __future__ import annotations

import copy
import xml.etree.ElementTree as ET

import matplotlib
import pytest

from expunge.report import plots
from expunge.report.differences import _drawn, differences

from . import worlds

OF_RECORD = (plots.accuracy, plots.membership)
OF_RUN = (plots.trade_off, plots.bounds, differences, plots.change)


@pytest.fixture
def varied(record) -> dict:
    """A record for which every plot has something to draw."""
    record = copy.deepcopy(record)
    record["runs"][0]["change"] = {"first.weight": 3.0, "first.bias": 4.0, "second.weight": 1.0}
    return record


def drawn(record: dict) -> list:
    run = record["runs"][0]
    return [plot(record) for plot in OF_RECORD] + [plot(run) for plot in OF_RUN]


def forget() -> None:
    for plot in (plots._beside, plots._trade_off, plots._bounds, plots._change, _drawn):
        plot.cache_clear()


def test_the_same_numbers_give_the_same_bytes(varied):
    first = drawn(varied)
    forget()
    second = drawn(copy.deepcopy(varied))
    assert first == second and all(a is not b for a, b in zip(first, second, strict=True))
    assert [figure.outlined() for figure in first] == [figure.outlined() for figure in second]


def test_equal_numbers_are_drawn_and_laid_out_once(varied, monkeypatch):
    figures = drawn(varied)
    shapes = [figure.outlined() for figure in figures]
    monkeypatch.setattr(plots, "finished", None)
    monkeypatch.setattr("expunge.report.differences.finished", None)
    again = copy.deepcopy(varied)
    again["runs"][0]["details"] = {"seconds": 9}  # of which no figure shows anything
    assert all(a is b for a, b in zip(drawn(again), figures, strict=True))
    assert [figure.outlined() for figure in figures] == shapes


def test_every_figure_is_svg_with_words(varied):
    for figure in drawn(varied):
        root = ET.fromstring(figure.svg)
        assert root.tag.endswith("svg") and root.get("viewBox")
        assert "<metadata" not in figure.svg and "<!DOCTYPE" not in figure.svg
        assert len(figure.alt) > 20 and figure.caption.endswith(".")
        assert "<text" in figure.svg


def test_letters_become_shapes_for_the_pdf(varied):
    assert all("<text" not in figure.outlined() for figure in drawn(varied))


def test_numbers_are_in_the_words(varied):
    accuracy, membership, *_, change = drawn(varied)
    assert "released 80\N{NO-BREAK SPACE}%" in accuracy.alt and "retrained 90\N{NO-BREAK SPACE}%" in accuracy.alt
    assert "0.520" in membership.alt and "0.5 (dashed)" in membership.caption
    assert "first 5" in change.alt


def test_global_settings_are_left_alone(varied):
    before = dict(matplotlib.rcParams)
    drawn(varied)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("verdict", worlds.VERDICTS)
def test_nothing_is_drawn_where_there_is_nothing(record, verdict):
    run = worlds.with_verdict(record, verdict)["runs"][0]
    figures = [plots.trade_off(run), plots.bounds(run)]
    if verdict in ("void", "no-certificate", "unchanged"):
        assert figures == [None, None]
    else:
        assert all(figures)
        assert ("Nominal" in figures[0].caption) == (not verdict.startswith("certified"))


def test_no_picture_of_one_number_or_of_none(record, certified):
    assert plots.change(record["runs"][0]) is None  # one module
    bare = worlds.record_of(certified)
    bare["runs"][0]["evidence"]["measurements"] = []
    assert plots.accuracy(bare) is None and plots.membership(bare) is None
    grown = copy.deepcopy(record["runs"][0])
    grown["change"] = {"a.weight": None, "b.weight": 1.0}
    assert plots.change(grown) is None


def test_a_hopeless_epsilon_is_not_drawn(record):
    run = worlds.with_verdict(record, "heuristic-noise")["runs"][0]
    run["certificate"] |= {"epsilon": 5e11, "composed_mu": 1e6}
    assert plots.trade_off(run) is None


def test_bounds_say_which_is_used_and_which_do_not_apply(record):
    run = copy.deepcopy(record["runs"][0])
    run["certificate"]["bounds"] = [
        {"name": "wide", "value": 1e30, "source": "s", "valid": True, "reason": ""},
        {"name": "endless", "value": None, "source": "s", "valid": True, "reason": ""},
        {"name": "tight", "value": 0.5, "source": "s", "valid": True, "reason": ""},
        {"name": "not_ours", "value": 0.1, "source": "s", "valid": False, "reason": "not convex"},
    ]
    figure = plots.bounds(run)
    assert figure is not None
    assert "0.5, used" in figure.svg and "0.1, does not apply" in figure.svg and "infinite" in figure.svg
    assert "not ours 0.1 (does not apply)" in figure.alt


def test_differences_are_in_units_of_what_two_retrainings_differ_by(record):
    run = copy.deepcopy(record["runs"][0])
    first, second = (copy.deepcopy(run["evidence"]["measurements"][0]) for _ in range(2))
    first |= {"value": 0.9, "original": 1.0, "ideal": 0.5, "null": 0.2, "view": None}
    second |= {"metric": "loss", "value": 9.0, "original": None, "ideal": 1.0, "null": 0.5, "view": None}
    run["evidence"]["measurements"] = [first, second]
    figure = differences(run)
    assert figure is not None and "before 2.5, released 2;" in figure.alt and figure.alt.endswith("released 16.")
    assert "at the edge" in figure.caption and "16" in figure.svg
    second["null"] = None  # nothing says what chance would make of it; and one number needs no picture
    assert differences(run) is None


def test_networks_draw_every_view(record):
    record = copy.deepcopy(record)
    measurements = record["runs"][0]["evidence"]["measurements"]
    measurements += [{**item, "name": f"{item['name']}@peer 1", "view": "peer 1"} for item in measurements]
    figure = plots.accuracy(record)
    assert figure is not None and "(peer 1)" in figure.alt
