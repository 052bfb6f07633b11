"""What the section ``request`` of a job file may say."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from expunge.jobs.data_schema import Strict
from expunge.jobs.id_files import with_ids

Action = Literal["report", "strip", "augment", "su", "reject"]  # screening.actions.ACTIONS


class TargetSettings(Strict):
    """One thing to forget. ``where`` names columns and values, a list of values each of them; ``ids`` may be a file."""

    kind: str
    where: dict[str, Any]

    def in_folder(self, folder: Path) -> TargetSettings:
        """The target with its ids read from the file that it names, if it names one.

        Raises:
            InputError: as ``jobs.id_files.with_ids``.
        """
        return self.model_copy(update={"where": with_ids(self.kind, self.where, folder)})


def in_folder(request: Any, folder: Path) -> Any:
    """A request of a job with its targets' files of ids read; relative names begin in ``folder``."""
    targets = [target.in_folder(folder) for target in request.targets]
    return request.model_copy(update={"targets": targets})


class RequestSettings(Strict):
    """The deletion request. Names stay in this file and in memory; records carry keyed hashes."""

    subject: str
    targets: list[TargetSettings] = Field(min_length=1)
    ground: str = "not stated"
    received: date | None = None
    due: date | None = None
    approved_by: str | None = None


class AcceptSettings(Strict):
    """Who lets a result leave that would be held back, and why: the report prints both."""

    by: str = Field(min_length=1)
    reason: str = Field(min_length=1)


class LanguageRequest(Strict):
    """The deletion request: ``targets`` that name records, with their ``wording`` where the request has its own; or
    ``records``, a file in the request's own words that is matched to what was trained on by the answers.

    ``too_long``: whether requested records that the model's context does not hold stop the job (``refuse``), or are forgotten
    as far as it holds them (``cut``); the report says how many.
    """

    subject: str
    targets: list[TargetSettings] = Field([])
    records: Path | None = None
    wording: Path | None = None
    ground: str = "not stated"
    received: date | None = None
    due: date | None = None
    approved_by: str | None = None
    on_screening: Action = "report"
    too_long: Literal["refuse", "cut"] = "refuse"
