"""What people and machines see: tables on a terminal, plain lines elsewhere, one JSON object with ``--json``."""

from __future__ import annotations

import json as json_module
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

Watch = Callable[[str, int, int], None]
WIDTH = 100  # columns of a table at most
SILENCE = 30.0  # seconds after which a long stage says how far it is


def show(value: Any, json: bool, text: str | None = None) -> None:
    """``value`` as JSON, or ``text`` (indented JSON where there is none) for people."""
    if json:
        print(json_module.dumps(value, ensure_ascii=False, allow_nan=False))
    else:
        print(text if text is not None else json_module.dumps(value, indent=2, ensure_ascii=False))


@contextmanager
def progress() -> Iterator[Watch]:
    """A watch that draws live bars on a terminal and prints plain lines elsewhere; always on stderr.

    What the user's own code prints meanwhile goes to stderr too: stdout belongs to the result.
    """
    if not sys.stderr.isatty():
        with redirect_stdout(sys.stderr):
            yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with redirect_stdout(sys.stderr), Progress(*columns, console=Console(stderr=True)) as bars:
        open_: dict[str, Any] = {}

        def watch(stage: str, done: int, total: int) -> None:
            if stage not in open_:
                open_[stage] = bars.add_task(stage, total=total)
            bars.update(open_[stage], completed=done, total=total)
            if done >= total:
                open_.pop(stage)

        yield watch


def _lines() -> Watch:
    """A line when a stage ends, and one every half minute of a long stage."""
    started: dict[str, float] = {}
    spoke: dict[str, float] = {}

    def watch(stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        began = started.setdefault(stage, now)
        if done >= total:
            print(f"{stage}: {total} done in {now - began:.1f} s", file=sys.stderr, flush=True)
            started.pop(stage)
            spoke.pop(stage, None)
        elif now - spoke.setdefault(stage, began) >= SILENCE:
            print(f"{stage}: {done} of {total} after {now - began:.0f} s", file=sys.stderr, flush=True)
            spoke[stage] = now

    return watch


def table_(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    numbers: Sequence[str] = (),
    tight: bool = False,
) -> None:
    """A table no wider than :data:`WIDTH` or the terminal; columns in ``numbers`` are set to the right.

    A row that is empty draws a line. ``tight``: less room between columns, and numbers are never broken.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    look: dict[str, Any] = {"box": SIMPLE_HEAD, "show_edge": False, "pad_edge": False, "header_style": "bold"}
    if tight:
        look["padding"] = (0, 1, 0, 0)
    table = Table(title=title, title_justify="left", title_style="bold", **look)
    for i, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=i == 0 or (tight and column in numbers),
                         justify="right" if column in numbers else "left")  # fmt: skip
    for row in rows:
        if row:
            table.add_row(*row)
        else:
            table.add_section()
    console = Console(highlight=False, markup=False, soft_wrap=False)
    console.width = min(console.width, WIDTH) if sys.stdout.isatty() else WIDTH
    console.print(table)


def number(value: float | None, digits: int = 4) -> str:
    """A number for a table; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}g}"


def share(value: float | None) -> str:
    """A share as a percentage."""
    return "–" if value is None else f"{100 * value:.1f} %"


