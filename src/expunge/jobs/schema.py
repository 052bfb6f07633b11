"""Reading job files: the sections that a kind of model declares, checked all at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

from expunge import modalities
from expunge.core.errors import InputError
from expunge.jobs.yaml_files import read_yaml
from expunge.methods import registry
from expunge.modalities.networks import in_network
from expunge.modalities.settings import Job, in_folder

Model = TypeVar("Model", bound=BaseModel)
DEFAULT = "classification"  # the task of a job file that names none


def load_job(path: Path | Job, overrides: Sequence[str] = ()) -> Job:
    """Read and check a job file; paths in it are relative to the file. ``task`` names the kind of model.

    Nothing heavy is imported for it. A job that was read already is handed back as it is.

    Args:
        overrides: ``key.sub=value`` with YAML values, applied before checking.

    Raises:
        InputError: for a missing file, broken YAML, or anything the schema does not allow, all problems at once.
    """
    if isinstance(path, Job):
        return path
    if not path.is_file():
        raise InputError(f"There is no job file {path}; give the path of a YAML file.")
    content = read_yaml(path, overrides)
    kind = modalities.load(str(content.get("task", DEFAULT))).job
    job = validated(in_network(kind) if "network" in content else kind, content, path.name)
    if not isinstance(job.method.get("name"), str):
        raise InputError(f"{path.name}: method needs a name, for example  method: {{name: r2d, rewind: 0.5}}.")
    registry.target_of(job.method["name"].partition("+")[0])  # raises where there is no such method
    return in_folder(job, path.resolve().parent).read_from(path.name)


def validated(kind: type[Model], content: Any, name: str) -> Model:
    """``content`` as a job or recipe; raises InputError with all problems at once."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise InputError(
            f"{name} cannot be used:\n" + "\n".join(_problem(item, kind) for item in error.errors())
        ) from None


def _problem(item: Any, kind: type[BaseModel]) -> str:
    """One line about one thing that the schema does not allow."""
    path, model = _place([str(part) for part in item["loc"]], kind, item["type"])
    where = ".".join(path) or "(top)"
    if item["type"] == "extra_forbidden":
        known = sorted(model.model_fields)
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
        return f"  {where}: unknown key; {hint}"
    if item["type"] == "missing":
        return f"  {where}: missing; every {_named(kind)} needs it"
    return f"  {where}: {item['msg']} (got {item.get('input')!r:.60})"


def _place(parts: list[str], model: type[BaseModel], problem: str) -> tuple[list[str], type[BaseModel]]:
    """A problem's keys as somebody wrote them, without pydantic's names for members of unions; and the section it is in."""
    path: list[str] = []
    annotation: Any = model
    for part in parts:
        tagged = dict(_members(annotation))
        if part in tagged:
            annotation = model = tagged[part]
            continue
        path.append(part)
        sections = [section for _, section in _members(annotation)] or [model]
        field = next((s.model_fields[part] for s in sections if part in s.model_fields), None)
        if field is not None:
            annotation = field.annotation
            within = [section for _, section in _members(annotation)]
            model = within[0] if len(within) == 1 else model
    return path, model


def _members(annotation: Any, tag: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """The sections that a key may hold, each with the name that pydantic gives it in a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        names = (
            [tag]
            if tag
            else [
                str(value)
                for f in annotation.model_fields.values()
                if f.is_required()
                for value in _literal(f.annotation)
            ]
        )
        yield from ((name, annotation) for name in names or [annotation.__name__])
        return
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        tag = next((mark.tag for mark in marks if isinstance(mark, Tag)), tag)
        yield from _members(inner, tag)
        return
    for inner in get_args(annotation):
        yield from _members(inner)


def _literal(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _named(kind: type[BaseModel]) -> str:
    return kind.called if issubclass(kind, Job) else "recipe"
