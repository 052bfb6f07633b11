"""What a job file for a graph network may say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from expunge.modalities.settings import (
    CheckpointTraining,
    Count,
    EvidenceSettings,
    Job,
    OwnSets,
    RequestSettings,
    Seed,
    StoredTraining,
    Strict,
)  # fmt: skip

Network = Literal["gcn", "gat", "graphsage", "gin", "sgc"]


class PublicSplit(Strict):
    """The split that was published with the graph (Planetoid only)."""

    kind: Literal["public"]


class SharesSplit(Strict):
    """Random shares of the labelled nodes; the rest is for testing."""

    kind: Literal["shares"]
    train: float = Field(0.6, gt=0, lt=1)
    validation: float = Field(0.2, ge=0, lt=1)
    seed: Seed = 0


class PerClassSplit(Strict):
    """So many nodes of each class to train on and so many others to validate on; the rest is for testing."""

    kind: Literal["per_class"]
    train: Count = 20
    validation: int = Field(500, ge=0)
    seed: Seed = 0


Split = Annotated[PublicSplit | SharesSplit | PerClassSplit, Field(discriminator="kind")]
RandomSplit = Annotated[SharesSplit | PerClassSplit, Field(discriminator="kind")]
SHARES = SharesSplit(kind="shares")  # type: ignore[call-arg]


class PlanetoidData(OwnSets):
    """Cora, CiteSeer or PubMed; see ``data.graphs.planetoid``. Without ``path``, in the folder that ``EXPUNGE_DATA`` names."""

    format: Literal["planetoid"]
    name: Literal["Cora", "CiteSeer", "PubMed"]
    path: Path | None = None
    split: Split = PublicSplit(kind="public")


class CoauthorData(OwnSets):
    """Coauthor CS or Physics; see ``data.graphs.files``."""

    format: Literal["coauthor"]
    name: Literal["CS", "Physics"]
    path: Path | None = None
    split: RandomSplit = SHARES


class FileData(OwnSets):
    """A graph of your own: ``.npz``, ``.pt``, ``.graphml``, or two tables; see ``data.graphs.files``."""

    format: Literal["graph"]
    path: Path
    edges: Path | None = None
    label: str = "label"
    node: str = "node"
    scale: Literal["none", "rows"] = "none"
    split: RandomSplit = SHARES


class BlockModelData(OwnSets):
    """A made-up graph; see ``data.graphs.block_model`` for the presets."""

    format: Literal["block_model"]
    preset: str
    seed: Seed = 0
    split: RandomSplit = SHARES


AnyData = Annotated[PlanetoidData | CoauthorData | FileData | BlockModelData, Field(discriminator="format")]


def called(data: Any) -> str:
    """What a report calls the data."""
    match data:
        case PlanetoidData():
            return data.name
        case CoauthorData():
            return f"Coauthor {data.name}"
        case BlockModelData():
            return f"block model {data.preset}"
    return data.path.name


class WholeGraphTraining(Strict):
    """Every step on all training nodes; see ``training.graphs.GraphTraining`` for where the defaults come from."""

    kind: Literal["whole_graph"]
    epochs: Count = 200
    lr: float = Field(0.01, gt=0)
    l2: float = Field(5e-4, ge=0)
    optimizer: Literal["adam", "sgd"] = "adam"


class SampledTraining(Strict):
    """Mini-batches with sampled neighbourhoods; see ``training.sampled_graphs.SampledGraphTraining``."""

    kind: Literal["sampled_graph"]
    batch_size: Count = 64
    fan_out: list[Count] = Field([5, 10], min_length=1)
    epochs: Count = 100
    lr: float = Field(0.005, gt=0)
    l2: float = Field(0.0, ge=0)


class MinimumTraining(Strict):
    """The minimum of the loss, of ``sgc`` in double precision; see ``training.graph_minimiser.GraphMinimiser``."""

    kind: Literal["minimum"]
    l2: float = Field(1e-2, gt=0)
    sigma: float = Field(0.0, ge=0)
    loss: Literal["softmax", "one_vs_rest"] = "softmax"
    epochs: Count = 200
    lr: float = Field(0.01, gt=0)


class RidgeTraining(Strict):
    """Ridge regression on averaged features, of ``sgc`` without bias; see ``training.graph_ridge.GraphRidge``."""

    kind: Literal["ridge"]
    l2: float = Field(0.1, gt=0)


class ShardsTraining(Strict):
    """A network a shard of the training nodes; see ``training.graph_shards`` and ``tasks.graphs.shards``."""

    kind: Literal["shards"]
    shards: Count = 10
    partition: Literal["random", "blpa", "bekm"] = "random"
    aggregator: Literal["mean", "majority", "learned"] = "mean"
    epochs: Count = 200
    lr: float = Field(0.01, gt=0)
    l2: float = Field(5e-4, ge=0)


class Setup(Strict):
    """What jobs and benchmarks share: a model and its data.

    Attributes:
        model: a network of expunge's own by its name, or your factory as ``package.module:callable``.
        model_settings: of either; expunge's own get ``inputs`` and ``classes`` from the graph.
        predict: the labels of nodes, or ``links``: whether an edge joins two nodes; expunge's own networks then give every node
            64 numbers (GNNDelete's released code), or as many as ``model_settings: {classes: …}`` says.
        depth: over how many hops your model gathers, where it does not say so itself (``depth`` of the module).
    """

    task: Literal["graph"] = "graph"
    model: Network | str
    model_settings: dict[str, Any] = Field({})
    predict: Literal["nodes", "links"] = "nodes"
    depth: Count | None = None
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    seed: Seed = 0
    data: AnyData


Fitted = WholeGraphTraining | SampledTraining | MinimumTraining | RidgeTraining | ShardsTraining


class GraphJob(Setup, Job):
    """One deletion job on a graph network."""

    training: Annotated[Fitted | StoredTraining | CheckpointTraining, Field(discriminator="kind")] = WholeGraphTraining(
        kind="whole_graph"
    )  # type: ignore[call-arg]
    request: RequestSettings
    evidence: EvidenceSettings = EvidenceSettings()  # type: ignore[call-arg]

    def identity(self) -> dict[str, Any]:
        """Without the sets that are only measured on."""
        return OwnSets.left_out_of(super().identity())
