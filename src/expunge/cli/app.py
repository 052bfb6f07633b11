"""Every command of ``expunge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from expunge.cli import advice_commands, calibrate_commands, graph_commands, output, picture_commands, request_commands
from expunge.cli.options import Job, Json, Model, Out, Set, checked_job
from expunge.core.texts import DATE_STRING

app = typer.Typer(
    name="expunge",
    help="Make a trained model forget, and show what is proven, what is measured and what is not known.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ledgers = typer.Typer(no_args_is_help=True, help="The ledger as a whole.")
app.add_typer(ledgers, name="ledger")
app.add_typer(request_commands.requests, name="requests")
app.add_typer(calibrate_commands.calibrate, name="calibrate")
app.add_typer(request_commands.attack, name="attack")
app.command()(advice_commands.advise)
app.command()(graph_commands.explain)
app.command()(picture_commands.concepts)
app.command()(request_commands.screen)
app.command()(request_commands.due)
app.command()(request_commands.exclude)
app.command()(request_commands.propagate)


@app.command()
def demo(out: Out = Path("demo-evidence"), json: Json = False) -> None:
    """Forget one (synthetic) person from scikit-learn's digits, once with a proof and once without."""
    from expunge.demo import run_demo

    with output.progress() as watch:
        result = run_demo(out, watch=watch)
    output.show_runs(result, json)


@app.command()
def publish(
    job: Job,
    to: Annotated[Path, typer.Option("--to", help="New folder for the model, its private checkpoints and its ledger.")],
    set_: Set = None,
    json: Json = False,
) -> None:
    """Train and publish a model before any request arrives; its ledger shows that the promise came first."""
    checked = checked_job(job, set_)
    from expunge.jobs.run import publish_job

    with output.progress() as watch:
        result = publish_job(checked, (), to, watch=watch)
    output.show_published(result, json)


