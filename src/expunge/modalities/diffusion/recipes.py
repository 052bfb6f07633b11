"""What a recipe of diffusion models says: model, images, training, forgotten classes, and the settings of every row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from expunge.core.digest import digest_json
from expunge.modalities.diffusion.config import DiffusionTraining, Setup
from expunge.modalities.recipes import BenchmarkRecipe
from expunge.modalities.settings import Strict


class ForgetClass(Strict):
    """One class after another, in the order given."""

    kind: Literal["class"] = "class"
    labels: list[int] = Field(min_length=1)


class DiffusionRecipe(Setup, BenchmarkRecipe):
    """One benchmark of diffusion models.

    Attributes:
        training: how the original and the retrained models are trained.
        forget: what is forgotten.
    """

    training: DiffusionTraining
    forget: ForgetClass
    retrained_models: int = Field(1, ge=1)

    @property
    def digest(self) -> str:
        """Of all settings that decide models, forget sets and what is drawn: not of titles, methods and places of files."""
        parts = set(Setup.model_fields) | {"training", "forget"}
        content = self.model_dump(mode="json", include=parts)
        content.pop("config")
        data = {name: value for name, value in content.pop("data").items() if name not in ("path", "test_path")}
        return digest_json([content, data])

    @property
    def forgets(self) -> Mapping[str, Any]:
        """The section ``forget``."""
        return self.forget.model_dump()
