"""The section ``network`` of a job file: the same kind of model, trained by peers that each hold a part of the rows.

It keeps the task of the job. What the modality opened is wrapped: rows get owners, and the recipe is one of a network.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import Field, model_validator

from expunge.core.errors import InputError
from expunge.core.keys import subject_key
from expunge.modalities.settings import Count, Job, Seed, StoredTraining, Strict

if TYPE_CHECKING:  # a job file is checked before anything heavy is imported
    from expunge.data.partition import Partition
    from expunge.modalities.modality import Modality, Opened
    from expunge.network.gossip import Gossip
    from expunge.network.topology import Topology
    from expunge.network.walk import Walk


class MadeTopology(Strict):
    """A graph of a known kind on the clients in order; see ``network.topology.Topology.make``."""

    kind: Literal["ring", "grid", "complete", "erdos_renyi"]
    probability: float = 0.4
    seed: Seed = 0
    columns: Count | None = None


class NamedEdges(Strict):
    """Pairs of clients that talk to each other."""

    kind: Literal["edges"]
    edges: list[tuple[str | int, str | int]] = Field(min_length=1)


class MixingSettings(Strict):
    """How neighbours average.

    Attributes:
        weights: ``metropolis``, or rows of a symmetric, doubly stochastic matrix over the clients in order.
        drop: probability with which an edge loses its messages in a round.
        consensus: whether training ends with the mean of all models at every peer; see ``network.gossip.Gossip``.
        rewire: whether what is left may be joined anew where peers that leave were a cut set.
    """

    weights: Literal["metropolis"] | list[list[float]] = "metropolis"
    drop: float = 0.0
    consensus: bool = True
    rewire: bool = False


class GossipRecipe(Strict):
    """Every peer mixes with its neighbours and steps on its own rows; see ``network.gossip.Gossip``."""

    kind: Literal["gossip"]
    rounds: Count
    lr: float
    l2: float = 0.0
    batch_size: Count | None = None
    init: Literal["module", "seed"] = "module"


class WalkRecipe(Strict):
    """A token carries the model from peer to peer; see ``network.walk.Walk``."""

    kind: Literal["walk"]
    hops: Count
    lr: float
    steps: Count = 60
    batch_size: Count = 64
    optimizer: Literal["adam", "sgd"] = "adam"
    init: Literal["module", "seed"] = "module"


class NetworkSettings(Strict):
    """Who holds which rows, who talks to whom, and how they train.

    Attributes:
        owner: the column that says whose a row is.
        clients: without such a column: among how many clients rows are shared out, for experiments; evenly, or by label.
        alpha: Dirichlet parameter of sharing out by label; evenly where not given.
        names: ``keyed``: in records, reports and stored models the owners of a column have labels, keyed with this
            installation's secret, as people have. ``shown``: they have their names, for organisations that may be named.
        topology, mixing, recipe: see their classes. A model from disk brings its recipe.
    """

    owner: str | None = None
    names: Literal["keyed", "shown"] = "keyed"
    clients: Count | None = None
    alpha: float | None = None
    topology: Annotated[MadeTopology | NamedEdges, Field(discriminator="kind")] = MadeTopology(kind="ring")
    mixing: MixingSettings = MixingSettings()
    recipe: Annotated[GossipRecipe | WalkRecipe, Field(discriminator="kind")] | None = None

    @model_validator(mode="after")
    def _one_way_to_own(self) -> NetworkSettings:
        if (self.owner is None) == (self.clients is None):
            raise ValueError(
                "say whose rows are whose: owner (a column), or clients (among how many to share them out)"
            )
        if self.alpha is not None and self.clients is None:
            raise ValueError("alpha shares rows out by label among clients; an owner column decides that already")
        if (
            self.recipe is not None
            and self.recipe.kind == "walk"
            and self.mixing != MixingSettings(rewire=self.mixing.rewire)
        ):
            raise ValueError("a token walk averages nothing: leave mixing out, or take recipe: {kind: gossip, …}")
        return self

    @property
    def key(self) -> bytes | None:
        """The secret of labels; ``None`` where peers have names."""
        return subject_key() if self.owner is not None and self.names == "keyed" else None

    def shared_out(self, rows: Any, seed: int) -> Partition:
        """``rows`` with an owner each.

        Raises:
            InputError: for data that are no rows, a column that names no owners, or clients that would hold nothing.
        """
        from expunge.data.partition import Partition, by_label, evenly
        from expunge.data.rows import Rows

        if not isinstance(rows, Rows):
            raise InputError(
                f"Expected rows that clients can hold; {type(rows).__name__} cannot be shared out among peers. Leave network "
                "out of the job."
            )
        if self.owner is not None:
            return Partition.of_rows(rows, self.owner, self.key)
        assert self.clients is not None
        return (
            evenly(rows, self.clients, seed) if self.alpha is None else by_label(rows, self.clients, self.alpha, seed)
        )

    def topology_on(self, data: Partition) -> Topology:
        """The graph of the clients of ``data``.

        Raises:
            InputError: for a graph in several parts, edges of clients without rows, or clients without edges.
        """
        from expunge.network.topology import Topology

        section = self.topology
        if isinstance(section, MadeTopology):
            made = section.model_dump(exclude={"kind"})
            return Topology.make(section.kind, data.clients, **made)
        place = {name: i for i, name in enumerate(data.named_clients)}
        pairs = [(str(a), str(b)) for a, b in section.edges]
        if unknown := sorted({name for pair in pairs for name in pair} - {*place}):
            raise InputError(
                f"network.topology.edges names {', '.join(unknown[:5])}, which hold(s) no rows. Clients: "
                f"{', '.join(data.named_clients[:10])}."
            )
        edges = [(min(place[a], place[b]), max(place[a], place[b])) for a, b in pairs]
        return Topology(data.clients, tuple(edges))

    def recipe_on(self, data: Partition) -> Gossip | Walk:
        """How the clients of ``data`` train.

        Raises:
            InputError: for a network that cannot train, or a mixing matrix that is none.
        """
        from expunge.network.gossip import Gossip
        from expunge.network.walk import Walk

        assert self.recipe is not None
        settings, topology = self.recipe.model_dump(exclude={"kind", "init"}), self.topology_on(data)
        if isinstance(self.recipe, WalkRecipe):
            return Walk(topology=topology, rewire=self.mixing.rewire, **settings)
        weights = self.mixing.weights
        rows = None if weights == "metropolis" else tuple(map(tuple, cast("list[list[float]]", weights)))
        mixing = self.mixing.model_dump(exclude={"weights"})
        return Gossip(topology=topology, mixing=rows, **mixing, **settings)


class InNetwork(Strict):
    """What a job in a network says besides, and instead of, what its kind of model says."""

    called: ClassVar[str] = "job"
    training: StoredTraining | None = None
    network: NetworkSettings

    @model_validator(mode="after")
    def _trained_once(self) -> InNetwork:
        if (self.training is None) == (self.network.recipe is None):
            raise ValueError(
                "say how the network is trained in one place: network.recipe, or training: {kind: stored, folder: …} for one "
                "that is trained already"
            )
        return self


@functools.cache
def in_network(job: type[Job]) -> type[Job]:
    """The job of a kind of model with the section ``network``."""
    return cast("type[Job]", type(job.__name__, (InNetwork, job), {"__module__": job.__module__}))


def opened(kind: Modality, job: Job) -> Opened[Any, Any]:
    """What the files of a job hold, in a network where the job has one.

    Raises:
        InputError: as ``Modality.open``, and for rows that cannot be shared out as the job says.
    """
    network: NetworkSettings | None = getattr(job, "network", None)
    if network is None:
        return kind.open(job)
    stored = isinstance(job.training, StoredTraining)
    found = kind.open(job if stored else job.model_copy(update={"training": network.recipe}))
    data = network.shared_out(found.data, job.seed)
    recipe = None if stored else network.recipe_on(data)
    many = f"{len(data.clients)} peers without a server hold the rows."
    return replace(
        found,
        data=data,
        recipe=recipe,
        probes=_owned(found.probes, data, network.key),
        note=f"{found.note} {many}".strip(),
    )


def peers_apart(job: Job, data: Any) -> int:
    """How many peers keep models of their own after training; 0 for models without a network, or with one model for all."""
    network: NetworkSettings | None = getattr(job, "network", None)
    return 0 if network is None or network.mixing.consensus else len(data.clients)


def as_recorded(content: dict[str, Any]) -> dict[str, Any]:
    """A dumped job as it may stand in a record: a stored network brings how it was trained, whatever the job says of that, and
    edges are between labels where the peers have labels.
    """
    network = content.get("network")
    if not network:
        return content
    if (content.get("training") or {}).get("kind") == "stored":
        network = {name: value for name, value in network.items() if name not in ("topology", "mixing", "recipe")}
    elif network["topology"]["kind"] == "edges" and (key := NetworkSettings.model_validate(network).key) is not None:
        from expunge.data.partition import label_of

        edges = [[label_of(str(name), network["owner"], key) for name in edge] for edge in network["topology"]["edges"]]
        network = {**network, "topology": {**network["topology"], "edges": edges}}
    return {**content, "network": network}


def _owned(probes: Mapping[str, Any], data: Partition, key: bytes | None) -> dict[str, Any]:
    """Sets to measure on, with owners where their rows say so."""
    return {
        name: type(data).of_rows(rows, data.by, key) if data.by in getattr(rows, "columns", ()) else rows
        for name, rows in probes.items()
    }
