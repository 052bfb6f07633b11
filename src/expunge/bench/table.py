"""From finished cells to the table: means with intervals beside retraining, nulls, and a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from expunge.bench.benchmark import RETRAIN, SOURCE
from expunge.bench.distributions import distributions, exact, likelihood_ratio
from expunge.bench.recipe import Recipe
from expunge.bench.results import Results
from expunge.metrics.catalogue import METRICS
from expunge.metrics.intervals import Interval, mean_interval
from expunge.metrics.metric_spec import NULL, RETRAINED
from expunge.metrics.unlearning import average_gap, forgetting_verdict, gap_per_seed, tow, tow_mia

IN_GAP = ("FA", "RA", "TA", "mia_entropy_member")  # DualOptim's four, which its tables stand beside
IN_GAP_SVC = ("FA", "RA", "TA", "mia_svc_nonmember")  # SalUn's
MEASURED = (
    "FA",
    "UA",
    "RA",
    "TA",
    "mia_svc_nonmember",
    "mia_entropy_member",
    "zrf",
    "distance",
    "seconds",
    "optimizer_bytes",
)
Cells = Sequence[Mapping[str, Any]]


def table(
    recipe: Recipe, results: Results, rows: Sequence[str], tuning: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """All rows, the retrained one and the source, as JSON-like records.

    Args:
        rows: which rows, in order.
        tuning: row → what was tried for it (trials, seconds, settings).
    """
    cells = [cell for cell in results.cells.values() if cell["trial"] is None]
    sources = of_row(cells, SOURCE)
    references = of_row(cells, RETRAIN)
    return {
        "recipe": recipe.name,
        "title": recipe.title,
        "rows": [_row(row, of_row(cells, row), sources, references, results, (tuning or {}).get(row)) for row in rows],
        "reference": _reference(references, sources),
        "source": {
            "method": SOURCE,
            "metrics": {n: plain(n, mean_of(sources, n), references) for n in _measured(sources)},
        },
        "note": recipe.note,
        "forget": recipe.forget.model_dump(),
        "n_forget": [rows for _, rows in sorted({(c["forget_set"], c["n_forget"]) for c in references})],
        "references_per_set": recipe.references,
        "published": [item.model_dump() for item in recipe.published],
    }


def of_row(cells: Cells, row: str) -> list[Mapping[str, Any]]:
    """Its cells, by seed."""
    return sorted((cell for cell in cells if cell["row"] == row), key=lambda cell: (cell["seed"], cell["forget_set"]))


def _measured(cells: Cells) -> list[str]:
    return [name for name in MEASURED if cells and all(name in cell["metrics"] for cell in cells)]


def _values(cells: Cells, name: str) -> np.ndarray:
    if name == "distance":  # the first reference is what distances are measured to
        cells = [cell for cell in cells if not (cell["row"] == RETRAIN and cell["seed"] == 0)]
    return np.array([cell["metrics"][name] for cell in cells], np.float64)


def mean_of(cells: Cells, name: str) -> Interval:
    """Of one number over cells."""
    return mean_interval(_values(cells, name))


def _beside(cells: Cells, references: Cells) -> list[list[Mapping[str, Any]]]:
    """For each cell the references of its own forget set."""
    return [[ref for ref in references if ref["forget_set"] == cell["forget_set"]] for cell in cells]


def plain(name: str, value: Interval, references: Cells, null: float | None = None) -> dict[str, Any]:
    """One number as it is printed; its null is what retrained models of one forget set differ by (twice the deviation).

    Beside it stand metric and set as ``expunge run`` and ``expunge eval`` name them.
    """
    metric, ideal = METRICS[name], None
    if null is None and metric.ideal == RETRAINED and references:
        null = 2 * _within(references, name)
    if null is None and name == "distance" and references:
        null = float(_values(references, name).mean())
    if metric.ideal == RETRAINED:
        ideal = float(_values(references, name).mean()) if references else None
    elif metric.ideal is not None:
        ideal = null if metric.ideal == NULL else float(metric.ideal)
    low, high = value.pair or (None, None)
    common, of = metric.of or (name, None)
    return {
        "metric": common, "set": of,
        "mean": value.value, "low": low, "high": high, "ideal": ideal, "null": null, "direction": str(metric.direction),
    }  # fmt: skip


def _within(references: Cells, name: str) -> float:
    """Standard deviation of retrained models around the mean of their forget set, pooled."""
    groups = [
        [r["metrics"][name] for r in references if r["forget_set"] == s] for s in {r["forget_set"] for r in references}
    ]
    squares = sum(float(np.sum((np.array(g) - np.mean(g)) ** 2)) for g in groups)
    freedom = sum(len(g) - 1 for g in groups)
    return (squares / freedom) ** 0.5 if freedom else 0.0


def _paired(cells: Cells, references: Cells, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values of cells, and the mean of the references of each cell's forget set."""
    beside = _beside(cells, references)
    mine = {name: [cell["metrics"][name] for cell in cells] for name in names}
    theirs = {name: [float(np.mean([r["metrics"][name] for r in refs])) for refs in beside] for name in names}
    return mine, theirs


def head(
    row: str, cells: Cells, tuning: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], list[Mapping[str, Any]]]:
    """How the record of a row begins, and its cells; none of them where one was refused or failed: then it says so."""
    done = [cell for cell in cells if cell["status"] == "done"]
    wrong = [cell for cell in cells if cell["status"] != "done"]
    result: dict[str, Any] = {"method": row, "seeds": len(done), "metrics": {}}
    if cells and "method" in cells[0]:
        result["settings"] = cells[0]["method"]["settings"]
    if tuning:
        result["tuning"] = dict(tuning)
    if wrong or not done:
        errors = sorted({cell["error"] for cell in wrong})
        word = wrong[0]["status"] if wrong else "not run"
        result["verdict"] = f"{word} ({len(wrong)} of {len(cells)})" if done else word
        result["reason"] = " ".join(errors)
        return result, []
    return result, done


