"""What a job file for a diffusion model may say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from expunge.modalities.classification.config import ArraysData, Cifar10Data, DigitsData, MnistData, called
from expunge.modalities.settings import (
    CheckpointTraining,
    Count,
    EvidenceSettings,
    Job,
    RequestSettings,
    Seed,
    StoredTraining,
    Strict,
)  # fmt: skip

__all__ = [
    "AnyData", "ArraysData", "CheckpointTraining", "Cifar10Data", "DiffusionJob", "DiffusionTraining", "DigitsData",
    "MnistData", "Setup", "called",
]  # fmt: skip

AnyData = Annotated[DigitsData | MnistData | Cifar10Data | ArraysData, Field(discriminator="format")]


class DiffusionTraining(Strict):
    """Mini-batch training with Adam; 2e-4 and 128 are DDPM's (arXiv 2006.11239, appendix B)."""

    kind: Literal["stochastic"]
    epochs: Count
    lr: float = Field(2e-4, gt=0)
    batch_size: Count = 128
    optimizer: Literal["adam", "sgd"] = "adam"
    momentum: float = Field(0.0, ge=0, lt=1)
    schedule: Literal["constant", "cosine"] = "constant"
    augment: Literal["none", "crop_flip"] = "none"


class NoiseSettings(Strict):
    """See ``tasks.diffusion.schedule.NoiseSchedule``."""

    kind: Literal["linear", "cosine"] = "linear"
    levels: int = Field(1000, ge=2)


class SamplingSettings(Strict):
    """See ``tasks.diffusion.sampling.Sampler``."""

    steps: Count = 50
    guidance: float = Field(1.0, ge=0)


class Setup(Strict):
    """What jobs and benchmarks share: a model and its data, images with pixels in [0, 1].

    Attributes:
        model: ``unet``, a small one of expunge's own; ``diffusers``, a ``UNet2DModel`` from ``config``; or your factory as
            ``package.module:callable``, whose modules are called as (images, levels, conditions) and return the noise.
        model_settings: of either; expunge's own gets channels and classes from the data.
        config: the ``config.json`` of a ``UNet2DModel``; its weights come from a checkpoint, or are trained here.
        classes: how many the model is made for; by default as many as the data have.
        noise, sampling: see the sections.
        hidden: share of labels that training hides; see ``tasks.diffusion.images.ImageDiffusion``.
        images: drawn of each class when the model is measured. 100, our choice: a share is then known to some 10 points.
    """

    task: Literal["diffusion"] = "diffusion"
    model: str = "unet"
    model_settings: dict[str, Any] = Field({})
    config: Path | None = None
    classes: int | None = Field(None, ge=2)
    noise: NoiseSettings = NoiseSettings()  # type: ignore[call-arg]
    hidden: float = Field(0.1, ge=0, lt=1)
    sampling: SamplingSettings = SamplingSettings()  # type: ignore[call-arg]
    images: int = Field(100, ge=2)
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    seed: Seed = 0
    data: AnyData


class DiffusionJob(Setup, Job):
    """One deletion job on a diffusion model."""

    model: str = "unet"
    training: Annotated[DiffusionTraining | StoredTraining | CheckpointTraining, Field(discriminator="kind")]
    request: RequestSettings
    evidence: EvidenceSettings = EvidenceSettings()  # type: ignore[call-arg]

    def identity(self) -> dict[str, Any]:
        """Noise and hidden labels decide the model too; how images are drawn does not."""
        return super().identity() | self.model_dump(include={"config", "classes", "noise", "hidden"})
