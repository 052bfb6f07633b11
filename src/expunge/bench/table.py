"""From finished cells to the table: means with intervals beside retraining, nulls, and an outcome in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from expunge.bench.finished import Results
from expunge.metrics.catalogue import column
from expunge.metrics.intervals import mean_interval
from expunge.metrics.metric_spec import NULL, RETRAINED, MetricSpec
from expunge.modalities.benchmark import Cells, Finished, Number, exact
from expunge.modalities.network_benchmark import benchmark_of
from expunge.modalities.recipes import RETRAIN, SOURCE, BenchmarkRecipe
from expunge.report.numbers import percent

Record = dict[str, Any]


def table(
    recipe: BenchmarkRecipe, results: Results, rows: Sequence[str], tuning: Mapping[str, Any] | None = None
) -> Record:
    """All rows, the retrained one where there is one, and the source, as JSON-like records.

    Args:
        rows: which rows, in order.
        tuning: row → what was tried for it (trials, seconds, settings).
    """
    cells = [cell for cell in results.cells.values() if cell["trial"] is None]
    sources, retrained = _of_row(cells, SOURCE), _of_row(cells, RETRAIN)
    heads = {row: _head(row, _of_row(cells, row), (tuning or {}).get(row)) for row in rows}
    done = {row: finished for row, (_, finished) in heads.items()}

    def finished(row: str, of_row: Cells) -> Finished:
        return Finished(row, of_row, sources, retrained, done, results.margins)

    return {
        "recipe": recipe.name,
        "task": recipe.task,
        **({"network": True} if getattr(recipe, "network", None) else {}),
        "title": recipe.title,
        "rows": [_row(recipe, head, finished(row, of_row)) for row, (head, of_row) in heads.items()],
        "reference": _retrained(recipe, finished(RETRAIN, retrained)) if retrained else None,
        "source": _source(recipe, finished(SOURCE, sources)),
        "note": recipe.note,
        "forget": dict(recipe.forgets),
        "n_forget": [count for _, count in sorted({(c["forget_set"], c["n_forget"]) for c in sources})],
        "retrained_models_per_set": recipe.retrained_models,
        "references_per_set": recipe.retrained_models,  # the name that versions before printed
        "published": [item.model_dump() for item in recipe.published],
    }


def _of_row(cells: Cells, row: str) -> list[Mapping[str, Any]]:
    """Its cells, by seed."""
    return sorted((cell for cell in cells if cell["row"] == row), key=lambda cell: (cell["seed"], cell["forget_set"]))


def _head(row: str, cells: Cells, tuning: Mapping[str, Any] | None) -> tuple[Record, Cells]:
    """How the record of a row begins, and its cells; none of them where one was refused or failed: then it says so."""
    done = [cell for cell in cells if cell["status"] == "done"]
    wrong = [cell for cell in cells if cell["status"] != "done"]
    result: Record = {"method": row, "seeds": len(done), "metrics": {}}
    if cells and "method" in cells[0]:
        result["settings"] = cells[0]["method"]["settings"]
    if tuning:
        result["tuning"] = dict(tuning)
    if wrong or not done:
        word = wrong[0]["status"] if wrong else "not run"
        result["outcome"] = None
        result["verdict"] = f"{word} ({len(wrong)} of {len(cells)})" if done else word
        result["reason"] = " ".join(sorted({cell["error"] for cell in wrong}))
        return result, []
    return result, done


def _row(recipe: BenchmarkRecipe, head: Record, finished: Finished) -> Record:
    result = {**head, **recipe.about(finished.row)}
    if not finished.cells:
        return result
    benchmark = benchmark_of(recipe)
    metrics = _numbers(recipe, finished.cells, finished.retrained)
    metrics |= {name: _number(recipe, name, number) for name, number in benchmark.compare(finished).items()}
    if tuned := head.get("tuning"):
        metrics["tuning_trials"] = _number(recipe, "tuning_trials", Number(exact(tuned["trials"])))
    judgement, fields = benchmark.judge(finished, recipe)
    word = str(judgement.word)
    return {
        **result, "metrics": metrics, "outcome": word, "verdict": word, "reason": judgement.reason, **_weak(metrics),
        **fields,
    }  # fmt: skip


def _source(recipe: BenchmarkRecipe, finished: Finished) -> Record:
    """The source was trained once, however many forget sets there are."""
    cells = finished.cells
    metrics = _numbers(recipe, cells, finished.retrained)
    weak = next((said for cell in cells if (said := _weak_source(cell.get("knowledge")))), None)
    return {
        "method": SOURCE, "seeds": len(cells), "metrics": metrics, "seconds_of_source": _seconds(cells[:1]), "weak": weak,
    }  # fmt: skip


def _weak_source(known: Mapping[str, Any] | None) -> str | None:
    """Why little can be seen of forgetting here: the original model is nearer to the least that a benchmark takes than to one
    without error (our choice of where to draw the line). ``None`` where it is not, or where nothing judged it."""
    if known is None or known["value"] >= (1 + known["least"]) / 2:
        return None
    return (
        f"The original model is weak: {percent(known['value'])} right on {known['what']}, nearer to the least that a benchmark "
        f"takes ({percent(known['least'])}, {known['bar']}) than to no error. It has little to forget: a small gap says little."
    )


def _retrained(recipe: BenchmarkRecipe, finished: Finished) -> Record:
    """The retrained row, and what all retrainings took."""
    benchmark = benchmark_of(recipe)
    metrics = _numbers(recipe, finished.cells, finished.cells)
    metrics |= {name: _number(recipe, name, number) for name, number in benchmark.compare(finished).items()}
    return {
        "method": RETRAIN, "seeds": len(finished.cells), "metrics": metrics, "seconds_of_all": _seconds(finished.cells),
        "seconds_of_source": _seconds(finished.sources[:1]),
    }  # fmt: skip


def _seconds(cells: Cells) -> float:
    return float(sum(cell["metrics"]["seconds"] for cell in cells))


def _numbers(recipe: BenchmarkRecipe, cells: Cells, retrained: Cells) -> Record:
    """Means over cells of everything that all of them measured.

    The ideal of a number is the mean of retrained models where the catalogue says so; its null is what those of one forget
    set differ by (twice the deviation), unknown where each forget set has a single one.
    """
    found = {}
    for name in cells[0]["metrics"] if cells else ():
        if (metric := column(name)) is None or not len(values := _values(cells, metric)):
            continue
        beside, ideal, null = _values(retrained, metric), None, None
        if metric.ideal == RETRAINED and len(beside):
            ideal, null = float(beside.mean()), _within(retrained, name)
        elif metric.ideal == NULL and len(beside):
            null = float(beside.mean())
        found[name] = _number(recipe, name, Number(mean_interval(values), ideal, null))
    return found


def _values(cells: Cells, metric: MetricSpec) -> np.ndarray:
    """Of all cells; none where one of them lacks the number."""
    if metric.ideal == NULL:  # the first reference is what such numbers are measured to
        cells = [cell for cell in cells if not (cell["row"] == RETRAIN and cell["seed"] == 0)]
    values = [cell["metrics"].get(metric.name) for cell in cells]
    return np.array([] if None in values else values, np.float64)


def _within(retrained: Cells, name: str) -> float | None:
    """Twice the standard deviation of retrained models around the mean of their forget set, pooled."""
    groups = [
        [r["metrics"][name] for r in retrained if r["forget_set"] == s] for s in {r["forget_set"] for r in retrained}
    ]
    squares = sum(float(np.sum((np.array(g) - np.mean(g)) ** 2)) for g in groups)
    freedom = sum(len(g) - 1 for g in groups)
    return 2 * (squares / freedom) ** 0.5 if freedom else None


def _number(recipe: BenchmarkRecipe, name: str, number: Number) -> Record:
    """One number as it is printed; beside it stand metric and set as ``expunge run`` and ``expunge eval`` name them."""
    metric, ideal = column(name), number.ideal
    assert metric is not None
    if metric.ideal == NULL:
        ideal = number.null
    elif isinstance(metric.ideal, int | float):
        ideal = float(metric.ideal)
    common, of = recipe.measured(metric)
    low, high = number.value.pair or (None, None)
    return {
        "metric": common, "set": of, "mean": number.value.value, "low": low, "high": high, "ideal": ideal,
        "null": number.null, "direction": str(metric.direction), **number.more,
    }  # fmt: skip


def _weak(metrics: Mapping[str, Any]) -> Record:
    """Numbers that are refused as a headline, with the number of models they would take."""
    weak = {}
    for name, item in metrics.items():
        metric = column(name)
        if metric is not None and item.get("models", metric.headline.models) < metric.headline.models:
            needed = f"{metric.headline.models} needed ({metric.headline.source})"
            weak[name] = f"too few models for a headline: {needed}"
    return {"not_for_headlines": weak} if weak else {}
