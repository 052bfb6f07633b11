"""What a benchmark of models that see is: the world that is learnt, the concept that goes, and rows' settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from expunge.core.digest import digest_json
from expunge.modalities.recipes import BenchmarkRecipe
from expunge.modalities.vision_language.config import ConceptSettings, DigitsData, MicroModel, PicturesTraining


class VisionLanguageRecipe(BenchmarkRecipe):
    """One benchmark of models that see.

    A row is a method; what it forgets through says :attr:`items`: the four kinds of items of SIU, or the picture with its right
    name. ``row@shown`` has pictures of other concepts among its items.

    Attributes:
        data, model, training: the world and the model that learns it.
        concepts: the digits that go, one in each forget set.
        concept: how items are made; what a row says itself stands above it.
        items: row → ``targets`` or ``recognition``, and other settings of ``concept``.
        relearning, relearning_lr: most steps on one new picture of the concept (``relearning_steps``), 0: none; and their rate.
        retrained_models: 1: a model trained without the pictures of the concept stands beside the original.
    """

    task: Literal["vision_language"]
    data: DigitsData = DigitsData(format="digits_world")  # type: ignore[call-arg]
    model: MicroModel = MicroModel(micro=True)  # type: ignore[call-arg]
    training: PicturesTraining = PicturesTraining(kind="pictures")  # type: ignore[call-arg]
    concepts: list[str] = Field(["seven"], min_length=1)
    concept: ConceptSettings = ConceptSettings(kind="digit")  # type: ignore[call-arg]
    items: dict[str, dict[str, Any]] = Field({})
    relearning: int = Field(0, ge=0)
    relearning_lr: float = Field(1e-3, gt=0)
    retrained_models: int = Field(1, ge=0, le=1)
    forget_sets: int | None = Field(1, ge=1)

    @property
    def digest(self) -> str:
        """Of everything that decides the original model and what is asked of it."""
        return digest_json(self.model_dump(mode="json", include={"data", "model", "training", "concepts", "seed"}))

    @property
    def forgets(self) -> Mapping[str, Any]:
        """Which concepts."""
        return {"kind": "concept", "names": self.concepts}

    def settings_of(self, row: str) -> ConceptSettings:
        """How the material of ``row`` is made."""
        own = {**self.items.get(row.partition("@")[0], {}), **(self.items.get(row, {}) if "@" in row else {})}
        return ConceptSettings(**{**self.concept.model_dump(), **own})

    def identity(self, row: str, settings: Mapping[str, Any]) -> Any:
        """With how its material is made."""
        return [super().identity(row, settings), self.settings_of(row).model_dump(mode="json")]
