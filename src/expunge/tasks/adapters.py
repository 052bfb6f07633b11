"""Low-rank adapters through PEFT: put beside frozen weights, switched off, taken out, merged.

The backbone is not touched while an adapter is there: its tensors are the same objects before, during and after. So the
model as it was is always at hand, without a second one in memory.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.errors import ExtraMissingError, InputError
from expunge.tasks.half_precision import is_half, rounded
from expunge.tasks.model_parts import SCOPES, model_parts
from expunge.tasks.seeds import seed_global

NAME = "default"  # of the adapter, PEFT's own word
# Settings and starts under which PEFT changes the model's own weights, partly in place.
OWN_WEIGHTS = ("modules_to_save", "trainable_token_indices", "layer_replication", "target_parameters", "kasa_config")
STARTS = (True, False, "gaussian", "orthogonal")  # that change none; pissa, olora, corda, loftq, … put a residual there
ABOUT = (  # what a stored configuration says of where it comes from and how it was last used
    "peft_type", "task_type", "base_model_name_or_path", "auto_mapping", "peft_version", "revision", "inference_mode",
)  # fmt: skip


def config_of(settings: Mapping[str, Any]) -> Any:
    """A PEFT ``LoraConfig`` from its settings, whichever there are that leave the model's own weights alone.

    Raises:
        InputError: for a setting that PEFT does not take, or one under which the model's own weights would move.
            ``ExtraMissingError`` without the extra ``llm``.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise ExtraMissingError("llm", "peft") from None
    try:
        config = LoraConfig(**{name: value for name, value in settings.items() if name != "scope"})
    except (TypeError, ValueError) as error:
        raise InputError(f"LoRA settings {dict(settings)} cannot be used: {error}.") from None
    moved = [name for name in OWN_WEIGHTS if settings.get(name)]
    moved += ["bias"] * (config.bias != "none") + ["init_lora_weights"] * (config.init_lora_weights not in STARTS)
    if moved:
        raise InputError(
            f"Expected LoRA settings under which the adapter alone moves; {', '.join(moved)} would change the model's own "
            "weights, or need data. Leave it out, or train all weights (no lora)."
        )
    return config


def inject(model: nn.Module, settings: Mapping[str, Any], seed: int = 0) -> tuple[str, ...]:
    """Put an adapter into ``model`` in place; it computes the same as before until a step is made.

    Args:
        settings: of PEFT's ``LoraConfig``; without ``target_modules`` every linear layer but the output. ``scope`` says which
            part of a vision-language model they are about: ``text`` where it is left out, or ``text+connector``.

    Returns:
        Names of the adapter's tensors: what may move.

    Raises:
        InputError: if no module fits, the model has an adapter already, its own weights would not stay as they are, or the
            adapter would reach outside its scope (a list of suffixes names layers of the vision tower too).
    """
    from peft import inject_adapter_in_model

    if has_adapter(model):
        raise InputError("The model has an adapter already; merge or remove it first.")
    parts, scope = model_parts(model), settings.get("scope")
    if scope is not None and (parts is None or scope not in SCOPES):
        raise InputError(
            f"Expected a scope among {', '.join(SCOPES)}, of a model with a vision tower; got {scope!r}"
            f"{'' if parts else ' for a model that has none'}. Leave it out, or correct it."
        )
    allowed = (scope or "text").split("+")
    config = config_of({"target_modules": "all-linear", **settings})
    if config.target_modules == "all-linear":
        names = linear_modules(model)
        config.target_modules = names if parts is None else [name for name in names if parts.part_of(name) in allowed]
    before = {name for name, _ in model.named_parameters()}
    shared = _shared(model)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT warns of what is refused below
            seed_global(seed, next(iter(model.parameters())).device)
            inject_adapter_in_model(config, model)
    except (ValueError, KeyError) as error:
        raise InputError(f"No adapter can be put into this model: {str(error).splitlines()[0]}") from None
    found = layers(model)
    if parts is not None and (outside := [name for name in found if parts.part_of(name) not in allowed]):
        remove(model)
        raise InputError(
            f"Expected an adapter in {' and '.join(allowed)} alone; target_modules also names {len(outside)} other layers: "
            f"{', '.join(outside)}. Leave target_modules out, or begin a regular expression with {parts.text}."
        )
    if config.lora_bias and any(layer.get_base_layer().bias is None for layer in found.values()):
        raise InputError("lora_bias needs layers with a bias, or the adapter cannot be merged. Leave it out.")
    if tied := sorted(shared.intersection(f"{name}.weight" for name in found)):
        raise InputError(
            f"Expected layers with weights of their own; {tied[0]} is another layer's too (tied embeddings), and an adapter "
            "beside it could not be merged. Take it out of target_modules."
        )
    return tuple(
        name
        for name, tensor in model.named_parameters()
        if tensor.requires_grad and name.replace(".base_layer", "") not in before
    )


def linear_modules(model: nn.Module) -> list[str]:
    """Names of all linear layers but the one that gives the logits."""
    from transformers.pytorch_utils import Conv1D  # the linear layers of GPT-2

    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # type: ignore[operator]
    linear = (nn.Linear, Conv1D)
    return [name for name, module in model.named_modules() if isinstance(module, linear) and module is not output]


def _shared(model: nn.Module) -> set[str]:
    """Names of weights that stand under another name as well."""
    names: dict[int, list[str]] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(tensor), []).append(name)
    return {name for same in names.values() if len(same) > 1 for name in same}


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
    plain = {
        key: getattr(value, "value", value) for key, value in config.items()
    }  # enumerations by what they stand for
    return {key: sorted(value) if isinstance(value, set) else value for key, value in plain.items()}


def put_in(model: nn.Module, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """A stored adapter (see :func:`adapter_tensors`) back into ``model``; PEFT's own files fit too.

    Raises:
        InputError: if it is no LoRA adapter, or belongs to another model: names or shapes do not fit.
    """
    from dataclasses import fields

    from peft import LoraConfig, set_peft_model_state_dict

    if (kind := settings.get("peft_type", "LORA")) != "LORA":
        raise InputError(
            f"Expected an adapter of type LORA; this one is of type {kind}. Merge it with PEFT, and load that."
        )
    known = {field.name for field in fields(LoraConfig)}
    told = {key: value for key, value in settings.items() if key not in ABOUT and (key in known or value)}
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
    inject(model, told)
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
    _without_adapter(model)


def merge(model: nn.Module) -> None:
    """Add the adapter to the weights, which are new tensors then, and take it out.

    Weights in half precision are added to in single precision and rounded so that small changes count
    (:func:`~expunge.tasks.half_precision.rounded`).
    """
    for place, (name, layer) in enumerate(layers(model).items()):
        base = layer.get_base_layer()
        before = list(base.named_parameters(recurse=False))
        for each, tensor in before:  # another model may hold the old ones
            wide = tensor.detach().float() if is_half(tensor) else tensor.detach().clone()
            setattr(base, each, nn.Parameter(wide))
        for factor in layer.parameters():
            if is_half(factor):
                factor.data = factor.data.float()
        layer.merge()
        for number, (each, tensor) in enumerate(before):
            if is_half(tensor):
                merged = getattr(base, each).detach()
                setattr(base, each, nn.Parameter(rounded(merged, tensor.dtype, place * len(before) + number)))
        _replace(model, name, base)
    _without_adapter(model)


def _without_adapter(model: nn.Module) -> None:
    if hasattr(model, "peft_config"):
        del model.peft_config
    for tensor in model.parameters():  # PEFT froze them
        tensor.requires_grad_(True)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
