"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on standard output; everything else goes to standard error."),
]
Job = Annotated[Path, typer.Argument(help="Job file (YAML); paths in it are relative to the file.")]
Out = Annotated[
    Path,
    typer.Option("--out", help="Folder for the evidence; what must stay secret goes to a sibling folder OUT.private."),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key of the job: key.sub=value. May be repeated.")
]
Model = Annotated[
    Path | None, typer.Option("--model", help="Model folder that publish wrote; the request is served from it.")
]


def checked_job(job: Path, overrides: list[str] | None) -> Any:
    """The job, read and checked before torch is imported: a misspelt key is answered at once."""
    from expunge.jobs.schema import load_job

    return load_job(job, overrides or [])
