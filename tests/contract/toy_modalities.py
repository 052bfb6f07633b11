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
from expunge.core.method import Capabilities
from expunge.core.request import Kind
from expunge.modalities.modality import Asked, Opened
from expunge.modalities.settings import EvidenceSettings, Job, RequestSettings, Strict
from expunge.screening.result import screen_breadth

ENTRY_POINTS = """
[expunge.modalities]
ring = tests.contract.toy_modalities:RING
peers = tests.contract.toy_modalities:PEERS
[expunge.methods]
gossip_correction = tests.contract.toy_modalities:GossipCorrection
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


class Toy:
    """What both have in common."""

    job = ToyJob
    in_processes = False

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
