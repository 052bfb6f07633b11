"""A first look into a model's folder, before ``transformers`` is given it: what it claims to be, its weights must hold.

Nothing in a folder may run: weights are read from safetensors or GGUF only, and code that it names is never loaded
(``trust_remote_code`` is false). What is left is a configuration that asks for layers and sizes without an end, or for
kernels from somewhere else.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.core.errors import InputError, of_the_machine
from expunge.core.files import parse_json

LAYERS = re.compile(r"(num_|n_)?(hidden_|encoder_|decoder_|nextn_predict_)?(layers?|blocks?|block_count)")
SPARE = 8  # times as many weights as are stored a model may have: packed and tied ones stand in the file once
LARGEST = 2**24  # bytes of a configuration; the largest ones have some hundred thousand
_GGUF_SIZES = ("embedding_length", "feed_forward_length", "vocab_size", "expert_count")


@dataclass(frozen=True)
class Stored:
    """How many tensors weights come in, and how many numbers they hold."""

    count: int
    numbers: int


def check_folder(folder: Path, gguf: str | None) -> None:
    """Hold the configuration in ``folder`` against the weights beside it.

    Raises:
        InputError: for a configuration that is no JSON, names kernels or another model to load, or claims more layers than
            there are weights.
    """
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise InputError(
            f"{folder} holds an adapter and no model. Name the model's folder, and this one as its adapter."
        )
    path = folder / "config.json"
    if not path.is_file():
        return  # the reader says what is missing
    if path.stat().st_size > LARGEST:
        raise InputError(
            f"{path} has {path.stat().st_size} bytes, and a configuration some thousand. Get the file anew."
        )
    config = _configuration(path)
    if not isinstance(config, dict):
        raise InputError(f"Expected an object in {path}; got {type(config).__name__}. Get the file anew.")
    for key, value in _entries(config):
        if "implementation" in key and isinstance(value, str) and "/" in value:
            raise InputError(
                f"{path} asks for {key} {value!r:.80}, which is code from elsewhere, and none is loaded. Take the entry out."
            )
    stored = _gguf_tensors(folder / gguf) if gguf else _tensors(folder)
    claimed = max((value for key, value in _entries(config) if LAYERS.fullmatch(key) and type(value) is int), default=0)
    if stored and claimed > max(stored.count, 1):
        raise InputError(
            f"{path} claims {claimed} layers, and the weights beside it are {stored.count} tensors. Get both from one place."
        )


def check_size(folder: Path, model: Any) -> None:
    """Refuse a model that is much larger than the weights that are stored.

    Args:
        model: on the meta device, where it has sizes and no memory; ``None``: unknown, and nothing is checked.

    Raises:
        InputError: saying both sizes.
    """
    stored = _tensors(folder)
    if stored is None or model is None:
        return
    claimed = sum(parameter.numel() for parameter in model.parameters())
    if claimed > SPARE * stored.numbers:
        raise InputError(
            f"The configuration in {folder} describes a model of {claimed:.3g} weights, and {stored.numbers:.3g} are stored. "
            "Get both from one place."
        )


def _configuration(path: Path) -> Any:
    """A configuration; some say ``Infinity``, which JSON does not know.

    Raises:
        InputError: where it is no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"Expected a configuration in JSON in {path}: {error!s:.120}. Get the file anew.") from None


def _entries(config: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        yield str(key), value
        if isinstance(value, Mapping) and depth < 8:
            yield from _entries(value, depth + 1)


def _tensors(folder: Path) -> Stored | None:
    """From the headers of the safetensors files; ``None`` where there are none or one is damaged (the reader says so)."""
    count = numbers = 0
    for path in folder.glob("*.safetensors"):
        if (header := _header(path)) is None:
            return None
        shapes = [entry.get("shape", []) for name, entry in header.items() if name != "__metadata__"]
        count += len(shapes)
        numbers += sum(math.prod(shape) for shape in shapes)
    return Stored(count, numbers) if count else None


def _header(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as handle:
            size = int.from_bytes(handle.read(8), "little")
            if size > min(path.stat().st_size, 10**8):
                return None
            found = parse_json(handle.read(size), path.name)
    except InputError:
        return None
    return found if isinstance(found, dict) and all(isinstance(entry, dict) for entry in found.values()) else None


def _gguf_tensors(path: Path) -> Stored | None:
    """From the header of a GGUF file, whose own sizes are held against its tensors.

    Raises:
        InputError: for sizes that no tensor has.
    """
    try:
        from gguf import GGUFReader

        reader = GGUFReader(path)
        said = {name: field.contents() for name, field in reader.fields.items()}
    except Exception as error:  # without the package, or damaged in any way: the reader of transformers says so
        if of_the_machine(error):
            raise
        return None
    tensors = reader.tensors
    widest = max((int(side) for tensor in tensors for side in tensor.shape), default=0)
    numbers = sum(math.prod(int(side) for side in tensor.shape) for tensor in tensors)
    for name, value in said.items():
        ending = name.rpartition(".")[2]
        most = len(tensors) if ending == "block_count" else widest if ending in _GGUF_SIZES else None
        if most is not None and isinstance(value, int) and value > max(most, 1):
            raise InputError(f"{path.name} claims {name} {value}, and its tensors come to {most}. Get the file anew.")
    return Stored(len(tensors), numbers)
