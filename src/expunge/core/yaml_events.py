"""The parts of a YAML text one by one, and an end where it nests too deeply: reading such a text takes minutes."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from expunge.core.errors import InputError

DEEPEST = 50  # lists and mappings within each other; job files and recipes have at most eight


def yaml_events(text: str, name: str) -> Iterator[yaml.Event]:
    """What PyYAML finds in ``text``, in order; it is not composed into values.

    Args:
        name: how messages call the text.

    Raises:
        InputError: where it nests deeper than :data:`DEEPEST`.
        yaml.YAMLError: where it is no YAML.
    """
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise InputError(f"{name} is nested too deeply ({DEEPEST} levels at most). Write it flat.")
        yield event
