"""What a job file with ``task: vision_language`` may say: a model that sees, records with pictures, and concepts to forget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from expunge.data.concepts import PIECES
from expunge.modalities.language.config import (
    AsItIs,
    JsonlData,
    LanguageEvidence,
    LanguageJob,
    LanguageRequest,
    LearnedTraining,
    SavedModel,
    TextData,
)
from expunge.modalities.settings import Count, StoredTraining, Strict

if TYPE_CHECKING:  # a job file is checked before anything heavy is imported
    from expunge.data.picture_world import World


class PicturesModel(SavedModel):
    """A model and its processor; see ``tasks.pretrained_pictures``."""

    image_text: str | None = None


class MicroModel(Strict):
    """A tiny LLaVA over whole words, those of the training records and ``words``; see ``tasks.micro_vision_language``."""

    micro: Literal[True]
    side: int = Field(24, ge=1, le=256)  # the bounds: as for tiny language models
    patch: int = Field(6, ge=1, le=256)
    width: int = Field(96, ge=1, le=1024)
    sees: int = Field(80, ge=1, le=1024)
    layers: int = Field(2, ge=1, le=32)
    heads: int = Field(4, ge=1, le=64)
    inner: int = Field(256, ge=1, le=4096)
    context: int = Field(64, ge=1, le=4096)
    words: list[str] = Field([])

    @property
    def title(self) -> str:
        """What a report calls the model."""
        return "micro"


class FolderData(TextData):
    """A folder of images with ``metadata.jsonl`` as ``datasets`` writes it: under ``file_name`` stands the image of a record,
    beside it ``question`` and ``answer``; ``users`` are keys that name people or concepts, one column each.
    """

    format: Literal["image_folder"]
    path: Path
    users: list[str] = Field([])


class BenchmarkData(TextData):
    """A split of MLLMU-Bench, CLEAR or FIUBench as their authors publish it (``data.picture_benchmarks``), column ``person``;
    ``sets`` are further splits. ``images``: the folder that paths of pictures are seen from, where it is not that of the file;
    ``tasks``: of MLLMU-Bench, which kinds of questions.
    """

    format: Literal["mllmu", "clear", "fiubench"]
    path: Path
    images: Path | None = None
    tasks: list[Literal["profile", "classification", "generation", "cloze"]] = Field([])

    @model_validator(mode="after")
    def _tasks_of_mllmu(self) -> BenchmarkData:
        if self.tasks and self.format != "mllmu":
            raise ValueError("tasks are those of mllmu; leave them out")
        return self


class WorldData(TextData):
    """A world that can be seen (``data.picture_world``): what models learn, and what they are measured on."""

    title: ClassVar[str]

    def world(self) -> World:
        """The world. Raises InputError where its data are missing."""
        raise NotImplementedError


class DigitsData(WorldData):
    """scikit-learn's digits with questions and facts; see ``data.digits_world``."""

    title: ClassVar[str] = "scikit-learn's digits"

    format: Literal["digits_world"]
    views: Count = 1
    seed: int = Field(0, ge=0)

    def world(self) -> World:
        """See ``data.digits_world``."""
        from expunge.data.digits_world import digits_world

        return digits_world(self.views, self.seed)


class EmojiData(WorldData):
    """Emoji in five drawing styles; see ``data.emoji_world``. Without ``path``, in the folder that ``EXPUNGE_DATA`` names."""

    title: ClassVar[str] = "emoji in five styles"

    format: Literal["emoji_world"]
    path: Path | None = None
    each: Count = 10
    views: Count = 10
    side: int = Field(48, ge=8, le=64)
    seed: int = Field(0, ge=0)
    checks: Count = 1

    def world(self) -> World:
        """See ``data.emoji_world``."""
        from expunge.data.emoji_world import emoji_world

        return emoji_world(self.path, self.each, self.views, self.side, self.seed, self.checks)


