"""What a benchmark of models that see is: the world that is learnt, the concept that goes, and rows' settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from expunge.core.digest import digest_json
from expunge.modalities.language.config import AsItIs
from expunge.modalities.recipes import BenchmarkRecipe
from expunge.modalities.settings import Strict
from expunge.modalities.vision_language.config import (
    ConceptSettings,
    DigitsData,
    MicroModel,
    PicturesModel,
    PicturesTraining,
    Worlds,
)

SHARES = (
    "recognition_unseen", "recognition_style", "yes_no", "facts", "others", "others_style", "yes_others", "no_others",
    "facts_others",
)  # fmt: skip


class SavedWeights(PicturesModel):
    """A released model that is taken as it is; ``get``: one sentence on how to get it."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"
    get: str = ""


class ConceptFolder(Strict):
    """Pictures of concepts that a released model recognises: a folder of images with ``metadata.jsonl``. Records with a picture
    have ``file_name``, ``question``, ``answer`` and ``concept``; those without one are facts (``concept: words``).
    :mod:`.construction` writes such folders. Without ``path``, ``mmubench`` in the folder that ``EXPUNGE_DATA`` names.
    """

    format: Literal["concept_folder"]
    path: Path | None = None


class VisionLanguageRecipe(BenchmarkRecipe):
    """One benchmark of models that see.

    A row is a method; what it forgets through says :attr:`items`: the four kinds of items of SIU, or the picture with its right
    name. ``row@shown`` has pictures of other concepts among its items.

    Attributes:
        data, model, training: the world and the model that learns it; or a folder of concepts and a released model as it is
            (``training: {kind: checkpoint}``), of which no retrained model can be had.
        concepts: what goes, one concept in each forget set; or a list of concepts that make one forget set together.
        sequential: rows that are asked for the concepts of a forget set one after another, each next one of the model that the
            one before left; the others are asked for all of them at once. ``steps`` of a row are then those of one request.
        gates: share → the least that the original model must have of it; below, nothing is compared.
        concept: how items are made; what a row says itself stands above it.
        items: row → ``targets`` or ``recognition``, and other settings of ``concept``.
        relearning, relearning_lr: most steps on one new picture of the concept (``relearning_steps``), 0: none; and their rate.
        retrained_models: 1: a model trained without the pictures of the concept stands beside the original.
    """

    task: Literal["vision_language"]
    data: Annotated[Worlds | ConceptFolder, Field(discriminator="format")] = DigitsData(  # type: ignore[call-arg]
        format="digits_world"
    )
    model: SavedWeights | MicroModel = MicroModel(micro=True)  # type: ignore[call-arg]
    training: Annotated[PicturesTraining | AsItIs, Field(discriminator="kind")] = PicturesTraining(  # type: ignore[call-arg]
        kind="pictures"
    )
    concepts: list[str | Annotated[list[str], Field(min_length=1)]] = Field(["seven"], min_length=1)
    sequential: list[str] = Field([])
    gates: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field({})
    concept: ConceptSettings = ConceptSettings(kind="digit")  # type: ignore[call-arg]
    items: dict[str, dict[str, Any]] = Field({})
    relearning: int = Field(0, ge=0)
    relearning_lr: float = Field(1e-3, gt=0)
    retrained_models: int = Field(1, ge=0, le=1)
    forget_sets: int | None = Field(1, ge=1)

    @field_validator("gates")
    @classmethod
    def _shares(cls, gates: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(gates.keys() - {*SHARES}):
            raise ValueError(f"expected gates among {', '.join(SHARES)}; got {', '.join(unknown)}")
        return gates

    @model_validator(mode="after")
    def _learnt_or_released(self) -> Self:
        parts = (ConceptFolder, SavedWeights, AsItIs)
        released = [
            isinstance(own, kind) for own, kind in zip((self.data, self.model, self.training), parts, strict=True)
        ]
        if any(released) and not all(released):
            raise ValueError(
                "expected a world, a micro model and training; or concept_folder, model.folder and checkpoint"
            )
        if all(released) and self.retrained_models:
            raise ValueError("a released model cannot be retrained: set retrained_models: 0")
        return self

    def going(self, number: int) -> tuple[str, ...]:
        """The concepts of forget set ``number``."""
        own = self.concepts[number % len(self.concepts)]
        return (own,) if isinstance(own, str) else tuple(dict.fromkeys(own))

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
        own = [super().identity(row, settings), self.settings_of(row).model_dump(mode="json")]
        return [*own, "sequential"] if row in self.sequential else own
