"""Which source this installation runs: between two releases of one version number, words and pages may differ."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

ENDINGS = (".py", ".j2", ".typ")  # code, and the templates of pages


@cache
def source_digest() -> str:
    """SHA-256 (hex) of expunge's own code and templates, by name and content; read once a process."""
    root, state = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.suffix in ENDINGS):
        content = path.read_bytes()
        state.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode() + content)
    return state.hexdigest()
