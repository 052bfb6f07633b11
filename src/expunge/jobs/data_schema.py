"""What the section ``data`` of a job file may say: one class a format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Size = int | tuple[int, int]  # side of a square, or (height, width)
Count = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """Unknown keys are errors; settings do not change once they are checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StoredTraining(Strict):
    """A model that ``expunge publish`` wrote, with its ledger; or one from an earlier run or a Recorder (``save_trained``)."""

    kind: Literal["stored"]
    folder: Path


class DigitsData(Strict):
    """scikit-learn's digits with groups of ten consecutive images as synthetic people (column ``person``)."""

    format: Literal["digits"]


class CsvData(Strict):
    """A table; see ``data.tables.read_csv``."""

    format: Literal["csv"]
    path: Path
    label: str
    users: list[str] = []
    features: list[str] | None = None
    scale: dict[str, tuple[float, float]] = {}
    categories: dict[str, list[Any]] = {}
    classes: list[Any] | None = None
    standardise: bool = False
    test_path: Path | None = None


class ArraysData(Strict):
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
    seed: int = Field(0, ge=0)


class Cifar10Data(Strict):
    """CIFAR-10; see ``data.cifar``. ``normalisation: imagenet`` is what many pretrained networks expect."""

    format: Literal["cifar10"]
    path: Path | None = None
    normalisation: Literal["cifar", "imagenet"] = "cifar"
    limit: Count | None = None
    per_class: Count | None = None
    test_limit: Count | None = None
    seed: int = Field(0, ge=0)


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
    test: list[int] = [9, 10]


class ImagesData(Strict):
    """A folder of images, one subfolder a class; see ``data.images.image_folder``."""

    format: Literal["images"]
    path: Path
    test_path: Path | None = None
    size: Size | None = None
    channels: Literal[1, 3] = 3
    users: str | None = None
    classes: list[str] | None = None
    mean: list[float] | None = None
    std: list[float] | None = None


AnyData = Annotated[
    DigitsData | CsvData | ArraysData | MnistData | Cifar10Data | OmniglotData | OrlFacesData | ImagesData,
    Field(discriminator="format"),
]
FORMATS: dict[str, type[BaseModel]] = {
    "digits": DigitsData, "csv": CsvData, "arrays": ArraysData, "mnist": MnistData, "fashion_mnist": MnistData,
    "cifar10": Cifar10Data, "omniglot": OmniglotData, "orl_faces": OrlFacesData, "images": ImagesData,
}  # fmt: skip


_TITLES = {
    "digits": "scikit-learn digits", "mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10",
    "omniglot": "Omniglot small 1", "orl_faces": "ORL faces",
}  # fmt: skip


def called(data: Any) -> str:
    """What a report calls the data: the name of a public set, or of the file or folder."""
    return _TITLES.get(data.format) or data.path.name


def in_place(data: Any, absolute: Callable[[Path | None], Path | None]) -> Any:
    """``data`` with its paths made absolute."""
    paths = {name: absolute(getattr(data, name)) for name in ("path", "test_path") if name in type(data).model_fields}
    return data.model_copy(update=paths)
