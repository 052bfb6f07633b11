"""Low-rank adapters through PEFT: put beside frozen weights, switched off, taken out, merged.

The backbone is not touched while an adapter is there: its tensors are the same objects before, during and after. So the
model as it was is always at hand, without a second one in memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.errors import ExtraMissingError, InputError

NAME = "default"  # of the adapter, PEFT's own word


def config_of(settings: Mapping[str, Any]) -> Any:
    """A PEFT ``LoraConfig`` from its settings, whichever there are.

    Raises:
        InputError: for a setting that PEFT does not take. ``ExtraMissingError`` without the extra ``llm``.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise ExtraMissingError("llm", "peft") from None
    try:
        return LoraConfig(**settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"LoRA settings {dict(settings)} cannot be used: {error}.") from None


def inject(model: nn.Module, settings: Mapping[str, Any], seed: int = 0) -> tuple[str, ...]:
    """Put an adapter into ``model`` in place; it computes the same as before until a step is made.

    Returns:
        Names of the adapter's tensors: what may move.

    Raises:
        InputError: if no module fits, or the model has an adapter already.
    """
    from peft import inject_adapter_in_model

    if has_adapter(model):
        raise InputError("The model has an adapter already; merge or remove it first.")
    config = config_of({"target_modules": "all-linear", **settings})
    if config.target_modules == "all-linear":
        config.target_modules = linear_modules(model)
    before = {name for name, _ in model.named_parameters()}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inject_adapter_in_model(config, model)
    except ValueError as error:
        raise InputError(f"No adapter can be put into this model: {str(error).splitlines()[0]}") from None
    return tuple(
        name
        for name, tensor in model.named_parameters()
        if tensor.requires_grad and name.replace(".base_layer", "") not in before
    )


def linear_modules(model: nn.Module) -> list[str]:
    """Names of all linear layers but the one that gives the logits."""
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # type: ignore[operator]
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not output]


def layers(model: nn.Module) -> dict[str, Any]:
    """Name → adapted layer."""
    if not hasattr(model, "peft_config"):
        return {}
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}


def has_adapter(model: nn.Module) -> bool:
    """Whether an adapter is in the model."""
    return bool(layers(model))


@contextlib.contextmanager
def switched_off(model: nn.Module) -> Iterator[None]:
    """The model as it was without its adapter, for as long as the block lasts."""
    found = list(layers(model).values())
    needed = [(tensor, tensor.requires_grad) for layer in found for tensor in layer.parameters()]
    for layer in found:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in found:
            layer.enable_adapters(True)
        for tensor, required in needed:  # PEFT sets what it believes should learn
            tensor.requires_grad_(required)


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The adapter under the names of PEFT's files, copied."""
    from peft import get_peft_model_state_dict

    found = get_peft_model_state_dict(model, adapter_name=NAME, save_embedding_layers=False)
    return {f"base_model.model.{name}": tensor.detach().cpu().clone() for name, tensor in found.items()}


def adapter_settings(model: nn.Module) -> dict[str, Any]:
    """The adapter's configuration as PEFT writes it, JSON-like."""
    config: Any = model.peft_config[NAME].to_dict()  # type: ignore[index]
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}


def put_in(model: nn.Module, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """A stored adapter (see :func:`adapter_tensors`) back into ``model``.

    Raises:
        InputError: if it belongs to another model: names or shapes do not fit.
    """
    from peft import set_peft_model_state_dict

    wanted = {name.removeprefix("base_model.model."): tensor for name, tensor in tensors.items()}
    modules = dict(model.named_modules())
    for name, tensor in wanted.items():
        module = modules.get(name.rpartition(".lora_")[0])
        if not isinstance(module, nn.Linear):
            continue
        side = module.in_features if ".lora_A." in name else module.out_features
        if (".lora_A." in name and tensor.shape[1] != side) or (".lora_B." in name and tensor.shape[0] != side):
            raise InputError(
                f"The adapter belongs to another model: {name} has shape {tuple(tensor.shape)}, the layer takes "
                f"{module.in_features} and gives {module.out_features} numbers. Load it on the model it was trained for."
            )
    inject(model, {k: v for k, v in settings.items() if k not in ("peft_type", "task_type", "base_model_name_or_path")})
    result = set_peft_model_state_dict(model, wanted, adapter_name=NAME)
    missing = [name for name in result.missing_keys if "lora_" in name]
    if missing or result.unexpected_keys:
        named = [*result.unexpected_keys, *missing]
        raise InputError(
            f"The adapter belongs to another model: {len(named)} tensor name(s) do not fit, the first {named[0]!r}. "
            "Load it on the model it was trained for."
        )


def remove(model: nn.Module) -> None:
    """Take the adapter out: the model is as it was, bit for bit."""
    for name, layer in layers(model).items():
        _replace(model, name, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config


def merge(model: nn.Module) -> None:
    """Add the adapter to the weights, which are new tensors then, and take it out."""
    for name, layer in layers(model).items():
        base = layer.get_base_layer()
        base.weight = nn.Parameter(
            base.weight.detach().clone(), requires_grad=False
        )  # another model may hold the old one
        layer.merge()
        _replace(model, name, base)
    if hasattr(model, "peft_config"):
        del model.peft_config
    for tensor in model.parameters():
        tensor.requires_grad_(True)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
