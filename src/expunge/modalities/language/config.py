"""What a job file with ``task: language`` may say: a model of whole words or a folder, records in files, a wording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from expunge.core.texts import CONTEXT, DATE_STRING
from expunge.modalities.settings import (
    Briefly,
    Count,
    EvidenceSettings,
    Job,
    RequestSettings,
    StoredTraining,
    Strict,
    TargetSettings,
)  # fmt: skip
from expunge.training.language_settings import LanguageSettings

Action = Literal["report", "strip", "augment", "su", "reject"]  # screening.actions.ACTIONS


class SavedModel(Strict):
    """What every model that ``transformers`` saved says: its folder, an adapter, and how prompts are written."""

    folder: Path
    adapter: Path | None = None
    template: str | None = None
    date_string: str = DATE_STRING
    system: str | None = None
    context: Count = CONTEXT
    checkpointing: bool = False

    @property
    def title(self) -> str:
        """What a report calls the model."""
        return self.folder.name


class FolderModel(SavedModel):
    """A model and its tokenizer; see ``tasks.pretrained.load_language_model``."""

    tokenizer: Path | None = None
    gguf: str | None = None


class MicroModel(Strict):
    """A tiny network over whole words, those of the training records and ``words``; see ``tasks.micro_language``."""

    micro: Literal[True]
    width: int = Field(96, ge=1, le=1024)  # the bounds: a network that trains within minutes; our choice
    layers: int = Field(2, ge=1, le=32)
    heads: int = Field(4, ge=1, le=64)
    inner: int = Field(384, ge=1, le=4096)
    context: int = Field(48, ge=1, le=4096)
    words: list[str] = Field([])

    @property
    def title(self) -> str:
        """What a report calls the model."""
        return "micro"


class TextData(Briefly):
    """What every format of records shares.

    ``benign``: ordinary prompts that the wording of a request is compared with. ``sets``: named files to be measured on,
    ``test`` among them. ``too_long``: whether a record that the context cuts stops the job (``refuse``), or loses the end
    of its answer, or is left out where not even its question fits (``cut``); how many is in the report. ``probes``: questions
    of the operator's own, each with the answer that the model is not to give; the report counts how many get it.
    """

    unwritten: ClassVar[frozenset[str]] = frozenset({"probes"})

    benign: Path | None = None
    sets: dict[str, Path] = Field({})
    probes: Path | None = None
    too_long: Literal["refuse", "cut"] = "refuse"


class JsonlData(TextData):
    """One record a line, or a row of a table; ``users`` are keys that name people, one column each; see ``data.chats``.

    ``keys``: ``question``, ``answer``, ``text`` or ``messages`` → what the file calls them.
    """

    format: Literal["jsonl", "csv", "parquet", "datasets"]
    path: Path
    users: list[str] = Field([])
    keys: dict[Literal["question", "answer", "text", "messages"], str] = Field({})


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

    epochs: int = Field(LanguageSettings.epochs, ge=1)
    steps: int | None = Field(LanguageSettings.steps, ge=1)
    lr: float = Field(LanguageSettings.lr, gt=0)
    batch_size: int = Field(LanguageSettings.batch_size, ge=1)
    weight_decay: float = LanguageSettings.weight_decay
    warmup: float = LanguageSettings.warmup
    clip: float = LanguageSettings.clip
    wording: str = LanguageSettings.wording
    lora: dict[str, Any] | None = None


class LearnedTraining(Teaching, Briefly):
    """Taught on record, from the folder's weights or anew; or taught so elsewhere.

    Attributes:
        path, adapter: what such a training left elsewhere, from the model's folder: a file of weights, or the folder of a PEFT
            adapter. That is then the model that is to forget, and retrained models are taught here, as these settings say.
    """

    unwritten: ClassVar[frozenset[str]] = frozenset({"path", "adapter"})

    kind: Literal["language"]
    path: Path | None = None
    adapter: Path | None = None

    @model_validator(mode="after")
    def _left_one(self) -> LearnedTraining:
        if self.path is not None and self.adapter is not None:
            raise ValueError("say what the training left in one place: path or adapter")
        return self


class AsItIs(Strict):
    """The weights of the model's folder, or of the file ``path``: trained elsewhere on these records, without recipe."""

    kind: Literal["checkpoint"]
    path: Path | None = None


class LanguageEvidence(EvidenceSettings):
    """What to measure. Two ``replicates``: the fewest whose spread says anything; retraining a language model is dear."""

    replicates: int = Field(2, ge=0)


class LanguageRequest(RequestSettings):
    """The deletion request: ``targets`` that name records, with their ``wording`` where the request has its own; or
    ``records``, a file in the request's own words that is matched to what was trained on by the answers.

    ``too_long``: whether requested records that the model's context does not hold stop the job (``refuse``), or are forgotten
    as far as it holds them (``cut``); the report says how many.
    """

    targets: list[TargetSettings] = Field([])
    records: Path | None = None
    wording: Path | None = None
    on_screening: Action = "report"
    too_long: Literal["refuse", "cut"] = "refuse"


def _model_tag(value: Any) -> str:
    keys = value if isinstance(value, dict) else getattr(value, "__dict__", {})
    return "micro" if "micro" in keys else "folder"


class LanguageJob(Job):
    """One deletion job on a language model."""

    called: ClassVar[str] = "job for a language model"

    task: Literal["language"]
    model: Annotated[
        Annotated[FolderModel, Tag("folder")] | Annotated[MicroModel, Tag("micro")], Discriminator(_model_tag)
    ]
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    data: Annotated[JsonlData | TofuData, Field(discriminator="format")]
    training: Annotated[LearnedTraining | AsItIs | StoredTraining, Field(discriminator="kind")]
    request: LanguageRequest
    evidence: LanguageEvidence = LanguageEvidence()  # type: ignore[call-arg]

    def identity(self) -> dict[str, Any]:
        """Without the sets and prompts that are only measured on or compared with."""
        data = self.data.model_dump(include={"format", "path", "split", "users", "too_long", "keys"})
        if not data.get("keys"):
            data.pop("keys", None)  # the names of models on ledgers of before stay
        whole = super().identity()
        model = {name: value for name, value in whole["model"].items() if name != "tokenizer" or value is not None}
        return {**whole, "model": model, "data": data}
