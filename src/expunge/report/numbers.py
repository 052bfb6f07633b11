"""How numbers are written for people: three digits that matter, thousands apart, powers of ten spelled out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from expunge.metrics.catalogue import METRICS

UNBOUNDED = "no finite value"
NOTHING = "–"
PERCENT = "\N{NO-BREAK SPACE}%"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None, missing: str = NOTHING) -> str:
    """``value`` with three significant digits; ``missing`` for ``None`` or infinity.

    >>> number(0.17269), number(1427), number(531300000.0), number(1e-05), number(2.0)
    ('0.173', '1,427', '5.31 × 10⁸', '10⁻⁵', '2')
    """
    if value is None or not math.isfinite(value):
        return missing
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e6):
        return f"{int(value):,}"
    size = abs(value)
    if 1e-3 <= size < 1e6:
        digits = max(0, 2 - math.floor(math.log10(size)))
        text = f"{value:,.{digits}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, exponent = f"{value:.2e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    power = "10" + str(int(exponent)).translate(_RAISED)
    return power if mantissa == "1" else f"{mantissa} × {power}"


def power(value: float) -> str:
    """A power of ten as an axis shows it.

    >>> power(1.0), power(1e-4)
    ('1', '10⁻⁴')
    """
    exponent = round(math.log10(value))
    return "1" if exponent == 0 else "10" + str(exponent).translate(_RAISED)


def ceiling(value: float) -> float:
    """``value`` rounded up to three significant digits: a bound must not shrink in print.

    >>> ceiling(1.18843), ceiling(1.0)
    (1.19, 1.0)
    """
    if value <= 0 or not math.isfinite(value):
        return value
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / unit * (1 - 1e-12)) * unit


def percent(share: float | None) -> str:
    r"""A share as a percentage with one decimal, never rounded up to certainty.

    >>> percent(0.8389), percent(1.0), percent(0.99996), percent(None)
    ('83.9\xa0%', '100\xa0%', 'above 99.9\xa0%', '–')
    """
    if share is None:
        return NOTHING
    if 0.9995 <= share < 1:
        return f"above 99.9{PERCENT}"
    if 0 < share < 0.0005:
        return f"below 0.1{PERCENT}"
    return f"{100 * share:.1f}".removesuffix(".0") + PERCENT


def chance(probability: float) -> str:
    """A small probability in words, rounded up.

    >>> chance(1e-05), chance(0.02)
    ('1 in 100,000', '1 in 50')
    """
    if probability <= 0:
        return "0"
    if probability > 0.5:
        return number(probability)
    odds = 1 / probability * (1 + 1e-9)
    unit = 10 ** max(0, math.floor(math.log10(odds)) - 2)
    rounded = math.floor(odds / unit) * unit
    return f"1 in {number(rounded if rounded < 1e9 else float(rounded))}"


def seconds(value: float | None) -> str:
    """A duration in its own unit.

    >>> seconds(0.0472), seconds(75.0), seconds(7300)
    ('47.2 ms', '75 s', '2.03 h')
    """
    if value is None:
        return NOTHING
    for size, unit in ((3600, "h"), (120, "min"), (1, "s")):
        if value >= size:
            return f"{number(value / (60 if unit == 'min' else size))} {unit}"
    return f"{number(value * 1e3)} ms"


def size(count: float | None) -> str:
    """Bytes in decimal units.

    >>> size(361672704)
    '362 MB'
    """
    if count is None:
        return NOTHING
    for power, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= power:
            return f"{number(round(count / power, 3))} {unit}"
    return f"{number(count)} B"


def plural(count: int, noun: str, many: str = "") -> str:
    """A count with its noun.

    >>> plural(1, "row"), plural(1427, "row"), plural(2, "copy", "copies")
    ('1 row', '1,427 rows', '2 copies')
    """
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def initial(text: str) -> str:
    """``text`` with its first letter as a capital, the rest as it is.

    >>> initial("linear head"), initial("")
    ('Linear head', '')
    """
    return text[:1].upper() + text[1:]


def equals(name: str, shown: str) -> str:
    """``name = shown`` that no line break takes apart."""
    return f"{name} = {shown}".replace(" ", "\N{NO-BREAK SPACE}")


def joined(items: list[str] | tuple[str, ...], last: str = "and") -> str:
    """Items as a list in a sentence.

    >>> joined(["a", "b", "c"])
    'a, b and c'
    """
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def day(text: str | None) -> str:
    """An ISO date or time as a date for people.

    >>> day("2026-03-05"), day("2026-03-05T10:00:00Z")
    ('5 March 2026', '5 March 2026')
    """
    from datetime import date

    if not text:
        return NOTHING
    try:
        found = date.fromisoformat(text[:10])
    except ValueError:
        return text
    return f"{found.day} {_MONTHS[found.month - 1]} {found.year}"


_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


def value(metric: str, shown: float | None) -> str:
    """A measured value in the metric's unit: shares as percentages, counts as such, the rest as numbers."""
    if shown is not None and metric in METRICS and METRICS[metric].unit == "probes":
        return f"{shown:.1f}".removesuffix(".0")
    return (
        percent(shown)
        if is_share(metric)
        else NOTHING
        if shown is None
        else f"{shown:.3f}"
        if abs(shown) < 10
        else number(shown)
    )


def interval(metric: str, bounds: Any) -> str:
    """A 95 % interval, empty where there is none."""
    if not bounds:
        return ""
    low, high = bounds
    return f"{value(metric, low).removesuffix(PERCENT)} to {value(metric, high)}"


def is_share(metric: str) -> bool:
    """Whether a metric is a share of examples."""
    return metric in METRICS and METRICS[metric].unit == "share"


def flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as rows of name and value.

    >>> flat({"seconds": {"unlearn": 1, "retrain": 2}})
    [('seconds, unlearn', 1), ('seconds, retrain', 2)]
    """
    rows: list[tuple[str, Any]] = []
    for name, item in value.items():
        words = f"{prefix}{str(name).replace('_', ' ')}"
        if isinstance(item, Mapping):
            rows += flat(item, f"{words}, ")
        else:
            rows.append((words, item))
    return rows


def text(value: Any) -> str:
    """Any JSON value in a table cell."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, list):
        return ", ".join(text(item) for item in value) or NOTHING
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {text(item)}" for name, item in flat(value)) or NOTHING
    return str(value)
