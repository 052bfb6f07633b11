"""What must hold of whole tables (vision spec 6.2), and the recipes that come with the package."""

from __future__ import annotations

from itertools import pairwise

import pytest

from expunge.bench import tuning
from expunge.bench.recipe import load_recipe, names
from expunge.methods import registry
from expunge.metrics.catalogue import METRICS
from expunge.modalities.classification.recipes import ClassifierRecipe, every_row
from expunge.modalities.network_benchmark import NetworkRecipe

from . import tiny

RATES = {"gradient_ascent": (0.01, 0.03, 0.1), "random_labels": (0.01, 0.03, 0.1)}
EPOCHS = {"gradient_ascent": 10, "random_labels": 3}
NOISE = 2.0  # points of FA


@pytest.fixture(scope="module")
def table(tmp_path_factory, cache) -> dict:
    """A row for each forget rate, over a decade; two forget sets."""
    folder = tmp_path_factory.mktemp("rates")
    rows = {
        f"{name} {rate}": {"method": name, "epochs": EPOCHS[name], "lr": rate}
        for name, rates in RATES.items()
        for rate in rates
    }
    return tiny.run(tiny.write(folder, methods=rows), folder / "out", cache)


@pytest.mark.parametrize("name", RATES)
def test_a_larger_forget_rate_forgets_no_less(table, name):
    fa = [tiny.row(table, f"{name} {rate}")["metrics"]["FA"]["mean"] for rate in RATES[name]]
    assert all(after <= before + NOISE for before, after in pairwise(fa)), fa
    assert fa[-1] < fa[0] - 10, "the rates do not reach from little to much"


def test_the_collapse_detector_fires_where_accuracy_falls_below_80_percent_of_the_source(table):
    """RA or TA; and nowhere else."""
    ra_source, ta_source = (table["source"]["metrics"][name]["mean"] for name in ("RA", "TA"))
    words = []
    for each in table["rows"]:
        ra, ta = each["metrics"]["RA"]["mean"], each["metrics"]["TA"]["mean"]
        assert (each["verdict"] == "utility-collapse") == (ra < 0.8 * ra_source or ta < 0.8 * ta_source), each["method"]
        words.append(each["verdict"])
    assert 0 < words.count("utility-collapse") < len(words)


# --- what ships -----------------------------------------------------------------------------------------------------------


AT_A_CLIENT = {
    "samples_at_client": "samples",
    "backdoor": "samples",
    "class_at_client": "class",
}  # what is then asked for


@pytest.mark.parametrize("name", [name for name in names() if isinstance(load_recipe(name), ClassifierRecipe)])
def test_recipes_that_ship_load_and_make_every_row(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.title
    for row in recipe.rows:
        made = recipe.method(row)
        assert AT_A_CLIENT.get(recipe.forget.kind, recipe.forget.kind) in made.capabilities.kinds
        assert isinstance(recipe, NetworkRecipe) or not made.capabilities.certified
        assert getattr(made, "dual", False) == row.endswith("+dual")
    for row, settings in recipe.quick.items():
        recipe.method(row, settings)
    assert set(recipe.quick) <= set(recipe.rows)
    for item in recipe.published:
        assert item.row in (*recipe.rows, "retrain", "source")
        assert {name.partition("/")[0] for name in item.metrics} <= set(METRICS)  # accuracy/triggered: of that set
        assert set(item.std) <= set(item.metrics)


def test_without_a_list_every_method_that_forgets_rows_and_promises_nothing_is_a_row():
    able = set()
    for name in registry.targets():
        can = registry.load(name).capabilities
        if (
            "samples" in can.kinds
            and not can.certified
            and can.effect == "weights"
            and not {"language", "vision_language"} & {*can.tasks}
        ):
            able.add(name)
    assert {str(own.get("method", row)).partition("+")[0] for row, own in every_row().items()} == able


def test_rows_without_a_list_have_something_to_tune_and_two_optimizers_where_their_names_say_so():
    for row, own in every_row().items():
        made = registry.make(own.get("method", row), {name: value for name, value in own.items() if name != "method"})
        assert getattr(made, "dual", False) == row.endswith("+dual"), row
        assert tuning.ranges(made), row
