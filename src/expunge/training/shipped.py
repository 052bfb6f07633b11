"""Weights that come with the package, each under the digest of everything that decides it: a cache that was filled before.

``expunge.modalities.vision_language.make_weights`` makes them, and a test under ``make bench`` makes them again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from expunge.core.digest import digest_json
from expunge.core.task import Autoregressive
from expunge.data.texts import Texts

FOLDER = Path(__file__).parent / "weights"


def name_of(task: Autoregressive, data: Texts, recipe: Any, seed: int) -> str:
    """The name of the weights that ``recipe`` makes of ``data`` from ``seed``: a digest of these, of shapes and of tokens."""
    shapes = {name: [str(tensor.dtype), list(tensor.shape)] for name, tensor in task.released(task.build()).items()}
    prompts = task.prompts
    words = sorted(prompts.tokenizer.get_vocab().items())
    return digest_json([recipe.describe(), data.digest, seed, shapes, words, prompts.rendered])[:32]


def shipped(name: str) -> dict[str, Tensor] | None:
    """The weights of this name; ``None`` where none came with the package."""
    path = FOLDER / f"{name}.safetensors"
    return load_file(path) if path.is_file() else None
