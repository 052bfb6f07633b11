"""Benchmarks of diffusion models: what their tables show, and how a row is judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.core.cache import Cache
from expunge.metrics import outcomes
from expunge.metrics.outcomes import Judgement
from expunge.modalities.benchmark import Finished, Number, Workload, mean
from expunge.modalities.diffusion.recipes import DiffusionRecipe
from expunge.modalities.layout import Dots, Layout, Panel
from expunge.report import numbers as say


def forgotten(forget: Mapping[str, Any], count: str) -> str:
    """What was to be forgotten, as a sentence."""
    labels = [str(label) for label in forget["labels"]]
    return f"Forgotten is a whole class, of {say.joined(labels, 'or')}{count}."


LAYOUT = Layout(
    lead=("FA", "RA", "frechet", "frechet_real", "sample_recall", "seconds"),
    terminal={
        "FA": "FA", "RA": "RA", "Fréchet": "frechet", "of real\nimages": "frechet_real", "recall": "sample_recall",
        "seconds": "seconds",
    },
    meaning=(
        "“Forgets” says that images drawn for the forgotten class show it hardly more often than those of a retrained model "
        "do, and nothing about what else the model still knows."
    ),
    figures=(
        Dots(
            "forgetting", "What drawn images show",
            "Images that a classifier calls what they were drawn for, of the forgotten class and of the others; the aim is the "
            "retrained model (dashed).",
            (
                Panel(("FA",), "Images of the forgotten class that show it (FA, %)"),
                Panel(("RA",), "Images of the others that show them (RA, %)"),
            ),
        ),
        Dots(
            "quality", "How near to real images",
            "Distance of the drawn images of retained classes from real ones; as many real images have the number called "
            "“of real images”.",
            (Panel(("frechet",), "Fréchet distance"), Panel(("sample_recall",), "Recall (share)")),
        ),
    ),
    forgotten=forgotten,
)  # fmt: skip


class DiffusionBenchmark:
    """See :class:`~expunge.modalities.benchmark.Benchmark`."""

    recipe = DiffusionRecipe
    layout = LAYOUT
    tuned_by = ("FA", "RA")

    def workload(self, recipe: DiffusionRecipe, cache: Cache) -> Workload:
        """The images, and the model that learns to draw them."""
        from expunge.modalities.diffusion import MODALITY
        from expunge.modalities.diffusion.workload import DiffusionWorkload

        return DiffusionWorkload.of(recipe, MODALITY.open(recipe), cache)

    def compare(self, finished: Finished) -> Mapping[str, Number]:
        """Nothing takes other models."""
        return {}

    def judge(self, finished: Finished, recipe: DiffusionRecipe) -> tuple[Judgement, Mapping[str, Any]]:
        """By what drawn images show, on means over seeds; the images of all cells count."""
        done = finished.cells
        here, beside = finished.same_sets(finished.sources), finished.same_sets(finished.retrained)
        judgement = outcomes.of_accuracies(
            fa_source=mean(here, "FA"), fa=mean(done, "FA"), fa_retrained=mean(beside, "FA") if beside else None,
            ra_source=mean(here, "RA"), ra=mean(done, "RA"), n_forget=recipe.images * len(done),
        )  # fmt: skip
        return judgement, {}


BENCHMARK = DiffusionBenchmark()
