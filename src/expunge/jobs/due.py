"""Requests whose answer is due: what has to be done within some days, and carrying out what was granted, for cron."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from expunge.core.errors import ExpungeError, InputError
from expunge.core.keys import subject_key
from expunge.core.method import Watch, silent
from expunge.jobs.run import asked_of, folder_of, opened_of, run_job
from expunge.jobs.schema import load_job
from expunge.ledger import Ledger
from expunge.requests_book import CLOSED, UNFINISHED, RequestBook

_LOG = logging.getLogger(__name__)
_SPAN = re.compile(r"([0-9]{1,4})([dw])")
DONE, FAILED, REFUSED, WAITS, NOT_ACCEPTED = 0, 1, 2, 3, 4  # exit codes, as those of ``expunge run``
WORST = (FAILED, REFUSED, WAITS, NOT_ACCEPTED)  # the first of these that occurred is the exit code of all


def days(text: str) -> int:
    """``7d`` or ``2w`` in days.

    Raises:
        InputError: for anything else.
    """
    if not (found := _SPAN.fullmatch(text.strip())):
        raise InputError(f"Expected days or weeks such as 7d or 2w; got {text!r:.40}.")
    return int(found[1]) * (7 if found[2] == "w" else 1)


def due_within(rows: Sequence[Mapping[str, Any]], text: str) -> list[dict[str, Any]]:
    """The requests that were not finished and whose answer is due within ``text``, the most urgent first.

    Raises:
        InputError: as :func:`days`.
    """
    limit = (date.today() + timedelta(days=days(text))).isoformat()
    found = [dict(row) for row in rows if row["status"] in UNFINISHED and row["due"] and row["due"] <= limit]
    return sorted(found, key=lambda row: row["due"])


def carry_out_due(jobs: Path, out: Path, *, within: str = "7d", watch: Watch = silent) -> dict[str, Any]:
    """Carry out the jobs of a folder whose request was granted and is due; say which others wait.

    Args:
        jobs: a folder of job files (``*.yaml``), each with a ledger: its own, or the one of its published model.
        out: folder for the evidence, a subfolder for each request.
        within: of which requests the answer is due: ``7d`` are those of the next week, and all that are late.

    Returns:
        ``requests``, each with ``job``, ``request``, ``due``, ``status`` and ``code``; and ``code``, the exit code of all: 0
        where everything due was carried out and accepted, else the first of 1, 2, 3, 4 that occurred, which mean what they
        mean of ``expunge run``; 3 also where a request waits for somebody to approve it.

    Raises:
        InputError: for a folder without jobs.
    """
    paths = sorted(jobs.glob("*.yaml")) if jobs.is_dir() else []
    if not paths:
        raise InputError(f"Expected a folder of job files (*.yaml); {jobs} is none, or has none.")
    days(within)
    found = [item for path in paths if (item := _one(path, out, within, watch)) is not None]
    codes = {item["code"] for item in found}
    return {"requests": found, "code": next((code for code in WORST if code in codes), DONE)}


def _one(path: Path, out: Path, within: str, watch: Watch) -> dict[str, Any] | None:
    """What became of one job; ``None`` where nothing of it is due."""
    said: dict[str, Any] = {"job": path.name, "request": None, "due": None, "status": None, "code": REFUSED, "said": ""}
    try:
        job = load_job(path)
        folder = folder_of(job)
        ledger = job.ledger if folder is None else folder.book.path
        if ledger is None or not ledger.is_file():
            return {**said, "said": "the job names no ledger on which its request could have been granted"}
        request = asked_of(job, opened_of(job), folder)[0].request
        identity = request.id(subject_key())
        with Ledger(ledger) as opened:
            rows = RequestBook(opened).requests()
        row = next((row for row in due_within(rows, within) if row["id"] == identity), None)
        if row is None:
            return None
        said = {**said, "request": identity, "due": row["due"], "status": row["status"]}
        if row["status"] in ("received", "quarantined"):
            return {**said, "code": WAITS, "said": "waits for somebody to approve or reject it"}
        result = run_job(job, (), out / identity, watch=watch)
        with Ledger(ledger) as opened:
            status = RequestBook(opened).status_of(identity)
        assert status in CLOSED
        return {**said, "status": status, "code": DONE if result["accepted"] else NOT_ACCEPTED}
    except ExpungeError as error:
        _LOG.error("%s: %s", path.name, error)
        return {**said, "code": error.exit_code if error.exit_code in WORST else REFUSED, "said": str(error)}
