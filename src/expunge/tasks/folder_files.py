"""What stands beside the weights in a folder of ``transformers``."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch


def folder_files(model: Any, dtype: torch.dtype, tokenizer: Any, processor: Any = None) -> dict[str, bytes]:
    """Configuration, generation settings and tokenizer of ``model`` as files by name, for weights stored in ``dtype``; with
    ``processor`` also what prepares pictures.

    Where the weights were read from a quantised file, the configuration no longer says so: they are not any more.
    """
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.dtype = dtype
    for name in ("quantization_config", "auto_map"):  # nor where code lies, which was not loaded and is not handed on
        if hasattr(config, name):
            delattr(config, name)
    tokenizer = copy.copy(tokenizer)
    tokenizer.init_kwargs = {name: value for name, value in tokenizer.init_kwargs.items() if name != "auto_map"}
    with tempfile.TemporaryDirectory() as place:
        config.save_pretrained(place)
        if processor is not None:
            processor.save_pretrained(place)
        tokenizer.save_pretrained(place)
        files = {path.name: path.read_bytes() for path in sorted(Path(place).iterdir()) if path.is_file()}
    # its own save refuses settings that transformers warns of; many released models have some
    return files | {"generation_config.json": model.generation_config.to_json_string().encode()}
