"""What a job file may say. Unknown keys are errors: a setting that is silently ignored is a setting that was not made."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError

from expunge.core.errors import InputError
from expunge.jobs.data_schema import FORMATS, AnyData, StoredTraining, Strict, in_place
from expunge.jobs.language_schema import SECTIONS, TAGGED, LanguageJob
from expunge.jobs.request_schema import AcceptSettings, RequestSettings, TargetSettings, in_folder
from expunge.jobs.yaml_files import read_yaml
from expunge.report.shown import PRIVATE_BELOW

Checked = TypeVar("Checked", bound="Setup")
Model = TypeVar("Model", bound=BaseModel)


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


class UserTraining(Strict):
    """The user's own ``fit(data, seed) → module``, and what the user vouches for about it."""

    kind: Literal["user"]
    function: str
    declares: dict[Literal["start", "selection", "augmentation", "buffers_moved"], Any] = Field({})


class CheckpointTraining(Strict):
    """Weights that were trained elsewhere: adopted, without recipe."""

    kind: Literal["checkpoint"]
    path: Path


class BudgetSettings(Strict):
    """The promise made before requests come."""

    epsilon: float | None = None
    delta: float = 1e-5
    capacity: int
    sigma: float | None = None
    releases: int = 1


class EvidenceSettings(Strict):
    """What to measure."""

    reference: Literal["retrained", "none"] = "retrained"
    references: int = Field(16, ge=0)
    twins: int = Field(4, ge=0)
    trials: int = Field(400, ge=0)
    audit: bool = True
    pdf: bool = True
    private_below: int = Field(PRIVATE_BELOW, ge=1)


class Setup(Strict):
    """What jobs and benchmarks share: a model and its data."""

    task: Literal["classification"] = "classification"
    model: str
    model_settings: dict[str, Any] = Field({})
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    seed: int = Field(0, ge=0)
    data: AnyData


class Job(Setup):
    """One deletion job. ``excluded_by``: further ledgers whose granted requests are kept out of what is learnt."""

    name: str = "deletion"
    training: Annotated[
        GradientDescentTraining | StochasticTraining | UserTraining | StoredTraining | CheckpointTraining,
        Field(discriminator="kind"),
    ]
    publish: BudgetSettings | None = None
    request: RequestSettings
    method: dict[str, Any]
    evidence: EvidenceSettings = EvidenceSettings()  # type: ignore[call-arg]
    ledger: Path | None = None
    excluded_by: list[Path] = Field([])
    accept: AcceptSettings | None = None


def load_job(path: Path, overrides: Sequence[str] = ()) -> Job | LanguageJob:
    """Read and check a job file; paths in it are relative to the file. ``task: language`` has a schema of its own.

    Args:
        overrides: ``key.sub=value`` with YAML values, applied before checking.

    Raises:
        InputError: for a missing file, broken YAML, or anything the schema does not allow, all problems at once.
    """
    if not path.is_file():
        raise InputError(f"There is no job file {path}; give the path of a YAML file.")
    content = read_yaml(path, overrides)
    job = validated(LanguageJob if content.get("task") == "language" else Job, content, path.name)
    if not isinstance(job.method.get("name"), str):
        raise InputError(f"{path.name}: method needs a name, for example  method: {{name: r2d, rewind: 0.5}}.")
    base = path.resolve().parent
    if isinstance(job, Job):
        return in_its_folder(job, base)
    return job.model_copy(update={"request": in_folder(job.request, base)}).placed(lambda place: _absolute(base, place))


def validated(kind: type[Model], content: Any, name: str) -> Model:
    """``content`` as a job or recipe; raises InputError with all problems at once."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise InputError(
            f"{name} cannot be used:\n" + "\n".join(_problem(item, kind) for item in error.errors())
        ) from None


def _problem(item: Any, kind: type[BaseModel]) -> str:
    """One line about one thing that the schema does not allow."""
    parts = [str(part) for part in item["loc"]]
    tagged, sections = (TAGGED, SECTIONS) if kind is LanguageJob else (_KINDS, _SECTIONS)
    model = kind
    path: list[str] = []
    for part in parts:  # without the names that pydantic gives to the members of a union
        if part in tagged and len(path) == 1 and path[0] in ("model", "data", "training"):
            model = tagged[part]
            continue
        path.append(part)
        model = sections.get(".".join(name for name in path if not name.isdigit()), model)
    where = ".".join(path) or "(top)"
    if item["type"] == "extra_forbidden":
        known = sorted(model.model_fields)
        close = difflib.get_close_matches(parts[-1], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
        return f"  {where}: unknown key; {hint}"
    if item["type"] == "missing":
        return f"  {where}: missing; every {_named(kind)} needs it"
    return f"  {where}: {item['msg']} (got {item.get('input')!r:.60})"


def _named(kind: type[BaseModel]) -> str:
    return "job for a language model" if kind is LanguageJob else kind.__name__.lower()


_KINDS: dict[str, type[BaseModel]] = {
    **FORMATS, "gradient_descent": GradientDescentTraining, "stochastic": StochasticTraining, "user": UserTraining,
    "stored": StoredTraining, "checkpoint": CheckpointTraining,
}  # fmt: skip
_SECTIONS: dict[str, type[BaseModel]] = {
    "publish": BudgetSettings, "accept": AcceptSettings, "request": RequestSettings, "request.targets": TargetSettings,
    "evidence": EvidenceSettings,
}  # fmt: skip


def _absolute(base: Path, path: Path | None) -> Path | None:
    return None if path is None else path if path.is_absolute() else base / path


def in_its_folder(job: Checked, base: Path) -> Checked:
    """Paths made absolute relative to the file that was read."""

    def absolute(path: Path | None) -> Path | None:
        return _absolute(base, path)

    training: Any = job.training  # type: ignore[attr-defined]
    if isinstance(training, StoredTraining):
        training = training.model_copy(update={"folder": absolute(training.folder)})
    if isinstance(training, CheckpointTraining):
        training = training.model_copy(update={"path": absolute(training.path)})
    update = {"data": in_place(job.data, absolute), "training": training}
    if isinstance(job, Job):
        update["request"] = in_folder(job.request, base)
        update["ledger"] = absolute(job.ledger)
        update["excluded_by"] = [absolute(path) for path in job.excluded_by]
    return job.model_copy(update=update)