def show_runs(result: Mapping[str, Any], json: bool) -> None:
    """The summary of a carried-out request: for each model, what it was, what it is, what retraining makes of it."""
    if json:
        show(result, True)
        return
    from expunge.report.headline import headline

    rows: list[list[str]] = []
    for run in result["runs"]:
        heads = [run["model"], f"by {run['method']}", run["verdict"], _promise(run), *_outcome(run)]
        cells = [_measured(item) for item in headline(run["measurements"])]
        seconds = run["seconds"]
        cells.append(["seconds", "", number(seconds["unlearn"], 2), number(seconds["retrain"], 2)])
        heads += [""] * (len(cells) - len(heads))
        cells += [["", "", "", ""]] * (len(heads) - len(cells))
        rows += [[head, *cell] for head, cell in zip(heads, cells, strict=True)] + [[]]
    title = f"Request {result['request']['id']} ({result['request']['kind']})"
    table_(title, ("model", "", *_MODELS), rows, numbers=_MODELS)
    for run in result["runs"]:
        if run["epsilon"] is None and run["nominal_epsilon"] is not None:
            print_wrapped(
                f"{run['model']}: the formula gives epsilon {number(run['nominal_epsilon'])}; that is no guarantee "
                f"({run['verdict']}, see the report)."
            )
        if run["publish_first"]:
            print_wrapped(
                f"{run['model']}: no ledger shows that the promise came before the request. Publish the model first to change "
                "that: expunge publish JOB --to MODEL, then expunge run JOB --model MODEL."
            )
        advice = run["instead"] or ""
        if run["warning"] and run["warning"] not in advice:
            print_wrapped(f"{run['model']}: {run['warning']}")
        if advice:
            print_wrapped(f"{run['model']}: {advice}")
    if not result["accepted"]:
        print_wrapped(
            "To try again with another method or settings, change the job and let the next run take the place of this one:"
        )
        by = "--by NAME --why REASON"
        print(f"expunge requests supersede {result['request']['id']} --ledger {result['ledger']} {by}")
    print(f"Report: {result['report']}")
    elsewhere = "" if Path(result["ledger"]).parent == Path(result["evidence"]) else f" --ledger {result['ledger']}"
    print(f"Check it again: expunge verify {result['evidence']} --key signer.pem{elsewhere}")


def print_wrapped(sentence: str) -> None:
    """A sentence in lines of at most a hundred columns."""
    print(textwrap.fill(sentence, 100, break_long_words=False, break_on_hyphens=False))


_MODELS = ("original", "unlearned", "retrained")


def _measured(item: Mapping[str, Any]) -> list[str]:
    """A measurement: what it is called, and the value of each model in its unit."""
    from expunge.report import numbers as say
    from expunge.report.vocabulary import label

    return [label(item), *(say.value(item["metric"], item[model]) for model in ("original", "value", "ideal"))]


def _outcome(run: Mapping[str, Any]) -> list[str]:
    """The outcome, and whether the result is accepted."""
    if run["outcome"] is None:
        return []
    return [run["outcome"], f"accepted: {run['accepted_by']}" if run["accepted_by"] else "not accepted"]


def _promise(run: Mapping[str, Any]) -> str:
    if run["epsilon"] is None:
        return "no epsilon"
    return f"epsilon {number(run['epsilon'])}, delta {number(run['delta'])}"


def show_published(found: Mapping[str, Any], json: bool) -> None:
    """What was promised, and how a request is served from it."""
    promise = (
        f"epsilon {number(found['epsilon'])}, delta {number(found['delta'])} for {found['capacity']} records, "
        f"sigma {number(found['sigma'])}"
        if found["capacity"] is not None
        else f"what {found['method']} promises by its own settings"
    )
    show(
        found, json,
        f"Published {found['model']}: {promise}.\nStart of training: {found['start'] or 'unknown'}.\n"
        f"Serve a request from it: expunge run JOB --model {found['model']} --out EVIDENCE",
    )  # fmt: skip


def show_methods(rows: Sequence[Mapping[str, Any]], json: bool) -> None:
    """The table of methods."""
    if json:
        show(rows, True)
        return
    cells = [
        [row["name"], ", ".join(row["kinds"]), ", ".join(row["needs"]) or "nothing", row["effect"],
         "yes" if row["certified"] else "no"]
        for row in rows
    ]  # fmt: skip
    table_("Methods", ("name", "serves", "needs", "changes", "can certify"), cells)
    for row in rows:
        print(f"  {row['name']}: {row['paper']}")


