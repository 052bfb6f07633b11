"""What the section ``request`` of a job file may say."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from expunge.jobs.data_schema import Strict

Action = Literal["report", "strip", "augment", "su", "reject"]  # screening.actions.ACTIONS


class TargetSettings(Strict):
    """One thing to forget."""

    kind: str
    where: dict[str, Any]


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
