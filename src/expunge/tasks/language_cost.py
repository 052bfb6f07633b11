"""What a run on a language model will take: bytes of state by formula, activations and seconds roughly.

An adapter saves state: weights that stay have no gradient and no moments. It saves neither activations (the backward pass still
runs through the frozen layers) nor, step for step, much time: 4N floating-point operations a token instead of 6N.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from expunge.core.errors import InputError

# precision → bytes of a weight that stays, and of one that moves (weight, gradient, AdamW's two moments)
BYTES = {
    "mixed": (2, 16),  # 2 + 2 and in single precision a master weight and both moments: 4 + 4 + 4; half precision here
    "float32": (4, 16),  # 4 + 4 + 8: against full AdamW an adapter takes (4 + 16 t) / 16, never less than a quarter
    "float64": (8, 32),
}
ITEM = {"mixed": 2, "float32": 4, "float64": 8}  # of an activation
PRECISIONS = {torch.float32: "float32", torch.bfloat16: "mixed", torch.float16: "mixed", torch.float64: "float64"}
MEASURED = 0.05  # seconds that a rate is measured for
SIDE = 1024  # of the matrices; large enough for a core's full rate
RECOMPUTED = 2  # further operations a weight and token, where activations are computed again in the backward pass


@dataclass(frozen=True)
class RunCost:
    """An estimate before a run.

    Attributes:
        weights, trainable: how many numbers there are, and how many of them move (an adapter's are in both).
        state_bytes: weights, gradients and moments, by formula.
        activation_bytes: what the forward pass keeps for the backward pass, roughly: within a quarter of what PyTorch keeps
            for Llama and OPT; ``None`` for a module without the configuration of ``transformers``.
        flops: floating-point operations of all steps, by the rule 6N or 4N a token.
        seconds: at the rate of a large matrix product, ``None`` where no rate was given. A lower bound: small layers, short
            rows and generation do not reach that rate.
    """

    weights: int
    trainable: int
    state_bytes: int
    activation_bytes: int | None
    flops: float
    seconds: float | None

    @property
    def bytes(self) -> int:
        """Everything together, as far as it is known."""
        return self.state_bytes + (self.activation_bytes or 0)


def state_bytes(weights: int, trainable: int, precision: str = "mixed") -> int:
    """Bytes of weights, gradients and AdamW's moments.

    In mixed precision full training takes 16 bytes a weight, an adapter 2 a weight that stays and 16 for each of its own.

    Args:
        weights: how many numbers the model has, an adapter's included.
        trainable: how many of them move.
        precision: one of :data:`BYTES`.

    Raises:
        InputError: for an unknown precision, or more trainable numbers than numbers.

    Counted here, from the sizes in :data:`BYTES`.
    """
    if precision not in BYTES:
        raise InputError(f"Expected a precision among {', '.join(BYTES)}; got {precision!r}.")
    if not 0 <= trainable <= weights:
        raise InputError(f"Expected from 0 to {weights} trainable numbers; got {trainable}.")
    stays, moves = BYTES[precision]
    return stays * (weights - trainable) + moves * trainable


def shape_of(factory: Any) -> nn.Module:
    """The module that ``factory`` makes, without memory for its weights."""
    with torch.device("meta"):
        return factory()


def count(model: nn.Module) -> tuple[int, int]:
    """(weights, those of them that move) of a module; tied ones once."""
    sizes = [(tensor.numel(), tensor.requires_grad) for tensor in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, moves in sizes if moves)


def activation_bytes(config: Any, rows: int, length: int, *, itemsize: int = 4, checkpointing: bool = False) -> int:
    """What the backward pass needs of a batch of ``rows`` × ``length`` tokens, roughly.

    Of each layer 9 tensors of the model's width, keys and values, and of the inner width 4 (a gated layer, as in Llama) or 2
    (OPT, GPT-2); attention's own matrix is not kept (PyTorch's fused kernel). With checkpointing one input a layer is kept,
    and one layer's tensors for a while. Logits are not counted: they are made where labels are, which is for answers only.

    Args:
        config: of ``transformers``.
    """
    width, layers = config.hidden_size, config.num_hidden_layers
    gated = getattr(config, "intermediate_size", None)
    inner = 4 * gated if gated else 2 * (getattr(config, "ffn_dim", None) or 4 * width)
    heads = config.num_attention_heads
    narrow = width * (getattr(config, "num_key_value_heads", None) or heads) // heads
    layer = 9 * width + 2 * narrow + inner
    kept = layers * width + layer if checkpointing else layers * layer
    return rows * length * kept * itemsize


def run_cost(
    model: nn.Module,
    *,
    rows: int,
    length: int,
    steps: int,
    trainable: int | None = None,
    precision: str = "float32",
    checkpointing: bool = False,
    rate: float | None = None,
) -> RunCost:
    """Estimate a run of ``steps`` steps on batches of ``rows`` × ``length`` tokens.

    Args:
        model: with its adapter, if any; :func:`shape_of` will do.
        trainable: how many numbers move; ``None``: those that require a gradient.
        rate: floating-point operations a second, see :func:`matmul_rate`.

    Raises:
        InputError: for sizes below 1, or as :func:`state_bytes`.
    """
    if min(rows, length, steps) < 1:
        raise InputError(f"Expected rows, length and steps of at least 1; got {rows}, {length}, {steps}.")
    weights, moving = count(model)
    moving = moving if trainable is None else trainable
    state = state_bytes(weights, moving, precision)
    config, kept = getattr(model, "config", None), None
    if hasattr(
        config, "get_text_config"
    ):  # of a model that sees, the part that reads text; the vision tower is left out
        config = config.get_text_config()  # type: ignore[union-attr]
    if hasattr(config, "hidden_size") and hasattr(config, "num_attention_heads"):
        kept = activation_bytes(config, rows, length, itemsize=ITEM[precision], checkpointing=checkpointing)
    each = (6 if moving == weights else 4) + (RECOMPUTED if checkpointing else 0)
    flops = float(each * weights * rows * length * steps)
    return RunCost(weights, moving, state, kept, flops, flops / rate if rate else None)


def step_seconds(task: Any, model: nn.Module, texts: Any, rows: int) -> float:
    """Seconds of one step of ``model`` on ``rows`` records here and now: forward, backward, AdamW; the second of two.

    Everything that a rate of matrix products leaves out is in it: small layers, short rows, Python. The model's weights are
    not used again; no random number of the caller is drawn.
    """
    batch = task.batch(texts, [i % len(texts) for i in range(rows)])
    moving = [tensor for tensor in model.parameters() if tensor.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=0.0)
    params, taken = dict(model.named_parameters()), 0.0
    with torch.random.fork_rng():
        for _ in range(2):  # the first one loads kernels and makes the moments
            _wait(task.device)
            started = time.perf_counter()
            optimizer.zero_grad()
            task.losses(model, params, batch).mean().backward()
            optimizer.step()
            _wait(task.device)
            taken = time.perf_counter() - started
    return taken


@functools.cache
def matmul_rate(device: str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second of a product of two 1024 × 1024 matrices here and now, measured once a process."""
    a = torch.ones(SIDE, SIDE, device=device, dtype=dtype)
    torch.mm(a, a)  # the first one loads kernels
    _wait(device)
    products, started = 0, time.perf_counter()
    while True:
        torch.mm(a, a)
        _wait(device)
        products += 1
        if (seconds := time.perf_counter() - started) >= MEASURED:
            return 2 * SIDE**3 * products / seconds


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
