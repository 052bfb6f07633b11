"""Two kinds of models that expunge does not have: a graph that loses edges, and two peers with a release each.

They are added as a package would add them, by entry points; nothing under ``src`` knows them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from tests.rehearsals.graphs import Graph
from tests.rehearsals.test_graph_edge import ClosedForm
from tests.rehearsals.test_two_peers import Correction, Gossip

from cases import FIXED, Partition, PointTask, attraction, squares
from expunge.core.data import Deletion
from expunge.core.method import Capabilities, Estimate, Unlearned
from expunge.core.request import Kind, Request, Target
from expunge.core.trained import Artifact
from expunge.metrics.outcomes import Judgement, Word
from expunge.modalities.benchmark import Finished, Presented, Scores, Workload, mean
from expunge.modalities.layout import Dots, Layout, Panel
from expunge.modalities.modality import Asked, Opened
from expunge.modalities.recipes import BenchmarkRecipe
from expunge.modalities.settings import EvidenceSettings, Job, RequestSettings, Strict
from expunge.screening.result import screen_breadth

ENTRY_POINTS = """
[expunge.modalities]
ring = tests.contract.toy_modalities:RING
peers = tests.contract.toy_modalities:PEERS
[expunge.methods]
gossip_correction = tests.contract.toy_modalities:GossipCorrection
away = tests.contract.toy_modalities:Away
"""


class Size(Strict):
    """How much there is."""

    n: int


class Training(Strict):
    """Nothing to set."""

    kind: Literal["closed_form"]


class ToyJob(Job):
    """What jobs of both say."""

    task: Any
    model: Size
    data: Size
    training: Training
    request: RequestSettings
    evidence: EvidenceSettings = EvidenceSettings()  # type: ignore[call-arg]


class ToyRecipe(BenchmarkRecipe):
    """What recipes of both say: ``where`` holds one request after another."""

    model: Size
    data: Size
    training: Training
    kind: str
    where: list[dict[str, Any]]

    @property
    def forgets(self) -> dict[str, Any]:
        return {"kind": self.kind}


@dataclass(frozen=True)
class ToyWorkload(Workload):
    """Losses, and the distance to the retrained model; a row ``@authored`` forgets through three points of its own."""

    recipe: ToyRecipe

    @property
    def sets(self) -> float:
        return len(self.recipe.where)

    def request(self, number: int) -> Request:
        where = self.recipe.where[number % len(self.recipe.where)]
        return Request(f"request {number}", (Target(self.recipe.kind, where),))

    def presented(self, row: str, deletion: Deletion, seed: int) -> Presented:
        return Presented(material=authored(self.recipe.model.n)) if row.endswith("@authored") else Presented()

    def score(self, deletion: Deletion, tensors: Any, retrained: Any) -> Scores:
        task = self.opened.task
        sets = {"forget": deletion.forget, "retain": deletion.after}
        losses = {name: task.losses(task.build(tensors), tensors, task.batch(data)) for name, data in sets.items()}
        found = {f"loss/{name}": float(each.mean()) for name, each in losses.items()}
        return Scores(found | {"distance": float((tensors["theta"] - retrained["theta"]).norm())})


@dataclass(frozen=True)
class ToyBenchmark:
    """Rows are judged by the distance to the retrained model."""

    modality: Any
    recipe: ClassVar = ToyRecipe
    tuned_by: ClassVar = ()
    layout: ClassVar = Layout(
        lead=("loss/forget", "loss/retain", "distance", "seconds"),
        terminal={"forget": "loss/forget", "retain": "loss/retain"},
        meaning="“Forgets” says that the weights are those of the retrained model.",
        figures=(Dots("losses", "Losses", "Less is nothing better.", (Panel(("loss/forget",), "Loss"),)),),
    )

    def workload(self, recipe: ToyRecipe, cache: Any) -> ToyWorkload:
        return ToyWorkload(recipe, self.modality.open(recipe))

    def compare(self, finished: Finished) -> dict[str, Any]:
        return {}

    def judge(self, finished: Finished, recipe: ToyRecipe) -> tuple[Judgement, dict[str, Any]]:
        apart = mean(finished.cells, "distance")
        return Judgement(Word.FORGETS if apart < 1e-9 else Word.UNDER_FORGETS, f"The distance is {apart:.3g}."), {}


class Toy:
    """What both have in common."""

    job = ToyJob
    in_processes = False

    @property
    def benchmark(self) -> ToyBenchmark:
        return ToyBenchmark(self)

    def ask(self, job: ToyJob, opened: Opened) -> Asked:
        return Asked(job.request.asked(), probes=opened.probes)

    def screen(self, job: ToyJob, opened: Opened, asked: Asked, deletion: Any) -> Any:
        return screen_breadth(asked.request, deletion)


class EdgeRecipe(ClosedForm):
    """Ridge regression on neighbourhoods."""

    def describe(self) -> dict[str, Any]:
        return {"recipe": "ridge on neighbourhoods"}


class Ring(Toy):
    """Nodes on a ring with chords; edges can go, and their ends change."""

    name = "ring"
    kinds = (Kind.EDGE,)

    def open(self, job: ToyJob) -> Opened:
        n, rng = job.data.n, np.random.default_rng(job.seed)
        edges = {10 + i: (i, (i + 1 + i % 3) % n) for i in range(n)}
        features, labels = rng.standard_normal((n, job.model.n)), rng.integers(0, 2, n)
        graph = Graph(torch.from_numpy(features), torch.from_numpy(labels), edges, np.arange(n))
        return Opened(PointTask(job.model.n, squares), graph, {}, EdgeRecipe(), None, "ring", "a ring")


class GossipRecipe(Gossip):
    """Means of two peers that lean towards each other."""

    def describe(self) -> dict[str, Any]:
        return {"recipe": "gossip"}


@dataclass(frozen=True)
class GossipCorrection(Correction):
    """Exact: both peers' means anew."""

    name: ClassVar[str] = "gossip_correction"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("samples", "client"), tasks=("point",), needs=("retained data",)
    )


