"""The drill of the vision spec, 6.3, in set-up (a): every method alone, and with two optimizers where that is legal."""

from __future__ import annotations

import time

import pytest

from expunge.bench.page import write_page
from expunge.bench.recipe import load_recipe
from expunge.bench.run import BenchSettings, bench

pytestmark = pytest.mark.slow
IN_THE_TABLE = ("FA", "UA", "RA", "TA", "mia_svc_nonmember", "mia_entropy_member", "gap", "gap_per_seed", "seconds")
WORDS = ("forgets", "under-forgets", "over-forgets", "utility-collapse", "undecidable", "failed", "refused")


def test_every_method_has_its_row_and_its_word(real_data, tmp_path):
    real_data("mnist")
    recipe = load_recipe("mnist_random")
    started = time.perf_counter()
    record = bench(recipe, tmp_path, BenchSettings(seeds=2))
    print(f"{time.perf_counter() - started:.0f} s")
    assert [row["method"] for row in record["rows"]] == list(recipe.rows)
    for row in record["rows"]:
        assert row["verdict"].startswith(WORDS) and row["reason"]
        if row["metrics"]:
            assert set(IN_THE_TABLE) <= set(row["metrics"]), row["method"]
    best = min(row["metrics"]["gap_per_seed"]["mean"] for row in record["rows"] if row["verdict"] == "forgets")
    assert best < min(
        row["metrics"]["gap_per_seed"]["mean"] for row in record["rows"] if row["method"] == "gradient_ascent"
    )
    assert all(path.is_file() for path in write_page(record, tmp_path).values())
