"""How far a row is from retraining: average gaps and the tug of war, each seed beside its own forget set's retrained models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from expunge.metrics.intervals import mean_interval
from expunge.metrics.unlearning import average_gap, gap_per_seed, tow, tow_mia
from expunge.modalities.benchmark import Cells, Finished, Number, exact, mean

IN_GAP = ("FA", "RA", "TA", "mia_entropy_member")  # DualOptim's four, which its tables stand beside
IN_GAP_SVC = ("FA", "RA", "TA", "mia_svc_nonmember")  # SalUn's


def against_retraining(row: Finished) -> dict[str, Number]:
    """Gaps and tug of war; empty without retrained models."""
    done, retrained = row.cells, row.retrained
    if not retrained:
        return {}
    found: dict[str, Number] = {}
    for names, suffix in ((IN_GAP, ""), (IN_GAP_SVC, "_svc")):
        mine, theirs = _paired(done, retrained, names)
        null, null_per_seed = _nulls(done, retrained, names)
        gap = average_gap(mine, theirs)
        found[f"gap{suffix}"] = Number(gap.value, null=null, more={"std": gap.std})
        if not suffix:
            found["gap_per_seed"] = Number(gap_per_seed(mine, theirs, paired=True).value, null=null_per_seed)
    mine, theirs = _paired(done, retrained, ("FA", "RA", "TA", "mia_svc_nonmember"))
    for name, of, first in (("tow", tow, "FA"), ("tow_mia", tow_mia, "mia_svc_nonmember")):
        each = []
        for i in range(len(done)):
            pair = [tuple(side[n][i] / 100 for n in (first, "RA", "TA")) for side in (mine, theirs)]
            each.append(of(pair[0], pair[1]).value)
        found[name] = Number(mean_interval(each))
    return found


def among_retrained(retrained: Cells) -> dict[str, Number]:
    """The gap per seed that retrained models themselves have."""
    null = _gap_null(retrained, IN_GAP)
    return {"gap_per_seed": Number(exact(null), null=null)}


def _paired(cells: Cells, retrained: Cells, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values of cells, and the mean of the retrained models of each cell's forget set."""
    beside = [[ref for ref in retrained if ref["forget_set"] == cell["forget_set"]] for cell in cells]
    mine = {name: [cell["metrics"][name] for cell in cells] for name in names}
    theirs = {name: [mean(refs, name) for refs in beside] for name in names}
    return mine, theirs


def _nulls(done: Cells, retrained: Cells, names: Sequence[str]) -> tuple[float, float]:
    """Gap, and gap of a single seed, that perfect unlearning shows.

    Of R retrained models one lies from the mean of the others by a variance of R / (R - 1); an unlearned one lies from the
    mean of all R by 1 + 1 / R. Seeds of one forget set share its retrained models, whose part does not average out over seeds.
    """
    each = len(retrained) / len({ref["forget_set"] for ref in retrained})
    single = _gap_null(retrained, names) * ((each - 1) / each) ** 0.5
    _, counts = np.unique([cell["forget_set"] for cell in done], return_counts=True)
    shared = float(((counts / len(done)) ** 2).sum()) / each
    return single * (1 / len(done) + shared) ** 0.5, single * (1 + 1 / each) ** 0.5


def _gap_null(retrained: Cells, names: Sequence[str]) -> float:
    """The gap of one retrained model from the mean of the others of its forget set."""
    gaps = []
    for ref in retrained:
        others = [r for r in retrained if r["forget_set"] == ref["forget_set"] and r["seed"] != ref["seed"]]
        if others:
            gaps.append(float(np.mean([abs(ref["metrics"][n] - mean(others, n)) for n in names])))
    return float(np.mean(gaps)) if gaps else float("nan")
