"""Commands that say what to do about a request before anything is done: a dry run, and advice."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from expunge.cli import output
from expunge.cli.options import Job, Json, Model, Set


def advise(
    job: Job,
    model: Model = None,
    guarantee: Annotated[
        str | None, typer.Option(help="What must be promised: epsilon=1, or epsilon=1,delta=1e-5; default: nothing.")
    ] = None,
    within: Annotated[float | None, typer.Option(help="Seconds that forgetting may take; default: any.")] = None,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Recommend a method for a job's request, retraining and waiting included, with reasons and prices. Writes nothing."""
    from expunge.jobs.schema import load_job

    checked = load_job(job, set_ or [])
    from expunge.jobs.advice import advise as advised

    with output.progress() as watch:
        result = advised(checked, model=model, guarantee=guarantee, within=within, watch=watch)
    show_advice(result, json)


def dry_run(job: Any, model: Path | None, json: bool) -> None:
    """``expunge run --dry-run``."""
    from expunge.jobs.advice import dry_run as tried

    with output.progress() as watch:
        result = tried(job, model=model, watch=watch)
    show_dry_run(result, json)


def show_advice(result: Mapping[str, Any], json: bool) -> None:
    """The candidates that can serve the request, the cheapest first, then the others; and what is recommended."""
    if json:
        output.show(result, True)
        return
    print(f"Advice: {result['name']} ({result['matched']} examples to forget, {result['retained']} retained)")
    able = [item for item in result["candidates"] if item["can"]]
    able.sort(key=lambda item: (item["seconds"] is None, item["seconds"] or 0.0))
    reasons, note = _shortened([item["reason"] for item in able])
    rows = [[item["method"], duration(item["seconds"]), said] for item, said in zip(able, reasons, strict=True)]
    output.table_("", ("can serve it", "takes about", "why, and why not"), rows, numbers=("takes about",))
    if note:
        _wrapped(note)
    lacking: dict[str, list[str]] = {}
    for item in result["candidates"]:
        if not item["can"]:
            lacking.setdefault(item["reason"], []).append(item["method"])
    for reason, names in lacking.items():
        _wrapped(f"{', '.join(names)} cannot: {reason}")
    if result["evidence_seconds"] is not None:
        _wrapped(
            f"The evidence retrains to compare, whatever the method: about {duration(result['evidence_seconds'])} more."
        )
    if held := result["screening"]["held"]:
        _wrapped(f"Screening holds the request back: {'; '.join(held)}.")
    _wrapped(f"Recommended: {result['recommended'] or 'none'}. {result['why']}")


def _shortened(reasons: list[str]) -> tuple[list[str], str]:
    """The reasons with a star for the sentence that says of many methods that only a run measures them, and that sentence."""
    from expunge.jobs.advice import MEASURED

    if sum(reason.startswith(MEASURED) for reason in reasons) < 3:
        return reasons, ""
    return [f"*{reason.removeprefix(MEASURED)}" if reason.startswith(MEASURED) else reason for reason in reasons], (
        f"* {MEASURED}"
    )


def show_dry_run(result: Mapping[str, Any], json: bool) -> None:
    """What a run would do: the examples, what looks like them, what it takes, and what it can promise."""
    if json:
        output.show(result, True)
        return
    matched, estimate = result["matched"], result["estimate"]
    print(f"Dry run: {result['name']} (nothing was written)")
    users = f" of {matched['users']} user{'s' * (matched['users'] != 1)}" if matched["users"] else ""
    _wrapped(
        f"Request {result['request']['id']} ({result['request']['kind']}) matches {output.matched_in_words(matched)}{users}."
    )
    if files := matched.get("files"):
        more = f" and {len(files) - output.MATCHED_SHOWN} more" if len(files) > output.MATCHED_SHOWN else ""
        _wrapped(f"Files: {', '.join(files[: output.MATCHED_SHOWN])}{more}.")
    if along := result["forgotten"] - matched["count"]:
        _wrapped(f"{along} further examples of earlier requests, which the model still knows, are forgotten with them.")
    retained = "unknown" if result["retained"] is None else result["retained"]
    _wrapped(f"Retained: {retained} examples, of which {result['touched']} change.")
    for item in result["lookalikes"]:
        _wrapped(
            f"{item['column']} {item['stays']!r} looks like {item['named']!r} and stays ({item['examples']} examples)."
        )
    if result["copies"]:
        _wrapped(f"{result['copies']} examples that stay are equal to a forgotten one: what they teach stays known.")
    settings = ", ".join(f"{k} {v}" for k, v in result["method"]["settings"].items() if v is not None)
    _wrapped(f"Method: {result['method']['name']}" + (f" ({settings})." if settings else "."))
    memory = estimate["memory_bytes"]
    said = f"Takes about {duration(estimate['seconds'])}" + (f" and {memory / 1e9:.2g} GB of memory" if memory else "")
    _wrapped(
        f"{said} ({estimate['known'] or 'nothing says'}); retraining about {duration(estimate['retrain_seconds'])}."
    )
    if not result["trained"]:
        print("The model was not trained for this; its training is not counted.")
    if result["knows"]:
        _wrapped(f"Right answers of the model as it is: {result['knows']}.")
    _wrapped(output.promised(result))
    for caution in result["cautions"]:
        _wrapped(f"Caution: {caution}")
    if result["sampled"]:
        _wrapped(
            f"It rests on {' and '.join(result['sampled'])} as sampled: no certificate will call that a guarantee."
        )
    held = "; ".join(result["screening"]["held"])
    _wrapped(f"Screening holds the request back: {held}." if held else f"Screening: {result['screening']['reason']}.")


def duration(seconds: float | None) -> str:
    """Seconds in the unit that people use; a dash where there are none."""
    if seconds is None:
        return "–"
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"


def _wrapped(text: str) -> None:
    print(textwrap.fill(text, output.WIDTH, subsequent_indent="  "))
