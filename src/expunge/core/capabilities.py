"""What a way of forgetting declares: where it was published, what it serves, needs and promises, how it is set when small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from expunge.core.errors import InputError

EFFECTS = ("weights", "adapter", "operator", "graph", "none")
NEEDS = (
    "retained data", "forgotten data", "recipe", "trail", "budget", "convex loss", "gradient descent", "noisy training",
    "perturbed training", "ridge training", "sharded training",
    "random start", "stages", "representation", "untied weights", "peers", "written items",
)  # fmt: skip
Ranges = Mapping[str, tuple[float, float]]  # setting → (low, high), searched on a logarithmic scale
Configurations = Mapping[str, Mapping[str, Any]]  # name in tables → settings


@dataclass(frozen=True)
class Paper:
    """Where a method was published.

    Attributes:
        title: of the paper.
        by: authors and venue.
        arxiv: its arXiv identifier; empty where there is none.
    """

    title: str
    by: str
    arxiv: str = ""

    @property
    def link(self) -> str:
        """Where it can be read; empty where that is not known."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""

    def __str__(self) -> str:
        return f"{self.title} ({self.by}{f', arXiv {self.arxiv}' if self.arxiv else ''})"


@dataclass(frozen=True)
class Capabilities:
    """What a method serves, needs, changes and promises. The defaults are those of most methods, and promise nothing.

    Attributes:
        kinds: target kinds it serves.
        tasks: task names it runs on (``"*"``: any); ``language`` is every task whose models answer token by token.
        needs: among :data:`NEEDS`; ``forgotten data`` are what is to be forgotten itself, ``written items`` say what is to be
            learnt in its place.
        effect: what it changes: weights, adapter, operator, graph or none. A method whose effect is not ``none`` and that
            changes nothing has failed.
        certified: whether it can carry a certificate at all.
    """

    kinds: tuple[str, ...] = ("samples", "user", "class")
    tasks: tuple[str, ...] = ("*",)
    needs: tuple[str, ...] = ("retained data", "forgotten data")
    effect: str = "weights"
    certified: bool = False

    def __post_init__(self):
        if self.effect not in EFFECTS:
            raise InputError(f"Expected an effect among {', '.join(EFFECTS)}; got {self.effect!r}.")
        if unknown := [need for need in self.needs if need not in NEEDS]:
            raise InputError(f"Expected needs among {', '.join(NEEDS)}; got {', '.join(unknown)}.")

    @property
    def leaves_weights(self) -> bool:
        """Whether the weights are released as they are: by a control, and by a method that changes the data only."""
        return self.effect in ("none", "graph")

    @property
    def cuts_data(self) -> bool:
        """Whether the data of the next request are without what went although the weights stayed."""
        return self.effect == "graph"


@dataclass(frozen=True)
class SmallScale:
    """Settings for models of some hundred weights, where the defaults are meant for those of the papers: tests run these.

    Attributes:
        fit: what so small a model needs in every run; with the defaults it would be refused.
        quick: for a run of milliseconds that changes the weights.
        visible: for a run after which it can be seen that the forget set is forgotten.
        variants: variant (``dual``, ``su``) → what the method needs besides in every run under it.
    """

    fit: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)
    visible: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def but(self, **parts: Mapping[str, Any]) -> SmallScale:
        """These settings with those of ``parts`` over them."""
        return replace(self, **{name: {**getattr(self, name), **settings} for name, settings in parts.items()})
