"""Which part of a vision-language model reads text, which sees, and which connects them: found in the model, not by names.

Names moved between versions of ``transformers`` and differ between families, so that none is written down here.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

SCOPES = ("text", "text+connector")


@dataclass(frozen=True)
class ModelParts:
    """Names of modules.

    Attributes:
        text: the decoder.
        vision: what turns pixels into features.
        connector: what brings features to the width of the text; it may lie inside ``vision``. Empty: none was found.
    """

    text: str
    vision: str
    connector: str

    def part_of(self, name: str) -> str:
        """``text``, ``connector``, ``vision``, or ``other`` (the output layer) for a module or tensor called ``name``."""
        for part in ("text", "connector", "vision"):
            prefix = getattr(self, part)
            if prefix and (name == prefix or name.startswith(f"{prefix}.")):
                return part
        return "other"


def model_parts(model: nn.Module) -> ModelParts | None:
    """The parts of ``model``; ``None`` for a model that sees nothing.

    The decoder is what the model itself names as such; beside it, what holds a convolution (the embedding of patches) sees,
    and what holds none connects. Where nothing beside it connects (Qwen2-VL), the child of the seeing part that is no list of
    blocks and ends in the width of the text does.
    """
    named = getattr(model, "get_decoder", None)
    decoder = named() if callable(named) else None
    if not isinstance(decoder, nn.Module):
        return None
    text = next((name for name, module in model.named_modules() if module is decoder), "")
    above = text.rpartition(".")[0]
    beside = {
        f"{above}.{name}".lstrip("."): module
        for name, module in model.get_submodule(above).named_children()
        if module is not decoder
    }
    seeing = [name for name, module in beside.items() if _convolves(module)]
    if not text or len(seeing) != 1:
        return None
    (vision,) = seeing
    connecting = [name for name, module in beside.items() if name != vision and any(True for _ in module.parameters())]
    embedding = decoder.get_input_embeddings()  # type: ignore[operator]
    return ModelParts(text, vision, connecting[0] if connecting else _inside(model, vision, embedding.weight.shape[1]))


def _convolves(module: nn.Module) -> bool:
    return any(isinstance(each, nn.Conv2d | nn.Conv3d) for each in module.modules())


def _inside(model: nn.Module, vision: str, width: int) -> str:
    for name, child in model.get_submodule(vision).named_children():
        widths = [each.out_features for each in child.modules() if isinstance(each, nn.Linear)]
        if widths and widths[-1] == width and not isinstance(child, nn.ModuleList) and not _convolves(child):
            return f"{vision}.{name}"
    return ""
