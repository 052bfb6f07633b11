"""Commands that say, before anything is published, what a guarantee takes and costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli import output
from expunge.cli.options import Job, Json, Set, checked_job

calibrate = typer.Typer(no_args_is_help=True, help="Sensitivity and noise: what a guarantee takes.")


@calibrate.command("r2d")
def r2d(
    smoothness: Annotated[float, typer.Option(help="L, smoothness of the loss of every example.")],
    gradient_bound: Annotated[float, typer.Option(help="G, bound on the gradient norm of every example.")],
    lr: Annotated[float, typer.Option(help="eta, the step size.")],
    samples: Annotated[int, typer.Option(help="n, training examples.")],
    forget: Annotated[int, typer.Option(help="m, examples to forget.")],
    steps: Annotated[int, typer.Option(help="T, training steps.")],
    rewind: Annotated[int, typer.Option(help="K, steps that are rewound and repeated.")],
    epsilon: Annotated[float, typer.Option(help="Target epsilon.")] = 1.0,
    delta: Annotated[float, typer.Option(help="Target delta.")] = 1e-5,
    convex: Annotated[bool, typer.Option("--convex", help="The loss is convex.")] = False,
    strong_convexity: Annotated[float, typer.Option(help="mu, if the loss is strongly convex.")] = 0.0,
    json: Json = False,
) -> None:
    """Compute the sensitivity bounds of rewind-to-delete, and the noise that each of them needs."""
    from expunge.jobs.calibration import calibrate_r2d as compute

    result = compute(
        smoothness=smoothness, gradient_bound=gradient_bound, lr=lr, samples=samples, forget=forget, steps=steps,
        rewind=rewind, epsilon=epsilon, delta=delta, convex=convex, strong_convexity=strong_convexity,
    )  # fmt: skip
    output.show_calibration(result, json)


@calibrate.command("search")
def search(
    job: Job,
    guarantee: Annotated[str, typer.Option(help="What to reach, for example epsilon=1 or epsilon=1,delta=1e-5.")],
    tolerance: Annotated[float, typer.Option(help="Accuracy that the noise may cost, as a share.")] = 0.01,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Find the cheapest rewind and regularisation that reach a guarantee, and what they cost. Writes nothing.

    It trains the job's model with four strengths of regularisation. Do this before you publish, and before requests come.
    """
    checked = checked_job(job, set_)
    from expunge.jobs.search import parse_guarantee
    from expunge.jobs.search import search as search_job

    target = parse_guarantee(guarantee)
    with output.progress() as watch:
        result = search_job(checked, (), target, tolerance=tolerance, watch=watch)
    output.show_search(result, json)


@calibrate.command("curves")
def curves(
    job: Job,
    out: Annotated[Path, typer.Option("--out", help="Folder for curves.html and curves.json.")],
    set_: Set = None,
    json: Json = False,
) -> None:
    """Draw noise against share, rewind and epsilon, and accuracy against noise beside equally noised retrained models.

    It trains the job's model, unlearns the job's request at seven rewinds and retrains once. Nothing is released.
    """
    checked = checked_job(job, set_)
    from expunge.jobs.curves import curves as measured

    with output.progress() as watch:
        result = measured(checked, (), out, watch=watch)
    output.show_curves(result, out, json)
