"""What every job file may say, whatever its model is. Unknown keys are errors: a setting that is silently ignored is a
setting that was not made.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from datetime import date as Day
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from expunge.core.measurement import PRIVATE_BELOW
from expunge.core.request import Request, Target
from expunge.modalities.id_files import with_ids

_LOG = logging.getLogger(__name__)
Section = TypeVar("Section", bound=BaseModel)
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**62)]  # torch takes 64 bits; seeds derived from one are a little larger


class Strict(BaseModel):
    """Unknown keys are errors, and so are numbers that are none (NaN) or infinite; settings do not change once checked.

    ``renamed`` maps the keys that a version before had to the present ones: they are read under their new names, and a
    warning on standard error says so once in a process.
    """

    renamed: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _present_names(cls, content: Any) -> Any:
        if not isinstance(content, Mapping) or not (former := [name for name in cls.renamed if name in content]):
            return content
        if both := [name for name in former if cls.renamed[name] in content]:
            raise ValueError(f"{both[0]} is the former name of {cls.renamed[both[0]]}; say the latter alone")
        _warn_of_names(tuple((name, cls.renamed[name]) for name in former))
        return {cls.renamed.get(name, name): value for name, value in content.items()}


@functools.cache
def _warn_of_names(renamed: tuple[tuple[str, str], ...]) -> None:
    """Once for the same names, however often a file with them is read."""
    words = ", ".join(f"{former} (now {present})" for former, present in renamed)
    _LOG.warning("Keys with a new name were read under it: %s. Later versions may not know the former ones.", words)


class Briefly(Strict):
    """Settings that are written down only where they say something, so that names and digests of jobs and recipes that were
    written before there were such settings stay as they are. ``unwritten`` names them.
    """

    unwritten: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _briefly(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in write(self).items() if value or name not in self.unwritten}


class OwnSets(Briefly):
    """Further files or folders of the same form, to be measured on besides: ``sets`` by name; and ``probes``, examples of the
    operator's own, whose label is the answer that the model is not to give: the report counts how many get it.
    """

    unwritten: ClassVar[frozenset[str]] = frozenset({"sets", "probes"})

    sets: dict[str, Path] = Field({})
    probes: Path | None = None

    @staticmethod
    def left_out_of(identity: Mapping[str, Any]) -> dict[str, Any]:
        """What tells a model from others, without the sets that it is only measured on."""
        data = {name: value for name, value in identity["data"].items() if name not in OwnSets.unwritten}
        return {**identity, "data": data}


class StoredTraining(Strict):
    """A model that ``expunge publish`` wrote, with its ledger; or one from an earlier run or a Recorder (``save_trained``)."""

    kind: Literal["stored"]
    folder: Path


class CheckpointTraining(Strict):
    """Weights that were trained elsewhere: adopted, without recipe."""

    kind: Literal["checkpoint"]
    path: Path


class TargetSettings(Strict):
    """One thing to forget. ``where`` names columns and values, a list of values each of them; ``ids`` may be a file."""

    kind: str
    where: dict[str, Any]

    def in_folder(self, folder: Path) -> TargetSettings:
        """The target with its ids read from the file that it names, if it names one.

        Raises:
            InputError: as ``modalities.id_files.with_ids``.
        """
        return self.model_copy(update={"where": with_ids(self.kind, self.where, folder)})


class RequestSettings(Strict):
    """The deletion request. Names stay in this file and in memory; records carry keyed hashes.

    Attributes:
        subject: who asks, or on whose behalf.
        targets: what must be forgotten.
        ground: the legal or operational reason, without names.
        received, due: the day it came, and the day an answer is owed.
        approved_by: who overruled screening, where a person did.
    """

    subject: str
    targets: list[TargetSettings] = Field(min_length=1)
    ground: str = "not stated"
    received: date | None = None
    due: date | None = None
    approved_by: str | None = None

    def asked(self, targets: Sequence[Target] | None = None) -> Request:
        """The request; with ``targets`` instead of its own where these follow from something else."""
        own = [Target(item.kind, item.where) for item in self.targets] if targets is None else targets
        dates = {name: value for name in ("received", "due") if (value := getattr(self, name)) is not None}
        return Request(self.subject, tuple(own), self.ground, **dates)


class CopySettings(Strict):
    """What else may hold the data of the request, for the checklist of the report.

    Attributes:
        kind: ``weights`` (the model of before), ``adapters``, ``exports``, ``descendants``, ``embeddings``,
            ``caches``, ``backups``, ``deployments`` or ``data``.
        name: which one. owner: who answers for it.
        state: what became of it. date: when.
    """

    kind: Literal[
        "weights", "adapters", "exports", "descendants", "embeddings", "caches", "backups", "deployments", "data"
    ]
    name: str = ""
    owner: str = ""
    state: Literal["open", "removed", "replaced", "kept"] = "open"
    date: Day | None = None


class AcceptSettings(Strict):
    """Who lets a result leave that would be held back, or accepts one that is undecidable, and why: the report prints both."""

    by: str = Field(min_length=1)
    reason: str = Field(min_length=1)


class BudgetSettings(Strict):
    """The promise made before requests come."""

    epsilon: float | None = None
    delta: float = 1e-5
    capacity: int
    sigma: float | None = None
    releases: int = 1


class EvidenceSettings(Briefly):
    """What to measure, for every kind of model.

    Attributes:
        reference: ``retrained``, or ``none`` where retraining is not wanted: ideals are then unknown.
        replicates: further retrainings from other seeds, for what two retrainings differ by.
        keep_retrained: keep the first retrained model in the private folder, as ``retrained-NAME``; it is on the report's list
            of what else may hold data.
        pdf: whether to write ``report.pdf`` too.
        private_below: values on fewer forgotten examples than this stay in the private folder.
    """

    renamed: ClassVar[Mapping[str, str]] = {"twins": "replicates"}
    unwritten: ClassVar[frozenset[str]] = frozenset({"keep_retrained"})

    reference: Literal["retrained", "none"] = "retrained"
    replicates: int = Field(4, ge=0)
    keep_retrained: bool = False
    pdf: bool = True
    private_below: int = Field(PRIVATE_BELOW, ge=1)

    def measuring(self) -> dict[str, Any]:
        """The settings of ``measuring.MeasureSettings``; whatever a kind of model has no key for is not measured."""
        off = {"shadow_models": 0, "trials": 0, "audit": False}
        return off | self.model_dump(exclude={"pdf", "private_below", "keep_retrained"})


class Job(Strict):
    """One deletion job: what all kinds of models share.

    A kind of model narrows ``task``, ``model``, ``data``, ``training``, ``request`` and ``evidence`` to sections of its own.

    Attributes:
        name: title of the report.
        task: the name of the modality.
        model, data, training, request, evidence: the sections.
        device, seed: a torch device; one seed for everything pseudo-random.
        publish: the promise that is made before requests come.
        method: ``name``, and the method's settings.
        expected_accuracy: the share of right answers that the original model should have, on test examples where the job names
            some, else on its training examples (language models: the share of the answers' tokens). One that has less is
            refused before anything else is trained; without it a model that is no better than chance is only warned of.
        ledger: the ledger file, where it is not the one beside the model.
        excluded_by: further ledgers whose granted requests are kept out of what is learnt.
        copies: what else may hold the data, with owner, state and date: the report's checklist.
        accept: who lets a void result leave, or takes one of which measuring cannot tell whether it forgets, and why.
    """

    called: ClassVar[str] = "job"  # in messages
    stored: ClassVar[type[StoredTraining]] = StoredTraining  # the section that names a model in a folder
    _file: str = PrivateAttr("the job")  # the name of the file that it was read from, for messages

    name: str = Field("deletion", min_length=1)
    task: Any  # the name of the modality
    model: Any
    device: str = "cpu"
    seed: Seed = 0
    data: Any
    training: Any
    publish: BudgetSettings | None = None
    request: Any
    method: dict[str, Any]
    evidence: Any
    ledger: Path | None = None
    excluded_by: list[Path] = Field([])
    accept: AcceptSettings | None = None
    copies: list[CopySettings] = Field([])
    expected_accuracy: float | None = Field(None, ge=0, le=1)

    @property
    def file(self) -> str:
        """The name of the file that it was read from, for messages."""
        return self._file

    def read_from(self, name: str) -> Self:
        """The same job, whose messages name the file ``name``."""
        self._file = name
        return self

    def known_copies(self) -> list[dict[str, Any]]:
        """What may hold the data by what the job itself says: ``copies``, and where these do not name them, the files of the
        data, of the model that is to forget and of its adapter. Those are open, with nobody for an owner."""
        training, adapter = self.training, getattr(self.model, "adapter", None)
        weights = getattr(training, "path", None)
        if weights is None and adapter is None and getattr(training, "kind", None) == "checkpoint":
            weights = getattr(self.model, "folder", None)
        places = [("weights", weights), ("adapters", adapter), ("adapters", getattr(training, "adapter", None)),
                  ("data", getattr(self.data, "path", None))]  # fmt: skip
        said = [item.model_dump(mode="json") for item in self.copies]
        known = {(item["kind"], item["name"]) for item in said}
        return said + [
            CopySettings.model_validate({"kind": kind, "name": place.name}).model_dump(mode="json")
            for kind, place in places
            if isinstance(place, Path) and (kind, place.name) not in known
        ]

    def identity(self) -> dict[str, Any]:
        """The sections that say how the model is made, and of which data: they tell one model from another."""
        names = ("model", "model_settings", "dtype", "training", "network", "data", "seed")
        return self.model_dump(include={name for name in names if name in type(self).model_fields})


def in_folder(section: Section, folder: Path) -> Section:
    """``section`` with relative paths made absolute and files of ids read; both begin in ``folder``.

    Raises:
        InputError: for a file of ids that cannot be read.
    """

    def placed(value: Any) -> Any:
        if isinstance(value, TargetSettings):
            return value.in_folder(folder)
        return value if not isinstance(value, Path) or value.is_absolute() else folder / value

    return _changed(section, placed)


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """``value`` with everything in it that is no section, list or mapping as ``change`` leaves it."""
    if isinstance(value, BaseModel) and not isinstance(value, TargetSettings):
        fields = {name: _changed(getattr(value, name), change) for name in type(value).model_fields}
        return value.model_copy(update=fields)
    if isinstance(value, Mapping):
        return {name: _changed(item, change) for name, item in value.items()}
    if isinstance(value, list):
        return [_changed(item, change) for item in value]
    return change(value)