def authored(n: int) -> Partition:
    """Three points that nobody trained on."""
    columns = {"peer": np.zeros(3, dtype=int), "owner": np.full(3, 99)}
    return Partition.of(np.eye(3, n) + 1, np.zeros(3, dtype=int), columns, preprocessing=FIXED)


@dataclass(frozen=True)
class Away:
    """A tenth of the way from the mean of what it is shown."""

    name: ClassVar[str] = "away"
    capabilities: ClassVar[Capabilities] = Capabilities(
        kinds=("samples", "client"), tasks=("point",), needs=("forgotten data",)
    )

    def check(self, context: Any) -> Estimate:
        return Estimate(len(context.deletion.forget))

    def run(self, context: Any) -> Unlearned:
        theta = context.trained.artifact.tensors["theta"]
        return Unlearned({"model": Artifact({"theta": moved_away(theta, context.deletion.forget)})})


def moved_away(theta: torch.Tensor, data: Any) -> torch.Tensor:
    return theta - 0.1 * (data.x.mean(0) - theta)


class Peers(Toy):
    """Rows of five owners, shared out over two peers."""

    name = "peers"
    kinds = (Kind.SAMPLES, Kind.CLIENT)

    def open(self, job: ToyJob) -> Opened:
        n = job.data.n
        x = np.random.default_rng(job.seed).standard_normal((n, job.model.n))
        columns = {"peer": np.arange(n) % 2, "owner": np.arange(n) // 4}
        data = Partition.of(x, np.zeros(n, dtype=int), columns, preprocessing=FIXED)
        task = PointTask(job.model.n, attraction(1.0))
        return Opened(task, data, {}, GossipRecipe(), None, "peers", "rows of five owners")


RING, PEERS = Ring(), Peers()
