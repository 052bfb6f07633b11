"""What a job file may say. Unknown keys are errors: a setting that is silently ignored is a setting that was not made."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from expunge.core.errors import InputError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DigitsData(_Strict):
    """scikit-learn's digits with groups of ten consecutive images as synthetic people (column ``person``)."""

    format: Literal["digits"]


class CsvData(_Strict):
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


class ArraysData(_Strict):
    """``x``, ``y`` and user columns in an ``.npz`` or ``.safetensors`` file."""

    format: Literal["arrays"]
    path: Path
    test_path: Path | None = None


class GradientDescentTraining(_Strict):
    """Full-batch descent on record."""

    kind: Literal["gradient_descent"]
    steps: int
    lr: float | Literal["auto"] = "auto"
    l2: float = 0.0
    clip: float | None = None
    rewinds: list[float] = [0.1, 0.25, 0.5, 0.75, 1.0]
    constants: dict[str, float] = {}
    estimate: bool = False


class StochasticTraining(_Strict):
    """Ordinary mini-batch training."""

    kind: Literal["stochastic"]
    epochs: int
    lr: float
    batch_size: int = 128
    momentum: float = 0.0
    optimizer: Literal["sgd", "adam"] = "sgd"
    schedule: Literal["constant", "cosine"] = "constant"
    l2: float = 0.0


class UserTraining(_Strict):
    """The user's own ``fit(data, seed) → module``, and what the user vouches for about it."""

    kind: Literal["user"]
    function: str
    declares: dict[Literal["start", "selection", "augmentation", "buffers_moved"], Any] = {}


class StoredTraining(_Strict):
    """A model with its trail from an earlier run or from a Recorder (``save_trained``)."""

    kind: Literal["stored"]
    folder: Path


class CheckpointTraining(_Strict):
    """Weights that were trained elsewhere: adopted, without recipe."""

    kind: Literal["checkpoint"]
    path: Path


class BudgetSettings(_Strict):
    """The promise made before requests come."""

    epsilon: float | None = None
    delta: float = 1e-5
    capacity: int
    sigma: float | None = None
    releases: int = 1


class TargetSettings(_Strict):
    """One thing to forget."""

    kind: str
    where: dict[str, Any]


class RequestSettings(_Strict):
    """The deletion request. Names stay in this file and in memory; records carry keyed hashes."""

    subject: str
    targets: list[TargetSettings] = Field(min_length=1)
    ground: str = "not stated"
    received: date | None = None
    due: date | None = None
    approved_by: str | None = None


class EvidenceSettings(_Strict):
    """What to measure."""

    reference: Literal["retrained", "none"] = "retrained"
    references: int = Field(16, ge=0)
    twins: int = Field(4, ge=0)
    trials: int = Field(400, ge=0)
    audit: bool = True
    pdf: bool = True


class Job(_Strict):
    """One deletion job."""

    name: str = "deletion"
    task: Literal["classification"] = "classification"
    model: str
    model_settings: dict[str, Any] = {}
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    seed: int = Field(0, ge=0)
    data: Annotated[DigitsData | CsvData | ArraysData, Field(discriminator="format")]
    training: Annotated[
        GradientDescentTraining | StochasticTraining | UserTraining | StoredTraining | CheckpointTraining,
        Field(discriminator="kind"),
    ]
    publish: BudgetSettings | None = None
    request: RequestSettings
    method: dict[str, Any]
    evidence: EvidenceSettings = EvidenceSettings()  # type: ignore[call-arg]
    ledger: Path | None = None


