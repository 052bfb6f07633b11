"""The domain of every symbol, checked once: a number outside it is refused with a sentence, never carried on.

All functions return the value that they checked, so that a check reads as part of a formula. NaN is in no domain.
"""

from __future__ import annotations

import math

from expunge.core.errors import InputError

_LARGEST_EXPONENT = math.log(1.7976931348623157e308)


def positive(name: str, value: float) -> float:
    """Return ``value`` if 0 < value < inf; raises InputError otherwise."""
    if not 0 < value < math.inf:
        raise InputError(f"{name} must be a finite number above 0; got {value!r}. Pass a positive {name}.")
    return value


def non_negative(name: str, value: float, *, allow_inf: bool = False) -> float:
    """Return ``value`` if 0 <= value (< inf unless ``allow_inf``); raises InputError otherwise."""
    if not value >= 0 or (value == math.inf and not allow_inf):
        wanted = "a number of at least 0" if allow_inf else "a finite number of at least 0"
        raise InputError(f"{name} must be {wanted}; got {value!r}. Check how it was computed.")
    return value


def probability(name: str, value: float) -> float:
    """Return ``value`` if 0 < value < 1; raises InputError otherwise."""
    if not 0 < value < 1:
        raise InputError(f"{name} must lie strictly between 0 and 1; got {value!r}. Typical: 1e-5.")
    return value


def failure_probability(name: str, value: float) -> float:
    """Return ``value`` if 0 <= value < 1 (0 means pure); raises InputError otherwise."""
    if not 0 <= value < 1:
        raise InputError(f"{name} must lie in [0, 1); got {value!r}. Pass 0 for a guarantee without failures.")
    return value


def count(name: str, value: int, *, at_least: int = 0, at_most: int | None = None) -> int:
    """Return ``value`` if it is a whole number in [at_least, at_most]; raises InputError otherwise."""
    whole = not isinstance(value, bool) and math.isfinite(value) and value == int(value)
    if not whole or value < at_least or (at_most is not None and value > at_most):
        upper = "" if at_most is None else f" and at most {at_most}"
        raise InputError(f"{name} must be a whole number of at least {at_least}{upper}; got {value!r}. Correct {name}.")
    return int(value)


def exp_or_inf(exponent: float) -> float:
    """Return e**exponent, inf instead of an overflow.

    >>> exp_or_inf(1e4), exp_or_inf(0.0)
    (inf, 1.0)
    """
    return math.inf if exponent > _LARGEST_EXPONENT else math.exp(exponent)
