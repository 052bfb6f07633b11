"""YAML files that people write: read safely, three traps closed, single keys overridden from the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from expunge.core.errors import InputError
from expunge.core.yaml_events import yaml_events

WHERE = "where"  # the key below which values name people: YAML may not turn one name into another there
MOST = 10**6  # values of a document that repeats itself; nobody writes so many by hand

_TEXT = "tag:yaml.org,2002:str"


def read_yaml(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Keys and values of a file.

    Args:
        overrides: ``key.sub=value`` with YAML values.

    Raises:
        InputError: for broken YAML, a file of something else than keys and values, an override that fits nowhere, or a
            value under ``where`` that YAML understands as another one than is written (see :func:`read_value`).
    """
    content = _parsed(path.read_text(encoding="utf-8", errors="replace"), path.name, exact=False)
    if not isinstance(content, dict):
        raise InputError(f"Expected {path.name} to hold keys and values; got {type(content).__name__}.")
    for override in overrides:
        _override(content, override)
    return content


def read_value(text: str, name: str) -> Any:
    """A value that says where to find something: what YAML makes of ``text``, if that is what is written.

    YAML reads ``010`` as 8, ``1_000`` as 1000, ``1:30`` as 90 and ``no`` as false. Whoever writes that in a request may
    mean the text, and another person would be forgotten.

    Args:
        name: how messages call it, for example ``--where patient``.

    Raises:
        InputError: for broken YAML, or for a value whose text is not the usual way to write it; it says to quote it.
    """
    found = _parsed(text, name, exact=True)
    if isinstance(found, dict) or (isinstance(found, list) and not text.lstrip().startswith("[")):
        raise InputError(
            f"{name}: expected a value or a list such as [3, 5]; YAML reads {text!r:.60} as keys or lines. Quote it."
        )
    return found


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


def _parsed(text: str, name: str, exact: bool) -> Any:
    """What ``text`` says; ``exact``: all of it stands under ``where``, not only what stands there by its keys."""
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:  # characters that no text has
        raise InputError(f"{name} is not readable YAML: {error}. Save the file as text in UTF-8.") from None
    try:
        for _ in yaml_events(text, name):
            pass
        node = loader.get_single_node()
        if node is None:
            return None if not exact else _nothing(name)
        sizes: dict[int, int] = {}
        if (size := _size(node, sizes)) > MOST and size > 10 * len(sizes):
            raise InputError(f"{name} comes to {size:.3g} values by repeating itself. Write out what is meant.")
        if exact and isinstance(node, yaml.ScalarNode) and node.style is None and node.value != text:
            raise InputError(f"{name}: YAML reads {text!r:.60} as {node.value!r:.60}. Quote it if all of it is meant.")
        for scalar in _exact(node, exact, set()):
            _as_written(loader, scalar, name)
        return loader.construct_document(node)  # type: ignore[no-untyped-call]
    except RecursionError:
        raise InputError(f"{name} holds itself. Write it flat.") from None
    except (yaml.YAMLError, ValueError) as error:
        hint = " Quote it if it is a text." if exact else ""
        raise InputError(f"{name} is not readable YAML: {error}.{hint}") from None
    finally:
        loader.dispose()  # type: ignore[no-untyped-call]


def _nothing(name: str) -> Any:
    raise InputError(f"Expected a value for {name}; got nothing. Write the value, or quote it if it is an empty text.")


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a document comes to where what it repeats by aliases is written out."""
    if id(node) not in known:
        children = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            children = [each for pair in node.value for each in pair]
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]


def _exact(node: yaml.Node, exact: bool, seen: set[tuple[int, bool]]) -> Iterator[yaml.ScalarNode]:
    """Every scalar below ``where``, names of columns included; aliases are followed once."""
    if (id(node), exact) in seen:
        return
    seen.add((id(node), exact))
    if isinstance(node, yaml.ScalarNode):
        if exact:
            yield node
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _exact(item, exact, seen)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:merge":
                yield from _exact(key, exact, seen)
            below = isinstance(key, yaml.ScalarNode) and key.value == WHERE
            yield from _exact(value, exact or below, seen)


def _as_written(loader: _Loader, node: yaml.ScalarNode, name: str) -> None:
    """Refuse a scalar that is not the usual way to write what YAML reads in it; a quoted one is a text and stays one."""
    if "\ufffd" in node.value:
        raise InputError(
            f"{name}: {node.value!r} names what to forget and is not text in UTF-8. Save the file in UTF-8."
        )
    if node.style is not None or node.tag == _TEXT:
        return
    try:
        value = loader.construct_object(node, deep=True)  # type: ignore[no-untyped-call]
        usual = "null" if value is None else str(value)
    except ValueError:  # a date that no calendar has
        value, usual = None, ""
    if value is not None and node.value in (usual, usual.lower() if isinstance(value, bool) else usual):
        if isinstance(value, date):  # data from files have no other form than the text
            node.tag = _TEXT
            loader.constructed_objects.pop(node, None)
        return
    usual = usual.lower() if isinstance(value, bool) else usual
    read = f"; YAML reads it as {usual}" if usual else ""
    or_else = f", or write {usual} if that is meant" if usual and value is not None else ""
    raise InputError(
        f"{name}: line {node.start_mark.line + 1} names what to forget by {node.value!r}{read}. Quote it "
        f'("{node.value}") if the data have it so{or_else}.'
    )


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
    found = _parsed(value, f"--set {key}", exact=WHERE in (*parents, last))
    if isinstance(place, dict):
        place[last] = found
    elif last.isdigit() and int(last) < len(place):
        place[int(last)] = found
    else:
        raise InputError(f"--set {key}: expected a number below {len(place)} in place of {last!r}, it counts a list.")