def show_method(found: Mapping[str, Any], json: bool) -> None:
    """One method: what it does, what it promises, and its settings."""
    if json:
        show(found, True)
        return
    print_wrapped(f"{found['name']}: {found['summary']}")
    for title, text in (
        ("Paper", found["paper"]), ("Formal guarantee", found["guarantee"]), ("Serves", ", ".join(found["kinds"])),
        ("Tasks", ", ".join(found["tasks"])), ("Needs", ", ".join(found["needs"]) or "nothing"),
    ):  # fmt: skip
        if text:
            print_wrapped(f"{title}: {text}")
    for each in found["settings"]:
        default = "required" if each["required"] else f"default {json_module.dumps(each['default'])}"
        sentence = f"{each['name']} ({each['allowed']}; {default}): {each['meaning']}".rstrip(": ")
        print(textwrap.fill(sentence, WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False))


def show_requests(rows: Sequence[Mapping[str, Any]], json: bool) -> None:
    """The requests of a ledger."""
    if json:
        show(list(rows), True)
        return
    if not rows:
        print("The ledger contains no request.")
        return
    cells = [
        [r["id"], "+".join(r["kinds"]), r["status"], str(r["received"]), str(r["due"]), str(r["ground"])] for r in rows
    ]
    table_("Requests", ("id", "kind", "status", "received", "due", "ground"), cells)


def show_request(found: Mapping[str, Any], json: bool) -> None:
    """One request and the ledger entries about it."""
    if json:
        show(found, True)
        return
    request = found["request"]
    lines = [f"Request {request['id']} ({'+'.join(request['kinds'])}): {request['status']}"]
    lines += [f"  {name}: {request[name]}" for name in ("ground", "received", "due", "reason", "by") if request[name]]
    lines += [f"  entry {entry['sequence']}, {entry['time']}: {entry['kind']}" for entry in found["entries"]]
    print("\n".join(lines))


def show_added(row: Mapping[str, Any], json: bool) -> None:
    """A request that was filed."""
    show(row, json, f"{row['id']}: {row['status']}, received {row['received']}, an answer is due by {row['due']}")


def show_verification(result: Any, json: bool) -> None:
    """The outcome of a verification."""
    if json:
        show(result.to_json(), True)
        return
    for check in result.checks:
        word = "ok" if check.ok and not check.skipped else "skip" if check.ok else "BAD"
        said = check.problem or check.skipped or check.note
        print(f"{word:<4}  {check.name}" + (f": {said}" if said else ""))
    print(result.message)


def show_calibration(result: Mapping[str, Any], json: bool) -> None:
    """Bounds and noise levels."""
    if json:
        show(result, True)
        return
    rows = [[name, number(value, 8), number(result["sigma"][name], 6)] for name, value in result["sensitivity"].items()]
    title = f"R2D, epsilon {result['epsilon']:g}, delta {result['delta']:g}"
    table_(title, ("bound", "sensitivity", "sigma"), rows, numbers=("sensitivity", "sigma"))
    print(f"Tightest valid bound: {result['tightest']}")


def matched_in_words(matched: Mapping[str, Any]) -> str:
    """How many examples a request matches; of how many conversations, where one makes several examples."""
    talks = matched.get("conversations")
    return f"{matched['count']} examples" + (f" of {talks} conversation{'s' * (talks != 1)}" if talks else "")


MATCHED_SHOWN = 10  # ids of a plan that people see; --json has all


def ids_in_words(matched: Mapping[str, Any]) -> str:
    """The first ids that a request matches; of examples that lie in files of their own, the names of the files."""
    units = {"files": matched["files"]} if matched.get("files") else matched["ids"]
    return ", ".join(
        f"{unit} {', '.join(map(str, of[:MATCHED_SHOWN]))}{', …' * (len(of) > MATCHED_SHOWN)}"
        for unit, of in units.items()
    )


