"""Benchmarks of classifiers: what their tables show, and how a row is compared with retraining and judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.core.cache import Cache
from expunge.metrics import outcomes
from expunge.metrics.outcomes import Judgement
from expunge.modalities.benchmark import Finished, Number, Workload, mean
from expunge.modalities.classification.distributions import distributions, likelihood_ratio
from expunge.modalities.classification.gaps import IN_GAP, against_retraining, among_retrained
from expunge.modalities.classification.recipes import ClassifierRecipe
from expunge.modalities.layout import Dots, Layout, Panel
from expunge.modalities.recipes import RETRAIN
from expunge.report import numbers as say


def forgotten(forget: Mapping[str, Any], count: str) -> str:
    """What was to be forgotten, as a sentence."""
    match forget["kind"]:
        case "samples":
            return f"Forgotten is a random {say.percent(forget['share'])} of the training rows{count}."
        case "user":
            return f"Forgotten are all training rows of one user, by column {forget['column']}{count}."
    labels = [str(label) for label in forget["labels"]]
    return f"Forgotten is a whole class, of {say.joined(labels, 'or')}{count}; test rows of it are left out."


LAYOUT = Layout(
    lead=("FA", "RA", "TA", "mia_entropy_member", "mia_svc_nonmember", "gap_per_seed", "gap", "tow", "seconds"),
    terminal={  # both conventions that are called MIA have heads of their own
        "FA": "FA", "RA": "RA", "TA": "TA", "MIA\nentropy": "mia_entropy_member", "MIA\nSVC": "mia_svc_nonmember",
        "gap/seed": "gap_per_seed", "seconds": "seconds",
    },
    meaning=(
        "“Forgets” says that accuracy on the forgotten rows came near that of retraining, and nothing about what else the "
        "model still knows."
    ),
    figures=(
        Dots(
            "gaps", "Gap per seed and seconds",
            "The average gap to retraining of one seed, in points of percent, and what it costs; bars are 95 % intervals. A "
            "small gap does not show that anything was forgotten: the mark does.",
            (Panel(("gap_per_seed",), "Gap per seed"), Panel(("seconds",), "Seconds (log scale)")),
        ),
        Dots(
            "forgetting", "FA and RA",
            "What is forgotten beside what is kept; the aim is the retrained model (dashed), not the left edge.",
            (
                Panel(("FA",), "Accuracy on the forgotten rows (FA, %)"),
                Panel(("RA",), "Accuracy on the retained rows (RA, %)"),
            ),
        ),
        Dots(
            "privacy", "Membership attacks",
            "Two attacks that are both called MIA in papers and count opposite things. Neither should be 0 or 100: the aim "
            "is the retrained model (dashed).",
            (
                Panel(("mia_entropy_member",), "Forgotten rows called members (%)\nmia_entropy_member"),
                Panel(("mia_svc_nonmember",), "Forgotten rows called non-members (%)\nmia_svc_nonmember"),
            ),
        ),
    ),
    sorted_by="gap_per_seed",
    forgotten=forgotten,
)  # fmt: skip


class ClassifierBenchmark:
    """See :class:`~expunge.modalities.benchmark.Benchmark`."""

    recipe = ClassifierRecipe
    layout = LAYOUT
    tuned_by = IN_GAP

    def workload(self, recipe: ClassifierRecipe, cache: Cache) -> Workload:
        """Rows, and the model that learns them."""
        from expunge.modalities.classification import MODALITY
        from expunge.modalities.classification.workload import ClassifierWorkload

        return ClassifierWorkload.of(recipe, MODALITY.open(recipe))

    def compare(self, finished: Finished) -> Mapping[str, Number]:
        """Gaps, tug of war, and what takes many models."""
        if finished.row == RETRAIN:
            return among_retrained(finished.cells)
        return against_retraining(finished) | distributions(finished) | likelihood_ratio(finished)

    def judge(self, finished: Finished, recipe: ClassifierRecipe) -> tuple[Judgement, Mapping[str, Any]]:
        """By accuracies, on means over seeds; the rows of all forget sets count."""
        done = finished.cells
        here, beside = finished.same_sets(finished.sources), finished.same_sets(finished.retrained)
        rows = sum({cell["forget_set"]: cell["n_forget"] for cell in done}.values())
        judgement = outcomes.of_accuracies(
            fa_source=mean(here, "FA"), fa=mean(done, "FA"), fa_retrained=mean(beside, "FA") if beside else None,
            ra_source=mean(here, "RA"), ra=mean(done, "RA"), n_forget=rows, ta_source=mean(here, "TA"),
            ta=mean(done, "TA"),
        )  # fmt: skip
        return judgement, {}


BENCHMARK = ClassifierBenchmark()
