"""What NPO does where nobody says how far: rate and steps follow from the recipe of the model, and from the request."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from expunge.core.method import Settling
from expunge.methods.npo import NPO
from expunge.training.language import LanguageTraining


def settled(rows: int, recipe: Any, **settings: Any) -> NPO:
    method = NPO(**settings)
    assert isinstance(method, Settling)
    made = method.settled(SimpleNamespace(recipe=recipe), SimpleNamespace(forget=range(rows)))  # type: ignore[arg-type]
    again = made.settled(SimpleNamespace(recipe=None), SimpleNamespace(forget=range(rows)))  # type: ignore[arg-type]
    assert again == made, "nothing is left to settle"
    return made


@pytest.mark.parametrize(
    ("recipe", "settings", "lr"),
    [
        (LanguageTraining(lr=2e-3), {}, 2.5e-4),
        (LanguageTraining(lr=1e-5), {}, 1e-5),  # as TOFU's models were taught: the common setting
        (None, {}, 1e-5),
        (LanguageTraining(lr=2e-3, lora={"r": 4}), {}, 1e-5),
        (LanguageTraining(lr=2e-3), {"lora": {"r": 4}}, 1e-5),
        (LanguageTraining(lr=2e-3, lora={"r": 4}), {"lora": {"r": 8}}, 2.5e-4),
        (LanguageTraining(lr=2e-3), {"lr": 3e-5}, 3e-5),
    ],
)
def test_the_rate_is_an_eighth_of_the_recipes_and_never_below_the_common_one(recipe, settings, lr):
    assert settled(10, recipe, **settings).lr == pytest.approx(lr)


@pytest.mark.parametrize(
    ("rows", "settings", "steps"),
    [
        (6, {}, 60),
        (200, {}, 70),  # forget05 of TOFU: 7 batches of 32, 10 epochs
        (400, {}, 130),
        (200, {"batch_size": 8}, 250),
        (6, {"steps": 5}, 5),
        (6, {"epochs": 3}, None),
    ],
)
def test_ten_epochs_and_at_least_sixty_steps_are_taken_unless_somebody_says_how_many(rows, settings, steps):
    assert settled(rows, None, **settings).steps == steps
