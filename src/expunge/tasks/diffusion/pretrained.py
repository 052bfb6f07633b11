"""The U-Nets of ``diffusers``, made from the ``config.json`` of a local folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from expunge.core.errors import InputError, of_the_machine


def unet2d(config: Path, **settings: Any) -> nn.Module:
    """A fresh ``UNet2DModel`` as ``config`` describes it, with ``settings`` over it; nothing is fetched.

    Raises:
        InputError: without ``diffusers``, or where the file describes another model, or one without class embeddings.
    """
    try:
        from diffusers import UNet2DModel  # pyright: ignore[reportMissingImports, reportPrivateImportUsage]
    except ImportError:
        raise InputError(
            "A UNet2DModel needs the package diffusers: pip install 'expunge[diffusion]'. The model unet needs nothing."
        ) from None
    try:
        described = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if of_the_machine(error):
            raise
        raise InputError(
            f"Expected the config.json of a UNet2DModel at {config}; it cannot be read ({error})."
        ) from None
    kind = described.get("_class_name") if isinstance(described, dict) else None
    if kind != "UNet2DModel":
        raise InputError(f"Expected a UNet2DModel in {config}; it describes {kind or 'no model'}.")
    described = {**described, **settings}
    if not described.get("num_class_embeds"):
        raise InputError(
            f"The UNet2DModel in {config} knows no classes (num_class_embeds is not set): nothing could be asked of it by "
            "class, and guidance has no branch without one. Take a class-conditional model with one embedding more than "
            "classes."
        )
    model: Any = UNet2DModel.from_config(described)
    return model
