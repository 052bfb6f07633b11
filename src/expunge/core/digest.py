"""Content digests: the same content has the same name, wherever and whenever it was made.

SHA-256 over a canonical form. JSON values are serialised with sorted keys and no spaces; arrays and tensors contribute
their dtype, shape and little-endian bytes, so that a float32 and a float64 copy of the same numbers differ.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Serialise JSON-like ``value`` so that equal values give equal bytes.

    Raises:
        TypeError: if ``value`` holds something JSON cannot say. ``ValueError`` on NaN or infinity, which JSON has no
            word for: write them as ``None`` or as text.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_json(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON form of ``value``."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_bytes(content: bytes) -> str:
    """SHA-256 (hex) of ``content``."""
    return hashlib.sha256(content).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in blocks."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _update_with_array(state: Any, array: Any) -> None:
    if hasattr(array, "blocks"):  # a column on disk, never whole in memory
        for number, block in enumerate(array.blocks()):
            part = _as_numpy(block)
            if not number:
                state.update(canonical_json([str(part.dtype.str), list(array.shape)]))
            state.update(part.data if part.size else b"")
        return
    array = _as_numpy(array)
    if array.dtype == object:
        state.update(canonical_json([str(item) for item in array.ravel()]))
        return
    state.update(canonical_json([str(array.dtype.str), list(array.shape)]))
    state.update(array.data if array.size else b"")


def _as_numpy(array: Any) -> Any:
    """Contiguous and little-endian."""
    if hasattr(array, "detach"):  # a torch tensor: core does not import torch
        array = array.detach().cpu()
        if str(array.dtype) == "torch.bfloat16":  # NumPy has no bfloat16: hash its bits
            array = array.view(__import__("torch").int16)
        array = array.numpy()
    import numpy as np

    array = np.ascontiguousarray(array)
    return array.astype(array.dtype.newbyteorder("<")) if array.dtype.byteorder == ">" else array


def digest_arrays(arrays: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of named arrays or tensors, independent of the order of the mapping."""
    state = hashlib.sha256()
    for name in sorted(arrays):
        state.update(canonical_json(name))
        _update_with_array(state, arrays[name])
    return state.hexdigest()


def keyed_hash(key: bytes, value: Any) -> str:
    """HMAC-SHA-256 (hex) of a JSON-like value: who lacks ``key`` cannot test a guess of a name."""
    return hmac.new(key, canonical_json(value), hashlib.sha256).hexdigest()


def finite(value: float | None) -> float | None:
    """``value`` where JSON can carry it, else ``None`` (infinity means: no finite bound)."""
    return None if value is None or not math.isfinite(value) else float(value)