def _row(
    row: str, cells: Cells, sources: Cells, references: Cells, results: Results, tuning: Mapping[str, Any] | None
) -> dict[str, Any]:
    result, done = head(row, cells, tuning)
    if not done:
        return result
    metrics = {name: plain(name, mean_of(done, name), references) for name in _measured(done)}
    metrics |= _against_retraining(done, references)
    for name, (value, null, models) in distributions(done, references, results).items():
        metrics[name] = {**plain(name, value, [], null), "models": models}
    if (attack := likelihood_ratio(done, references, results)) is not None:
        metrics["lira"] = {**plain("lira", attack.pop("value"), []), **attack}
    if tuning:
        metrics["tuning_trials"] = plain("tuning_trials", exact(tuning["trials"]), [])
    verdict = _verdict(done, sources, references)
    return {**result, "metrics": metrics, "verdict": verdict.word, "reason": verdict.reason, **_weak(metrics)}


def _weak(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers that are refused as a headline, with the number of models they would take."""
    weak = {
        name: f"too few models for a headline: {METRICS[name].headline.models} needed ({METRICS[name].headline.source})"
        for name in ("klom", "challenge", "ulira", "lira")
        if name in metrics and metrics[name]["models"] < METRICS[name].headline.models
    }
    return {"not_for_headlines": weak} if weak else {}


def _against_retraining(done: Cells, references: Cells) -> dict[str, Any]:
    """Gaps and tug of war. Each seed is held against the retrained models of its own forget set."""
    if not references:
        return {}
    found: dict[str, Any] = {}
    for names, suffix in ((IN_GAP, ""), (IN_GAP_SVC, "_svc")):
        mine, theirs = _paired(done, references, names)
        null, null_per_seed = _nulls(done, references, names)
        gap = average_gap(mine, theirs)
        found[f"gap{suffix}"] = plain(f"gap{suffix}", gap.value, [], null) | {"std": gap.std}
        if not suffix:
            per_seed = gap_per_seed(mine, theirs, paired=True)
            found["gap_per_seed"] = plain("gap_per_seed", per_seed.value, [], null_per_seed)
    mine, theirs = _paired(done, references, ("FA", "RA", "TA", "mia_svc_nonmember"))
    for name, of, first in (("tow", tow, "FA"), ("tow_mia", tow_mia, "mia_svc_nonmember")):
        each = []
        for i in range(len(done)):
            pair = [tuple(side[n][i] / 100 for n in (first, "RA", "TA")) for side in (mine, theirs)]
            each.append(of(pair[0], pair[1]).value)
        found[name] = plain(name, mean_interval(each), [])
    return found


def _nulls(done: Cells, references: Cells, names: Sequence[str]) -> tuple[float, float]:
    """Gap, and gap of a single seed, that perfect unlearning shows.

    Of R retrained models one lies from the mean of the others by a variance of R / (R - 1); an unlearned one lies from the
    mean of all R by 1 + 1 / R. Seeds of one forget set share its references, whose part does not average out over seeds.
    """
    each = len(references) / len({ref["forget_set"] for ref in references})
    single = _gap_null(references, names) * ((each - 1) / each) ** 0.5
    _, counts = np.unique([cell["forget_set"] for cell in done], return_counts=True)
    shared = float(((counts / len(done)) ** 2).sum()) / each
    return single * (1 / len(done) + shared) ** 0.5, single * (1 + 1 / each) ** 0.5


def _gap_null(references: Cells, names: Sequence[str]) -> float:
    """The gap of one retrained model from the mean of the others of its forget set."""
    gaps = []
    for ref in references:
        others = [r for r in references if r["forget_set"] == ref["forget_set"] and r["seed"] != ref["seed"]]
        if others:
            apart = [abs(ref["metrics"][n] - np.mean([r["metrics"][n] for r in others])) for n in names]
            gaps.append(float(np.mean(apart)))
    return float(np.mean(gaps)) if gaps else float("nan")


def _verdict(done: Cells, sources: Cells, references: Cells) -> Any:
    """In words, on means over seeds; the rows of all forget sets count."""
    sets = sorted({cell["forget_set"] for cell in done})
    here = [cell for cell in sources if cell["forget_set"] in sets]
    rows = sum(next(cell["n_forget"] for cell in done if cell["forget_set"] == number) for number in sets)
    beside = [cell for cell in references if cell["forget_set"] in sets]
    mean = lambda cells, name: float(_values(cells, name).mean())  # noqa: E731
    return forgetting_verdict(
        fa_source=mean(here, "FA"), fa=mean(done, "FA"), fa_retrained=mean(beside, "FA") if beside else None,
        ra_source=mean(here, "RA"), ra=mean(done, "RA"), n_forget=rows, ta_source=mean(here, "TA"), ta=mean(done, "TA"),
    )  # fmt: skip


def _reference(references: Cells, sources: Cells) -> dict[str, Any]:
    """The retrained row, and what all retrainings took."""
    metrics = {name: plain(name, mean_of(references, name), references) for name in _measured(references)}
    null = _gap_null(references, IN_GAP)
    metrics["gap_per_seed"] = plain("gap_per_seed", exact(null), [], null)
    total = float(_values(references, "seconds").sum())
    source = float(_values(sources, "seconds")[:1].sum())
    return {
        "method": RETRAIN,
        "seeds": len(references),
        "metrics": metrics,
        "seconds_of_all": total,
        "seconds_of_source": source,
    }
