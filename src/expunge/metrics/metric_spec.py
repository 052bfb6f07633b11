"""What is known of a metric before anything is measured: its names, its unit, which way is better, when it stands alone."""

from __future__ import annotations

from dataclasses import dataclass

from expunge.core.measurement import Direction

RETRAINED, NULL = "retrained", "null"


@dataclass(frozen=True)
class Headline:
    """How many models (or seeds) on each side it takes for a number that stands alone, and where that count is from."""

    models: int = 1
    source: str = "one model is enough; its interval covers rows"


@dataclass(frozen=True)
class MetricSpec:
    """One metric.

    Attributes:
        name: as ``Measurement.metric``, and in tables, results files and gaps.
        label: what a table or a figure calls it.
        title: in words.
        unit: ``share`` (of examples, from 0 to 1, written as a percentage), ``percent``, ``points`` (of percent), ``nats``,
            ``seconds``, ``bytes``, ``trials``, ``probes`` or ``1``.
        direction: which way is better.
        ideal: ``retrained`` (what the retrained model scores), ``null`` (what perfect unlearning scores by chance, which
            depends on the number of models), a constant, or ``None`` where less is simply better.
        null: in words, what perfect unlearning scores by chance.
        needs: what must be there to compute it.
        headline: what it takes for a number that stands alone.
        excludes: names that must not stand in one average with it.
        of: the metric and the set that a column of the benchmark measures, where the benchmark's tables have a name of
            their own for the pair; ``None`` elsewhere.
        recorded: what evidence records call it, where that is another name than the metric's.
        attack: what a membership attack goes by, for example ``likelihood ratio``; empty for every other metric.
    """

    name: str
    label: str
    title: str
    unit: str
    direction: Direction
    ideal: str | float | None
    null: str
    needs: tuple[str, ...]
    headline: Headline = Headline()
    excludes: tuple[str, ...] = ()
    of: tuple[str, str] | None = None
    recorded: str = ""
    attack: str = ""
