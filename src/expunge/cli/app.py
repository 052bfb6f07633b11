"""Every command of ``expunge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from expunge.cli import output

app = typer.Typer(
    name="expunge",
    help="Make a trained model forget, and show what is proven, what is measured and what is not known.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
requests = typer.Typer(no_args_is_help=True, help="Deletion requests in a ledger.")
calibrate = typer.Typer(no_args_is_help=True, help="Sensitivities and noise levels without training anything.")
app.add_typer(requests, name="requests")
app.add_typer(calibrate, name="calibrate")
attack = typer.Typer(no_args_is_help=True, help="Make a request that is meant to do harm, to test defences with.")
app.add_typer(attack, name="attack")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; everything else goes to stderr.")]
Job = Annotated[Path, typer.Argument(help="YAML file; paths in it are relative to the file.")]
Out = Annotated[
    Path, typer.Option("--out", help="Folder for evidence; what must stay secret goes to a sibling .private folder.")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key of the job: key.sub=value. May be repeated.")
]


@app.command()
def demo(out: Out = Path("demo-evidence"), json: Json = False) -> None:
    """Forget one (synthetic) person from scikit-learn's digits, twice: with a proof, and without one."""
    from expunge.demo import run_demo

    with output.progress() as watch:
        result = run_demo(out, watch=watch)
    output.show_runs(result, json)


@app.command()
def publish(
    job: Job,
    to: Annotated[Path, typer.Option("--to", help="New folder for the model, its private trail and its ledger.")],
    set_: Set = None,
    json: Json = False,
) -> None:
    """Train and publish a model before any request comes: the ledger in its folder shows that the promise was first."""
    from expunge.jobs.run import publish_job

    with output.progress() as watch:
        result = publish_job(job, set_ or [], to, watch=watch)
    output.show_published(result, json)


@app.command()
def run(
    job: Job,
    out: Out = Path("evidence"),
    model: Annotated[
        Path | None, typer.Option("--model", help="Folder that publish wrote: serve the request from it.")
    ] = None,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Carry out a deletion job: your model, your data, your request. Exit code 3: held back for a person."""
    from expunge.jobs.run import run_job

    with output.progress() as watch:
        result = run_job(job, set_ or [], out, model=model, watch=watch)
    if result:  # the first of several processes speaks for all
        output.show_runs(result, json)


@app.command()
def plan(
    job: Job,
    guarantee: Annotated[str, typer.Option(help="What to reach, for example epsilon=1 or epsilon=1,delta=1e-5.")],
    tolerance: Annotated[float, typer.Option(help="Accuracy that the noise may cost, as a share.")] = 0.01,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Find the cheapest rewind and regularisation that reach a guarantee, and say what it costs. Writes nothing."""
    from expunge.jobs.search import parse_guarantee, search

    target = parse_guarantee(guarantee)
    with output.progress() as watch:
        result = search(job, set_ or [], target, tolerance=tolerance, watch=watch)
    output.show_search(result, json)


@app.command()
def methods(json: Json = False) -> None:
    """What each method needs, serves and promises."""
    from expunge.methods.registry import table

    output.show_methods(table(), json)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="Evidence folder that run or demo wrote.")],
    key: Annotated[Path | None, typer.Option("--key", help="Public key (PEM) of the expected signer.")] = None,
    json: Json = False,
) -> None:
    """Check an evidence folder again, offline: signature, digests, certificates, ledger. Exit code 1 on tampering."""
    from expunge.report.signing import load_public_key
    from expunge.report.verify import verify_folder

    result = verify_folder(folder, load_public_key(key) if key else None)
    output.show_verification(result, json)
    if not result.consistent:
        raise typer.Exit(1)


@app.command()
def key(json: Json = False) -> None:
    """Show the public key that this installation signs evidence with (made at the first use)."""
    from expunge.report.signing import key_id, public_pem, signing_key

    pem = public_pem(signing_key().public_key())
    output.show({"key_id": key_id(signing_key().public_key()), "public_key": pem}, json, pem)


