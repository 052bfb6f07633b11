"""Benchmarks of models that see: what their tables show, and how a row is judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from expunge.core.cache import Cache
from expunge.metrics import outcomes
from expunge.metrics.intervals import mean_interval
from expunge.metrics.outcomes import Judgement, Word
from expunge.metrics.recognition import c_dis, suspicious
from expunge.modalities.benchmark import Finished, Number, Workload, mean
from expunge.modalities.layout import Dots, Layout, Panel
from expunge.modalities.recipes import RETRAIN, SOURCE
from expunge.modalities.vision_language.mmubench import MIN_K
from expunge.modalities.vision_language.recipes import SavedWeights, VisionLanguageRecipe
from expunge.report import numbers as say

P_NAME = "name_probability"
DEGENERATES = 0.1  # share of answers that say nothing, from which on a row has lost its language; our choice
# What whoever always says no, and whoever says nothing, would score: neither has forgotten anything.
CONTROLS = {
    "always no": {
        "recognition_unseen": 0.0,
        "yes_no": 0.0,
        "facts": 0.0,
        "others": 0.0,
        "yes_others": 0.0,
        "degeneration": 0.0,
    },
    "blank": {
        "recognition_unseen": 0.0,
        "yes_no": 0.0,
        "facts": 0.0,
        "others": 0.0,
        "yes_others": 0.0,
        "degeneration": 1.0,
    },
}


def forgotten(forget: Mapping[str, Any], count: str) -> str:
    """What was to be forgotten, as a sentence."""
    names = [each if isinstance(each, str) else f"{' and '.join(each)} together" for each in forget["names"]]
    return f"Forgotten is how {say.joined(names)} looks{count}; facts in words must stay."


LAYOUT = Layout(
    lead=(
        "recognition_unseen", "recognition_style", "recognition_seen", "yes_no", "facts", "others", "others_style",
        "yes_others", "no_others", "facts_others", "degeneration",
        P_NAME, "c_dis", "kl_to_retrained", "specificity", "rule_judge", "fluency", "diversity", "unique_words", "min_k_alike",
        "aligned_forgotten", "aligned_retained", "relearning_steps", "seconds",
    ),
    terminal={
        "named": "recognition_unseen", "yes": "yes_no", "facts": "facts", "others\nnamed": "others",
        "others\nyes": "yes_others", "blank": "degeneration", "C-Dis": "c_dis", "KL to\ngold": "kl_to_retrained",
    },
    meaning=(
        "“Forgets” says that held-out pictures of the concept are named as seldom as by a model that was trained without its "
        "pictures, and that other concepts are still named. Whoever always says no, or nothing, would be named 0 there too: "
        "look at the other columns."
    ),
    figures=(
        Dots(
            "recognition", "What is recognised and what is known",
            "The concept should not be named any more; facts and other concepts should stay where the original has them.",
            (
                Panel(("recognition_unseen",), "Named on held-out pictures (share)"),
                Panel(("facts",), "Facts known in words (share)"),
                Panel(("others",), "Other concepts named right (share)"),
            ),
        ),
    ),
    forgotten=forgotten,
)  # fmt: skip


class VisionLanguageBenchmark:
    """See :class:`~expunge.modalities.benchmark.Benchmark`."""

    recipe = VisionLanguageRecipe
    layout = LAYOUT
    tuned_by = ()

    def workload(self, recipe: VisionLanguageRecipe, cache: Cache) -> Workload:
        """The world and the model that learns it, or a released model and pictures of concepts."""
        from expunge.modalities.vision_language.released import ReleasedWorkload
        from expunge.modalities.vision_language.workload import VisionLanguageWorkload

        kind = ReleasedWorkload if isinstance(recipe.model, SavedWeights) else VisionLanguageWorkload
        return kind.of(recipe)

    def compare(self, finished: Finished) -> Mapping[str, Number]:
        """C-Dis: how far the name's probability went from the original's; and how many questions Min-K scores alike."""
        if not finished.sources or finished.row == SOURCE:
            return {}
        distances, alike = [], []
        for cell in finished.cells:
            source = next(each for each in finished.sources if each["forget_set"] == cell["forget_set"])
            before, after = (finished.margins(each["key"]) for each in (source, cell))
            if any(name not in each for name in (P_NAME, MIN_K) for each in (before, after)):
                return {}
            distances.append(c_dis(*(np.clip(np.asarray(each[P_NAME], float), 1e-30, 1) for each in (before, after))))
            alike.append(float(suspicious(before[MIN_K], after[MIN_K]).mean()))
        return {"c_dis": Number(mean_interval(distances)), "min_k_alike": Number(mean_interval(alike))}

    def judge(self, finished: Finished, recipe: VisionLanguageRecipe) -> tuple[Judgement, Mapping[str, Any]]:
        """By open questions about held-out pictures, beside the retrained model, and by whether others are still named."""
        done, sources = finished.cells, finished.same_sets(finished.sources)
        retrained = [] if finished.row == RETRAIN else finished.same_sets(finished.retrained)
        now, before = ({name: mean(cells, name) for name in CONTROLS["blank"]} for cells in (done, sources))
        if now["degeneration"] >= DEGENERATES:
            reason = f"{100 * now['degeneration']:.1f} % of the answers say nothing."
            return Judgement(Word.UTILITY_COLLAPSE, reason), {"controls": CONTROLS}
        ideal = mean(retrained, "recognition_unseen") if retrained else None
        judgement = outcomes.of_accuracies(
            fa_source=100 * before["recognition_unseen"], fa=100 * now["recognition_unseen"],
            fa_retrained=None if ideal is None else 100 * ideal, ra_source=100 * before["others"], ra=100 * now["others"],
            ta_source=100 * before["facts"], ta=100 * now["facts"], n_forget=max(1, int(done[0]["n_forget"])),
            names=("Held-out pictures named (%)", "Other concepts named (%)", "Facts known (%)"),
        )  # fmt: skip
        return judgement, {"controls": CONTROLS}


BENCHMARK = VisionLanguageBenchmark()
