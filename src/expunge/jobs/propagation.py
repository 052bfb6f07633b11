"""Where a model went: copies, adapters and models that were made from it, in folders and in the cache of Hugging Face."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from expunge.core.digest import digest_file
from expunge.core.errors import InputError
from expunge.core.files import parse_json

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf")
CACHE = "models--"  # how a folder of Hugging Face's cache begins: models--owner--name
_LARGEST = 2**22  # bytes of a configuration or a model card that is read


@dataclass(frozen=True)
class Descendant:
    """Something that holds, or was made from, a model.

    Attributes:
        path: of the file or folder.
        kind: ``copy`` (the same bytes), ``adapter``, or ``derived`` (its files name the model as what it began with).
        because: the file that says so, and what it says.
    """

    path: Path
    kind: str
    because: str


def propagate(model: str | Path, roots: Sequence[str | Path], names: Sequence[str] = ()) -> list[Descendant]:
    """Descendants of ``model`` below ``roots``, by the digest of weights and by what configurations and model cards name.

    Args:
        model: a file of weights, or a folder of them. It is not reported itself.
        roots: folders to walk, for example one of exports and ``~/.cache/huggingface/hub``.
        names: what others call the model (``owner/name``), besides its path and, in a cache, the name of its folder.

    Returns:
        In the order of paths. What was merged, quantised or distilled without naming its origin cannot be found so.

    Raises:
        InputError: for a model or a root that is not there, or a model without weights.

    Formal guarantee: none; nothing found is no proof that nothing is there.
    """
    model = Path(model)
    weights = [model] if model.is_file() else sorted(path for path in model.glob("*") if path.suffix in WEIGHTS)
    if not weights:
        raise InputError(f"Expected a file of weights or a folder with some ({', '.join(WEIGHTS)}); {model} has none.")
    if absent := [str(root) for root in roots if not Path(root).is_dir()]:
        raise InputError(f"There is no folder {absent[0]} to look in.")
    known = {*names, *_own_names(model)}
    sizes: dict[int, set[str]] = {}
    for path in weights:
        sizes.setdefault(path.stat().st_size, set()).add(digest_file(path))
    own = {path.absolute() for path in weights}
    found: dict[Path, Descendant] = {}
    for path in _files(roots):
        if path.absolute() in own:
            continue
        if path.suffix in WEIGHTS:
            if (digests := sizes.get(path.stat().st_size)) and digest_file(path) in digests:
                found.setdefault(path, Descendant(path, "copy", f"{path.name} has the same bytes"))
        elif path.parent.absolute() != (model if model.is_dir() else model.parent).absolute():
            for kind, said in _origins(path):
                if said in known or _leads_to(said, path.parent, model):
                    found.setdefault(path.parent, Descendant(path.parent, kind, f"{path.name} names {said}"))
    return [found[path] for path in sorted(found)]


def propagate_to_json(model: Path, roots: Sequence[Path], names: Sequence[str] = ()) -> dict[str, Any]:
    """:func:`propagate` as ``--json`` prints it."""
    found = propagate(model, roots, names)
    return {"model": str(model), "descendants": [{**asdict(item), "path": str(item.path)} for item in found]}


def _own_names(model: Path) -> set[str]:
    """What the model's place says that it is called: its path, and ``owner/name`` in a cache."""
    names = {str(model), str(model.absolute())}
    for part in model.absolute().parts:
        if part.startswith(CACHE):
            names.add(part.removeprefix(CACHE).replace("--", "/"))
    return names


def _files(roots: Sequence[str | Path]) -> Iterator[Path]:
    """Files that may say something, through links to files (a cache has them) and not through links to folders."""
    seen: set[Path] = set()
    for root in roots:
        for folder, below, files in os.walk(root):
            below.sort()
            for name in sorted(files):
                path = Path(folder) / name
                wanted = path.suffix in WEIGHTS or name in ("config.json", "adapter_config.json", "README.md")
                if wanted and path.is_file() and path.absolute() not in seen:
                    seen.add(path.absolute())
                    yield path


def _origins(path: Path) -> Iterator[tuple[str, str]]:
    """What a configuration or a model card names as the model that its folder was made from."""
    if path.stat().st_size > _LARGEST:
        return
    try:
        text = path.read_text(encoding="utf-8")
        if path.name == "README.md":
            _, *parts = text.split("---\n", 2)
            card = yaml.safe_load(parts[0]) if text.startswith("---\n") and len(parts) == 2 else None
            base = card.get("base_model") if isinstance(card, dict) else None
            yield from (
                ("derived", said) for said in (base if isinstance(base, list) else [base]) if isinstance(said, str)
            )
            return
        content = parse_json(text, path.name)
    except (UnicodeDecodeError, yaml.YAMLError, InputError):
        return  # of somebody else, and unreadable: it names nothing
    keys = {"adapter_config.json": ("adapter", "base_model_name_or_path"), "config.json": ("derived", "_name_or_path")}
    kind, key = keys[path.name]
    if isinstance(content, dict) and isinstance(content.get(key), str) and content[key]:
        yield kind, content[key]


def _leads_to(said: str, folder: Path, model: Path) -> bool:
    """Whether a path in a configuration is the model's, seen from the working directory or from the folder itself."""
    place = model if model.is_dir() else model.parent
    return any(path.exists() and path.resolve() == place.resolve() for path in (Path(said), folder / said))
