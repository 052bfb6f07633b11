"""What a request is carried out on, and the moment a result leaves: held back where it is void, counted where it is not."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from expunge.core.certificate import UNCHANGED, Verdict
from expunge.core.data import Deletion
from expunge.core.digest import digest_file, digest_json
from expunge.core.errors import HeldBackError, RefusedError
from expunge.core.measurement import PRIVATE_BELOW, Evidence
from expunge.core.method import Outcome, Watch
from expunge.core.names import Names
from expunge.core.trained import Budget, Spent, Trained
from expunge.measuring import MeasureSettings
from expunge.model_folder import RECORD, ModelFolder, release_item
from expunge.report.folder import REVIEW, write_review
from expunge.report.outcome import HELD
from expunge.report.record import plain, slug
from expunge.requests_book import RESULT, RequestBook
from expunge.screening.result import ScreeningResult
from expunge.training.store import save_trained

_LOG = logging.getLogger(__name__)
WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".gguf")  # endings of files with weights


@dataclass(frozen=True)
class Accepted:
    """Who lets a result leave that would otherwise be held back, and why."""

    by: str
    reason: str


@dataclass(frozen=True)
class Case:
    """One model that the request applies to.

    Attributes:
        name: a heading in the report and a file name: letters, digits, underscores.
        make: trains or loads the model.
        budget: what to publish with, ``None`` where published already or where nothing is promised.
        method: how to forget.
        measuring: what to measure.
        untrained: the model before it is trained: what would refuse the trained one refuses it before hours of training.
        folder: where the model was published, with the ledger of its releases; ``None``: the model has no such record.
        trains: whether ``make`` trains, on data without anybody for whom an earlier request on the ledger was granted.
        known: the share of right answers of the model that ``make`` made, in words; empty before, and for models without one.
    """

    name: str
    make: Callable[[Watch], Trained]
    budget: Budget | None
    method: Any
    measuring: MeasureSettings = field(default_factory=MeasureSettings)
    seed: int = 0
    untrained: Trained | None = None
    folder: ModelFolder | None = None
    trains: bool = False
    known: list[str] = field(default_factory=list)


def model_name(sections: Mapping[str, Any]) -> str:
    """A name for the model of a job, from the sections that say how it is made; weights that come from files count as content.

    Folders play no part in it: a project may move.
    """

    def content(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: content(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [content(item) for item in value]
        if not isinstance(value, Path):
            return plain(value)
        if value.is_dir():
            weights = sorted(path for path in value.iterdir() if path.suffix in WEIGHTS or path.name == RECORD)
            return [value.name, *(digest_file(path) for path in weights)]
        return digest_file(value) if value.suffix in WEIGHTS and value.is_file() else value.name

    return digest_json(content(sections))


@dataclass(frozen=True)
class Setting:
    """What a request is carried out on.

    Attributes:
        title, dataset, note: for the report.
        deletion: what the request matches on the data, with named sets to measure on.
        model: tells the models of one ledger apart; empty where the ledger belongs to one model. See :func:`model_name`.
        config: the resolved configuration as YAML text (without the subject).
        approved_by: who overrules a quarantine, or ``None``.
        screen: judges the request; ``None``: its breadth alone is judged.
        accepted: who lets a void result leave all the same; ``None``: it is held back.
        copies: what else may hold the data, for the report's checklist.
        keep_retrained: whether the retrained model that was compared with stays in the private folder.
        private_below: values that were measured on fewer forgotten examples than this stay in the private folder.
    """

    title: str
    dataset: str
    deletion: Deletion
    config: str
    model: str = ""
    note: str = ""
    approved_by: str | None = None
    pdf: bool = True
    screen: Callable[[], ScreeningResult] | None = None
    accepted: Accepted | None = None
    private_below: int = PRIVATE_BELOW
    copies: Sequence[Mapping[str, Any]] = ()
    keep_retrained: bool = False


def without_names(setting: Setting, cases: Sequence[Case], names: Names) -> tuple[Setting, list[Case]]:
    """Title, data set, note, configuration and model names with hashes in place of the names of the request, and a warning.

    Nothing is refused: a person's name in a file's name is no reason to keep the person.
    """
    texts = {"the job's name": setting.title, "the data's name": setting.dataset, "the note": setting.note}
    texts |= {f"the model's name ({i + 1})": case.name for i, case in enumerate(cases)}
    settings = yaml.safe_load(setting.config)
    shown = names.hide_in(settings)
    held = [where for where, text in texts.items() if names.hide(text) != text]
    if held := [*held, *(["the job's settings"] if shown != settings else [])]:
        _LOG.warning("A name of the request stands in %s: records carry a hash in its place.", ", ".join(held))
    hidden = replace(
        setting, copies=names.hide_in([dict(item) for item in setting.copies]),
        title=names.hide(setting.title), dataset=names.hide(setting.dataset), note=names.hide(setting.note),
        config=setting.config if shown == settings else yaml.safe_dump(shown, sort_keys=False, allow_unicode=True),
    )  # fmt: skip
    return hidden, [replace(case, name=names.hide(case.name)) for case in cases]


def must_be_latest(cases: Sequence[Case], outcomes: Sequence[Outcome], identity: str, status: str | None) -> None:
    """Raise RefusedError if another request was released from a model while this one was being worked on."""
    for case, outcome in zip(cases, outcomes, strict=True):
        if case.folder is None or status == "released":
            continue
        if tuple(item for item in case.folder.book.spent() if item.request != identity) != outcome.before.spent:
            raise RefusedError(
                f"Another request was released from {case.folder.path} while this one ran: its certificate would not count "
                f"that release, and its noise is drawn. Supersede it (expunge requests supersede {identity}) and run the job "
                "under a new folder."
            )


def config(setting: Setting) -> str:
    """The configuration as it was, and who accepted its result: that may be added to a job that was held back."""
    if setting.accepted is None:
        return setting.config
    return setting.config + yaml.safe_dump({"accept": asdict(setting.accepted)}, sort_keys=False, allow_unicode=True)


def hold_back(
    void: list[str], evidence: Any, secrets: Any, setting: Setting, out: Path, private: Path, book: RequestBook, identity: str
) -> None:  # fmt: skip
    """Keep a void result at home unless a person has accepted it: what would be released has no bound at all.

    Raises:
        HeldBackError: saying where the review lies and how to go on.
    """
    if setting.accepted is not None:
        return
    write_review(out, {**evidence, HELD: True}, secrets)
    reason = f"the certificate of {', '.join(void)} is void"
    book.decide(identity, {"decision": "quarantine", "reason": reason, "by": "expunge", "of": RESULT})
    if not any(out.iterdir()):
        out.rmdir()
    raise HeldBackError(
        f"The result is held back: {reason}, so nothing bounds what the released model tells of the forgotten records. "
        f"{private / REVIEW} says which assumption failed. Mend the job and run it under another folder (of a published model: "
        f"after expunge requests supersede {identity}, for this one's noise is drawn), or set accept: {{by: …, reason: …}} in "
        "it to release the model all the same; later releases then promise nothing."
    )


def keep_retrained(private: Path, name: str, evidence: Evidence) -> list[dict[str, Any]]:
    """Store the retrained model that was compared with, where there is one; returns what the checklist of copies says of it.

    It knows nobody of this request, and everybody else: whoever goes next is still in it.
    """
    if (model := evidence.retrained) is None:
        return []
    gone = evidence.outcome.before.removed | evidence.outcome.deletion.ids
    place = private / f"retrained-{slug(name)}"
    save_trained(place, replace(model, trail=None, removed=gone, recipe=None))
    return [{"kind": "retrained", "name": place.name, "owner": "", "state": "kept", "date": None}]


def next_model(outcome: Outcome, run: Mapping[str, Any]) -> Trained:
    """The model that the next request starts from; a release whose certificate is void has spent everything."""
    after = outcome.after
    if run["verdict"] != Verdict.VOID or not after.spent:
        return after
    return replace(after, spent=(*after.spent[:-1], replace(after.spent[-1], mu=math.inf)))


def released(case: Case, outcome: Outcome, run: Mapping[str, Any]) -> dict[str, Any]:
    """What the ledger remembers of a release: what the next one composes with, as it stands after the checks."""
    after = next_model(outcome, run)
    spent = after.spent[-1] if after.spent else Spent(outcome.request["id"], len(after.removed), 0.0, "retrain")
    name = case.folder.book.model if case.folder else case.name
    afresh = not after.spent and outcome.status != UNCHANGED
    first = outcome.releases[0].artifact.digest
    item = release_item(name, spent, afresh=afresh, digest=first, views=outcome.digests)
    made = {"made_from": outcome.before.artifact.digest, "trained": case.trains}
    return {**item, **made, "method": outcome.method["digest"], "verdict": run["verdict"]}
