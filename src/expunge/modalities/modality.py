"""A kind of model: all that jobs and benchmarks must know about it. Everything else is the same for every kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from expunge.core.data import Data, Deletion, Ids
from expunge.core.request import Request
from expunge.core.task import Task
from expunge.core.trained import Recipe
from expunge.evidence.comparison import Reads
from expunge.modalities.settings import Job
from expunge.screening.result import ScreeningResult

if TYPE_CHECKING:
    from expunge.modalities.benchmark import Benchmark

AnyTask = TypeVar("AnyTask", bound=Task)
AnyData = TypeVar("AnyData", bound=Data)


@dataclass(frozen=True)
class Opened(Generic[AnyTask, AnyData]):
    """What the files of a job hold: read and checked, nothing trained yet.

    Attributes:
        task: how the model is run; where it is trained here from other weights than fresh ones, it starts from these.
        data: everything that the model was, or is to be, trained on.
        probes: named sets to measure on besides what is retained and forgotten.
        recipe: how the model is trained here; ``None``: it comes from disk.
        weights: from disk: the model itself where there is no recipe or it is ``finished``, else what training starts from;
            ``None``: none.
        finished: whether ``weights`` are those of a model that ``recipe`` is said to have made.
        name: what a report calls the model: a heading and a file name.
        dataset, note: what a report calls the data, and what its reader should know of them.
        files: whatever else the modality read and needs again.
        publishable: whether any method for such models has a promise to publish.
        long_training: what would refuse the trained model is to refuse the untrained one, before hours of training.
    """

    task: AnyTask
    data: AnyData
    probes: Mapping[str, Any]
    recipe: Recipe | None
    weights: Mapping[str, Any] | None
    name: str
    dataset: str
    note: str = ""
    files: Any = None
    publishable: bool = True
    long_training: bool = False
    finished: bool = False


@dataclass(frozen=True)
class Asked(Generic[AnyData]):
    """What a job asks to be forgotten.

    Attributes:
        request: the targets, and who asks.
        wording: the forgotten examples as the request words them; ``None``: as they were trained on.
        material: what was written to forget through, where no trained example goes (a concept); ``None``: the request's
            targets say what goes.
        absent: with material: ids that the retrained model is trained without; none: there is no retrained model.
        lost: ids of examples that the model cannot be trained on, for example because its context does not hold them.
        probes: named sets to measure on, as far as the model can read them.
        note: what a reader should know of this.
    """

    request: Request
    wording: AnyData | None = None
    lost: Ids = field(default_factory=Ids.none)
    probes: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    material: AnyData | None = None
    absent: Ids = field(default_factory=Ids.none)


class Modality(Reads, Protocol):
    """A kind of model. Entry points of the group ``expunge.modalities`` name objects that have these members.

    A modality measures the tasks that have its ``name`` (``read``, ``score`` and ``attacks``, see
    :class:`~expunge.evidence.comparison.Reads`). One that brings none of the three is measured by the mean loss of each set.
    """

    @property
    def name(self) -> str:
        """The ``task`` of job files: ``classification``, ``language``, …"""
        ...

    @property
    def kinds(self) -> Sequence[str]:
        """The kinds of targets that its data can match."""
        ...

    @property
    def job(self) -> type[Job]:
        """What its job files may say: common keys, and sections of its own for model, data, training and request."""
        ...

    @property
    def in_processes(self) -> bool:
        """Whether several processes of one run share its steps."""
        ...

    @property
    def benchmark(self) -> Benchmark:
        """What benchmarks ask of it: recipes, workloads, tables and outcomes."""
        ...

    def open(self, job: Any) -> Opened[Any, Any]:
        """Read every file that the job names; nothing is trained.

        Raises:
            InputError: for files, settings and weights that cannot be used.
        """
        ...

    def ask(self, job: Any, opened: Any) -> Asked[Any]:
        """The request of the job, matched against all of the data.

        Raises:
            InputError: for a request that cannot be read, or examples that the model cannot hold.
        """
        ...

    def screen(self, job: Any, opened: Any, asked: Any, deletion: Deletion) -> ScreeningResult:
        """Judge the request before anything is written.

        Raises:
            RefusedError: for a request that is to be rejected.
        """
        ...
