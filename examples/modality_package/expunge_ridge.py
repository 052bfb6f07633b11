"""Ridge regression as a kind of model: a table of numbers, one of whose columns is predicted from the others.

The minimiser of the mean of ½ (w·x + b - y)² plus ½ l2 (‖w‖² + b²) has a closed form (Hoerl and Kennard 1970), so retraining is
exact and takes milliseconds.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from expunge import (
    Artifact,
    Asked,
    Batch,
    Deletion,
    EvidenceSettings,
    Fact,
    InputError,
    Job,
    Kind,
    Opened,
    Origin,
    Outputs,
    RequestSettings,
    Rows,
    ScreeningResult,
    Strict,
    Target,
    Trained,
    screen_breadth,
)


class RidgeModel(Strict):
    """The ``model`` section: ``l2`` is the weight of the penalty."""

    l2: float = 1e-3


class RidgeData(Strict):
    """The ``data`` section: a CSV file, the column to predict, the columns to predict it from, those that name people."""

    path: Path
    label: str
    features: list[str]
    users: tuple[str, ...] = ()


class RidgeTraining(Strict):
    """The ``training`` section: there is one way."""

    kind: Literal["closed_form"]


class RidgeJob(Job):
    """What a job file with ``task: ridge`` may say."""

    task: Literal["ridge"]
    model: RidgeModel = RidgeModel()
    data: RidgeData
    training: RidgeTraining
    request: RequestSettings
    evidence: EvidenceSettings = EvidenceSettings()


@dataclass(frozen=True, eq=False)
class Table(Rows):
    """Rows whose ``y`` (n,) is a number and not a class: requests may name single rows and people."""

    def select(self, target: Target) -> Any:
        """Row ids that ``target`` names."""
        if target.kind not in (Kind.SAMPLES, Kind.USER):
            raise InputError(f"A table of numbers can lose samples or users; got a target of kind {target.kind}.")
        return super().select(target)

    def named(self) -> dict[str, list[tuple[str, ...]]]:
        """The people in each row, by which later runs recognise them."""
        return {name: people for name, people in super().named().items() if name != "class"}


def read_table(settings: RidgeData) -> Table:
    """The table of a job; raises InputError for a missing file or column, and for cells that are no finite numbers."""
    if not settings.path.is_file():
        raise InputError(f"There is no file {settings.path}; data.path names a CSV file.")
    with settings.path.open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    numbers = [*settings.features, settings.label]
    wanted = {*numbers, *settings.users}
    if not lines or (absent := sorted(wanted - set(lines[0]))):
        raise InputError(
            f"{settings.path.name} needs rows with the columns {sorted(wanted)}; lacking: {absent if lines else 'rows'}."
        )
    try:
        cells = np.array([[float(line[name]) for name in numbers] for line in lines])
    except (TypeError, ValueError) as error:
        raise InputError(f"{settings.path.name}: expected a number in each of {numbers}; {error}.") from None
    if not np.isfinite(cells).all():
        raise InputError(f"{settings.path.name}: expected finite numbers in {numbers}; fill or drop the others.")
    people = {name: [line[name] for line in lines] for name in settings.users}
    checked = Rows.of(cells[:, :-1], np.zeros(len(cells), dtype=int), people)  # refuses rows that name nobody
    return Table(checked.x, torch.from_numpy(cells[:, -1]), checked.ids, checked.columns, checked.preprocessing)


@dataclass(frozen=True)
class RidgeTask:
    """A linear layer with one output, in double precision. Batches have columns ``x`` (n, features) and ``y`` (n,)."""

    features: int
    name: str = "ridge"
    device: str = "cpu"

    def build(self, tensors: Mapping[str, Tensor] | None = None, *, seed: int = 0) -> nn.Module:
        """A layer of zeros, or one with the given weights; no start is drawn, so ``seed`` plays no part."""
        model = nn.Linear(self.features, 1, dtype=torch.float64)
        with torch.no_grad():
            model.weight.zero_(), model.bias.zero_()
        if tensors is not None:
            try:
                model.load_state_dict(dict(tensors))
            except RuntimeError as error:
                raise InputError(f"Expected the weights of a regression on {self.features} features: {error}") from None
        return model

    def released(self, model: nn.Module) -> dict[str, Tensor]:
        """Weight and intercept."""
        return dict(model.state_dict())

    def check(self, data: Table) -> None:
        """Raises InputError for another number of features."""
        if data.x.shape[1] != self.features:
            raise InputError(f"Expected {self.features} features; the table has {data.x.shape[1]}.")

    def batch(self, data: Table, index: Any = None) -> Batch:
        """The rows at ``index``, or all."""
        whole = Batch({"x": data.x.double(), "y": data.y})
        return whole if index is None else whole.take(torch.as_tensor(index))

    def outputs(self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch) -> Outputs:
        """Predictions, (n, 1)."""
        return Outputs(functional_call(model, dict(params), (batch["x"],)))

    def losses(self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Half of the squared error of each row, (n,)."""
        return (self.outputs(model, params, batch).logits[:, 0] - batch["y"]).square() / 2

    def files(self) -> dict[str, bytes]:
        """No further files are released with the weights."""
        return {}


@dataclass(frozen=True)
class ClosedForm:
    """Solves (XᵀX / n + l2 I) w = Xᵀy / n, with a column of ones in X for the intercept."""

    l2: float

    def describe(self) -> dict[str, Any]:
        """Settings that decide the model."""
        return {"recipe": "ridge regression", **asdict(self)}

    def fit(self, task: RidgeTask, data: Table, *, seed: int = 0, watch: Any = None) -> Trained:
        """The minimiser on ``data``. Its author declares that there is no start and that nothing was selected."""
        x = torch.cat([data.x.double(), torch.ones(len(data), 1, dtype=torch.float64)], 1)
        gram = x.T @ x / len(data) + self.l2 * torch.eye(x.shape[1], dtype=torch.float64)
        solution = torch.linalg.solve(gram, x.T @ data.y / len(data))
        facts = {
            "start": Fact("independent", Origin.DECLARED, "a closed form has no start"),
            "selection": Fact("fixed", Origin.DECLARED, "l2 was fixed before the rows were read"),
            "preprocessing": data.preprocessing,
        }
        return Trained(
            task, Artifact({"weight": solution[None, :-1], "bias": solution[-1:]}), data, self, facts=facts, seed=seed
        )


class RidgeModality:
    """Everything that jobs must know of this kind of model; see ``expunge.Modality``."""

    name = "ridge"
    kinds = (Kind.SAMPLES, Kind.USER)
    job = RidgeJob
    in_processes = False

    def open(self, job: RidgeJob) -> Opened[RidgeTask, Table]:
        """Read the table; nothing is trained."""
        table = read_table(job.data)
        task = RidgeTask(table.x.shape[1])
        return Opened(task, table, {}, ClosedForm(job.model.l2), None, "ridge", job.data.path.name, publishable=False)

    def ask(self, job: RidgeJob, opened: Opened[RidgeTask, Table]) -> Asked[Table]:
        """The request as the job states it."""
        return Asked(job.request.asked(), probes=opened.probes)

    def screen(self, job: RidgeJob, opened: Any, asked: Asked[Table], deletion: Deletion) -> ScreeningResult:
        """Rows carry no words: how broad the request is decides."""
        return screen_breadth(asked.request, deletion)


MODALITY = RidgeModality()
