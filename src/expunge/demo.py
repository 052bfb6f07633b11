"""The main job on data that every machine has: forget one person from digits, with a proof and without one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from expunge.core.data import Deletion
from expunge.core.errors import InputError
from expunge.core.files import private_folder
from expunge.core.method import Watch, silent
from expunge.core.request import Request, Target
from expunge.core.trained import Budget, Trained
from expunge.data.digits import GROUP_SIZE, digits
from expunge.data.rows import Rows
from expunge.jobs.carry_out import carry_out
from expunge.jobs.releasing import Case, Setting
from expunge.measuring import MeasureSettings
from expunge.methods.r2d import R2D
from expunge.model_folder import LEDGER, ModelFolder
from expunge.planning import publish, train
from expunge.report.folder import private_path
from expunge.report.record import slug
from expunge.tasks.classification import Classification
from expunge.tasks.networks import SoftmaxHead, perceptron
from expunge.training.recipes import GradientDescent

# Our choice: by the strongly convex bound, L2 0.003, 10 records and half rewound cost about 0.2 points of accuracy here.
L2 = 0.003
STEPS = 1000
REWIND = 0.5
PERSON = 17
# The network's noise is picked by hand, as in R2D's tables (arXiv 2409.09778): what it is worth is for the report to say.
NETWORK_SIGMA = 0.01


def run_demo(out: Path, *, watch: Watch = silent) -> dict[str, Any]:
    """Train, publish, file, plan, run, measure, report; returns the summary that ``--json`` prints.

    Raises:
        InputError: if ``out`` holds something else than this demo's evidence.
    """
    torch.set_num_threads(1)  # tensors this small lose more to threads that wait for each other than they gain
    train_rows, test_rows = digits()
    settings = MeasureSettings(shadow_models=16, replicates=4, trials=400)
    head = Classification(functools.partial(SoftmaxHead, 64, 10), dtype=torch.float64)
    smoothness = 0.5 + L2  # R²/2 + lambda with R = 1
    head_recipe = GradientDescent(steps=STEPS, lr=2 / (smoothness + L2), l2=L2)
    network = Classification(functools.partial(perceptron, (64, 32, 10)))
    network_recipe = GradientDescent(steps=500, lr=0.5, estimate=True)

    models = private_path(out) / "models"
    ledger = models / LEDGER  # one for both: it shows that they were published before anyone asked
    rewind = R2D(rewind=REWIND)
    promises = {
        "linear head": (head, head_recipe, Budget(epsilon=1.0, delta=1e-5, capacity=GROUP_SIZE)),
        "network": (
            network, network_recipe, Budget(epsilon=None, delta=1e-5, capacity=GROUP_SIZE, sigma=NETWORK_SIGMA),
        ),
    }  # fmt: skip
    cases = []
    for name, (task, recipe, budget) in promises.items():
        folder = ModelFolder(models / slug(name), ledger=ledger, name=slug(name))
        if not folder.published:
            must_be_free(out)
            private_folder(private_path(out))
            private_folder(models)
            trained = train(task, train_rows, recipe, watch=watch)
            publish(trained, budget, method=rewind, to=folder)
        cases.append(Case(name, _load(folder, task, train_rows), None, rewind, settings, folder=folder))
    request = Request(
        f"person {PERSON}", (Target("user", {"person": PERSON}),), "Art. 17(1)(b) GDPR, consent withdrawn"
    )
    setting = Setting(
        title="Demonstration: forget one person from a digit classifier",
        dataset="scikit-learn digits",
        deletion=Deletion.of(train_rows, request, {"test": test_rows}),
        config=_config(head_recipe, network_recipe),
        note="Ten consecutive images stand for one person: the people are synthetic, the images are real.",
    )
    return carry_out(request, cases, setting, out, watch=watch)


def must_be_free(out: Path) -> None:
    """Raise InputError if ``out`` holds something before anything was published for it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} holds something already, perhaps the evidence of another request. Name a new folder.")


def _load(folder: ModelFolder, task: Classification, rows: Rows) -> Callable[[Watch], Trained]:
    """Reads the model as it was published: the demo has one request, whose own try may be taken up."""
    released = {entry.request for entry in folder.book.spent()}
    return lambda _: folder.load(task, rows, next(iter(released), None))


def _config(head: GradientDescent, network: GradientDescent) -> str:
    content = {
        "demo": True,
        "linear head": {**head.describe(), "budget": {"epsilon": 1.0, "delta": 1e-5, "capacity": GROUP_SIZE}},
        "network": {**network.describe(), "budget": {"sigma": NETWORK_SIGMA, "delta": 1e-5, "capacity": GROUP_SIZE}},
        "method": {"name": "r2d", "rewind": REWIND},
    }
    return yaml.safe_dump(content, sort_keys=False)
