"""YAML files that people write: read safely, two traps closed, single keys overridden from the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from expunge.core.errors import InputError


def read_yaml(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Keys and values of a file.

    Args:
        overrides: ``key.sub=value`` with YAML values.

    Raises:
        InputError: for broken YAML, a file of something else than keys and values, or an override that fits nowhere.
    """
    content = _parsed(path.read_text(encoding="utf-8", errors="replace"), path.name)
    if not isinstance(content, dict):
        raise InputError(f"Expected {path.name} to hold keys and values; got {type(content).__name__}.")
    for override in overrides:
        _override(content, override)
    return content


class _Loader(yaml.SafeLoader):
    """YAML without two of its traps: ``1e-5`` is a number, and a key that comes twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As the parent's, refusing repeated keys."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)  # type: ignore[no-untyped-call]
            if isinstance(key, str | int | float | bool) and key in seen:
                raise yaml.YAMLError(f"the key {key!r} comes twice (line {key_node.start_mark.line + 1})")
            seen.add(key if isinstance(key, str | int | float | bool) else id(key_node))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _parsed(text: str, name: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{name} is not readable YAML: {error}") from None


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f"Expected --set key.sub=value; got {override!r}.")
    *parents, last = key.split(".")
    place: Any = content
    for parent in parents:
        if isinstance(place, dict):
            place = place.setdefault(parent, {})
        elif isinstance(place, list) and parent.isdigit() and int(parent) < len(place):
            place = place[int(parent)]
        else:
            place = None
        if not isinstance(place, dict | list):
            raise InputError(f"--set {key}: {parent} is not a section of the job file.")
    found = _parsed(value, f"--set {key}")
    if isinstance(place, dict):
        place[last] = found
    elif last.isdigit() and int(last) < len(place):
        place[int(last)] = found
    else:
        raise InputError(f"--set {key}: expected a number below {len(place)} in place of {last!r}, it counts a list.")
