"""What stands beside the weights in a folder of ``transformers``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn


def folder_files(factory: Callable[[], nn.Module], dtype: torch.dtype, tokenizer: Any) -> dict[str, bytes]:
    """Configuration, generation settings and tokenizer as files by name, of weights that are stored as they are.

    Where the weights were read from a quantised file, the configuration no longer says so: they are not any more.
    """
    with torch.device("meta"):
        model: Any = factory()
    config = model.config
    config.architectures = [type(model).__name__]
    config.dtype = dtype
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with tempfile.TemporaryDirectory() as place:
        for part in (config, model.generation_config, tokenizer):
            part.save_pretrained(place)
        return {path.name: path.read_bytes() for path in sorted(Path(place).iterdir()) if path.is_file()}
