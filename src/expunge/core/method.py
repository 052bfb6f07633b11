"""What a way of forgetting is given and hands back. What it declares is in ``core.capabilities``, and can be had here too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from expunge.core.capabilities import EFFECTS as EFFECTS
from expunge.core.capabilities import NEEDS as NEEDS
from expunge.core.capabilities import Capabilities as Capabilities
from expunge.core.capabilities import Configurations as Configurations
from expunge.core.capabilities import Paper as Paper
from expunge.core.capabilities import Ranges as Ranges
from expunge.core.capabilities import SmallScale as SmallScale
from expunge.core.certificate import UNCERTIFIED, UNCHANGED, Certificate, Claim, weakest
from expunge.core.data import Deletion
from expunge.core.errors import InputError
from expunge.core.task import Task
from expunge.core.trained import Artifact, Budget, Facts, Tensors, Trail, Trained


@dataclass(frozen=True)
class Estimate:
    """A method can run: what it will cost and promise, as far as can be told before.

    Attributes:
        gradient_evaluations: per-example gradients.
        retrain_gradient_evaluations: the same for retraining, or ``None``.
        promises: for example ``{"epsilon": 1.0, "delta": 1e-5, "sensitivity": ..}``, empty for no promise.
        cost: bytes, operations and seconds, roughly, where the method can tell before; else empty.
        cautions: what a person should mend or know before the run, in sentences.
    """

    gradient_evaluations: int
    retrain_gradient_evaluations: int | None = None
    promises: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """A method cannot run here: why, and what would work.

    Attributes:
        reason: why, as a sentence.
        instead: what would work, as a sentence; empty where nothing would.
    """

    reason: str
    instead: str = ""

    def __str__(self) -> str:
        return f"{self.reason} {self.instead}".strip()


# Sees progress: (stage, done, total). Guards look through it.
Watch = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """A watch that looks away."""


class Once(Protocol):
    """Part of a journal: computes bytes once, however often the run is started again."""

    def once(self, name: str, compute: Callable[[], bytes]) -> bytes:
        """The stored bytes of stage ``name``, computed and written ahead where they are not stored yet."""
        ...


class InMemory:
    """A journal that lasts as long as the process: for runs without a folder, which a crash starts anew."""

    def __init__(self):
        self.stages: dict[str, bytes] = {}

    def once(self, name: str, compute: Callable[[], bytes]) -> bytes:
        """See :class:`Once`."""
        if name not in self.stages:
            self.stages[name] = compute()
        return self.stages[name]


class NoiseSource(Protocol):
    """Where Gaussian noise comes from; only the operating system's supports a certificate."""

    @property
    def name(self) -> str:
        """What records call it."""
        ...

    def add(self, tensors: Mapping[str, Any], sigma: float) -> tuple[dict[str, Any], str]:
        """``tensors`` plus N(0, sigma² I), every coordinate once, and the precision in which it was added."""
        ...


@dataclass(frozen=True)
class Context:
    """Everything a method may touch.

    Attributes:
        task, trained, deletion: the model and what must go.
        request: the request's id.
        noise: where noise comes from.
        journal: stages that survive a crash.
        watch: progress.
        generator_seed: for every pseudo-random choice that is not certified noise.
        device: where tensors live.
        transport: peers, for networks.
    """

    task: Task
    trained: Trained
    deletion: Deletion
    request: str
    noise: Any
    journal: Once
    watch: Watch
    generator_seed: int = 0
    device: str = "cpu"
    transport: Any = None


@dataclass(frozen=True)
class Unlearned:
    """What a method hands back, before anybody checked it.

    Attributes:
        views: who sees what: one artifact for a model, one per peer for a network. ``Trained.views`` of the next model.
        claim: what it says it did, or ``None`` where nothing is promised.
        state: secret un-noised weights, or ``None`` where the release is all there is.
        trail: the trail that is left for later requests, or ``None``.
        purged: caches, iterates and states that had to go, in words.
        remains: what still contains the forgotten data and why, in words.
        gradient_evaluations: per-example gradients computed.
        details: JSON-like facts for the report.
    """

    views: Mapping[str, Artifact]
    claim: Claim | None = None
    state: Tensors | None = None
    trail: Trail | None = None
    purged: tuple[str, ...] = ()
    remains: tuple[str, ...] = ()
    gradient_evaluations: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Calibrated(Protocol):
    """A method whose bound fixes the published noise."""

    def calibrate(self, trained: Trained, budget: Budget) -> float:
        """sigma for ``budget`` at full capacity; raises InputError where no bound can be had."""
        ...


