"""The command that explains what a deletion did to a graph network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from expunge.cli import output
from expunge.cli.options import Json


def explain(
    before: Annotated[
        Path, typer.Argument(metavar="BEFORE", help="Weights before the deletion (.safetensors or .pt).")
    ],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="Weights after it.")],
    request: Annotated[
        Path, typer.Option("--request", help="Job file with the graph, the model, its training and the request.")
    ],
    nulls: Annotated[int, typer.Option(help="Retrained models to compare with.")] = 20,
    explainer: Annotated[
        str,
        typer.Option(help="Where attributions come from: saliency, integrated_gradients, gnn_explainer or attention."),
    ] = "saliency",
    out: Annotated[
        Path | None, typer.Option(help="A private folder for explained.html, with pictures, and explained.json.")
    ] = None,
    json: Json = False,
) -> None:
    """Tell whether a graph network forgot, or only its graph was edited. What it prints is private."""
    from expunge.jobs.schema import load_job
    from expunge.modalities.graph.explaining import explain as explained

    found = explained(load_job(request), before, after, nulls=nulls, explainer=explainer)
    if out is not None:
        from expunge.modalities.graph.page import write_explained

        write_explained(found, out)
    if json:
        output.show(found, True)
        return
    _show(found)


def _show(found: dict[str, Any]) -> None:
    rows = [
        [
            name,
            *(
                f"{each[key]:.4g}" if each[key] is not None else "–"
                for key in ("original", "unlearned", "retrained", "std", "z")
            ),
        ]
        for name, each in found["replay"].items()
    ]
    heads = ("replay, on the graph as it was", "original", "unlearned", "retrained", "std", "z")
    output.table_(f"{found['finding']} ({found['outcome']})", heads, rows, numbers=heads[1:])
    print(found["reason"])
    kept = {name: value for name, value in found["legacy"].items() if not isinstance(value, dict)}
    print(
        "Published metrics, which decide nothing: " + ", ".join(f"{name} {value:.4g}" for name, value in kept.items())
    )
