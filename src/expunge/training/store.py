"""A trained model on disk: plain tensors and JSON, nothing that could run."""

from __future__ import annotations

import hmac
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from expunge.core.data import Data, Ids, ids_of
from expunge.core.digest import digest_bytes, finite, keyed_hash
from expunge.core.errors import InputError, TamperedError
from expunge.core.files import private_folder, read_json, write_atomic
from expunge.core.keys import subject_key
from expunge.core.task import Initialised, Task
from expunge.core.trained import Artifact, Budget, Fact, Origin, Spent, Trail, Trained
from expunge.data.torch_files import read_torch
from expunge.training.recipes import GradientDescent
from expunge.training.stored_recipes import from_record, settings_record

FORMAT = "expunge-trained/1"
INDEX = ".safetensors.index.json"  # of a checkpoint in several files, as transformers and others write it
WEIGHTS = ("state_dict", "model_state_dict", "model", "net", "weights")  # under which checkpoints keep them


def load_checkpoint(path: Path) -> dict[str, Tensor]:
    """Named tensors from ``.safetensors``, from all files of a ``.safetensors.index.json``, or from a torch file.

    Nothing in a file is run.

    Raises:
        InputError: for a missing file, one that is neither, or one that wants to run code.
    """
    if not path.is_file():
        raise InputError(f"There is no checkpoint {path}; give a .safetensors file (or a torch file of plain tensors).")
    if path.name.endswith(INDEX):
        return _sharded(path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise InputError(f"{path.name} is not a safetensors file: {error}. Save the weights anew.") from None
    loaded = read_torch(path)
    tensors = _weights(loaded)
    if tensors is None:
        raise InputError(
            f"{path.name} holds something else than named tensors, or the weights of several models. Save "
            "model.state_dict() as safetensors."
        )
    return tensors


def _sharded(index: Path) -> dict[str, Tensor]:
    """The tensors of several files, each from the file that the index names for it, and none besides."""
    places = read_json(index)
    places = places.get("weight_map") if isinstance(places, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise InputError(f"Expected a weight_map from tensors to files in {index.name}; it has none.")
    tensors: dict[str, Tensor] = {}
    for name in dict.fromkeys(places.values()):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise InputError(f"{index.name} names {name!r}; expected .safetensors files in its own folder.")
        tensors |= load_checkpoint(index.parent / name)
    if tensors.keys() != places.keys():
        odd = sorted(tensors.keys() ^ places.keys())[0]
        raise InputError(
            f"{index.name} and its files do not name the same tensors ({odd!r}). Save the checkpoint anew."
        )
    return tensors


def _weights(loaded: Any) -> dict[str, Tensor] | None:
    """The weights in a loaded file: named tensors themselves, or the one entry of a checkpoint that holds such."""
    if not isinstance(loaded, dict):
        return None
    if loaded and all(isinstance(name, str) and isinstance(item, Tensor) for name, item in loaded.items()):
        return dict(loaded)
    entries = [loaded[name] for name in WEIGHTS if isinstance(loaded.get(name), dict)]
    return _weights(entries[0]) if len(entries) == 1 else None


def save_trained(folder: Path, trained: Trained) -> None:
    """Write a model with its secret trail; the folder is private (mode 0700) and must stay so.

    ``trained.json`` comes last and names the digest of every other file, so that half a folder is not taken for a model. Of a
    network, what each view holds is stored once for all that hold the same.
    """
    private_folder(folder)
    trail = trained.trail
    files = {"released": trained.artifact.tensors}
    held, views = {trained.artifact.digest: "released"}, {}
    for view, artifact in trained.views.items():
        views[view] = held.setdefault(artifact.digest, f"view-{len(held)}")
        files[views[view]] = artifact.tensors
    if trained.state is not None:
        files["state"] = trained.state
    if trail:
        files |= {f"iterate-{step}": tensors for step, tensors in trail.iterates.items()}
    digests = {}
    for name, tensors in files.items():
        content = save({n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()})
        write_atomic(folder / f"{name}.safetensors", content, private=True)
        digests[name] = digest_bytes(content)
    record: dict[str, Any] = {
        "format": FORMAT,
        "recipe": _recipe(trained.recipe),
        "seed": trained.seed,
        "init": _init_of(trained.task),
        # infinity has no form in JSON: None stands for it where a number belongs, and for nothing known in a fact
        "facts": {name: fact.record for name, fact in trained.facts.items()},
        "budget": asdict(trained.budget) if trained.budget else None,
        "spent": [{**asdict(item), "mu": _finite(item.mu)} for item in trained.spent],
        "removed": {unit: ids.tolist() for unit, ids in trained.removed.of.items()},
        "data": trained.data.digest if trained.data is not None else None,
        "ids": _runs(ids_of(trained.data)),
        "files": digests,
        **({"views": views} if views else {}),
        "trail": None
        if trail is None
        else {
            "steps": list(trail.steps),
            "length": trail.length,
            "data": trail.data,
            "rows": trail.rows,
            "recovery_error": _finite(trail.recovery_error),
        },
    }
    record["mac"] = keyed_hash(subject_key(), record)
    write_atomic(folder / "trained.json", json.dumps(record, indent=1, allow_nan=False).encode(), private=True)


def _finite(value: Any) -> Any:
    return finite(value) if isinstance(value, float) else value


def _number(value: float | None) -> float:
    return math.inf if value is None else value


def _runs(ids: Ids | None) -> list[list[int]] | None:
    """Row ids as runs ``[first, last]``; ``None`` where rows have no ids of their own."""
    if ids is None or set(ids.of) - {"row"}:
        return None
    rows = ids["row"]
    ends = np.flatnonzero(np.diff(rows) > 1)
    return [[int(part[0]), int(part[-1])] for part in np.split(rows, ends + 1) if len(part)]


def _recipe(recipe: Any) -> dict[str, Any] | None:
    """A recipe on disk; ``None`` where it has no such form: the stored model cannot be retrained then."""
    if (settings := settings_record(recipe)) is not None:
        return settings
    if type(recipe) is not GradientDescent:
        return None
    return {
        "steps": recipe.steps, "lr": recipe.lr, "l2": recipe.l2, "clip": recipe.clip, "rewinds": list(recipe.rewinds),
        "constants": dict(recipe.constants), "estimate": recipe.estimate, "start": recipe.start is not None,
        "start_origin": recipe.start_origin,
    }  # fmt: skip


def load_trained(folder: Path, task: Task, data: Data) -> Trained:
    """Read what :func:`save_trained` wrote, for the same architecture and the same rows.

    Args:
        folder: what :func:`save_trained` or an earlier run wrote.
        task: the same architecture.
        data: the same examples. Those count that the model stands for: neither examples that earlier requests removed, nor
            any that it was not trained on.

    Raises:
        InputError: for a missing or foreign folder, another architecture, or other rows than it was trained on.
        TamperedError: if a file is not the one that was written.
    """
    if not (folder / "trained.json").is_file():
        raise InputError(f"There is no stored model in {folder}; write one with save_trained.")
    record = read_json(folder / "trained.json")
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"{folder} is not a stored model (expected format {FORMAT}); write one with save_trained.")
    try:
        return _loaded(folder, record, task, data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{folder / 'trained.json'} is incomplete or has unknown fields: {error}.") from None


def stored_ids(folder: Path) -> Ids | None:
    """Ids of the rows that the model in ``folder`` stands for; ``None`` where rows have none, or the folder holds no record
    (:func:`load_trained` says what is wrong with it).
    """
    record = read_json(folder / "trained.json") if (folder / "trained.json").is_file() else None
    runs = record.get("ids") if isinstance(record, dict) else None
    try:
        return None if runs is None else _of_runs(runs)
    except (TypeError, ValueError):
        return None


def _of_runs(runs: Any) -> Ids:
    """What :func:`_runs` wrote."""
    return Ids.rows(np.concatenate([np.empty(0, np.int64), *(np.arange(a, b + 1, dtype=np.int64) for a, b in runs)]))


def _init_of(task: Task) -> str:
    return task.init if isinstance(task, Initialised) else "module"


def _loaded(folder: Path, record: dict[str, Any], task: Task, data: Data) -> Trained:
    removed = Ids({unit: np.asarray(ids, dtype=np.int64) for unit, ids in record["removed"].items()})
    data = data.without(removed) if len(removed) else data
    if record.get("ids") is not None and (given := ids_of(data)) is not None:
        other = given - _of_runs(record["ids"])
        data = data.without(other) if len(other) else data
    if (init := record.get("init", "module")) != _init_of(task):
        if not isinstance(task, Initialised):
            raise InputError(
                f"The model in {folder} began with weights that expunge drew; a {task.name} task draws none."
            )
        task = task.with_init(init)  # retraining must begin as training began
    if record["data"] is not None and record["data"] != data.digest:
        raise InputError(
            f"The rows are not those that the model in {folder} was trained on (digest {data.digest[:12]}… instead of "
            f"{record['data'][:12]}…). Give the same file, in the same order."
        )

    def stored(name: str) -> dict[str, Tensor]:
        path = folder / f"{name}.safetensors"
        if not path.is_file() or digest_bytes(path.read_bytes()) != record["files"][name]:
            raise TamperedError(f"{path} is missing or not the file that was stored. Restore the folder from a backup.")
        return load_checkpoint(path)

    def tensors(name: str) -> dict[str, Tensor]:
        return dict(task.released(task.build(stored(name))))

    trail = recipe = None
    if (of := record["trail"]) is not None:
        iterates = {step: tensors(f"iterate-{step}") for step in of["steps"]}
        trail = Trail(iterates, of["length"], of["data"], of["rows"], _number(of["recovery_error"]))
    settings = record["recipe"]
    if settings is not None and (recipe := from_record(settings)) is not None:
        settings = None
    if settings is not None:
        if settings["start"] and trail is None:
            settings = None  # its start went with the trail: it can no longer be repeated
        else:
            start = trail.at(0) if trail is not None and settings["start"] else None
            settings = {**settings, "rewinds": tuple(settings["rewinds"]), "start": start}
    if settings is not None:
        recipe = GradientDescent(**settings)
    released = tensors("released")
    others = {*record.get("views", {}).values()} - {"released"}
    held = {"released": Artifact(released), **{name: Artifact(tensors(name)) for name in sorted(others)}}
    facts = {name: Fact.of_record(fact) for name, fact in record["facts"].items()}
    unsigned = {name: value for name, value in record.items() if name != "mac"}
    if not hmac.compare_digest(str(record.get("mac")), keyed_hash(subject_key(), unsigned)):
        note = "read from a file that this installation did not write as it is"
        strong = (Origin.PROVED, Origin.ENFORCED)
        facts = {
            n: replace(f, origin=Origin.DECLARED, note=note) if f.origin in strong else f for n, f in facts.items()
        }
    return Trained(
        task=task,
        artifact=held["released"],
        data=data,
        recipe=recipe,
        trail=trail,
        facts=facts,
        budget=Budget(**record["budget"]) if record["budget"] else None,
        removed=removed,
        spent=tuple(Spent(**{**item, "mu": _number(item["mu"])}) for item in record["spent"]),
        seed=record["seed"],
        state=_state(task, released, stored("state")) if "state" in record["files"] else None,
        views={view: held[name] for view, name in record.get("views", {}).items()},
    )


def _state(task: Task, released: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Secret weights as the module holds them, and whatever is secret besides: a perturbation, a closed form."""
    own = {name: tensor for name, tensor in found.items() if name in released}
    return {**task.released(task.build(own)), **{n: t for n, t in found.items() if n not in released}}