def load_job(path: Path, overrides: Sequence[str] = ()) -> Job:
    """Read and check a job file; paths in it are relative to the file.

    Args:
        overrides: ``key.sub=value`` with YAML values, applied before checking.

    Raises:
        InputError: for a missing file, broken YAML, or anything the schema does not allow, all problems at once.
    """
    if not path.is_file():
        raise InputError(f"There is no job file {path}; give the path of a YAML file.")
    content = _parsed(path.read_text(encoding="utf-8", errors="replace"), path.name)
    if not isinstance(content, dict):
        raise InputError(f"Expected {path.name} to hold keys and values; got {type(content).__name__}.")
    for override in overrides:
        _override(content, override)
    try:
        job = Job.model_validate(content)
    except ValidationError as error:
        raise InputError(
            f"{path.name} cannot be used:\n" + "\n".join(_problem(item) for item in error.errors())
        ) from None
    if not isinstance(job.method.get("name"), str):
        raise InputError(f"{path.name}: method needs a name, for example  method: {{name: r2d, rewind: 0.5}}.")
    return _resolved(job, path.resolve().parent)


class _Loader(yaml.SafeLoader):
    """YAML without two of its traps: ``1e-5`` is a number, and a key that comes twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As the parent's, refusing repeated keys."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if isinstance(key, str | int | float | bool) and key in seen:
                raise yaml.YAMLError(f"the key {key!r} comes twice (line {key_node.start_mark.line + 1})")
            seen.add(key if isinstance(key, str | int | float | bool) else id(key_node))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _parsed(text: str, name: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{name} is not readable YAML: {error}") from None


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f"Expected --set key.sub=value; got {override!r}.")
    *parents, last = key.split(".")
    place: Any = content
    for parent in parents:
        if isinstance(place, dict):
            place = place.setdefault(parent, {})
        elif isinstance(place, list) and parent.isdigit() and int(parent) < len(place):
            place = place[int(parent)]
        else:
            place = None
        if not isinstance(place, dict | list):
            raise InputError(f"--set {key}: {parent} is not a section of the job file.")
    found = _parsed(value, f"--set {key}")
    if isinstance(place, dict):
        place[last] = found
    elif last.isdigit() and int(last) < len(place):
        place[int(last)] = found
    else:
        raise InputError(f"--set {key}: expected a number below {len(place)} in place of {last!r}, it counts a list.")


def _problem(item: Any) -> str:
    """One line about one thing that the schema does not allow."""
    parts = [str(part) for part in item["loc"]]
    model: type[BaseModel] = Job
    path: list[str] = []
    for part in parts:  # without the names that pydantic gives to the members of a union
        if part in _KINDS and len(path) == 1 and path[0] in ("data", "training"):
            model = _KINDS[part]
            continue
        path.append(part)
        model = _SECTIONS.get(".".join(name for name in path if not name.isdigit()), model)
    where = ".".join(path) or "(top)"
    if item["type"] == "extra_forbidden":
        known = sorted(model.model_fields)
        close = difflib.get_close_matches(parts[-1], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
        return f"  {where}: unknown key; {hint}"
    if item["type"] == "missing":
        return f"  {where}: missing; every job needs it"
    return f"  {where}: {item['msg']} (got {item.get('input')!r:.60})"


_KINDS: dict[str, type[BaseModel]] = {
    "digits": DigitsData, "csv": CsvData, "arrays": ArraysData, "gradient_descent": GradientDescentTraining,
    "stochastic": StochasticTraining, "user": UserTraining, "stored": StoredTraining, "checkpoint": CheckpointTraining,
}  # fmt: skip
_SECTIONS: dict[str, type[BaseModel]] = {
    "publish": BudgetSettings, "request": RequestSettings, "request.targets": TargetSettings,
    "evidence": EvidenceSettings,
}  # fmt: skip


def _resolved(job: Job, base: Path) -> Job:
    """Paths made absolute relative to the job file."""

    def absolute(path: Path | None) -> Path | None:
        return None if path is None else path if path.is_absolute() else base / path

    data = job.data
    if isinstance(data, CsvData | ArraysData):
        data = data.model_copy(update={"path": absolute(data.path), "test_path": absolute(data.test_path)})
    training = job.training
    if isinstance(training, StoredTraining):
        training = training.model_copy(update={"folder": absolute(training.folder)})
    if isinstance(training, CheckpointTraining):
        training = training.model_copy(update={"path": absolute(training.path)})
    return job.model_copy(update={"data": data, "training": training, "ledger": absolute(job.ledger)})