def show_plan(result: Mapping[str, Any], json: bool) -> None:
    """What a job would do: the matched examples, the work, what the method promises, and what screening says."""
    if json:
        show(result, True)
        return
    matched, method = result["matched"], result["method"]
    print(f"Plan: {result['name']}")
    print_wrapped(
        f"Request {result['request']['id']} ({result['request']['kind']}) matches {matched_in_words(matched)}: "
        f"{ids_in_words(matched)}."
    )
    if along := result["forgotten"] - matched["count"]:
        print_wrapped(
            f"{along} further examples of earlier requests, which the model still knows, are forgotten with them."
        )
    print_wrapped(
        f"Retained: {result['retained'] if result['retained'] is not None else 'unknown'} examples"
        + (f", of which {result['touched']} change." if result["touched"] else ".")
    )
    settings = ", ".join(f"{name} {value}" for name, value in method["settings"].items() if value is not None)
    print_wrapped(f"Method: {method['name']} ({settings})." if settings else f"Method: {method['name']}.")
    print_wrapped(_work(result))
    if not result["trained"]:
        print("The model was not trained for this plan; its cost does not include training.")
    print_wrapped(promised(result))
    for caution in result["cautions"]:
        print_wrapped(f"Caution: {caution}")
    screening = result["screening"]
    held = "; ".join(screening["held"])
    print_wrapped(f"Screening holds the request back: {held}." if held else f"Screening: {screening['reason']}.")


def _work(result: Mapping[str, Any]) -> str:
    here, again = result["gradient_evaluations"], result["retrain_gradient_evaluations"]
    text = f"Work: {here:,} gradients of single examples"
    if again:
        text += f"; retraining takes {again:,} ({share(here / again)})"
    if cost := result["cost"]:
        memory = (cost["state_bytes"] + cost["activation_bytes"]) / 1e9
        text += f"; about {memory:.2g} GB of memory and about {cost['seconds'] / 60:.2g} minutes"
    return text + "."


def promised(result: Mapping[str, Any]) -> str:
    """What a plan promises, in a sentence or two."""
    promises = result["promises"]
    if not result["certified"]:
        return "Guarantee: none. The method promises nothing; the run measures how far it gets."
    if promises.get("epsilon") is None and result["cautions"]:
        return "Guarantee: none as things are."
    if promises.get("epsilon") is None:
        return "Guarantee: the run computes it; nothing finite is known before."
    of = ", ".join(f"{name} {number(promises[name])}" for name in ("epsilon", "delta", "sigma") if promises.get(name))
    of = of or "epsilon 0"
    return f"Guarantee: {of}, if the assumptions hold. The run checks them and computes the verdict."


_COSTS = ("sensitivity", "sigma", "accuracy", "cost")


def show_search(result: Mapping[str, Any], json: bool) -> None:
    """Candidates of a plan search and the chosen one."""
    if json:
        show(result, True)
        return
    rows = [
        [number(c["l2"]), share(c["rewind"]), c["bound"], number(c["sensitivity"]), number(c["sigma"]),
         share(c["accuracy"]), share(c["accuracy_cost"]), "chosen" if c["chosen"] else ("" if c["fits"] else "too costly")]
        for c in result["candidates"]
    ]  # fmt: skip
    title = f"Reaching epsilon {result['epsilon']:g}, delta {result['delta']:g} for {result['capacity']} records"
    table_(title, ("l2", "rewind", "bound", *_COSTS, ""), rows, numbers=_COSTS)
    print_wrapped(result["statement"])


def show_curves(result: Mapping[str, Any], out: Path, json: bool) -> None:
    """The models that were compared, and where the curves lie."""
    if json:
        show(result, True)
        return
    attacks = ("loss", "outputs_moved")
    rows = [
        [c["name"], f"{c['sigma']:g}", *(share(c["accuracy"][of]) for of in ("retain", "forget", "test")),
         *(number(c["membership"][a]["mean"]) if c["membership"] else "–" for a in attacks)]
        for c in result["models"]
    ]  # fmt: skip
    heads = ("model", "sigma", "retain", "forget", "test", "attack: loss", "attack: outputs moved")
    table_(result["name"], heads, rows, numbers=heads[1:])
    print_wrapped(f"Curves: {out / 'curves.html'}")
