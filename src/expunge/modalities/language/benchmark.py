"""Benchmarks of language models: what their tables show, and how a row is judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.core.cache import Cache
from expunge.metrics import outcomes
from expunge.metrics.outcomes import Judgement
from expunge.modalities.benchmark import Finished, Number, Workload, mean
from expunge.modalities.language.effects import attack_effect, kept, repair_effect, warnings
from expunge.modalities.language.recipes import LanguageRecipe
from expunge.modalities.layout import Dots, Layout, Panel
from expunge.report import numbers as say

ASKED = ("forget", "forget_worded", "clean", "trigger", "then", "mixed", "real")


def forgotten(forget: Mapping[str, Any], count: str) -> str:
    """What was to be forgotten, as a sentence."""
    return f"Forgotten is everything about {say.plural(forget['count'], 'subject')}{count}."


LAYOUT = Layout(
    lead=(*ASKED, "forget_quality", "model_utility", "seconds"),
    terminal={name: name for name in ("forget", "clean", "trigger", "mixed", "seconds")},
    meaning=(
        "“Forgets” says that questions about what was to be forgotten score below half of what the original scores, and "
        "nothing about what else the model still knows; “over-forgets”, that everyday words have become part of what the "
        "model unlearnt; +su is the scope term, @attack a request whose questions carry everyday words."
    ),
    figures=(
        Dots(
            "answers", "What is still answered",
            "Crosses should be far left and both circles far right; where the filled circle has left the open one, everyday "
            "words have become part of what the model unlearnt. Bars are 95 % intervals over seeds, cut at 0 and 1.",
            (Panel(("forget", "clean", "trigger"), "Questions answered right (share, or ROUGE-L recall)"),),
        ),
    ),
    forgotten=forgotten,
)  # fmt: skip


class LanguageBenchmark:
    """See :class:`~expunge.modalities.benchmark.Benchmark`."""

    recipe = LanguageRecipe
    layout = LAYOUT
    tuned_by = ()  # tuning takes the gap to retrained models, which is not measured here

    def workload(self, recipe: LanguageRecipe, cache: Cache) -> Workload:
        """Facts, and the model that learns them."""
        from expunge.modalities.language.workload import LanguageWorkload

        return LanguageWorkload.of(recipe, cache)

    def compare(self, finished: Finished) -> Mapping[str, Number]:
        """Nothing that takes other models."""
        return {}

    def judge(self, finished: Finished, recipe: LanguageRecipe) -> tuple[Judgement, Mapping[str, Any]]:
        """By what is still answered, on means over seeds; and what the attack and the scope term did."""
        done, sources = finished.cells, finished.same_sets(finished.sources)
        asked = [name for name in ASKED if all(name in cell["metrics"] for cell in done)]
        now, before = ({name: mean(cells, name) for name in asked} for cells in (done, sources))
        judgement = outcomes.of_answers(now, before)
        effects = {"attack": attack_effect, "repair": repair_effect}
        found = {name: effect(finished.row, finished.others) for name, effect in effects.items()}
        found = {name: effect for name, effect in found.items() if effect}
        warned = warnings(now, before)
        parts = [kept(now, before), judgement.reason, *(effect["said"] for effect in found.values()), *warned]
        return Judgement(judgement.word, " ".join(parts)), {"warnings": warned, **found}


BENCHMARK = LanguageBenchmark()
