"""Classifiers: any module that maps rows to logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from expunge.core.batch import Batch
from expunge.core.errors import InputError
from expunge.core.task import Outputs
from expunge.data.rows import Rows
from expunge.tasks import initial
from expunge.tasks.seeds import seed_global
from expunge.tasks.wrappers import unwrapped


@dataclass(frozen=True)
class Classification:
    """Runs ``factory()``'s modules on :class:`~expunge.data.rows.Rows` under cross-entropy.

    Attributes:
        factory: makes a fresh module; called under a forked random state.
        dtype: floating-point type of the weights and of the rows as the model sees them.
        device: where modules and batches are placed, as PyTorch writes it.
        head: name of the module whose input is the representation; ``None``: the last linear layer.
        init: ``module``: fresh modules keep what their own code put into them; ``seed``: every parameter is filled again by
            :func:`expunge.tasks.initial.fill`, so that the start is known to owe nothing to any row.
        output: which part of what the module returns are the logits, where it returns a dictionary or a tuple; ``None``: the
            whole, or what ``logits`` names in it.
    """

    factory: Callable[[], nn.Module]
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    name: str = "classification"
    head: str | None = None
    init: str = "module"
    output: str | int | None = None

    def __post_init__(self):
        if self.init not in ("module", "seed"):
            raise InputError(f"Expected init among module, seed; got {self.init!r}.")

    def build(self, tensors: Mapping[str, Tensor] | None = None, *, seed: int = 0) -> nn.Module:
        """A fresh module, initialised from ``seed`` or holding ``tensors``; a wrapper's prefix is taken off their names.

        Raises:
            InputError: if ``tensors`` belong to another architecture, naming the first differences.
        """
        with torch.random.fork_rng(devices=[]):
            seed_global(seed, self.device)
            model = self.factory().to(self.device, self.dtype)
        if self.init == "seed" and tensors is None:
            initial.fill(model, seed)
        if tensors is not None:
            tensors, _ = unwrapped(model.state_dict().keys(), tensors)
            same_architecture(model.state_dict(), tensors)
            model.load_state_dict({name: tensor.to(self.device) for name, tensor in tensors.items()})
        return model

    def with_init(self, init: str) -> Classification:
        """The same task under another ``init``."""
        return replace(self, init=init)

    def seeded(self, seed: int) -> dict[str, Tensor] | None:
        """What our own initialiser makes of ``seed`` for this architecture; ``None`` where it does not know the modules."""
        with torch.random.fork_rng(devices=[]):
            seed_global(seed, self.device)
            model = self.factory().to(self.device, self.dtype)
        return dict(initial.fill(model, seed).state_dict()) if initial.fillable(model) else None

    def batch(self, data: Rows, index: Tensor | None = None) -> Batch:
        """Rows as the columns ``x`` (b, ...) and ``y`` (b,)."""
        x, y = (data.x, data.y) if index is None else (data.x[index], data.y[index])
        return Batch({"x": x.to(self.device, self.dtype), "y": y.to(self.device)})

    @staticmethod
    def released(model: nn.Module) -> dict[str, Tensor]:
        """Weights and buffers by name; the tensors themselves."""
        return dict(model.state_dict())

    def outputs(self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch) -> Outputs:
        """Logits (b, classes)."""
        return Outputs(_called(model, params, batch["x"], self.output))

    def features(self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """What enters the classifier head, (b, d)."""
        seen: list[Tensor] = []
        head = model.get_submodule(self.head_of(model))
        hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            _called(model, params, batch["x"], self.output)
        finally:
            hook.remove()
        return seen[-1]

    def head_of(self, model: nn.Module) -> str:
        """Name of the classifier head: ``head``, or the last linear layer.

        Raises:
            InputError: for a module without a linear layer, or a head that the module lacks.
        """
        modules = dict(model.named_modules())
        if self.head is not None:
            if self.head not in modules:
                raise InputError(
                    f"The model has no module {self.head!r} to be its head; it has {', '.join(modules)[:200]}."
                )
            return self.head
        linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
        if not linear:
            raise InputError("The model has no linear layer to be its classifier head; name the head in the task.")
        return linear[-1]

    def losses(self, model: nn.Module, params: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Cross-entropy of each row, (b,)."""
        return nn.functional.cross_entropy(self.outputs(model, params, batch).logits, batch["y"], reduction="none")

    def files(self) -> dict[str, bytes]:
        """Nothing: the module is the user's own code."""
        return {}

    def check(self, data: Rows) -> None:
        """Whether the module accepts these rows and has an output for every label; one forward pass on two rows.

        Raises:
            InputError: with the shapes or the label that do not fit, or the weights that stand under several names.
        """
        model = self.build().eval()
        must_name_each_weight_once(model)
        batch = self.batch(data, torch.arange(min(2, len(data)), device=data.x.device))
        try:
            with torch.no_grad():
                logits = logits_of(model(batch["x"]), self.output)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                f"The model does not accept rows of shape {tuple(data.x.shape[1:])}: {error}. "
                "Check the model's input size against the data."
            ) from error
        if logits.ndim != 2:
            raise InputError(f"Expected logits of shape (rows, classes); the model gives {tuple(logits.shape)}.")
        if data.classes > logits.shape[1]:
            raise InputError(
                f"Expected labels below {logits.shape[1]}, the model's number of classes; the data hold label "
                f"{data.classes - 1}. Widen the model's last layer or drop those rows."
            )


