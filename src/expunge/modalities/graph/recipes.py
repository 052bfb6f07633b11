"""What a recipe of graph networks says: model, graph, training, what is forgotten, and the settings of every row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from expunge.core.digest import digest_json
from expunge.modalities.graph.config import Fitted, Setup, WholeGraphTraining
from expunge.modalities.recipes import BenchmarkRecipe
from expunge.modalities.settings import Strict

NULLS = 20  # retrained models that the verifier's bands rest on: measured to hold every one of 18 further ones


class Forget(Strict):
    """A random share: of the training nodes, of the edges, or of the training nodes with all their features."""

    kind: Literal["node", "edge", "feature"]
    share: float = Field(gt=0, lt=1)


class GraphRecipe(Setup, BenchmarkRecipe):
    """One benchmark of graph networks.

    Attributes:
        training: how source and retrained models are trained.
        forget: what is forgotten.
        retrained_models: retrained models for each forget set; three are the fewest that have a spread.
    """

    training: Annotated[Fitted, Field(discriminator="kind")] = WholeGraphTraining(kind="whole_graph")  # type: ignore[call-arg]
    forget: Forget
    retrained_models: int = Field(NULLS, ge=3)

    @property
    def digest(self) -> str:
        """Of all settings that decide source, references and forget sets: not of titles, notes, methods and places of files."""
        parts = {"model", "model_settings", "depth", "dtype", "device", "data", "training", "forget", "seed"}
        content = self.model_dump(mode="json", include=parts)
        data = {name: value for name, value in content.pop("data").items() if name not in ("path", "edges")}
        return digest_json([content, data])

    @property
    def forgets(self) -> Mapping[str, Any]:
        """The section ``forget``."""
        return self.forget.model_dump()
