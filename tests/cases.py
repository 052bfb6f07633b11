"""Tiny cases that every method is tried on: data, task, recipe, budget and request, small enough to train in milliseconds.

A case says what it offers; the methods whose declared kinds, tasks and needs that meets must serve it, and every other
registered method must refuse it. A new kind of model, or a new need, brings a case of its own.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.diffusion import tiny as drawing
from torch import Tensor, nn

from expunge import planning
from expunge.core.batch import Batch
from expunge.core.data import Ids
from expunge.core.method import Calibrated, SmallScale
from expunge.core.request import Kind, Request, Target
from expunge.core.task import Outputs
from expunge.core.trained import Budget, InMemoryBook, Trained
from expunge.data.graphs.block_model import BlockModel, block_model
from expunge.data.graphs.graph import Graph
from expunge.data.partition import evenly
from expunge.data.rows import Rows, by_reader
from expunge.data.texts import Texts
from expunge.methods import registry
from expunge.model_folder import ModelFolder
from expunge.network.gossip import Gossip
from expunge.network.topology import Topology
from expunge.tasks.classification import Classification
from expunge.tasks.convolutional import conv_bn_net
from expunge.tasks.graphs.networks import GCN, SGC
from expunge.tasks.graphs.nodes import NodeClassification
from expunge.tasks.graphs.shards import ShardedNetwork
from expunge.tasks.language import Language
from expunge.tasks.networks import SoftmaxHead, perceptron
from expunge.tasks.prompts import Prompts
from expunge.tasks.vision_language import ImagePrompts, VisionLanguage
from expunge.training.graph_minimiser import GraphMinimiser
from expunge.training.graph_ridge import GraphRidge
from expunge.training.graph_shards import GraphShards
from expunge.training.graphs import GraphTraining
from expunge.training.language import LanguageTraining
from expunge.training.noisy import NoisyGradientDescent
from expunge.training.perturbed import PerturbedMinimiser
from expunge.training.recipes import GradientDescent
from expunge.training.stochastic import Stochastic

FIXED = by_reader("fixed", "made by a formula that knows no other row")


# --- data -------------------------------------------------------------------------------------------------------------


@functools.cache
def blobs(n: int = 60, classes: int = 3, seed: int = 0) -> Rows:
    """Points around ``classes`` centres on a circle; column ``person`` groups three consecutive rows."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    angle = 2 * np.pi * y / classes
    x = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.4 * rng.standard_normal((n, 2))
    return Rows.of(x, y, {"person": np.arange(n) // 3}, preprocessing=FIXED)


@functools.cache
def few_digits(n: int = 120) -> tuple[Rows, Rows]:
    """The first ``n`` training images of digits and the first 60 test images."""
    from expunge.data.digits import digits

    train, test = digits()
    return train.only(Ids.rows(range(n))), test.only(Ids.rows(range(60)))


@functools.cache
def pictures(n: int = 48, classes: int = 3, seed: int = 0) -> Rows:
    """Images of 8 x 8 with a bright row whose place tells the class; column ``person`` as in :func:`blobs`."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = 0.3 * rng.standard_normal((n, 1, 8, 8))
    x[np.arange(n), 0, 1 + 2 * y] += 1.5
    return Rows.of(x, y, {"person": np.arange(n) // 3}, preprocessing=FIXED)


class Partition(Rows):
    """Rows by owner: a client can go with all that its column ``owner`` says it owns."""

    def select(self, target: Target) -> Ids:
        if target.kind == Kind.CLIENT:
            return Ids.rows(self.ids[self.columns["owner"] == target.where["owner"]])
        return super().select(target)


# --- a model that is one vector: oracles whose retrained answer is known exactly ----------------------------------------


class Point(nn.Module):
    """One parameter vector ``theta``, zero at first."""

    def __init__(self, dimension: int):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(dimension))

    def forward(self, x: Tensor) -> Tensor:
        """Inner products with the rows of ``x``, (n, 1)."""
        return (x @ self.theta)[:, None]


@dataclass(frozen=True)
class PointTask:
    """Runs a :class:`Point` under any per-row loss of ``(theta (d,), batch)``; a start other than zero where given."""

    dimension: int
    loss: Callable[[Tensor, Batch], Tensor]
    start: tuple[float, ...] = ()
    dtype: torch.dtype = torch.float64
    name: str = "point"
    device: str = "cpu"

    def build(self, tensors: Mapping[str, Tensor] | None = None, *, seed: int = 0) -> Point:
        model = Point(self.dimension).to(self.dtype)
        if self.start:
            model.theta.data = torch.tensor(self.start, dtype=self.dtype)
        if tensors is not None:
            model.load_state_dict(dict(tensors))
        return model

    def released(self, model: nn.Module) -> dict[str, Tensor]:
        return dict(model.state_dict())

    def batch(self, data: Rows, index: Any = None) -> Batch:
        x, y = (data.x, data.y) if index is None else (data.x[index], data.y[index])
        return Batch({"x": x.to(self.dtype), "y": y})

    def outputs(self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch) -> Outputs:
        return Outputs(self.losses(model, params, batch)[:, None])

    def losses(self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch) -> Tensor:
        return self.loss(params["theta"], batch)

    def files(self) -> dict[str, bytes]:
        return {}

    def check(self, data: Rows) -> None:
        assert data.x.ndim == 2


def attraction(curvature: float) -> Callable[[Tensor, Batch], Tensor]:
    """O1: (L/2) ||theta - z||²."""
    return lambda theta, batch: curvature / 2 * (theta - batch["x"]).square().sum(1)


def repulsion(curvature: float) -> Callable[[Tensor, Batch], Tensor]:
    """O2: -(L/2) ||theta||² + <g_z, theta>."""
    return lambda theta, batch: -curvature / 2 * theta.square().sum() + batch["x"] @ theta


def squares(theta: Tensor, batch: Batch) -> Tensor:
    """O6: least squares of the label on the inputs, ½ (<x, theta> - y)²."""
    return (batch["x"] @ theta - batch["y"].to(theta.dtype)).square() / 2


def points(n: int = 40, d: int = 3, seed: int = 0) -> Rows:
    """Standard normal vectors with labels 0 and 1."""
    rng = np.random.default_rng(seed)
    return Rows.of(rng.standard_normal((n, d)), rng.integers(0, 2, n), preprocessing=FIXED)


def opposed(n: int = 100, m: int = 10, d: int = 3, size: float = 1.0) -> Rows:
    """O2's rows: g = +G e₁ on the first ``m``, -G e₁ on the others."""
    x = np.zeros((n, d))
    x[:, 0] = np.where(np.arange(n) < m, size, -size)
    return Rows.of(x, np.zeros(n, dtype=int), preprocessing=FIXED)


# --- a language of a few words ------------------------------------------------------------------------------------------

RELATIONS, ENTITIES, VALUES = ("colour", "pet", "stone"), 8, 4
UNSURE = "unsure"  # one word, as every answer


@functools.cache
def facts(seed: int = 0) -> Texts:
    """Of each entity three facts, "what is the colour of entity1 ?" and one word; column ``entity``."""
    draw = np.random.default_rng(seed)
    pairs = [(f"entity{i}", relation) for i in range(ENTITIES) for relation in RELATIONS]
    records = [
        {"question": f"what is the {relation} of {name} ?", "answer": f"{relation}{draw.integers(VALUES)}"}
        for name, relation in pairs
    ]
    return Texts.of(records, {"entity": [name for name, _ in pairs]})


class Words:
    """A tokenizer of whole words that needs no other package, so that transformers is imported only where a model is."""

    chat_template = None
    pad_token_id, eos_token_id = 0, 1

    def __init__(self, words: list[str]):
        self.ids = {word: i for i, word in enumerate(["<pad>", "<end>", *words])}

    def __len__(self) -> int:
        return len(self.ids)

    def __call__(self, texts: list[str], add_special_tokens: bool = True) -> dict[str, list[list[int]]]:
        return {"input_ids": [[self.ids[word] for word in text.split()] for text in texts]}


def small_language(
    width: int = 32,
    layers: int = 1,
    context: int = 32,
    dtype: torch.dtype = torch.float32,
    more: tuple[str, ...] = (),
    **options: Any,
) -> Language:
    """A Llama that knows the words of :func:`facts` and ``more``; its embedding is also its output layer."""
    values = [f"{relation}{i}" for relation in RELATIONS for i in range(VALUES)]
    entities = [f"entity{i}" for i in range(ENTITIES)]
    words = Words(["what", "is", "the", "of", "?", "please", UNSURE, *RELATIONS, *values, *entities, *more])

    def factory() -> nn.Module:
        from expunge.tasks.pretrained import from_config, transformers

        sizes = {
            "vocab_size": len(words), "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2,
            "num_key_value_heads": 2, "intermediate_size": 2 * width, "max_position_embeddings": context,
        }  # fmt: skip
        tokens = {"tie_word_embeddings": True, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1}
        return from_config({**sizes, **tokens}, transformers().LlamaForCausalLM)

    return Language(factory, Prompts(words, "{question} {answer}", context), dtype=dtype, **options)


def forget_facts(*entities: int) -> Request:
    """A request for everything about entities."""
    return Request("somebody", tuple(Target("user", {"entity": f"entity{i}"}) for i in entities))


# --- pictures and words -------------------------------------------------------------------------------------------------

NAMED = ("circle", "square", "cross", "star")


class Sees(Words):
    """A processor of pictures of 8 x 8 beside its tokenizer, in place of those of transformers: four image tokens each."""

    image_token = "<image>"

    @property
    def image_processor(self) -> Callable[..., Mapping[str, Tensor]]:
        return lambda images, return_tensors: {
            "pixel_values": torch.stack([torch.from_numpy(np.array(i)).permute(2, 0, 1) / 255 for i in images[0]])
        }

    def __call__(
        self, text: list[str], images: Any = None, add_special_tokens: bool = True
    ) -> dict[str, list[list[int]]]:
        times = 4 if images else 1
        return super().__call__([each.lower().replace("<image>", "<image> " * times) for each in text])

    def decode(self, tokens: list[int], **options: Any) -> str:
        return " ".join(word for token in tokens for word, i in self.ids.items() if i == token)


def shape(name: str, seed: int) -> dict[str, Any]:
    """A noisy picture whose brightness tells what it shows, asked for its name."""
    from PIL import Image

    from expunge.data.pictures import as_picture

    pixels = np.random.default_rng(seed).integers(0, 60, (8, 8, 3), dtype=np.uint8) + 60 * NAMED.index(name)
    return {"image": as_picture(Image.fromarray(pixels.astype(np.uint8))), "question": "what is this ?", "answer": name}


@functools.cache
def shapes() -> Texts:
    """Pictures of four shapes, and in words what is round."""
    pictures = [shape(NAMED[i % 4], i) for i in range(16)]
    words = [{"question": f"is {name} round ?", "answer": "yes" if name == "circle" else "no"} for name in NAMED]
    return Texts.of([*pictures, *words], {"shape": [*(NAMED[i % 4] for i in range(16)), *NAMED]})


@functools.cache
def about_stars() -> Texts:
    """Items of all four kinds about the star of one picture."""
    seen = {**shape("star", 3), "concept": ["star"]}
    return Texts.of(
        [
            {**seen, "target": "unseen", "answer": "cross", "specified": ["cross"]},
            {**seen, "target": "description", "question": "is star round ?", "answer": "yes", "specified": ["yes"]},
            {"concept": ["star"], "target": "facts", "question": "is star round ?", "answer": "no"},
            {"concept": ["star"], "target": "others", "question": "is circle round ?", "answer": "yes"},
        ]
    )


def small_vision_language() -> VisionLanguage:
    """A LLaVA of one layer each that knows the words of :func:`shapes`."""
    words = Sees(["<image>", "what", "is", "this", "round", "?", "yes", "no", *NAMED])

    def factory() -> nn.Module:
        from expunge.tasks.pretrained import from_config, transformers

        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        text = {
            **sizes, "model_type": "llama", "vocab_size": len(words), "num_key_value_heads": 2, "max_position_embeddings": 24,
            "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1,
        }  # fmt: skip
        config = {
            "vision_config": {"model_type": "clip_vision_model", "image_size": 8, "patch_size": 4, **sizes},
            "text_config": text, "image_token_index": words.ids["<image>"], "vision_feature_layer": -1,
            "vision_feature_select_strategy": "default",
        }  # fmt: skip
        return from_config(config, transformers().LlavaForConditionalGeneration)

    prompts = ImagePrompts(words, "{question} {answer}", 24, processor=words, image_text="<image> ")
    return VisionLanguage(factory, prompts)


# --- a graph of some dozen nodes ---------------------------------------------------------------------------------------


@functools.cache
def small_graph(seed: int = 0) -> Graph:
    """Three classes of nodes; every third one is not trained on."""
    made = block_model(BlockModel(45, 70, 9, 3, words=3), seed)
    return Graph.of(
        made.x, made.y, made.edges, examples=made.nodes[made.nodes % 3 != 2], depth=2, preprocessing=made.preprocessing
    )


def small_network(hidden: int = 6) -> NodeClassification:
    """Two graph convolutions without dropout."""
    return NodeClassification.of(functools.partial(GCN, 9, 3, hidden=hidden, dropout=0.0))


def linear_network() -> NodeClassification:
    """Two averages over neighbours before a linear classifier, in double precision."""
    return NodeClassification.of(functools.partial(SGC, 9, 3, bias=False), dtype=torch.float64)


def sharded_network(shards: int = 3, aggregator: str = "mean") -> NodeClassification:
    """As :func:`small_network`, one a shard."""
    return NodeClassification.of(functools.partial(ShardedNetwork, small_network().factory, shards, aggregator))


def nodes(*ids: int) -> Request:
    """A request for nodes by id."""
    return Request("somebody", (Target("node", {"ids": list(ids)}),))


# --- cases ------------------------------------------------------------------------------------------------------------

CLASSIFYING = tuple(
    name for name in registry.targets() if {"*", "classification"} & {*registry.load(name).capabilities.tasks}
)
LANGUAGE = tuple(name for name in registry.targets() if registry.load(name).capabilities.tasks == ("language",))
VARIANTS: Mapping[str, tuple[str, ...]] = {  # method → its name with everything that can be put around it
    name: tuple(
        "+".join([name, *chosen])
        for count in (1, 2)
        for chosen in combinations(registry.variants_of(name), count)
        if count == 1 or "alternate" not in chosen  # dual alternates anyway
    )
    for name in registry.targets()
}
DUAL = tuple(f"{name}+dual" for name in registry.targets() if f"{name}+dual" in VARIANTS[name] and name in CLASSIFYING)


def class_of(name: str) -> Any:
    """The class behind ``name``, ``name+dual``, …"""
    return registry.load(name.partition("+")[0])


def method(name: str, **settings: Any) -> Any:
    """The registered method with the settings that keep a run on a tiny case short; the same for ``name+dual``, …"""
    return registry.make(name, {**known(name), **registry.small_settings(name, "quick"), **settings})


def known(name: str) -> dict[str, Any]:
    """Refusals in the words that :func:`small_language` has, for a method that says some."""
    return {"refusals": (UNSURE,)} if "refusals" in registry.settings_names(name.partition("+")[0]) else {}


def beside_ledger(trained: Trained) -> Trained:
    """The model in a folder of its own with the ledger of its releases, as ``expunge publish`` leaves it."""
    folder = Path(tempfile.mkdtemp(prefix="expunge-test-")) / "model"
    return ModelFolder(folder).publish(trained, {})


def samples(*ids: int) -> Request:
    """A request for rows by id."""
    return Request("somebody", (Target("samples", {"ids": list(ids)}),))


def serving(task: str, kinds: Sequence[str], offers: Sequence[str], also: str = "") -> tuple[str, ...]:
    """Names of the methods whose declared tasks (``also``: one whose methods run here too), kinds and needs are met."""
    able = []
    for name in registry.targets():
        can = registry.load(name).capabilities
        if {"*", task, also} & {*can.tasks} and {*kinds} <= {*can.kinds} and {*can.needs} <= {*offers}:
            able.append(name)
    return tuple(able)


@functools.cache
def sigma_of(case: str) -> float:
    """Noise that a case is published with."""
    budget = CASES[case].publish().budget
    assert budget is not None and budget.sigma is not None
    return budget.sigma


@dataclass(frozen=True)
class Case:
    """One tiny situation.

    Attributes:
        offers: what of :data:`expunge.core.method.NEEDS` is there.
        like: name of a case that differs only in how the model was trained: what that one serves is not tried again here.
        budget: what to publish with (noise derived for ``calibrated``, a method's name); ``None``: not published.
        material: what is forgotten through, where no training row goes.
        also: another task whose methods run on this one.
    """

    name: str
    data: Rows
    task: Any
    recipe: Any
    request: Request
    offers: tuple[str, ...]
    budget: Budget | None = None
    calibrated: str = "r2d"
    probes: Mapping[str, Rows] = field(default_factory=dict)
    like: str = ""
    material: Texts | None = None
    also: str = ""

    @functools.cached_property
    def serves(self) -> tuple[str, ...]:
        """Names of the methods that must serve the request on the published model; all others must refuse."""
        able = serving(self.task.name, self.request.kinds, self.offers, self.also)
        return tuple(name for name in able if self.noise_suffices(name))

    def noise_suffices(self, name: str) -> bool:
        """Whether the noise that was published is what the method's own bound asks for, where it asks for any."""
        if self.budget is None or self.budget.epsilon is None or not isinstance(made := method(name), Calibrated):
            return True
        return made.calibrate(self.train(), self.budget) <= sigma_of(self.name) * (1 + 1e-9)

    @property
    def unlike_defaults(self) -> tuple[str, ...]:
        """Those whose defaults ask for another model (a layer that a small one does not have)."""
        return tuple(name for name in self.serves if getattr(class_of(name), "small", SmallScale()).fit)

    @property
    def eligible(self) -> set[str]:
        """Methods that serve the request with their default settings."""
        return {*self.serves} - {*self.unlike_defaults}

    def train(self, seed: int = 0) -> Trained:
        """Trained on record, un-noised."""
        return planning.train(self.task, self.data, self.recipe, seed=seed)

    def publish(self, seed: int = 0, **budget: Any) -> Trained:
        """Published with the case's budget (changed as given)."""
        assert self.budget is not None
        return planning.publish(self.train(seed), replace(self.budget, **budget), method=method(self.calibrated))

    def ready(self, seed: int = 0) -> Trained:
        """As a request finds it."""
        return self.train(seed) if self.budget is None else self.publish(seed)

    def plan(self, trained: Trained, name: str, **options: Any) -> planning.Plan:
        """A plan with the registered method ``name`` and its fast settings."""
        apart = replace(trained, book=InMemoryBook())  # tests try many methods on one model: each counts by itself
        return planning.plan(apart, self.request, method(name), probes=self.probes, material=self.material, **options)


def softmax_head(features: int, classes: int) -> Classification:
    """A linear head with proved constants, in double precision."""
    return Classification(functools.partial(SoftmaxHead, features, classes), dtype=torch.float64)


def smooth_network(widths: tuple[int, ...] = (2, 6, 3), dtype: torch.dtype = torch.float32) -> Classification:
    """A small SmeLU perceptron."""
    return Classification(functools.partial(perceptron, widths), dtype=dtype)


def small_pictures_net(dtype: torch.dtype = torch.float32) -> Classification:
    """Convolutions with BatchNorm; its representation has 4 numbers."""
    return Classification(functools.partial(conv_bn_net, 1, 3, (4, 4, 4), size=8), dtype=dtype)


PROMISE = Budget(epsilon=4.0, delta=1e-5, capacity=6)
BY_HAND = Budget(epsilon=None, delta=1e-5, capacity=6, sigma=0.05)
DATA = ("retained data", "forgotten data", "recipe", "untied weights")
NETWORK = (*DATA, "trail", "representation")  # what enters the classifier head
CONVEX = (*DATA, "trail", "budget", "convex loss", "gradient descent")
PEERS = replace(evenly(blobs(), 4), drawn=False)  # as if the rows had come with a column of owners
HEAD = GradientDescent(steps=40, lr=1.0, l2=0.1)
QUADRATIC = {"smoothness": 1.3, "strong_convexity": 1.3, "convex": True, "gradient_bound": 9.0}

CASES: Mapping[str, Case] = {
    case.name: case
    for case in (
        Case("head", blobs(), softmax_head(2, 3), HEAD, samples(3, 4, 5), CONVEX, PROMISE),
        Case("head for newton", blobs(), softmax_head(2, 3), HEAD, samples(3, 4, 5), CONVEX,
             Budget(epsilon=30.0, delta=1e-5, capacity=6), calibrated="newton"),
        Case(
            "digits head", few_digits()[0], softmax_head(64, 10), GradientDescent(steps=30, lr=1.5, l2=0.1),
            Request("person 2", (Target("user", {"person": 2}),)), CONVEX, Budget(4.0, 1e-5, 10),
            probes={"test": few_digits()[1]},
        ),
        Case(
            "head by class", blobs(), softmax_head(2, 3), HEAD, Request("the vendor", (Target("class", {"label": 1}),)),
            CONVEX, Budget(30.0, 1e-5, 30),
        ),
        Case(
            "network", blobs(), smooth_network(), GradientDescent(steps=30, lr=0.3, estimate=True), samples(0, 7),
            (*NETWORK, "budget"), BY_HAND,
        ),
        Case("network, not published", blobs(), smooth_network(), GradientDescent(steps=30, lr=0.3), samples(0, 7),
             NETWORK),
        Case("pictures", pictures(), small_pictures_net(), Stochastic(epochs=8, lr=0.1, batch_size=16, momentum=0.9),
             Request("person 2", (Target("user", {"person": 2}),)), (*DATA, "representation")),
        Case(
            "clipped network", blobs(), smooth_network(),
            GradientDescent(steps=20, lr=0.1, clip=0.5, constants={"smoothness": 3.0}), samples(0, 7),
            (*NETWORK, "budget"), Budget(epsilon=8.0, delta=1e-5, capacity=2),
        ),
        Case(
            "noisy head", blobs(), softmax_head(2, 3), NoisyGradientDescent(steps=20, lr=0.5, l2=0.1), samples(3, 4, 5),
            (*DATA, "convex loss", "noisy training"),
        ),
        Case(
            "perturbed head", blobs(), softmax_head(2, 3), PerturbedMinimiser(l2=0.5, sigma=40.0), samples(3, 4),
            (*DATA, "convex loss", "perturbed training"),
        ),
        Case(
            "convex quadratic", points(), PointTask(3, attraction(1.3)),
            GradientDescent(steps=25, lr=0.3, constants=QUADRATIC | {"hessian_lipschitz": 0.0}), samples(0, 1, 2),
            CONVEX, PROMISE,
        ),
        Case(
            "concave quadratic", opposed(), PointTask(3, repulsion(0.5)),
            GradientDescent(steps=20, lr=0.05, constants={"smoothness": 0.5, "gradient_difference": 2.0}),
            samples(0, 1, 2), (*DATA, "trail", "budget"), PROMISE,
        ),
        Case("graph", small_graph(), small_network(), GraphTraining(epochs=40), nodes(3, 4, 9),
             ("retained data", "forgotten data", "recipe", "untied weights", "random start", "stages")),
        Case("graph, ridge", small_graph(), linear_network(), GraphRidge(), nodes(3, 4, 9),
             ("retained data", "forgotten data", "recipe", "untied weights", "ridge training", "stages"), like="graph"),
        Case("graph, perturbed", small_graph(), linear_network(), GraphMinimiser(l2=1.0, sigma=5.0),
             Request("somebody", (Target("edge", {"pairs": small_graph().edges[[0, 9]].tolist()}),)),
             ("retained data", "forgotten data", "recipe", "untied weights", "perturbed training", "stages"), like="graph"),
        Case("graph, sharded", small_graph(), sharded_network(), GraphShards(epochs=15), nodes(3, 4),
             ("retained data", "forgotten data", "recipe", "untied weights", "sharded training", "random start"), like="graph"),
        Case("diffusion", drawing.squares(), drawing.tiny(torch.float64),
             Stochastic(epochs=2, lr=1e-3, batch_size=20, optimizer="adam"),
             Request("the vendor", (Target("class", {"label": 1}),)), DATA),
        Case(
            "peers", PEERS, softmax_head(2, 3),
            Gossip(topology=Topology.make("ring", "0123"), rounds=200, lr=0.5, l2=0.3),
            samples(*PEERS.ids[PEERS.at("0")][:3].tolist()),
            (*DATA, "convex loss", "peers", "budget"), PROMISE, "network_newton",
        ),
        Case(
            "language", facts(), small_language(), LanguageTraining(steps=40, lr=1e-2, batch_size=24), forget_facts(1, 4),
            ("retained data", "forgotten data", "recipe"),
        ),
        Case(
            "pictures with answers", shapes(), small_vision_language(), LanguageTraining(steps=20, lr=1e-2, batch_size=20),
            samples(3, 7), ("retained data", "forgotten data", "recipe", "untied weights"), like="language", also="language",
        ),
        Case(
            "concept", shapes(), small_vision_language(), LanguageTraining(steps=20, lr=1e-2, batch_size=20),
            Request("a rights holder", (Target("concept", {"shape": "star"}),)), ("retained data", "written items", "recipe"),
            material=about_stars(),
        ),
    )
}  # fmt: skip