def _called(model: nn.Module, params: Mapping[str, Tensor], x: Tensor, which: str | int | None) -> Tensor:
    return logits_of(model(x) if its_own(model, params) else functional_call(model, dict(params), (x,)), which)


def logits_of(output: Any, which: str | int | None = None) -> Tensor:
    """The logits in what a module returns: a tensor itself, what ``logits`` names in it, or the part called ``which``.

    Args:
        which: a key of a dictionary, a member of an object, or the place in a tuple; ``None``: ``logits``.

    Raises:
        InputError: for anything else; which part of a tuple are the logits would be a guess.
    """
    logits = output
    if not isinstance(output, Tensor):
        key = "logits" if which is None else which
        if isinstance(output, Mapping):
            logits = output.get(key)
        elif isinstance(output, list | tuple) and isinstance(key, int):
            logits = output[key] if -len(output) <= key < len(output) else None
        else:
            logits = getattr(output, str(key), None)
    if not isinstance(logits, Tensor):
        has = f" with {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
        raise InputError(
            f"Expected the model to return logits of shape (rows, classes), or an object with .logits; it returns "
            f"{type(output).__name__}{has}. Say which part of it they are (output: a key, or a place in a tuple), or wrap the "
            "model in a module whose forward returns the logits alone."
        )
    return logits


def shared_names(model: nn.Module) -> list[str]:
    """The names of the first tensor that a module has under several; empty where each has one."""
    names: dict[int, list[str]] = {}
    for name, tensor in (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)):
        names.setdefault(id(tensor), []).append(name)
    return next((each for each in names.values() if len(each) > 1), [])


def must_name_each_weight_once(model: nn.Module) -> None:
    """Raise InputError where one tensor stands under several names."""
    if shared := shared_names(model):
        raise InputError(
            f"Expected every weight under one name; in this model {' and '.join(shared)} are one tensor. Call the one "
            "module from both places, so that its weights have one name."
        )


def its_own(model: nn.Module, params: Mapping[str, Tensor]) -> bool:
    """Whether ``params`` are the weights that the module holds: it can simply be called.

    Swapping weights in and out takes as long as running a small perceptron.
    """
    own = dict(model.named_parameters())
    return params.keys() == own.keys() and all(params[name] is weight for name, weight in own.items())


def same_architecture(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raise InputError unless names and shapes agree."""
    # older files do not count batch norm's batches; torch then begins at 0, and only momentum=None ever reads the count
    missing = sorted(n for n in expected.keys() - given.keys() if not n.endswith("num_batches_tracked"))
    unknown = sorted(given.keys() - expected.keys())
    shapes = [
        f"{name}: {tuple(expected[name].shape)} expected, {tuple(given[name].shape)} given"
        for name in sorted(expected.keys() & given.keys())
        if expected[name].shape != given[name].shape
    ]
    problems = [f"missing {name}" for name in missing] + [f"unknown {name}" for name in unknown] + shapes
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise InputError(
            "The checkpoint belongs to another architecture: " + "; ".join(problems[:3]) + more + ". "
            "Give the model that these weights were trained with."
        )