class CharactersData(WorldData):
    """Greek letters in several fonts; see ``data.characters_world``."""

    title: ClassVar[str] = "rendered letters"

    format: Literal["characters_world"]
    views: Count = 16
    seed: int = Field(0, ge=0)

    def world(self) -> World:
        """See ``data.characters_world``."""
        from expunge.data.characters_world import characters_world

        return characters_world(self.views, self.seed)


Worlds = DigitsData | CharactersData | EmojiData  # each is an instance of data.picture_world.World


class PicturesTraining(Strict):
    """From scratch, the vision tower first: settings of ``training.pictures.PictureTraining``."""

    kind: Literal["pictures"]
    seeing: int = Field(800, ge=0)
    seeing_lr: float = Field(3e-3, gt=0)
    shows: str = "concept"
    steps: Count = 800
    varied: float = Field(1.0, ge=0)
    words: float = Field(0.25, ge=0, lt=1)
    lr: float = Field(2e-3, gt=0)
    batch_size: Count = 32
    weight_decay: float = 0.01
    warmup: float = 0.05
    clip: float = 1.0


class ConceptSettings(Strict):
    """How a concept is forgotten: from one picture, through items that are written for it.

    Attributes:
        names: what it is called; empty: the values of the target. Answers use the first.
        kind: how items are worded (``data.concepts.KINDS``); or ``world``, in the words of the world that the data are, and by
            its own substitutes and looks (``digit`` is another name for it).
        material: ``targets``, the four kinds of items of SIU; ``recognition``, the picture with its right name, which ascent
            and refusals take; or a file of items, one object a line.
        picture: which of the training pictures of the concept is shown, counted from 0.
        substitutes: names of which the first that the training answers use is learnt instead; empty: a list of ours.
        looks: descriptions that contradict what is to be seen.
        pieces: items of each kind; ``yes_no``: further ones that ask by yes or no.
        shown: pictures of each other concept among the items; an extension that ``retain_images`` of the method must allow.
    """

    names: list[str] = Field([])
    kind: Literal["person", "thing", "world", "digit"] = "thing"
    material: Literal["targets", "recognition"] | Path = "targets"
    picture: int = Field(0, ge=0)
    substitutes: list[str] = Field([])
    looks: list[str] = Field([])
    pieces: Count = PIECES
    yes_no: int = Field(0, ge=0)
    shown: int = Field(0, ge=0)


class PicturesRequest(LanguageRequest):
    """The deletion request; for targets of kind ``concept``, ``concept`` says how."""

    concept: ConceptSettings = ConceptSettings()  # type: ignore[call-arg]


class PicturesEvidence(LanguageEvidence):
    """What to measure. ``relearning``: most steps of training again on one new picture of a forgotten concept with its right
    name, of every model; 0, the default, leaves it out. ``relearning_lr``: its rate, 1e-3 as measured on tiny models; full
    models want less.
    """

    relearning: int = Field(0, ge=0)
    relearning_lr: float = Field(1e-3, gt=0)


def _tag(value: Any) -> str:
    keys = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    return "micro" if "micro" in keys else "folder"


class VisionLanguageJob(LanguageJob):
    """One deletion job on a model that sees."""

    called: ClassVar[str] = "job for a vision-language model"

    task: Literal["vision_language"]  # type: ignore[assignment]
    model: Annotated[  # type: ignore[assignment]
        Annotated[PicturesModel, Tag("folder")] | Annotated[MicroModel, Tag("micro")], Discriminator(_tag)
    ]
    data: Annotated[JsonlData | FolderData | Worlds | BenchmarkData, Field(discriminator="format")]  # type: ignore[assignment]
    training: Annotated[  # type: ignore[assignment]
        PicturesTraining | LearnedTraining | AsItIs | StoredTraining, Field(discriminator="kind")
    ]
    request: PicturesRequest  # type: ignore[assignment]
    evidence: PicturesEvidence = PicturesEvidence()  # type: ignore[call-arg]

    def identity(self) -> dict[str, Any]:
        """Without the sets and prompts that are only measured on or compared with."""
        data = self.data.model_dump(
            include={"format", "path", "users", "too_long", "views", "seed", "each", "side", "images", "tasks"}
        )
        return {**super().identity(), "data": data}