@runtime_checkable
class Replayable(Protocol):
    """A deterministic method whose un-noised result anybody with the trail can compute again."""

    def replay(self, context: Context) -> Tensors:
        """The un-noised weights, from trail and retained data alone; nothing that ``run`` stored is read."""
        ...


@runtime_checkable
class Settling(Protocol):
    """A method of which some settings follow from the model and the request, where nobody said what they are."""

    def settled(self, trained: Trained, deletion: Deletion) -> Method:
        """The method with every setting that it will run with: what plans, records and reports show."""
        ...


class Method(Protocol):
    """A way of forgetting; a frozen dataclass whose fields are the paper's symbols.

    Its class may say more: ``papers`` (:class:`Paper`), ``ranges`` (:data:`Ranges`, what ``bench --tune`` searches),
    ``configurations`` (:data:`Configurations`, further ones for benchmarks) and ``small`` (:class:`SmallScale`).
    """

    name: str
    capabilities: Capabilities

    def check(self, context: Context) -> Estimate | Refusal:
        """Whether it can run here, and at what price. Cheap; changes nothing."""
        ...

    def run(self, context: Context) -> Unlearned:
        """Forget."""
        ...


@dataclass(frozen=True)
class Release:
    """One thing that leaves the house, who sees it, and what is certified about it.

    Attributes:
        view: what records call it: the model's, or the first peer that holds it.
        artifact: what leaves.
        certificate: what is certified about it; ``None`` where nothing is promised.
        views: all that hold these same bytes. Peers that were sent one model saw one release, whatever their number.
    """

    view: str
    artifact: Artifact
    certificate: Certificate | None = None
    views: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "views", self.views or (self.view,))
        if self.view not in self.views:
            raise InputError(f"Expected {self.view!r} among those that hold the release; got {', '.join(self.views)}.")


@dataclass(frozen=True)
class Outcome:
    """What came of a plan.

    Attributes:
        status: ``fulfilled`` or ``unchanged`` (a control).
        request: record of the request (names nobody).
        method: name and settings.
        releases: one for a model, one per distinct model for a network.
        before, after: the model before, and the next one, so that requests follow one another.
        deletion: what went.
        change: L2 norm of the change of each tensor, measured by the planner, not told by the method.
        cost: seconds, gradient evaluations, peak memory.
        purged, remains: what was purged, and what still holds the forgotten data.
        details: the method's own facts: they may depend on forgotten rows, so the record that may be shown leaves them out.
        own: whether expunge's own implementation ran, by its exact type; otherwise a plug-in.
        noisy: content of the journal's last stage in which noise was drawn: what later steps of the release began with.
        seed: of the run's pseudo-random choices; never of certified noise.
        facts: of training, as certificates were made from them: what is called proved was proved again of the model as it is.
    """

    status: str
    request: Mapping[str, Any]
    method: Mapping[str, Any]
    releases: tuple[Release, ...]
    before: Trained
    after: Trained
    deletion: Deletion
    change: Mapping[str, float]
    cost: Mapping[str, Any]
    purged: tuple[str, ...] = ()
    remains: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    own: bool = True
    noisy: bytes | None = field(default=None, repr=False)
    seed: int = 0
    facts: Facts = field(default_factory=dict)

    @property
    def certificate(self) -> Certificate | None:
        """The certificate of the first release."""
        return self.releases[0].certificate

    @property
    def digests(self) -> Mapping[str, str]:
        """View → digest of what it was given, of a network; empty where there is one release."""
        held = {view: item.artifact.digest for item in self.releases for view in item.views}
        return held if len(held) > 1 else {}

    @property
    def verdict(self) -> str:
        """The certificate's verdict; ``unchanged`` for a control, ``no-certificate`` where nothing is promised."""
        if self.status == UNCHANGED:
            return UNCHANGED
        certificates = [release.certificate for release in self.releases]
        if any(certificate is None for certificate in certificates):
            return UNCERTIFIED
        return weakest(certificate.verdict for certificate in certificates if certificate).value