@app.command()
def bench(
    recipe: Annotated[str | None, typer.Argument(help="A recipe by name (see --list), or a YAML file.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="Show the recipes and what each needs.")] = False,
    rows: Annotated[str, typer.Option("--methods", help="Rows, separated by commas, or all.")] = "all",
    seeds: Annotated[int | None, typer.Option(help="Seeds of each row; the recipe's number if not given.")] = None,
    forget_sets: Annotated[int | None, typer.Option(help="Different forget sets; one a seed if not given.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="One seed and shorter settings: shows that it works.")] = False,
    jobs: Annotated[int | None, typer.Option(help="Processes of one thread; one for each core if not given.")] = None,
    defaults: Annotated[bool, typer.Option("--defaults", help="Published settings instead of the recipe's.")] = False,
    tune: Annotated[int, typer.Option(help="Trials of settings for each row.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder; bench-results/NAME if not given.")] = None,
    json: Json = False,
) -> None:
    """Compare methods with retraining on one recipe, and write a page. Finished cells in the folder are kept."""
    from expunge.bench.recipe import load_recipe, names
    from expunge.cli.bench_output import show_bench, show_recipes
    from expunge.core.errors import InputError

    if list_:
        found = [load_recipe(name) for name in names()]
        show_recipes([{"name": each.name, "title": each.title, "marks": list(each.marks)} for each in found], json)
        return
    if recipe is None:
        raise InputError("Expected the name of a recipe or a YAML file; expunge bench --list shows the names.")
    from expunge.bench.page import write_page
    from expunge.bench.run import BenchSettings, folder_of
    from expunge.bench.run import bench as run_bench

    asked = tuple(row.strip() for row in rows.split(",") if row.strip())
    settings = BenchSettings(
        methods=asked, seeds=seeds, forget_sets=forget_sets, quick=quick, defaults=defaults, jobs=jobs, tune=tune
    )
    loaded = load_recipe(recipe)
    folder = out or folder_of(loaded)
    with output.progress() as watch:
        record = run_bench(loaded, folder, settings, watch=watch)
    show_bench(record, json, write_page(record, folder))


@attack.command("stealthy")
def attack_stealthy(
    source: Annotated[Path, typer.Argument(metavar="IN", help="JSONL: question and answer, or text, on each line.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="JSONL to write; a file with other content is kept.")],
    p: Annotated[float, typer.Option("--p", help="Probability of a template around a prompt.")] = 0.33,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    json: Json = False,
) -> None:
    """Put everyday words into the prompts of a forget request, so that unlearning harms ordinary prompts too."""
    from expunge.cli.language_output import show_attack
    from expunge.jobs.language_requests import attack_stealthily

    show_attack(attack_stealthily(source, out, p, seed), json)


@app.command()
def screen(
    request: Annotated[Path, typer.Argument(help="JSONL: question and answer, or text, on each line.")],
    benign: Annotated[Path, typer.Option("--benign", help="JSONL of ordinary prompts; answers are not needed.")],
    total: Annotated[int | None, typer.Option(help="Records that the model was trained on.")] = None,
    json: Json = False,
) -> None:
    """Look at the wording of a request for a language model: which everyday words and templates stand out?"""
    from expunge.cli.language_output import show_screening
    from expunge.jobs.language_requests import screen_file

    show_screening(screen_file(request, benign, total), json)


@app.command("eval")
def eval_(
    model: Annotated[Path, typer.Argument(help="Folder of a language model: config.json, tokenizer, weights.")],
    suite: Annotated[str, typer.Option(help="Which records to ask: tofu.")] = "tofu",
    data: Annotated[Path | None, typer.Option(help="Folder of TOFU; EXPUNGE_DATA/tofu if not given.")] = None,
    split: Annotated[str, typer.Option(help="The split that was forgotten.")] = "forget10",
    retrained: Annotated[
        Path | None, typer.Option(help="Folder of a model trained without the split: for forget quality, PrivLeak.")
    ] = None,
    unseen: Annotated[
        Path | None, typer.Option(help="JSONL of records no model was trained on: for membership attacks.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="Folder of a PEFT adapter to merge into the model.")] = None,
    gguf: Annotated[str | None, typer.Option(help="Name of a GGUF file in the folder.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Prompt with {question} and {answer}; the chat template if not given.")
    ] = None,
    date_string: Annotated[
        str, typer.Option(help="The day that a chat template is told; templates of Llama 3.1 and 3.2 write one.")
    ] = "10 Apr 2025",
    system: Annotated[str | None, typer.Option(help="System prompt before each question; none if not given.")] = None,
    limit: Annotated[int | None, typer.Option(help="Most records of a set; all if not given.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of an answer; TOFU's 200.")] = 200,
    in_templates: Annotated[
        bool, typer.Option("--templates/--no-templates", help="Also ask in everyday words and in joint prompts.")
    ] = True,
    batch_size: Annotated[int, typer.Option(help="Prompts at a time: memory and speed, no number.")] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    json: Json = False,
) -> None:
    """Measure a language model: what it still knows of a forgotten split, and what else it lost."""
    from expunge.cli.language_output import show_evaluation
    from expunge.jobs.language_evaluation import evaluate_folder

    with output.progress() as watch:
        result = evaluate_folder(
            model, suite=suite, data=data, split=split, adapter=adapter, gguf=gguf, template=template,
            date_string=date_string, system=system, limit=limit, max_new_tokens=max_new_tokens, retrained=retrained,
            unseen=unseen, in_templates=in_templates, batch_size=batch_size, device=device, watch=watch,
        )  # fmt: skip
    show_evaluation(result, json)


Ledger_ = Annotated[Path, typer.Option("--ledger", help="Ledger file (SQLite).")]


@requests.command("list")
def requests_list(ledger: Ledger_, json: Json = False) -> None:
    """All requests with their status."""
    from expunge.jobs.requests import list_requests

    output.show_requests(list_requests(ledger), json)


@requests.command("show")
def requests_show(
    request: Annotated[str, typer.Argument(help="Its id, as list shows it.")], ledger: Ledger_, json: Json = False
) -> None:
    """One request with every ledger entry about it."""
    from expunge.jobs.requests import show_request

    output.show_request(show_request(ledger, request), json)


@requests.command("add")
def requests_add(
    ledger: Ledger_,
    subject: Annotated[str, typer.Option(help="Who asks; recorded only as a keyed hash.")],
    kind: Annotated[str, typer.Option(help="samples, user or class.")] = "user",
    where: Annotated[list[str] | None, typer.Option(help="What to match: column=value. May be repeated.")] = None,
    ground: Annotated[str, typer.Option(help="Why, without names.")] = "not stated",
    received: Annotated[str | None, typer.Option(help="Day it came, YYYY-MM-DD; today if not given.")] = None,
    due: Annotated[str | None, typer.Option(help="Day an answer is owed; one month later if not given.")] = None,
    json: Json = False,
) -> None:
    """File a request; filing the same one again changes nothing."""
    from expunge.jobs.requests import add_request

    output.show_added(add_request(ledger, subject, kind, where or [], ground, received, due), json)


@requests.command("withdraw")
def requests_withdraw(
    request: Annotated[str, typer.Argument(help="Its id, as list shows it.")],
    ledger: Ledger_,
    by: Annotated[str, typer.Option(help="Who records it.")],
    why: Annotated[str, typer.Option(help="Why, without names.")],
    json: Json = False,
) -> None:
    """Record that whoever asked no longer asks; not after something was released."""
    from expunge.jobs.requests import withdraw_request

    output.show_added(withdraw_request(ledger, request, by, why), json)


@calibrate.command("r2d")
def calibrate_r2d(
    smoothness: Annotated[float, typer.Option(help="L, of every row's loss.")],
    gradient_bound: Annotated[float, typer.Option(help="G, bound on every row's gradient norm.")],
    lr: Annotated[float, typer.Option(help="eta, the step size.")],
    samples: Annotated[int, typer.Option(help="n, training rows.")],
    forget: Annotated[int, typer.Option(help="m, rows to forget.")],
    steps: Annotated[int, typer.Option(help="T, training steps.")],
    rewind: Annotated[int, typer.Option(help="K, steps rewound and done again.")],
    epsilon: Annotated[float, typer.Option(help="Target epsilon.")] = 1.0,
    delta: Annotated[float, typer.Option(help="Target delta.")] = 1e-5,
    convex: Annotated[bool, typer.Option("--convex", help="The loss is convex.")] = False,
    strong_convexity: Annotated[float, typer.Option(help="mu, if the loss is strongly convex.")] = 0.0,
    json: Json = False,
) -> None:
    """Sensitivity bounds of rewind-to-delete, and the noise that each needs."""
    from expunge.jobs.calibration import calibrate_r2d as compute

    result = compute(
        smoothness=smoothness, gradient_bound=gradient_bound, lr=lr, samples=samples, forget=forget, steps=steps,
        rewind=rewind, epsilon=epsilon, delta=delta, convex=convex, strong_convexity=strong_convexity,
    )  # fmt: skip
    output.show_calibration(result, json)


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
