"""What a job file with ``task: language`` may say: a model of whole words or a folder, records in files, a wording."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag

from expunge.jobs.data_schema import Count, StoredTraining, Strict
from expunge.jobs.request_schema import LanguageRequest, TargetSettings
from expunge.tasks.pretrained import CONTEXT
from expunge.training.language import LanguageTraining

Place = Callable[[Path | None], Path | None]


class FolderModel(Strict):
    """A model and its tokenizer as ``transformers`` saves them; see ``tasks.pretrained.load_language_model``."""

    folder: Path
    gguf: str | None = None
    adapter: Path | None = None
    template: str | None = None
    context: Count = CONTEXT
    checkpointing: bool = False

    @property
    def title(self) -> str:
        """What a report calls the model."""
        return self.folder.name


class MicroModel(Strict):
    """A tiny network over whole words, those of the training records and ``words``; see ``tasks.micro_language``."""

    micro: Literal[True]
    width: Count = 96
    layers: Count = 2
    heads: Count = 4
    inner: Count = 384
    context: Count = 48
    words: list[str] = Field([])

    @property
    def title(self) -> str:
        """What a report calls the model."""
        return "micro"


class TextData(Strict):
    """What every format of records shares.

    ``benign``: ordinary prompts that the wording of a request is compared with. ``sets``: named files to be measured on,
    ``test`` among them. ``too_long``: whether a record that the context cuts stops the job (``refuse``), or loses the end
    of its answer, or is left out where not even its question fits (``cut``); how many is in the report.
    """

    benign: Path | None = None
    sets: dict[str, Path] = Field({})
    too_long: Literal["refuse", "cut"] = "refuse"


class JsonlData(TextData):
    """One record a line; ``users`` are keys that name people, one column each."""

    format: Literal["jsonl"]
    path: Path
    users: list[str] = Field([])


class TofuData(TextData):
    """A split of TOFU (column ``author``), and the splits ``measure`` to be measured on; see ``data.tofu``.

    Without ``path``, in the folder that ``EXPUNGE_DATA`` names.
    """

    format: Literal["tofu"]
    path: Path | None = None
    split: str = "full"
    measure: list[str] = Field([])


class Teaching(Strict):
    """How records are learnt: settings of ``training.language.LanguageTraining``."""

    epochs: int = Field(LanguageTraining.epochs, ge=1)
    steps: int | None = Field(LanguageTraining.steps, ge=1)
    lr: float = Field(LanguageTraining.lr, gt=0)
    batch_size: int = Field(LanguageTraining.batch_size, ge=1)
    weight_decay: float = LanguageTraining.weight_decay
    warmup: float = LanguageTraining.warmup
    clip: float = LanguageTraining.clip
    wording: str = LanguageTraining.wording
    lora: dict[str, Any] | None = None


class LearnedTraining(Teaching):
    """Taught on record, from the folder's weights or anew."""

    kind: Literal["language"]


class AsItIs(Strict):
    """The weights of the model's folder, or of the file ``path``: trained elsewhere on these records, without recipe."""

    kind: Literal["checkpoint"]
    path: Path | None = None


class LanguageEvidence(Strict):
    """What to measure. Two ``twins``: the fewest whose spread says anything; retraining a language model is dear."""

    reference: Literal["retrained", "none"] = "retrained"
    twins: int = Field(2, ge=0)
    pdf: bool = True


def _model_tag(value: Any) -> str:
    keys = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    return "micro" if "micro" in keys else "folder"


class LanguageJob(Strict):
    """One deletion job on a language model. ``excluded_by``: as in jobs for classifiers."""

    name: str = "deletion"
    task: Literal["language"]
    model: Annotated[
        Annotated[FolderModel, Tag("folder")] | Annotated[MicroModel, Tag("micro")], Discriminator(_model_tag)
    ]
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    device: str = "cpu"
    seed: int = Field(0, ge=0)
    data: Annotated[JsonlData | TofuData, Field(discriminator="format")]
    training: Annotated[LearnedTraining | AsItIs | StoredTraining, Field(discriminator="kind")]
    request: LanguageRequest
    method: dict[str, Any]
    evidence: LanguageEvidence = LanguageEvidence()  # type: ignore[call-arg]
    ledger: Path | None = None
    excluded_by: list[Path] = Field([])

    def placed(self, absolute: Place) -> LanguageJob:
        """The job with its paths made absolute."""

        def of(section: Any, *names: str) -> Any:
            return section.model_copy(update={name: absolute(getattr(section, name)) for name in names})

        model = of(self.model, "folder", "adapter") if isinstance(self.model, FolderModel) else self.model
        training: Any = self.training
        if isinstance(training, AsItIs | StoredTraining):
            training = of(training, "path" if isinstance(training, AsItIs) else "folder")
        sets = {name: absolute(path) for name, path in self.data.sets.items()}
        data = of(self.data, "path", "benign").model_copy(update={"sets": sets})
        request = of(self.request, "records", "wording")
        update = {"model": model, "training": training, "data": data, "request": request}
        excluded_by = [absolute(path) for path in self.excluded_by]
        return self.model_copy(update=update | {"ledger": absolute(self.ledger), "excluded_by": excluded_by})


TAGGED: dict[str, type[BaseModel]] = {  # members of unions by the names that pydantic gives them
    "folder": FolderModel, "micro": MicroModel, "jsonl": JsonlData, "tofu": TofuData, "language": LearnedTraining,
    "checkpoint": AsItIs, "stored": StoredTraining,
}  # fmt: skip
SECTIONS: dict[str, type[BaseModel]] = {
    "request": LanguageRequest, "request.targets": TargetSettings, "evidence": LanguageEvidence,
}  # fmt: skip
