"""Every setting of every registered method says which values it may have; others are refused before anything is trained."""

from __future__ import annotations

import math
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
import yaml

from expunge.core.allowed import Allowed, hints_of, not_allowed
from expunge.core.errors import InputError
from expunge.jobs import run
from expunge.methods import registry
from expunge.modalities.named import named_method

ROOT = Path(__file__).parents[2]
EVERY = sorted(registry.targets())
SIGNED = {("simnpo", "delta"), ("rmu", "layer")}  # a margin of log-probabilities; a layer counted from the last


def parts(hint: Any) -> list[Any]:
    """What a type consists of, with what is said of numbers kept at them."""
    if get_origin(hint) in (Annotated, Literal) or not get_args(hint):
        return [hint]
    return [each for inner in get_args(hint) for each in parts(inner)]


def numbers(hint: Any) -> list[Any]:
    return [part for part in parts(hint) if part in (int, float) or get_origin(part) is Annotated]


def settings(name: str) -> dict[str, Any]:
    """Setting → its type, of the method called ``name``."""
    kind = registry.load(name)
    return {field.name: hints_of(kind)[field.name] for field in fields(kind) if field.init}


@pytest.mark.parametrize("name", EVERY)
def test_every_number_says_what_it_may_be(name: str):
    silent = {
        setting
        for setting, hint in settings(name).items()
        for part in numbers(hint)
        if not any(isinstance(mark, Allowed) for mark in get_args(part)[1:])
    }
    assert not silent


@pytest.mark.parametrize("name", EVERY)
def test_a_number_that_makes_no_sense_is_refused_by_file_key_and_value(name: str):
    """Whatever a method says of its own range: no setting is infinite, a text or a truth value, and hardly any negative."""
    for setting, hint in settings(name).items():
        if not numbers(hint) or get_origin(hint) is tuple:
            continue
        bad = [math.nan, math.inf, -math.inf, "x", True] + ([] if (name, setting) in SIGNED else [-1, -1e-9])
        for value in bad:
            with pytest.raises(InputError) as seen:
                named_method("job.yaml: method", name, {setting: value})
            assert str(seen.value).startswith(f"job.yaml: method.{setting}: expected ")
            assert f"got {value!r}" in str(seen.value)
            with pytest.raises(InputError):  # and where it is made in Python
                registry.load(name)(**{setting: value})


@pytest.mark.parametrize("name", EVERY)
def test_a_word_that_no_method_knows_is_refused(name: str):
    for setting, hint in settings(name).items():
        if hint is str or get_origin(hint) is Literal:
            with pytest.raises(InputError, match=r"job\.yaml: method"):
                named_method("job.yaml: method", name, {setting: "no such word"})


@pytest.mark.parametrize("name", EVERY)
def test_what_is_searched_and_the_defaults_are_allowed(name: str):
    kind = registry.load(name)
    searched = {**getattr(kind, "ranges", {}), **getattr(kind, "dual_ranges", {})}
    for setting, ends in searched.items():
        if setting in hints_of(kind):
            assert not any(not_allowed(hints_of(kind)[setting], end) for end in ends)
    for field in fields(kind):
        if field.init and field.default is not MISSING:
            assert not not_allowed(hints_of(kind)[field.name], field.default)


@pytest.mark.parametrize(
    "method",
    [
        {"name": "salun", "density": -1}, {"name": "scrub", "temperature": 0}, {"name": "noisy_fine_tune", "lr": 5},
        {"name": "r2d", "rewind": 1.5}, {"name": "scrub", "decay_at": [1, -2]}, {"name": "scrub", "epochs": 10**30},
    ],
    ids=str,
)  # fmt: skip
def test_a_job_is_refused_before_anything_is_trained(method: dict[str, Any], tmp_path: Path, monkeypatch):
    job = yaml.safe_load((ROOT / "examples" / "jobs" / "digits.yaml").read_text()) | {"method": method}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(job))
    monkeypatch.setattr(run, "train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(InputError, match=r"^mine\.yaml: method"):
        run.run_job(path, (), tmp_path / "out")
    assert [item.name for item in tmp_path.iterdir()] == ["mine.yaml"]
