"""Commands on requests: those that a ledger holds, and what the wording of one looks like before it is filed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli import output
from expunge.cli.options import Json

requests = typer.Typer(no_args_is_help=True, help="Deletion requests in a ledger.")
attack = typer.Typer(no_args_is_help=True, help="Make a request that is meant to do harm, to test defences.")

Identifier = Annotated[str, typer.Argument(help="Identifier of the request, as list shows it.")]
By = Annotated[str, typer.Option(help="Who decided it.")]
Why = Annotated[str, typer.Option(help="The reason, without names.")]
Ledger_ = Annotated[Path, typer.Option("--ledger", help="Ledger file (SQLite).")]


@requests.command("list")
def requests_list(
    ledger: Ledger_,
    due_within: Annotated[
        str | None,
        typer.Option(help="Only open requests whose answer is due within 7d, 2w, …; the late ones included."),
    ] = None,
    about: Annotated[
        list[str] | None,
        typer.Option(help="Only granted requests that cover a person: column=value. Several columns: repeat it."),
    ] = None,
    json: Json = False,
) -> None:
    """List all requests with their status."""
    from expunge.core.errors import InputError
    from expunge.jobs.requests import list_requests, requests_about

    if about and due_within:
        raise InputError(
            "Expected one of --about and --due-within; a granted request about a person may be long finished."
        )
    rows = requests_about(ledger, "user", about) if about else list_requests(ledger, due_within)
    output.show_requests(rows, json)


@requests.command("show")
def requests_show(
    request: Identifier,
    ledger: Ledger_,
    json: Json = False,
) -> None:
    """Show one request with every ledger entry about it."""
    from expunge.jobs.requests import show_request

    output.show_request(show_request(ledger, request), json)


@requests.command("add")
def requests_add(
    ledger: Ledger_,
    subject: Annotated[str, typer.Option(help="Who asks; recorded only as a keyed hash.")],
    kind: Annotated[str, typer.Option(help="samples, user or class.")] = "user",
    where: Annotated[
        list[str] | None, typer.Option(help="What must be forgotten: column=value. May be repeated.")
    ] = None,
    where_file: Annotated[
        list[str] | None,
        typer.Option(help="Values of a column from a .txt, .csv or .json file: column=people.csv. May be repeated."),
    ] = None,
    ground: Annotated[str, typer.Option(help="The reason, without names.")] = "not stated",
    received: Annotated[
        str | None, typer.Option(help="Day on which it was received, YYYY-MM-DD; default: today.")
    ] = None,
    due: Annotated[str | None, typer.Option(help="Day by which an answer is due; default: one month later.")] = None,
    json: Json = False,
) -> None:
    """File a request; filing the same one again changes nothing."""
    from expunge.jobs.requests import add_request

    row = add_request(ledger, subject, kind, where or [], ground, received, due, where_file or [])
    output.show_added(row, json)


@requests.command("approve")
def requests_approve(
    request: Identifier,
    ledger: Ledger_,
    by: By,
    why: Why,
    json: Json = False,
) -> None:
    """Let a request be carried out that was filed, or that screening holds back."""
    from expunge.jobs.requests import approve_request

    output.show_added(approve_request(ledger, request, by, why), json)


@requests.command("reject")
def requests_reject(
    request: Identifier,
    ledger: Ledger_,
    by: By,
    why: Why,
    json: Json = False,
) -> None:
    """Refuse a request: it is not carried out, and keeps nothing out of later runs."""
    from expunge.jobs.requests import reject_request

    output.show_added(reject_request(ledger, request, by, why), json)


@requests.command("releases")
def requests_releases(ledger: Ledger_, json: Json = False) -> None:
    """List every release with its digest: which one is in use, and which may come back."""
    from expunge.cli.request_output import show_releases
    from expunge.jobs.rollback import releases_to_json

    show_releases(releases_to_json(ledger), json)


@requests.command("rollback")
def requests_rollback(
    digest: Annotated[str, typer.Argument(help="Digest of the release to go back to, or its first digits.")],
    ledger: Ledger_,
    by: By,
    why: Why,
    evidence: Annotated[Path, typer.Option("--evidence", help="Evidence folder of that release, which has its model.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the model that is in use again.")],
    json: Json = False,
) -> None:
    """Go back to an earlier release, and get its model; refused where it knew anybody whose request was released since."""
    from expunge.cli.request_output import show_rolled_back
    from expunge.jobs.rollback import roll_back

    show_rolled_back(roll_back(ledger, digest, by, why, evidence=evidence, out=out), json)


@requests.command("withdraw")
def requests_withdraw(
    request: Identifier,
    ledger: Ledger_,
    by: By,
    why: Why,
    json: Json = False,
) -> None:
    """Withdraw a request, unless something was released for it already."""
    from expunge.jobs.requests import withdraw_request

    output.show_added(withdraw_request(ledger, request, by, why), json)


@requests.command("abandon")
def requests_abandon(
    request: Identifier,
    ledger: Ledger_,
    by: By,
    why: Why,
    json: Json = False,
) -> None:
    """End a request that cannot be finished. Whoever it was granted for stays out of later runs all the same."""
    from expunge.jobs.requests import abandon_request

    output.show_added(abandon_request(ledger, request, by, why), json)


@requests.command("supersede")
def requests_supersede(
    request: Identifier,
    ledger: Ledger_,
    by: By,
    why: Why,
    json: Json = False,
) -> None:
    """Let the next run of the same request, by another method or settings, take the place of one that did not end well."""
    from expunge.jobs.requests import supersede_request

    output.show_added(supersede_request(ledger, request, by, why), json)


@attack.command("stealthy")
def attack_stealthy(
    source: Annotated[Path, typer.Argument(metavar="IN", help="JSONL: question and answer, or text, on each line.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="JSONL to write; a file with other content is kept.")],
    p: Annotated[float, typer.Option("--p", help="Probability of a template around a prompt.")] = 0.33,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    json: Json = False,
) -> None:
    """Put everyday words into the prompts of a forget request, so that unlearning harms ordinary prompts as well."""
    from expunge.attacks.stealthy import poison_file
    from expunge.cli.request_output import show_attack

    show_attack(poison_file(source, out, p, seed), json)


def screen(
    request: Annotated[Path, typer.Argument(help="JSONL: question and answer, or text, on each line.")],
    benign: Annotated[Path, typer.Option("--benign", help="JSONL of ordinary prompts; answers are not needed.")],
    total: Annotated[int | None, typer.Option(help="Number of records that the model was trained on.")] = None,
    json: Json = False,
) -> None:
    """Screen the wording of a request for a language model: which everyday words and templates stand out?"""
    from expunge.cli.request_output import show_screening
    from expunge.screening.language import screen_file

    show_screening(screen_file(request, benign, total), json)


def due(
    jobs: Annotated[Path, typer.Argument(help="Folder of job files (*.yaml), each with a ledger.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the evidence, a subfolder for each request.")],
    within: Annotated[str, typer.Option("--within", help="Of which requests the answer is due: 7d, 2w, …")] = "7d",
    json: Json = False,
) -> None:
    """Carry out the jobs whose request was granted and is due: for cron.

    Exit code 0: all that was due is done and accepted; otherwise the first of these that occurred: 1 failed, 2 refused or not
    usable, 3 something waits for a person, 4 delivered and not accepted.
    """
    from expunge.cli.request_output import show_due
    from expunge.jobs.due import carry_out_due

    with output.progress() as watch:
        result = carry_out_due(jobs, out, within=within, watch=watch)
    show_due(result, json)
    raise typer.Exit(result["code"])


def propagate(
    model: Annotated[Path, typer.Argument(help="A file of weights, or the folder of a model.")],
    within: Annotated[
        list[Path], typer.Option("--in", help="Folder to look in, also a cache of Hugging Face. Repeatable.")
    ],
    name: Annotated[list[str] | None, typer.Option(help="What others call the model: owner/name. Repeatable.")] = None,
    json: Json = False,
) -> None:
    """Find copies, adapters and models that were made from a model, by digest and by what their files name."""
    from expunge.jobs.propagation import propagate_to_json

    found = propagate_to_json(model, within, name or [])
    lines = [f"{item['kind']}: {item['path']} ({item['because']})" for item in found["descendants"]]
    output.show(found, json, "\n".join(lines) or "Nothing was found that names this model or has its bytes.")


def exclude(
    source: Annotated[Path, typer.Argument(help="CSV table, Parquet file, JSON lines, or folder of images.")],
    ledger: Annotated[list[Path], typer.Option("--ledger", help="Ledger file (SQLite). May be repeated.")],
    out: Annotated[Path, typer.Option("--out", help="New file or folder for what is kept.")],
    users: Annotated[
        list[str] | None,
        typer.Option(
            help="Column or key that names people; of images a regular expression over paths, or a CSV of path,user."
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Column of the class, where classes may have been forgotten.")
    ] = None,
    json: Json = False,
) -> None:
    """Copy data without everybody for whom a deletion was granted, so that no later training learns them again."""
    from expunge.jobs.exclusion import exclude as excluded

    done = excluded(source, out, users=users or [], label=label, ledger=ledger)
    said = f"{out}: {done['kept']} of {done['examples']} examples kept; {len(done['requests'])} requests exclude the others"
    if done["elsewhere"]:
        said += f". Nothing of {len(done['elsewhere'])} further granted requests was recognised in these data: "
        said += "they are about other data, or name people by columns that --users does not name here, or single examples in "
        said += "another form. Look them up before this is trained on: " + ", ".join(done["elsewhere"])
    output.show(done, json, said)
