"""``expunge bench``: one JSON object on stdout and nothing else; refusals on stderr with exit code 2."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import expunge.bench
from expunge.core.errors import InputError

from . import tiny


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(InputError, match="no results"):
        expunge.bench.results(tmp_path)
    (tmp_path / "results.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="no results file of this version"):
        expunge.bench.results(tmp_path)


@pytest.fixture
def command(tmp_path, cache, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run ``expunge bench`` in this process: exit code, stdout, stderr."""
    from expunge.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXPUNGE_CACHE", str(cache))

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["expunge", "bench", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return (code, *capsys.readouterr())

    return run


def test_json_is_one_object_on_stdout_and_the_same_when_run_again(tmp_path, command):
    recipe = tiny.write(tmp_path)
    arguments = (recipe, "--methods", "fine_tune, salun+dual", "--seeds", 1, "--jobs", 1, "--json")
    code, out, err = command(*arguments)
    assert code == 0, err
    record = json.loads(out)
    assert [each["method"] for each in record["rows"]] == ["fine_tune", "salun+dual"]
    assert {"recipe", "rows", "reference", "seconds"} <= record.keys()
    assert (tmp_path / "bench-results" / "tiny" / "results.jsonl").exists()

    def plotted() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "bench-results" / "tiny" / "plots").iterdir()}

    code, again, _ = command(*arguments, "--export", "csv", "--plots", "png, pdf,svg")
    plots = plotted()
    assert code == 0
    cells = pd.read_csv(tmp_path / "bench-results" / "tiny" / "cells.csv")
    assert {"fine_tune", "salun+dual", "retrain", "source"} == set(cells["row"]) and set(cells["status"]) == {"done"}
    own = expunge.bench.results(tmp_path / "bench-results" / "tiny")
    assert len(own) == len(cells) and own["seconds"].tolist() == pytest.approx(cells["seconds"].tolist())
    row = record["rows"][0]["metrics"]
    for name in row.keys() & set(own.columns):
        assert own[own["row"] == "fine_tune"][name].mean() == pytest.approx(row[name]["mean"])
    code, _, said = command(*arguments, "--export", "latex, csv", "--plots", "svg,png,pdf")
    table = (tmp_path / "bench-results" / "tiny" / "leaderboard.tex").read_text()
    assert code == 0 and "leaderboard.tex" in said and "cells.csv" in said
    assert table.count("\\\\") == 5 and "fine\\_tune" in table
    assert "\\label{tab:tiny}" in table and "half of the 95 \\% interval" in table
    assert f"{row['seconds']['mean']:.4g}" in table and f"{row['FA']['mean']:.4g}" in table
    assert json.loads(again)["rows"] == record["rows"]

    # every figure of the page as a file, twice the same bytes; no source that knows its rows by heart is called weak
    assert "plots/gaps.png" in said and plots == plotted()
    assert {name.split(".")[0] for name in plots} >= {"gaps", "forgetting"} and len(plots) % 3 == 0
    begins = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    assert all(content.startswith(begins[name.split(".")[1]]) for name, content in plots.items())
    pixels = np.asarray(Image.open(io.BytesIO(plots["gaps.png"])).convert("L"))
    assert pixels.shape[1] == 1840 and pixels[0, 0] == 255 and (pixels < 100).mean() > 1e-3
    (source,) = [cell for cell in tiny.lines(tmp_path / "bench-results" / "tiny") if cell["row"] == "source"]
    assert source["knowledge"]["value"] > 0.95 and record["source"]["weak"] is None


def test_the_table_says_every_verdict(tmp_path, command):
    recipe = tiny.write(tmp_path, methods={"fine_tune": {"epochs": 1}, "scrub_r": {"method": "scrub", "rewind": True}})
    code, out, err = command(recipe, "--seeds", 1, "--jobs", 1, "--out", tmp_path / "here")
    assert code == 0, err
    for word in ("fine_tune", "under-forgets", "scrub_r", "refused"):
        assert word in out
    assert (tmp_path / "here" / "results.jsonl").exists()


def test_what_cannot_run_says_so(tmp_path, command):
    recipe = tiny.write(tmp_path)
    for arguments, word in (
        ((), "--list"),
        (("mnist_radnom",), "mnist_random"),
        ((recipe, "--methods", "salum"), "salun"),
        ((recipe, "--seeds", 0), "--seeds"),
        ((recipe, "--export", "xls"), "csv, latex, parquet"),
        ((recipe, "--plots", "png,gif"), "png, pdf, svg, separated by commas; got gif"),
        ((recipe, "--plots", ","), "got none"),
        ((tmp_path / "none.yaml",), "no recipe file"),
    ):
        code, out, err = command(*arguments)
        assert (code, out) == (2, ""), err
        assert word in err
        assert "Traceback" not in err
    assert not (tmp_path / "bench-results").exists()


def test_the_list_names_what_ships(command):
    code, out, _ = command("--list", "--json")
    assert code == 0
    assert "mnist_random" in out
    assert "gpu" in out
