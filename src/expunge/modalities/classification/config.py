"""What a job file for a classifier may say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from expunge.modalities.settings import (
    Briefly,
    CheckpointTraining,
    Count,
    EvidenceSettings,
    Job,
    OwnSets,
    RequestSettings,
    Seed,
    StoredTraining,
    Strict,
)  # fmt: skip

Size = int | tuple[int, int]  # side of a square, or (height, width)


class DigitsData(Strict):
    """scikit-learn's digits with groups of ten consecutive images as synthetic people (column ``person``)."""

    format: Literal["digits"]


class CsvData(OwnSets):
    """A table; see ``data.tables.read_csv``."""

    format: Literal["csv"]
    path: Path
    label: str
    users: list[str] = Field([])
    features: list[str] | None = None
    scale: dict[str, tuple[float, float]] = Field({})
    categories: dict[str, list[Any]] = Field({})
    classes: list[Any] | None = None
    standardise: bool = False
    test_path: Path | None = None


class ArraysData(OwnSets):
    """``x``, ``y`` and user columns in an ``.npz`` or ``.safetensors`` file."""

    format: Literal["arrays"]
    path: Path
    test_path: Path | None = None


class MnistData(Strict):
    """MNIST or Fashion-MNIST; see ``data.idx``. Without ``path``, in the folder that ``EXPUNGE_DATA`` names."""

    format: Literal["mnist", "fashion_mnist"]
    path: Path | None = None
    limit: Count | None = None
    per_class: Count | None = None
    test_limit: Count | None = None
    seed: Seed = 0


class Cifar10Data(Strict):
    """CIFAR-10; see ``data.cifar``. ``normalisation: imagenet`` is what many pretrained networks expect."""

    format: Literal["cifar10"]
    path: Path | None = None
    normalisation: Literal["cifar", "imagenet"] = "cifar"
    limit: Count | None = None
    per_class: Count | None = None
    test_limit: Count | None = None
    seed: Seed = 0


class OmniglotData(Strict):
    """Omniglot small 1 with its drawers as users (column ``drawer``); see ``data.images.omniglot`` on ``split``."""

    format: Literal["omniglot"]
    path: Path | None = None
    size: Count = 28
    split: Literal["drawers", "drawings"] = "drawers"
    share: float = 0.2


class OrlFacesData(Strict):
    """The ORL faces: 40 people as classes and as users (column ``person``); see ``data.images.orl_faces``."""

    format: Literal["orl_faces"]
    path: Path | None = None
    size: Size = (56, 46)
    test: list[int] = Field([9, 10])


class HeartDiseaseData(Strict):
    """UCI Heart Disease: four hospitals (columns ``hospital``, ``patient``); see ``data.heart.heart_disease``."""

    format: Literal["heart_disease"]
    path: Path | None = None


class UsersFile(Strict):
    """A CSV table that says whose each image is: a column ``path``, and columns that name people."""

    file: Path


class ImagesData(OwnSets):
    """A folder of images, one subfolder a class; see ``data.images.image_folder``."""

    format: Literal["images"]
    path: Path
    test_path: Path | None = None
    size: Size | None = None
    channels: Literal[1, 3] = 3
    users: str | UsersFile | None = None
    classes: list[str] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None


class PythonData(Briefly):
    """What a callable of the operator's own returns; see ``data.datasets``. ``test`` is another one, to be measured on, and so
    are those of ``sets`` and ``probes``, which mean what they mean of files (:class:`OwnSets`).
    """

    unwritten: ClassVar[frozenset[str]] = frozenset({"sets", "probes"})

    format: Literal["python"]
    function: str
    settings: dict[str, Any] = Field({})
    test: str | None = None
    test_settings: dict[str, Any] = Field({})
    classes: list[str] = Field([])
    sets: dict[str, str] = Field({})
    probes: str | None = None


AnyData = Annotated[
    DigitsData
    | CsvData
    | ArraysData
    | MnistData
    | Cifar10Data
    | OmniglotData
    | OrlFacesData
    | HeartDiseaseData
    | ImagesData
    | PythonData,
    Field(discriminator="format"),
]
_TITLES = {
    "digits": "scikit-learn digits", "mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10",
    "omniglot": "Omniglot small 1", "orl_faces": "ORL faces",
    "heart_disease": "UCI Heart Disease",
}  # fmt: skip


def called(data: Any) -> str:
    """What a report calls the data: the name of a public set, or of the file or folder."""
    if data.format == "python":
        return data.function.rpartition(":")[2]
    return _TITLES.get(data.format) or data.path.name


Init = Literal["module", "seed"]  # what fills fresh weights: the model's own code, or expunge from the seed alone


class GradientDescentTraining(Strict):
    """Full-batch descent on record."""

    kind: Literal["gradient_descent"]
    init: Init = "module"
    steps: int
    lr: float | Literal["auto"] = "auto"
    l2: float = 0.0
    clip: float | None = None
    rewinds: list[float] = Field([0.1, 0.25, 0.5, 0.75, 1.0])
    constants: dict[str, float] = Field({})
    estimate: bool = False


class StochasticTraining(Strict):
    """Ordinary mini-batch training."""

    kind: Literal["stochastic"]
    init: Init = "module"
    epochs: int
    lr: float
    batch_size: int = 128
    momentum: float = 0.0
    optimizer: Literal["sgd", "adam"] = "sgd"
    schedule: Literal["constant", "cosine"] = "constant"
    l2: float = 0.0
    augment: Literal["none", "crop_flip"] = "none"


Declares = dict[Literal["start", "selection", "augmentation", "buffers_moved"], Any]


class UserTraining(Briefly):
    """The user's own ``fit(data, seed) → module``, and what the user vouches for about it.

    Attributes:
        path: of the weights that it left, which are then the model that is to forget; without them it trains that model too.
    """

    unwritten: ClassVar[frozenset[str]] = frozenset({"path"})

    kind: Literal["user"]
    function: str
    declares: Declares = Field({})
    path: Path | None = None


class StoredClassifier(StoredTraining, Briefly):
    """A stored model; with ``function`` where the user's own training made it, which no folder can hold."""

    unwritten: ClassVar[frozenset[str]] = frozenset({"function", "declares"})

    function: str | None = None
    declares: Declares = Field({})


class ClassifierEvidence(EvidenceSettings):
    """What to measure: also shadow models, releases per world (``trials``) and the one-run audit."""

    renamed: ClassVar[Mapping[str, str]] = {**EvidenceSettings.renamed, "references": "shadow_models"}

    shadow_models: int = Field(16, ge=0)
    trials: int = Field(400, ge=0)
    audit: bool = True


class Setup(Strict):
    """What jobs and benchmarks share: a model and its data."""

    task: Literal["classification"] = "classification"
    model: str
    model_settings: dict[str, Any] = Field({})
    output: str | int | None = None
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    seed: Seed = 0
    data: AnyData


class ClassifierJob(Setup, Job):
    """One deletion job on a classifier."""

    stored: ClassVar[type[StoredTraining]] = StoredClassifier

    training: Annotated[
        GradientDescentTraining | StochasticTraining | UserTraining | StoredClassifier | CheckpointTraining,
        Field(discriminator="kind"),
    ]
    request: RequestSettings
    evidence: ClassifierEvidence = ClassifierEvidence()  # type: ignore[call-arg]

    def identity(self) -> dict[str, Any]:
        """Without the sets that are only measured on."""
        return OwnSets.left_out_of(super().identity())