@app.command()
def run(
    job: Job,
    out: Out = Path("evidence"),
    model: Model = None,
    set_: Set = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and what it takes; write nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Carry out a deletion job on your model and data, and write the evidence.

    Exit code 0: the result is accepted; 3: held back for a person; 4: delivered, and not accepted: nothing is certified, and
    what was measured is not that it forgets.
    """
    checked = checked_job(job, set_)
    if dry_run:
        return advice_commands.dry_run(checked, model, json)
    from expunge.cli import NOT_ACCEPTED
    from expunge.jobs.run import run_job

    with output.progress() as watch:
        result = run_job(checked, (), out, model=model, watch=watch)
    if result:  # the first of several processes speaks for all
        output.show_runs(result, json)
        if not result["accepted"]:
            raise typer.Exit(NOT_ACCEPTED)


@app.command()
def plan(
    job: Job,
    model: Model = None,
    set_: Set = None,
    json: Json = False,
    guarantee: Annotated[str | None, typer.Option(hidden=True)] = None,
    tolerance: Annotated[float, typer.Option(hidden=True)] = 0.01,
) -> None:
    """Show what a job would do, without doing it: the matched examples, the cost, and what the method promises.

    The plan is the one that run would carry out. Nothing is written and no noise is drawn.
    """
    if guarantee is not None:
        typer.echo(
            "warning: expunge plan --guarantee is called expunge calibrate search now; the next version drops the old form",
            err=True,
        )
        return calibrate_commands.search(job, guarantee, tolerance, set_, json)
    checked = checked_job(job, set_)
    from expunge.jobs.run import plan_job

    with output.progress() as watch:
        result = plan_job(checked, model=model, watch=watch)
    output.show_plan(result, json)


@app.command()
def methods(
    name: Annotated[
        str | None, typer.Argument(help="A method: shows its settings, their defaults and sources.")
    ] = None,
    json: Json = False,
) -> None:
    """List the methods: what each of them needs, serves and promises; or the settings of one."""
    if name is not None:
        from expunge.methods.describing import described

        output.show_method(described(name), json)
        return
    from expunge.methods.registry import table

    output.show_methods(table(), json)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Evidence folder that run or demo wrote.")],
    key: Annotated[Path | None, typer.Option("--key", help="Public key (PEM) of the expected signer.")] = None,
    ledger: Annotated[Path | None, typer.Option("--ledger", help="The ledger, where it lies elsewhere.")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="A checkpoint kept since: finds a ledger that was cut or rewritten."),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=50, help="Processor time at most; large weights may need more.")
    ] = 50,
    json: Json = False,
) -> None:
    """Check an evidence folder again, offline: signature, digests, certificates, pages, ledger. Writes nothing.

    Exit code 0: everything was checked and --key signed it; 1: tampered with; 5: consistent, the signer was not checked;
    6: a check was skipped, by name.
    """
    from expunge.report.signing import load_public_key
    from expunge.report.verify import verify_folder

    result = verify_folder(
        folder, load_public_key(key) if key else None, ledger=ledger, checkpoint=checkpoint, seconds=seconds
    )
    output.show_verification(result, json)
    raise typer.Exit(result.exit_code)


@app.command()
def key(json: Json = False) -> None:
    """Print the public key that this installation signs evidence with; the key is made at the first use."""
    from expunge.report.signing import key_id, public_pem, signing_key

    pem = public_pem(signing_key().public_key())
    output.show({"key_id": key_id(signing_key().public_key()), "public_key": pem}, json, pem)


@app.command()
def bench(
    recipe: Annotated[str | None, typer.Argument(help="Name of a recipe (see --list), or a YAML file.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the recipes and what each of them needs.")] = False,
    rows: Annotated[
        str, typer.Option("--methods", help="Methods and variants (such as scrub+dual), separated by commas, or all.")
    ] = "all",
    seeds: Annotated[int | None, typer.Option(help="Seeds for each method; default: as in the recipe.")] = None,
    forget_sets: Annotated[
        int | None, typer.Option(help="Number of different forget sets; default: one for each seed.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="One seed and shorter settings: a test that it works; its numbers are no result."),
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(help="Processes with one thread each; default: one for each core.")
    ] = None,
    defaults: Annotated[
        bool, typer.Option("--defaults", help="Use published settings instead of the recipe's.")
    ] = False,
    tune: Annotated[
        int, typer.Option(help="Trials of settings for each method, on a forget set that is in no table.")
    ] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for results; default: bench-results/NAME.")] = None,
    export: Annotated[
        str | None,
        typer.Option(
            help="Also write cells as csv or parquet, or the leaderboard as latex, into that folder; separated by commas."
        ),
    ] = None,
    plots: Annotated[
        str | None,
        typer.Option(help="Also write each figure of the page into that folder: png, pdf, svg, separated by commas."),
    ] = None,
    json: Json = False,
) -> None:
    """Compare methods with retraining on one recipe, and write a page. Finished cells are not computed again."""
    from expunge.bench.recipe import load_recipe, names
    from expunge.cli.bench_output import show_bench, show_recipes
    from expunge.core.errors import InputError

    if list_:
        found = [load_recipe(name) for name in names()]
        show_recipes([{"name": each.name, "title": each.title, "marks": list(each.marks)} for each in found], json)
        return
    if recipe is None:
        raise InputError("Expected the name of a recipe or a YAML file; expunge bench --list shows the names.")
    from expunge.bench.export import EXPORTS, must_be_forms
    from expunge.bench.export import plots as write_plots
    from expunge.bench.page import write_page
    from expunge.bench.run import BenchSettings, folder_of
    from expunge.bench.run import bench as run_bench

    asked = tuple(row.strip() for row in rows.split(",") if row.strip())
    settings = BenchSettings(
        methods=asked, seeds=seeds, forget_sets=forget_sets, quick=quick, defaults=defaults, jobs=jobs, tune=tune
    )
    loaded = load_recipe(recipe)
    exports = [] if export is None else [form.strip() for form in export.split(",") if form.strip()]
    if export is not None and (not exports or not EXPORTS.keys() >= set(exports)):
        raise InputError(f"Expected --export {', '.join(EXPORTS)}, separated by commas; got {export!r}.")
    forms = [] if plots is None else [form.strip() for form in plots.split(",") if form.strip()]
    if plots is not None:
        must_be_forms(forms)
    folder = out or folder_of(loaded)
    with output.progress() as watch:
        record = run_bench(loaded, folder, settings, watch=watch)
    show_bench(record, json, write_page(record, folder))
    for form in dict.fromkeys(exports):
        typer.echo(f"Exported: {EXPORTS[form](record, folder)}", err=True)
    if forms:
        typer.echo(f"Plots: {', '.join(map(str, write_plots(record, folder, forms)))}", err=True)


@app.command("eval")
def eval_(
    context: typer.Context,
    what: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="A job file; or the folder of a language model: config, tokenizer, weights."
        ),
    ],
    model: Annotated[
        Path | None, typer.Option(help="With a job: a published or stored model, or a file of weights.")
    ] = None,
    set_: Set = None,
    suite: Annotated[
        str | None,
        typer.Option(help="custom: the sets of --on alone; default: the sets of the job, or of a folder tofu."),
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option("--on", help="A set of your own: NAME=FILE, in the form of the job's data. Repeatable."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with TOFU; default: tofu in the folder EXPUNGE_DATA.")
    ] = None,
    split: Annotated[str, typer.Option(help="The split that was forgotten.")] = "forget10",
    retrained: Annotated[
        Path | None, typer.Option(help="A model trained without the forget set: ideals, forget quality, PrivLeak.")
    ] = None,
    unseen: Annotated[
        Path | None,
        typer.Option(help="JSONL of records that no model was trained on, for membership inference attacks."),
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="Folder of a PEFT adapter to merge into the model.")] = None,
    gguf: Annotated[str | None, typer.Option(help="Name of a GGUF file in the folder.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Prompt with {question} and {answer}; default: the chat template.")
    ] = None,
    date_string: Annotated[
        str, typer.Option(help="Day that a chat template writes, as those of Llama 3.1 and 3.2 do.")
    ] = DATE_STRING,
    system: Annotated[str | None, typer.Option(help="System prompt before each question; default: none.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many records of each set; default: all.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="At most this many tokens of an answer; 200 as in TOFU.")] = 200,
    in_templates: Annotated[
        bool,
        typer.Option(
            "--templates/--no-templates",
            help="Also ask in other words (the templates of the stealthy attack) and in joint prompts.",
        ),
    ] = True,
    batch_size: Annotated[int, typer.Option(help="Prompts at a time; affects memory and speed, not results.")] = 32,
    device: Annotated[str, typer.Option(help="Torch device, such as cpu or cuda.")] = "cpu",
    json: Json = False,
) -> None:
    """Measure a model of any kind on a job's sets, or a language model on a suite: what it still knows, what else it lost."""
    from expunge.cli.evaluation_output import named_sets, show_evaluation

    on_job = what.is_file()
    sets = named_sets(on or [], suite, on_job)
    _only_for(context, ("model", "set_") if not on_job else _OF_A_SUITE, "a suite" if not on_job else "a job file")
    if suite == "custom":
        _only_for(context, ("data", "split"), "the suite custom")
    with output.progress() as watch:
        if on_job:
            from expunge.jobs.evaluation import evaluate_job

            result = evaluate_job(
                what, set_ or [], model=model, retrained=retrained, on=sets, alone=suite == "custom", watch=watch
            )
        else:
            from expunge.modalities.language.evaluation import evaluate_folder

            result = evaluate_folder(
                what, suite=suite or "tofu", on=sets, data=data, split=split, adapter=adapter, gguf=gguf, template=template,
                date_string=date_string, system=system, limit=limit, max_new_tokens=max_new_tokens, retrained=retrained,
                unseen=unseen, in_templates=in_templates, batch_size=batch_size, device=device, watch=watch,
            )  # fmt: skip
    show_evaluation(result, json)


_OF_A_SUITE = ("data", "split", "unseen", "adapter", "gguf", "template", "date_string", "system", "limit",
               "max_new_tokens", "in_templates", "batch_size", "device")  # fmt: skip


def _only_for(context: typer.Context, foreign: tuple[str, ...], what: str) -> None:
    """Raise InputError for options that would be ignored."""
    from expunge.core.errors import InputError

    names = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    given = [
        name for name in foreign if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    ]
    if given:
        raise InputError(f"{', '.join(names[name] for name in given)} would say nothing with {what}; leave it out.")


@ledgers.command("checkpoint")
def ledger_checkpoint(
    ledger: Annotated[Path, typer.Argument(help="Ledger file (SQLite).")],
    out: Annotated[Path, typer.Option("--out", help="File to write; publish it, or hand it to somebody who keeps it.")],
    since: Annotated[
        list[Path] | None,
        typer.Option("--since", help="Evidence folder that the checkpoint proves to continue. Repeatable."),
    ] = None,
    json: Json = False,
) -> None:
    """Sign length and root of a ledger: whoever keeps the file notices later that entries were removed or rewritten."""
    from expunge.jobs.requests import write_checkpoint

    said = write_checkpoint(ledger, out, since or [])
    output.show(said, json, f"{out}: {said['length']} entries, root {said['root']}")


def _version(value: bool) -> None:
    if value:
        from expunge import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> Any:
    pass
