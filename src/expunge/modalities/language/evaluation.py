"""``expunge eval`` on the folder of a language model: measured on a suite of records in a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge.core.cache import Cache
from expunge.core.errors import InputError
from expunge.core.method import Watch, silent
from expunge.core.texts import DATE_STRING
from expunge.data.texts import Texts, read_jsonl
from expunge.data.tofu import read_tofu, splits
from expunge.evidence.language import evaluate, wordings
from expunge.evidence.language.reading import MAX_NEW_TOKENS, Limits, prompts_identity
from expunge.metrics.language import UTILITY_SETS
from expunge.tasks.language import Language
from expunge.tasks.passes import ANSWERS
from expunge.tasks.pretrained import load_language_model

TOFU, CUSTOM = "tofu", "custom"
SUITES = (TOFU, CUSTOM)
PERTURBED = "_perturbed"  # ending of splits that carry wrong answers


def evaluate_folder(
    folder: Path,
    *,
    suite: str = TOFU,
    on: Mapping[str, Path] | None = None,
    data: Path | None = None,
    split: str = "forget10",
    adapter: Path | None = None,
    gguf: str | None = None,
    template: str | None = None,
    date_string: str = DATE_STRING,
    system: str | None = None,
    limit: int | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    retrained: Path | None = None,
    unseen: Path | None = None,
    in_templates: bool = True,
    batch_size: int = ANSWERS,
    device: str = "cpu",
    cache: Cache | None = None,
    watch: Watch = silent,
) -> dict[str, Any]:
    """Load, read, measure; the JSON-like result that ``expunge eval --json`` prints.

    Args:
        folder: of the model, as :func:`~expunge.tasks.pretrained.load_language_model` reads it, and so ``adapter``,
            ``gguf``, ``template``, ``date_string``, ``system`` and ``device``.
        suite: ``tofu``, or ``custom``: the named sets ``on`` and no others.
        on: of the suite ``custom``, JSONL files by name, each of records. ``forget``, ``retain``, ``real_authors`` and
            ``world_facts`` mean what they mean of TOFU; any other name is a set that is measured by itself.
        data: folder of TOFU; ``None``: ``tofu`` in the folder that ``EXPUNGE_DATA`` names.
        split: which split was forgotten, for example forget10.
        limit: most records of a set, from its front; TOFU's own tables take 300.
        retrained: folder of a model trained without the split: forget quality and PrivLeak need it.
        unseen: JSONL of records that no model was trained on, like the forgotten ones: membership attacks need them.
        in_templates: also ask in everyday templates, on all of SU's sets, and in joint prompts (five sets more).
        cache: where readings are kept; ``None``: in the user's cache.

    Raises:
        InputError: for a suite, split or folder that is not there, a retrained model with another tokenizer or
            template, and as :func:`~expunge.evidence.language.evaluate`.
    """
    if suite not in SUITES:
        raise InputError(f"Expected a suite among {', '.join(SUITES)}; got {suite!r}.")
    if limit is not None and limit < 1:
        raise InputError(f"Expected a limit of at least one record; got {limit}.")
    on = on or {}
    if bool(on) != (suite == CUSTOM):
        raise InputError("Expected named sets (--on NAME=FILE) with the suite custom, and with no other.")
    if suite == CUSTOM:
        sets = {name: _first(read_jsonl(place), limit) for name, place in on.items()}
    else:
        sets = _tofu(_data_folder(data), split, limit)
    if unseen is not None:
        sets["unseen"] = _first(read_jsonl(unseen), limit)
    options: dict[str, Any] = {
        "template": template, "date_string": date_string, "system": system, "device": device
    }  # fmt: skip
    task, tensors = load_language_model(folder, adapter=adapter, gguf=gguf, **options)
    ideal = None
    if retrained is not None:
        other, ideal = load_language_model(retrained, **options)
        _must_ask_alike(task, other, retrained)
    if in_templates and {"forget", "retain"} <= sets.keys():
        others = {name: sets[name] for name in UTILITY_SETS if name != "retain" and name in sets}
        sets |= wordings(task, sets["forget"], sets["retain"], others=others)
    result = evaluate(
        task,
        tensors,
        sets,
        retrained=ideal,
        limits=Limits(max_new_tokens, batch_size),
        cache=cache or Cache(),
        watch=watch,
    )
    asked = {"model": str(folder), "suite": suite, "split": split if suite == TOFU else None, "limit": limit}
    asked |= {
        "retrained": None if retrained is None else str(retrained),
        "adapter": None if adapter is None else str(adapter),
    }
    return {**asked, **result.to_json()}


def _data_folder(data: Path | None) -> Path:
    if data is None:
        root = os.environ.get("EXPUNGE_DATA")
        if not root:
            raise InputError(
                "Expected the folder of TOFU's splits; give --data, or set EXPUNGE_DATA to the folder above it."
            )
        data = Path(root) / "tofu"
    if not data.is_dir():
        raise InputError(f"There is no folder {data}; give the folder that holds TOFU's full.json and its splits.")
    return data


def _tofu(folder: Path, split: str, limit: int | None) -> dict[str, Texts]:
    """What was forgotten, retained records, real authors and world facts; with wrong answers where the folder has them."""
    if not split.startswith("forget"):
        known = ", ".join(name for name in splits(folder) if name.startswith("forget"))
        raise InputError(f"Expected a split that was forgotten, one of {known or 'none'} in {folder}; got {split!r}.")
    names = {"forget": split, "retain": "retain", "real_authors": "real_authors", "world_facts": "world_facts"}
    there = splits(folder)
    sets = {}
    for name, plain in names.items():
        whole = plain + PERTURBED if plain + PERTURBED in there else plain
        sets[name] = _first(read_tofu(folder, whole), limit)
    if both := set(sets["forget"].ids.tolist()) & set(sets["retain"].ids.tolist()):
        raise InputError(
            f"{len(both)} records are in {split} and in retain{PERTURBED}: they cannot be forgotten and retained. Take "
            "another split."
        )
    return sets


def _first(texts: Texts, limit: int | None) -> Texts:
    return texts if limit is None else texts.first(limit)


def _must_ask_alike(task: Language, other: Language, folder: Path) -> None:
    """Whether both models read the same tokens."""
    mine, theirs = prompts_identity(task.prompts), prompts_identity(other.prompts)
    if apart := [key for key in mine if mine[key] != theirs[key]]:
        raise InputError(
            f"The retrained model in {folder} is asked otherwise (it differs in {', '.join(apart)}); its numbers would not "
            "compare. Give both models one tokenizer and one --template."
        )
