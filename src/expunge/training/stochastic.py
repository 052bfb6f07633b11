"""Ordinary mini-batch training on record: SGD with momentum or Adam, slicing tensors instead of collating rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.task import HasClosedForm, Task
from expunge.core.trained import Artifact, Trained
from expunge.tasks.closed_forms import Examples, closed_form
from expunge.tasks.half_precision import is_half
from expunge.tasks.seeds import seed_global
from expunge.training.batches import AUGMENTATION, LAYERS, epoch_generator, epoch_order, epoch_seed
from expunge.training.facts import buffers_moved, enforced, has_batch_norm, inspect, prepared, start_fact
from expunge.training.optimizers import SGD, Adam, Optimizer, cosine

AUGMENTATIONS = ("none", "crop_flip")


@dataclass(frozen=True, kw_only=True)
class Stochastic:
    """Ordinary mini-batch training (SGD with momentum, or Adam): no trail, nothing that R2D's theorem covers.

    Attributes:
        epochs, batch_size, lr, momentum, optimizer (``sgd`` or ``adam``), schedule (``constant``, or ``cosine`` down to
            zero, one value an epoch): as usual.
        l2: weight decay added to the gradient, over all trainable weights.
        augment: ``none``, or ``crop_flip`` for images (n, c, h, w): padded by 4, cropped at random, flipped at random.
    """

    epochs: int
    lr: float
    batch_size: int = 128
    momentum: float = 0.0
    optimizer: str = "sgd"
    schedule: str = "constant"
    l2: float = 0.0
    augment: str = "none"

    def __post_init__(self):
        if self.optimizer not in ("sgd", "adam"):
            raise InputError(f"Expected optimizer sgd or adam; got {self.optimizer!r}.")
        if self.schedule not in ("constant", "cosine"):
            raise InputError(f"Expected schedule constant or cosine; got {self.schedule!r}.")
        if self.augment not in AUGMENTATIONS:
            raise InputError(f"Expected augment among {', '.join(AUGMENTATIONS)}; got {self.augment!r}.")
        if self.epochs < 1 or self.batch_size < 1:
            raise InputError(f"Expected epochs and batch_size of at least 1; got {self.epochs} and {self.batch_size}.")
        if not (0 < self.lr < math.inf and 0 <= self.momentum < 1 and 0 <= self.l2 < math.inf):
            raise InputError(
                f"Expected lr > 0, momentum in [0, 1) and l2 >= 0; got {self.lr}, {self.momentum} and {self.l2}."
            )

    def describe(self) -> dict[str, Any]:
        """Settings that decide the model."""
        return {"recipe": "stochastic descent", **asdict(self)}

    def fit(self, task: Task, data: Any, *, seed: int = 0, watch: Any = None) -> Trained:
        """Train. Formal guarantee: none."""
        model = task.build(seed=seed)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        run_epochs(
            task, model, data, self.make_optimizer(model), epochs=self.epochs, batch_size=self.batch_size, seed=seed,
            schedule=self.schedule, augment=self.augment, watch=watch,
        )  # fmt: skip
        final = {
            name: tensor.detach().clone(memory_format=torch.contiguous_format)
            for name, tensor in model.state_dict().items()
        }
        facts = {
            "optimizer": enforced("gradient descent" if self.optimizer == "sgd" else self.optimizer),
            "batch": enforced("full" if self.batch_size >= len(data) else "mini-batch"),
            "schedule": enforced(self.schedule),
            "momentum": enforced(self.momentum),
            "decay_outside_loss": enforced(0.0),
            "augmentation": enforced(self.augment != "none"),
            "selection": enforced("fixed"),
            "rows": enforced(len(data), "counted"),
            "start": start_fact(task, before, seed),
            **prepared(data),
            **inspect(model),
            **buffers_moved(model, [before, final]),
        }
        return Trained(task, Artifact(final), data, self, None, facts, seed=seed)

    def make_optimizer(self, model: nn.Module) -> Optimizer:
        """A fresh optimizer over the trainable weights."""
        weights = [p for p in model.parameters() if p.requires_grad]
        if self.optimizer == "adam":
            return Adam(weights, self.lr, weight_decay=self.l2)
        return SGD(weights, self.lr, self.momentum, self.l2)


def run_epochs(
    task: Task, model: nn.Module, data: Any, optimizer: Optimizer | torch.optim.Optimizer, *, epochs: int, batch_size: int,
    seed: int, sign: float = 1.0, schedule: str = "constant", augment: str = "none", watch: Any = None, stage: str = "train",
) -> int:  # fmt: skip
    """Mini-batch epochs in place, slicing tensors; ``sign=-1`` ascends. Returns per-example gradients computed.

    Order of rows, augmentation and random layers of an epoch follow from ``seed`` and the epoch's number alone. The last
    batch of an epoch may be smaller; where a model with batch normalisation would be left with one row, which has no
    variance, that row joins the batch before it.

    Networks with a closed form (``tasks.closed_forms``, ``tasks.graphs.closed_forms``) are differentiated by it: equal up to
    rounding, in half of the time where they are small and in 0.6 of it for graph convolutions.

    A convolutional model in single precision on a CPU is left in ``channels_last`` order of memory: the same model up to
    rounding, and 1.1 to 1.8 times as fast (``bench/retrainings.py``).

    Raises:
        InputError: if the loss stops being finite, naming the epoch; for augmented rows that are not images.
    """
    batch = task.batch(data)
    rows, device = len(data), batch.device
    if augment != "none" and ("x" not in batch.columns or batch.columns["x"].ndim != 4):
        raise InputError(f"Expected images of shape (n, c, h, w) for augment={augment!r}; these rows are none.")
    alone = 1 if has_batch_norm(model) else 0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if not optimizer.state:  # what an optimizer remembers lies as its weights do: they must not move now
            prefer_channels_last(task, model, batch)
        model.train()
        batch, differentiate = _differentiated(task, model, batch, sign)
        for epoch in range(1, epochs + 1):
            seed_global(
                epoch_seed(seed, epoch, LAYERS), device
            )  # dropout inside the module draws from the global state
            generator = epoch_generator(seed, epoch, AUGMENTATION)
            total = torch.zeros((), device=device)
            for index in split_order(epoch_order(rows, seed, epoch).to(device), batch_size, alone):
                part = batch.take(index)
                if augment != "none":
                    part = part.with_columns(x=_augmented(part["x"], generator))
                optimizer.zero_grad(set_to_none=True)
                total += differentiate(part)
                optimizer.step()
            if not torch.isfinite(total):
                raise InputError(f"The loss was not finite in epoch {epoch} of {epochs}; take a smaller learning rate.")
            if schedule == "cosine":
                for group in optimizer.param_groups:
                    group["lr"] = cosine(group["lr"], epoch, epochs)
            if watch:
                watch(stage, epoch, epochs)
    return rows * epochs


def _differentiated(task: Task, model: nn.Module, batch: Batch, sign: float) -> tuple[Batch, Callable[[Batch], Tensor]]:
    """All examples as steps read them, and what leaves the gradient of ``sign`` times a part's mean loss with the weights.

    It returns a number that is finite if the loss is.
    """
    params = dict(model.named_parameters())
    moved = [name for name, parameter in params.items() if parameter.requires_grad]
    form = None if any(is_half(parameter) for parameter in params.values()) else closed_form(task, model)
    derivative = task.closed_form(model) if isinstance(task, HasClosedForm) else None

    def by_autograd(part: Batch) -> Tensor:
        loss = task.losses(model, params, part).mean()
        (loss if sign == 1 else sign * loss).backward()
        return loss.detach()

    def held(found: Mapping[str, Tensor]) -> Tensor:
        for name, gradient in found.items():
            params[name].grad = gradient
        return next(iter(found.values())).sum()  # where a loss is not finite, this is not

    if derivative is not None:
        return batch, lambda part: held(derivative.gradient(params, part, model.training, sign))
    if form is None or not moved:
        return batch, by_autograd

    later = batch.on_disk  # the inputs of each step are projected then

    @torch.no_grad()
    def in_closed_form(part: Batch) -> Tensor:
        x = (form.projected(part) if later else part)["x"].mT
        share = x.new_full((1, len(part)), sign / len(part))
        return held(form.gradient(params, moved, Examples(x, part["y"]), share))

    return batch if later else form.projected(batch), in_closed_form


def split_order(order: Tensor, size: int, alone: int) -> list[Tensor]:
    """``order`` in batches of ``size``; a last one of ``alone`` rows or fewer joins the one before it."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) <= alone:
        last = parts.pop()
        parts[-1] = torch.cat([parts[-1], last])
    return parts


def _augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    from expunge.data.augment import crop_flip

    return crop_flip(x, generator)


def prefer_channels_last(task: Task, model: nn.Module, batch: Batch) -> None:
    """Lay 2-d convolutions out as the CPU's kernels like them, unless the module's own code depends on the layout."""
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    convolves = bool(convolutions) and not any(_crashes(module) for module in convolutions)
    images = any(tensor.ndim == 4 and tensor.dtype == torch.float32 for tensor in batch.columns.values())
    if not (convolves and images and batch.device.type == "cpu"):
        return
    model.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    try:
        with torch.no_grad():
            task.losses(model, dict(model.named_parameters()), batch.take(slice(2)))
    except RuntimeError:  # for example a .view() of what is no longer contiguous
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def _crashes(convolution: nn.Conv2d) -> bool:
    """Whether the backward pass corrupts memory with channels last: strided 1 x 1 kernels on fewer than 8 channels do, in
    the oneDNN 3.12 that PyTorch 2.13 brings for AVX2."""
    strided = any(stride > 1 for stride in convolution.stride)
    return strided and set(convolution.kernel_size) == {1} and convolution.in_channels < 8
