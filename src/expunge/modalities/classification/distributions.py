"""What takes many models on one forget set: KLOM, the challenge score, U-LiRA and LiRA, each with its null."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from expunge.metrics.challenge import challenge_null, challenge_score
from expunge.metrics.intervals import Interval, auc_interval, mean_interval
from expunge.metrics.klom import klom, null_of_gaussians
from expunge.metrics.membership import lira_scores
from expunge.metrics.ulira import ulira
from expunge.modalities.benchmark import Finished, Margins, Number, mean

FEWEST = 4  # models on each side: with fewer not even a null can be had


def distributions(row: Finished) -> dict[str, Number]:
    """KLOM, challenge score and U-LiRA on the forget set with most models, each with its null; empty where there are few.

    Below the numbers of ``metrics.catalogue`` none of them may stand alone: the table says so.
    """
    sets = [cell["forget_set"] for cell in row.cells]
    number = max(sorted(set(sets)), key=sets.count)
    mine, theirs = ([cell for cell in cells if cell["forget_set"] == number] for cells in (row.cells, row.retrained))
    models = min(len(mine), len(theirs))
    if models < FEWEST or _of_a_network(row):
        return {}
    unlearned, retrained = (
        np.stack([row.margins(cell["key"])["forget"] for cell in cells]).astype(np.float64) for cells in (mine, theirs)
    )
    generator = np.random.default_rng(0)
    accuracies = tuple(mean(cells, name) for cells in (mine, theirs) for name in ("RA", "TA"))
    equal = unlearned[:models], retrained[:models]  # two of the three compare as many models with as many
    challenge = challenge_score(*equal, accuracies=accuracies)  # type: ignore[arg-type]
    assert challenge.utility is not None
    points = [challenge.utility * end for end in (challenge.forgetting.value, *(challenge.forgetting.pair or ()))]
    interval = Interval(points[0], *(points[1:] or (-np.inf, np.inf)))
    nulls = {
        "klom": null_of_gaussians(len(mine), len(theirs), seed=0).value,
        "challenge": challenge_null(retrained, generator=generator).value,
    }
    values = {
        "klom": klom(unlearned, retrained).mean,
        "challenge": interval,
        "ulira": ulira(*equal, generator=generator).accuracy,
    }
    return {name: Number(value, None, nulls.get(name), {"models": models}) for name, value in values.items()}


def likelihood_ratio(row: Finished) -> dict[str, Number]:
    """The offline likelihood-ratio attack: forgotten rows against test rows, each against models that never saw it.

    The retrained models of a forget set trained on neither. One of them is attacked with the help of the others to know what
    retraining shows: the null is twice the deviation of the retrained models. Empty with fewer than three for a set.
    """
    sets = {cell["forget_set"] for cell in row.cells}
    beside = {number: [r for r in row.retrained if r["forget_set"] == number] for number in sets}
    models = min(len(refs) for refs in beside.values())
    if models < 3 or _of_a_network(row):
        return {}
    margins = {cell["key"]: _both(row.margins(cell["key"])) for cell in [*row.cells, *row.retrained]}

    def area(cell: Mapping[str, Any]) -> float:
        others = [margins[r["key"]][0] for r in beside[cell["forget_set"]] if r["key"] != cell["key"]]
        others = others[: len(beside[cell["forget_set"]]) - 1]  # as many for a method as for a reference itself
        target, forgotten = margins[cell["key"]]
        scores = np.stack(others)
        found = lira_scores(target, scores, np.zeros_like(scores, dtype=bool), online=False)
        return auc_interval(found[:forgotten], found[forgotten:]).value

    retrained = [np.array([area(ref) for ref in beside[number]]) for number in sorted(sets)]
    within = np.mean([areas.var(ddof=1) for areas in retrained]) ** 0.5
    value = mean_interval([area(cell) for cell in row.cells])
    ideal = float(np.mean(np.concatenate(retrained)))
    return {"lira": Number(value, ideal, 2 * float(within), {"models": models})}


def _of_a_network(row: Finished) -> bool:
    """Whether cells released a model for each view: none of these is the one model that a comparison of many takes."""
    return any("views" in cell for cell in row.cells)


def _both(margins: Margins) -> tuple[np.ndarray, int]:
    """Margins of forgotten rows and then of test rows, and how many the first are."""
    return np.concatenate([margins["forget"], margins["test"]]).astype(np.float64), len(margins["forget"])
