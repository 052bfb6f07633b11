"""The outcome of a run from its measurements: thresholds by hand, and how often chance decides."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.core.measurement import Measurement
from expunge.evidence.outcome import judged


def items(metric, forget, retain=(1.0, 1.0, 1.0), *, n=400, null=0.01, half=0.05, view=None):
    """Forgotten and retained examples; each a triple of original, unlearned and retrained model."""
    return [
        Measurement(metric, of, view, now, (now - half, now + half), n, ideal=ideal, null=null, original=before)
        for of, (before, now, ideal) in (("forget", forget), ("retain", retain))
    ]


@pytest.mark.parametrize("metric", ["accuracy", "probability"])
@pytest.mark.parametrize(
    ("forget", "retain", "word"),
    [
        ((1.0, 0.62, 0.6), (1.0, 0.98, 1.0), "forgets"),
        ((1.0, 0.81, 0.6), (1.0, 0.98, 1.0), "under-forgets"),  # half the way is 0.8
        ((1.0, 0.79, 0.6), (1.0, 0.98, 1.0), "forgets"),
        ((1.0, 1.0, 0.6), (1.0, 1.0, 1.0), "under-forgets"),
        ((1.0, 0.5, 0.9), (1.0, 0.98, 1.0), "over-forgets"),
        ((1.0, 0.6, 0.6), (1.0, 0.79, 1.0), "utility-collapse"),
        ((1.0, 0.6, 0.6), (1.0, 0.79, 0.9), "forgets"),  # where retraining itself costs that much: 80 % of 0.9
        ((1.0, 1.0, 0.999), (1.0, 1.0, 1.0), "undecidable"),
        ((1.0, 0.6, None), (1.0, 1.0, None), "undecidable"),
        ((1.0, 0.6, None), (1.0, 0.5, None), "utility-collapse"),  # needs no retrained model
    ],
)
def test_shares_of_right_answers(metric, forget, retain, word):
    assert judged(items(metric, forget, retain)).word == word


@pytest.mark.parametrize(
    ("forget", "retain", "word"),
    [
        ((0.1, 1.9, 2.0), (0.1, 0.11, 0.1), "forgets"),
        ((0.1, 0.9, 2.0), (0.1, 0.11, 0.1), "under-forgets"),
        ((0.1, 4.2, 2.0), (0.1, 0.11, 0.1), "over-forgets"),
        ((0.1, 2.0, 2.0), (0.1, 2.6, 0.1), "utility-collapse"),
        ((0.1, 0.1, 0.115), (0.1, 0.1, 0.1), "undecidable"),  # half the way is within what two retrainings differ by
        ((0.1, 2.0, None), (0.1, 0.1, None), "undecidable"),
    ],
)
def test_losses_in_any_unit(forget, retain, word):
    for unit in (1.0, 1e-3, 1e4):
        scaled = [tuple(None if x is None else unit * x for x in three) for three in (forget, retain)]
        assert judged(items("loss", *scaled, null=0.01 * unit, half=0.02 * unit)).word == word


def test_the_first_measure_that_can_decide_does():
    blind, seeing = items("accuracy", (1.0, 1.0, 1.0), n=10), items("loss", (0.1, 0.1, 2.0))
    assert judged(blind).word == "undecidable" and judged([*blind, *seeing]).word == "under-forgets"
    assert judged([*items("accuracy", (1.0, 0.6, 0.6)), *seeing]).word == "forgets", "as benchmarks judge"
    unknown = [Measurement(**{**vars(item), "null": None}) for item in seeing]
    assert judged([*blind, *unknown]).word == "undecidable", "without replicates losses decide nothing"


def test_of_several_views_the_worst_counts():
    good, bad = items("accuracy", (1.0, 0.6, 0.6), view="a"), items("accuracy", (1.0, 1.0, 0.6), view="b")
    found = judged([*good, *bad])
    assert found.word == "under-forgets" and found.reason.startswith("b: ")
    assert judged([]).word == "undecidable"


@pytest.mark.parametrize("spread", [0.05, 0.2])
def test_retrained_models_are_seldom_called_anything_but_forgetting(spread):
    """Losses of retrained models are drawn from one distribution: one stands for the unlearned one, the null is of four others.

    The original model lies so far off that a benchmark would still ask: from nowhere to eight times the spread.
    """
    draw = np.random.default_rng(0)
    counts: dict[str, int] = {}
    for _ in range(4000):
        ideal, mine, *others = draw.normal(2.0, spread, size=6)
        null = 2 * float(np.sqrt(np.mean([(other - ideal) ** 2 for other in others])))
        original = 2.0 - draw.uniform(0, 8) * spread
        word = judged(items("loss", (original, mine, ideal), null=null, half=1e-3)).word
        counts[word] = counts.get(word, 0) + 1
    decided = sum(counts.values()) - counts["undecidable"]
    assert decided > 500
    wrong = 1 - counts["forgets"] / decided
    assert wrong < 0.06, counts
