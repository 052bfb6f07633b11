"""Benchmarks of networks: any kind of model whose data are rows, with what is measured of all peers together beside the rest.

A recipe says what its kind of model says, a section ``network`` in the place of ``training``, and what leaves: a client, a
class or examples at one client, or poisoned images that one client holds.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import numpy as np
from pydantic import Field

from expunge import modalities
from expunge.core.data import Deletion
from expunge.core.digest import digest_json
from expunge.core.errors import InputError
from expunge.core.measurement import Measurement
from expunge.core.on_disk import whole
from expunge.core.request import Request, Target
from expunge.evidence.comparison import Models, compared_attacks
from expunge.evidence.outcome import judged
from expunge.metrics.catalogue import measurement
from expunge.metrics.outcomes import Judgement
from expunge.modalities import networks
from expunge.modalities.benchmark import Benchmark, Cells, Finished, Number, Scores, Tensors, Workload, mean
from expunge.modalities.layout import Layout
from expunge.modalities.recipes import BenchmarkRecipe
from expunge.modalities.settings import Count, Strict

if TYPE_CHECKING:
    from expunge.core.cache import Cache
    from expunge.data.partition import Partition
    from expunge.data.rows import Rows
    from expunge.modalities.modality import Modality, Opened


class ForgetClient(Strict):
    """One client after another, with all that it holds."""

    kind: Literal["client"]


class ForgetClassAtClient(Strict):
    """One class at one client after another."""

    kind: Literal["class_at_client"]
    label: int


class ForgetSamplesAtClient(Strict):
    """A random share of the rows of one client after another."""

    kind: Literal["samples_at_client"]
    share: float = Field(gt=0, lt=1)


class ForgetBackdoor(Strict):
    """Images of one client that were poisoned: ``share`` of its rows, called ``target``; see ``data.backdoor``.

    Trigger, class and their size are UNKNOWN in arXiv 2512.08443, which poisons 1,000 of 6,000.
    """

    kind: Literal["backdoor"]
    share: float = Field(1 / 6, gt=0, lt=1)
    target: int = 0
    size: Count = 3


class NetworkRecipe(Strict):
    """What a recipe in a network says besides, and instead of, what its kind of model says.

    Attributes:
        components: rows are projected on so many leading principal axes of the training rows, get a constant and norm one.
        smaller: section → keys that ``--quick`` changes: ``data`` and ``network.recipe``.
    """

    training: None = None
    network: networks.NetworkSettings
    forget: Annotated[
        ForgetClient | ForgetClassAtClient | ForgetSamplesAtClient | ForgetBackdoor, Field(discriminator="kind")
    ]
    components: Count | None = None
    smaller: dict[Literal["data", "network.recipe"], dict[str, Any]] = Field({})
    retrained_models: int = Field(1, ge=1)
    methods: dict[str, dict[str, Any]] = Field({})
    data: Any

    @property
    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """Row → settings."""
        return self.methods

    @property
    def digest(self) -> str:
        """Of all settings that decide the models and the forget sets: not of titles, notes, methods and places of files."""
        content = self.model_dump(
            mode="json", exclude=(set(BenchmarkRecipe.model_fields) - {"task", "seed"}) | {"smaller"}
        )
        content["data"] = {name: value for name, value in content["data"].items() if name not in ("path", "test_path")}
        return digest_json(content)

    @property
    def forgets(self) -> Mapping[str, Any]:
        """The section ``forget``."""
        return self.forget.model_dump()

    def shortened(self) -> Any:
        """What ``--quick`` runs: shorter settings of rows, fewer rows or rounds."""
        content = cast("BenchmarkRecipe", super()).shortened().model_dump()
        for section, changes in self.smaller.items():
            place = content
            for part in section.split("."):
                place = place[part]
            place.update(changes)
        return type(self).model_validate(content)

    def __reduce__(self) -> Any:
        return _again, (type(self).__bases__[-1], self.model_dump())


def _again(base: type[BenchmarkRecipe], content: Mapping[str, Any]) -> Any:
    return recipe_in_network(base).model_validate(content)


@functools.cache
def recipe_in_network(recipe: type[BenchmarkRecipe]) -> type[BenchmarkRecipe]:
    """The recipe of a kind of model with the section ``network``."""
    own = {"__module__": recipe.__module__, "__annotations__": {"data": recipe.model_fields["data"].annotation}}
    return cast("type[BenchmarkRecipe]", type(recipe.__name__, (NetworkRecipe, recipe), own))


def prepared(opened: Opened[Any, Any], components: int | None) -> Opened[Any, Any]:
    """Rows on the leading principal axes of the training rows, with a constant, at norm one."""
    if components is None:
        return opened
    import torch

    flat = whole(opened.data.x).flatten(1).double()
    centre = flat.mean(0)
    _, axes = torch.linalg.eigh((flat - centre).T @ (flat - centre))
    axes = axes[:, -components:].flip(1)

    def projected(rows: Rows) -> Rows:
        x = (whole(rows.x).flatten(1).double() - centre) @ axes
        x = torch.cat([x / x.norm(dim=1, keepdim=True).clamp_min(1e-12), torch.ones(len(x), 1, dtype=x.dtype)], 1)
        return replace(rows, x=(x / 2**0.5).to(rows.x.dtype), as_read=None)

    probes = {name: projected(rows) for name, rows in opened.probes.items()}
    return replace(opened, data=projected(opened.data), probes=probes)


@dataclass(frozen=True)
class NetworkWorkload(Workload):
    """See :class:`~expunge.modalities.benchmark.Workload`; ``kind`` says how models are read and scored."""

    recipe: Any
    opened: Opened[Any, Partition]
    kind: Modality

    @classmethod
    def of(cls, recipe: Any, kind: Modality) -> NetworkWorkload:
        """Rows with owners; poisoned, projected and checked as the recipe says.

        Raises:
            InputError: for rows that cannot be shared out or poisoned, or data without test rows.
        """
        opened = networks.opened(kind, recipe)
        if "test" not in opened.probes:
            raise InputError(f"Recipe {recipe.name} needs test rows; its data have none (test_path).")
        if getattr(recipe, "validation", 0) or getattr(recipe, "training_rows", None):
            raise InputError(
                f"Recipe {recipe.name}: leave validation and training_rows out; a network holds nothing back."
            )
        forget = recipe.forget
        if isinstance(forget, ForgetBackdoor):
            from expunge.data.backdoor import attack_sets, poisoned

            at = _drawn(opened.data, opened.data.clients[0], forget.share, [recipe.seed])
            data = cast("Partition", poisoned(opened.data, at, forget.target, forget.size))
            attacked = attack_sets(opened.probes["test"], forget.target, forget.size)
            opened = replace(opened, data=data, probes={**opened.probes, **attacked})
        opened = prepared(opened, recipe.components)
        for rows in (opened.data, *opened.probes.values()):
            opened.task.check(rows)
        return cls(recipe, opened, kind)

    @property
    def sets(self) -> float:
        """One client is poisoned; otherwise each goes once."""
        return 1 if isinstance(self.recipe.forget, ForgetBackdoor) else len(self.opened.data.clients)

    def request(self, number: int) -> Request:
        """What forget set ``number`` asks for."""
        forget, data = self.recipe.forget, self.opened.data
        order = np.random.default_rng([self.recipe.seed]).permutation(len(data.clients))
        client = data.clients[order[number % len(order)]]
        if isinstance(forget, ForgetClient):
            return Request(f"client {client}", (Target("client", {"client": client}),))
        if isinstance(forget, ForgetClassAtClient):
            return Request(f"class at {client}", (Target("class", {"label": forget.label, "client": client}),))
        if isinstance(forget, ForgetBackdoor):
            at = _drawn(data, data.clients[0], forget.share, [self.recipe.seed])
        else:
            at = _drawn(data, client, forget.share, [self.recipe.seed, number])
        return Request(f"forget set {number}", (Target("samples", {"ids": np.sort(data.ids[at])}),))

    def score(self, deletion: Deletion, tensors: Tensors, retrained: Tensors | None) -> Scores:
        """Every number that the kind of model has of each set, and its membership attacks."""
        sets = {"retain": deletion.after, "forget": deletion.forget, **deletion.probes}
        readings = self.kind.read(self.opened.task, tensors, sets)
        attacks, _ = compared_attacks(self.kind, Models(readings), sets)
        scored = {
            f"{item.metric}/{item.set}" if item.set else item.metric: item.value for item in self.kind.score(readings)
        }
        return Scores(scored | {item.metric: item.value for item in attacks})

    def among_peers(
        self, deletion: Deletion, held: Mapping[str, Tensors], retrained: Mapping[str, Tensors],
        scored: Mapping[str, Scores],
    ) -> Mapping[str, float]:  # fmt: skip
        """Distances of the mean model and of the worst peer's, and by how much an attack on each peer's model differs."""
        import torch

        from expunge.training.descent import trainable
        from expunge.training.flat import flatten

        names = trainable(self.opened.task.build())
        first = next(iter(held.values()))  # what all hold, where a method released one model for all
        stay = [peer for peer in retrained if peer in held] or list(retrained)
        ours, theirs = (
            torch.stack([flatten(of, names).double() for of in models])
            for models in ([held.get(peer, first) for peer in stay], [retrained[peer] for peer in stay])
        )
        found = {
            "distance_to_retrained": float((ours.mean(0) - theirs.mean(0)).norm()),
            "distance_to_retrained_worst_peer": float((ours - theirs).norm(dim=1).max()),
        }
        areas = [of.metrics["membership_loss"] for of in scored.values() if "membership_loss" in of.metrics]
        if areas:
            found |= {"membership_loss_spread": float(np.std(areas)), "membership_loss_worst_peer": max(areas)}
        worst = [of.metrics["accuracy/test"] for of in scored.values() if "accuracy/test" in of.metrics]
        return found | ({"accuracy_worst_peer": min(worst)} if worst else {})


def _drawn(data: Partition, client: str, share: float, seed: Sequence[int]) -> np.ndarray:
    """Positions of a random share of the rows of ``client``, at least one."""
    own = data.at(client)
    return np.sort(np.random.default_rng(seed).choice(own, max(1, round(share * len(own))), replace=False))


_SHOWN = ("distance_to_retrained", "distance_to_retrained_worst_peer", "accuracy/forget", "accuracy/retain", "accuracy/test",
          "accuracy/triggered", "accuracy_worst_peer", "membership_loss", "membership_loss_spread", "signal_to_noise",
          "seconds")  # fmt: skip


_LAYOUT = Layout(
    lead=_SHOWN,
    terminal={
        "distance": "distance_to_retrained", "worst\npeer": "distance_to_retrained_worst_peer", "forget": "accuracy/forget",
        "test": "accuracy/test", "attack": "accuracy/triggered", "MIA": "membership_loss", "seconds": "seconds",
    },
    meaning="“Forgets” says that accuracy or loss on the forgotten rows came near that of retraining, and nothing more.",
)  # fmt: skip


@dataclass(frozen=True)
class NetworkBenchmark:
    """See :class:`~expunge.modalities.benchmark.Benchmark`."""

    kind: Modality
    tuned_by: Sequence[str] = ()
    layout: Layout = _LAYOUT

    @property
    def recipe(self) -> type[BenchmarkRecipe]:
        """That of the kind of model, in a network."""
        return recipe_in_network(self.kind.benchmark.recipe)

    def workload(self, recipe: Any, cache: Cache) -> Workload:
        """Read what the recipe names; nothing is trained."""
        return NetworkWorkload.of(recipe, self.kind)

    def compare(self, finished: Finished) -> Mapping[str, Number]:
        """Every number is of one network."""
        return {}

    def judge(self, finished: Finished, recipe: Any) -> tuple[Judgement, Mapping[str, Any]]:
        """As a run is judged, on means over seeds."""
        done = finished.cells
        here, beside = finished.same_sets(finished.sources), finished.same_sets(finished.retrained)
        rows = sum({cell["forget_set"]: cell["n_forget"] for cell in done}.values())
        return judged([*_measured(done, here, beside, rows)]), {}


def _measured(done: Cells, here: Cells, beside: Cells, rows: int) -> list[Measurement]:
    names = [(metric, of) for metric in ("accuracy", "probability") for of in ("forget", "retain", "test")]
    return [
        measurement(
            metric, mean(done, f"{metric}/{of}"), n=rows, set=of, original=mean(here, f"{metric}/{of}"),
            ideal=mean(beside, f"{metric}/{of}") if beside else None,
        )
        for metric, of in names
        if f"{metric}/{of}" in done[0]["metrics"]
    ]  # fmt: skip


def benchmark_named(task: str, in_a_network: bool) -> Benchmark:
    """The benchmark of a kind of model, in a network or not."""
    kind = modalities.load(task)
    return NetworkBenchmark(kind) if in_a_network else kind.benchmark


def benchmark_of(recipe: BenchmarkRecipe) -> Benchmark:
    """The benchmark that ``recipe`` is of."""
    return benchmark_named(recipe.task, getattr(recipe, "network", None) is not None)
