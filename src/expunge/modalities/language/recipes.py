"""What a benchmark of language models is: who is known, who is forgotten, how requests are worded, and rows' settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from expunge.attacks.stealthy import P
from expunge.core.digest import digest_json
from expunge.core.errors import InputError
from expunge.core.texts import DATE_STRING
from expunge.data import micro_world
from expunge.metrics.metric_spec import MetricSpec
from expunge.modalities.language.config import Teaching
from expunge.modalities.recipes import BenchmarkRecipe
from expunge.modalities.settings import Strict

SPLITS = {2: "forget01", 10: "forget05", 20: "forget10"}  # of TOFU, by how many authors go


class MicroWorld(Strict):
    """Made-up facts and a tiny model that learns them from scratch (``data.micro_world``).

    Attributes:
        entities, cities: how many of the world's subjects there are, from the front.
        forget: how many entities go, from the end.
        model: what ``tasks.micro_language`` takes: width, layers, heads, inner, context.
    """

    kind: Literal["micro"]
    entities: int = Field(micro_world.ENTITIES, ge=2, le=micro_world.ENTITIES)
    cities: int = Field(micro_world.CITIES, ge=0, le=micro_world.CITIES)
    forget: int = Field(6, ge=1)
    model: dict[Literal["width", "layers", "heads", "inner", "context"], int] = Field({})


class Pretrained(Strict):
    """A model on disk; a relative folder lies beside the recipe file, or in the folder that ``EXPUNGE_MODELS`` names.

    Attributes:
        template, date_string, system: how a question is put (``tasks.prompts.Prompts``).
        gguf: name of the GGUF file in it; ``None``: the only one, where there are no safetensors.
        get: one sentence on how to get it.
    """

    folder: Path
    gguf: str | None = None
    template: str | None = None
    date_string: str = DATE_STRING
    system: str | None = None
    context: int = Field(512, ge=16)
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"
    checkpointing: bool = False
    get: str = ""


class TofuWorld(Strict):
    """Questions about made-up authors that a pretrained model is taught before (TOFU, arXiv 2401.06121).

    Attributes:
        data: the folder of TOFU's files; ``None``: below the one that ``EXPUNGE_DATA`` names.
        authors: how many of the 200, from the end: where the authors of ``forget01`` and ``forget10`` are.
        forget: how many of these go, from the end.
        asked: retained questions that are asked, the same for every row.
        tokens: most tokens of an answer; TOFU's evaluation takes 200, its answers have about 40.
        others: questions about real authors and the world asked as well (``real``); 0: none.
        statistics: TOFU's truth ratio and model utility too, and beside a reference forget quality; these take the split
            ``forgetNN_perturbed`` of the authors that go, all of it.
    """

    kind: Literal["tofu"]
    data: Path | None = None
    model: Pretrained
    authors: int = Field(200, ge=2, le=200)
    forget: int = Field(2, ge=1)
    asked: int = Field(100, ge=1)
    tokens: int = Field(48, ge=1)
    others: int = Field(0, ge=0)
    statistics: bool = False

    @model_validator(mode="after")
    def _has_a_split(self) -> Self:
        if self.statistics and (self.forget not in SPLITS or self.authors < 200):
            raise ValueError(f"statistics need all 200 authors, and {', '.join(map(str, SPLITS))} of them to forget")
        return self


class LanguageRecipe(BenchmarkRecipe):
    """One benchmark of language models.

    A row is ``method``, then ``+su`` (scope term), ``+dual`` (DualOptim), then ``@`` and one of :attr:`attacks`: how the
    request is worded. A row has the settings of the row without its wording, of the row without its variants, and
    :attr:`common`, each where the more special one is silent. ``methods`` lists the rows of the table; any other
    combination may be asked for by name.

    Attributes:
        world: who is known, and by which model.
        training: how source and reference learn it; ``None``: the pretrained model knows it already, and is the source.
        retrained_models: 1: a model trained without what is forgotten stands beside the source.
        attacks: name of a wording → share of forgotten questions inside a template of the stealthy attack.
        common: settings of all rows.
        threads: of one process. One is right for tiny models, which run in several processes.
    """

    task: Literal["language"]
    world: Annotated[MicroWorld | TofuWorld, Field(discriminator="kind")]
    training: Teaching | None
    retrained_models: int = Field(0, ge=0, le=1)
    forget_sets: int | None = Field(1, ge=1)
    attacks: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field({"attack": P, "attack_all": 1.0})
    common: dict[str, Any] = Field({})
    threads: int = Field(1, ge=1)
    methods: dict[str, dict[str, Any]] = Field(min_length=1)

    @field_validator("attacks")
    @classmethod
    def _names(cls, attacks: dict[str, float]) -> dict[str, float]:
        if wrong := [name for name in attacks if "+" in name or "@" in name or not name]:
            raise ValueError(f"names of wordings are words without + and @; got {', '.join(wrong)}")
        return attacks

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.training is None and (self.retrained_models or isinstance(self.world, MicroWorld)):
            raise ValueError(
                "training: null is for a pretrained model that knows the world already, without retrained models"
            )
        if isinstance(self.world, TofuWorld) and self.world.statistics and self.forget_sets != 1:
            raise ValueError("statistics belong to the last authors alone: one forget set")
        return self

    def measured(self, metric: MetricSpec) -> tuple[str, str | None]:
        """Answers of the micro world have one word: ROUGE-L recall of them is whether it is the right one."""
        name, of = super().measured(metric)
        return ("right_word" if name == "rouge_l_recall" and isinstance(self.world, MicroWorld) else name), of

    @property
    def forgets(self) -> Mapping[str, Any]:
        """How many subjects."""
        return {"kind": "subjects", "count": self.world.forget}

    def about(self, row: str) -> Mapping[str, Any]:
        """Which share of the forgotten questions its request puts into a template."""
        return {"in_templates": self.attack(row)}

    @property
    def digest(self) -> str:
        """Of all settings that decide the source and what is asked of it: not of titles, rows and places of files."""
        content = self.model_dump(mode="json", include={"world", "training", "seed", "threads"})
        world = content["world"]
        world.pop("data", None)
        if world["kind"] == "tofu":
            for name in ("folder", "get"):
                world["model"].pop(name)
        return digest_json([content, "language"])

    def attack(self, row: str) -> float:
        """Share of forgotten questions that the request of ``row`` puts into a template.

        Raises:
            InputError: for a wording that the recipe does not know.
        """
        _, _, wording = row.partition("@")
        if not wording:
            if "@" in row:
                raise InputError(f"Expected a wording after @ in row {row!r}: {', '.join(self.attacks)}.")
            return 0.0
        if wording not in self.attacks:
            raise InputError(
                f"Row {row} of {self.name}: expected a wording among {', '.join(self.attacks)} after @; got {wording!r}."
            )
        return self.attacks[wording]

    def own(self, row: str) -> dict[str, Any]:
        """Settings and method of ``row``, those of plainer rows and common ones included."""
        self.attack(row)  # refuses unknown wordings
        plain = row.partition("@")[0]
        base, *variants = plain.split("+")
        found: dict[str, Any] = {"method": base, **self.common}
        for name in dict.fromkeys((base, plain, row)):
            found |= self.rows.get(name, {})
        return found | {"method": "+".join([found["method"], *variants])}

    def at_defaults(self) -> Self:
        """Common settings go too."""
        return super().at_defaults().model_copy(update={"common": {}})

    def identity(self, row: str, settings: Mapping[str, Any]) -> Any:
        """With the wording of its request."""
        return [super().identity(row, settings), self.attack(row)]

    def in_folder(self, base: Path) -> Self:
        """Paths made absolute that exist relative to ``base``, where the recipe file is."""
        if not isinstance(self.world, TofuWorld):
            return self
        data, folder = self.world.data, self.world.model.folder
        update: dict[str, Any] = {} if data is None else {"data": base / data}
        if (base / folder).is_dir():
            update["model"] = self.world.model.model_copy(update={"folder": base / folder})
        return self.model_copy(update={"world": self.world.model_copy(update=update)})
