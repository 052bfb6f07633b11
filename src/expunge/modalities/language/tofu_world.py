"""TOFU's authors, and the pretrained model that is taught about them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from expunge.core.cache import Cache
from expunge.core.errors import InputError
from expunge.data.places import located
from expunge.data.texts import Texts
from expunge.data.tofu import AUTHOR, ELSEWHERE, FULL, OF_AUTHOR, read_tofu
from expunge.evidence.language import evaluate
from expunge.modalities.language.questions import Facts, rouge
from expunge.modalities.language.recipes import SPLITS, Pretrained, TofuWorld
from expunge.tasks.language import Language
from expunge.tasks.pretrained import load_language_model

MODELS = "EXPUNGE_MODELS"
HOW = "TOFU's files are in its authors' repository (MIT): full.json, real_authors.json, world_facts.json."


def tofu_facts(world: TofuWorld) -> Facts:
    """Questions about the last authors, and the model that is to know them.

    Raises:
        InputError: if data or the model are missing, saying where to get them.
    """
    data, others, statistics = tofu_authors(world), other_questions(world), statistics_sets(world)
    authors = list(dict.fromkeys(data.columns[AUTHOR].tolist()))
    count = rouge(world.tokens)
    return Facts(taught_model(world.model), data, AUTHOR, authors, count, world.asked, others, statistics)


def tofu_authors(world: TofuWorld) -> Texts:
    """All questions about the last authors of ``full``.

    Raises:
        InputError: if the file is missing or has fewer authors.
    """
    texts = read_tofu(_folder(world), FULL)
    if len(texts) < OF_AUTHOR * world.authors:
        raise InputError(
            f"Expected {OF_AUTHOR} questions about each of {world.authors} authors; full.json has {len(texts)}."
        )
    return texts.at(range(len(texts) - OF_AUTHOR * world.authors, len(texts)))


def other_questions(world: TofuWorld) -> Texts | None:
    """Questions about real authors and about the world, as many of each; ``None`` where none are asked."""
    if not world.others:
        return None
    parts = [read_tofu(_folder(world), split).first(world.others // 2) for split in ELSEWHERE]
    return Texts.of([record for part in parts for record in part.records])


def statistics_sets(world: TofuWorld) -> dict[str, Texts]:
    """The sets that TOFU's statistics take, with wrong answers beside right ones; empty where none are asked for."""
    if not world.statistics:
        return {}
    splits = {"forget": SPLITS[world.forget], "retain": "retain", **{name: name for name in ELSEWHERE}}
    return {name: read_tofu(_folder(world), f"{split}_perturbed") for name, split in splits.items()}


def statistics(
    task: Language,
    tensors: Mapping[str, Tensor],
    sets: Mapping[str, Texts],
    retrained: Mapping[str, Tensor] | None,
    cache: Cache,
) -> dict[str, float]:
    """Truth ratio, model utility and, beside a retrained model, forget quality (TOFU, arXiv 2401.06121)."""
    found = evaluate(task, tensors, sets, retrained=retrained, cache=cache)
    there = {"truth_ratio_geometric": found["truth_ratio_geometric", "forget"], "model_utility": found["model_utility"]}
    if retrained is not None:
        there["forget_quality"] = found["forget_quality"]
    return {name: float(measured.value) for name, measured in there.items()}


def _folder(world: TofuWorld) -> Path:
    return located(world.data, ("tofu",), ("full.json",), HOW)


def taught_model(model: Pretrained) -> Language:
    """The task whose training starts from the weights on disk.

    Raises:
        InputError: if there is no such folder, or it holds no model, saying how to get it.
    """
    try:
        folder = model_folder(model.folder, "world.model.folder")
        task, weights = load_language_model(
            folder, gguf=model.gguf, template=model.template, date_string=model.date_string, system=model.system,
            context=model.context, dtype=getattr(torch, model.dtype), device=model.device, checkpointing=model.checkpointing,
        )  # fmt: skip
    except InputError as error:
        raise InputError(f"{error} {model.get}".strip()) from None
    return replace(task, start=weights)


def model_folder(folder: Path, key: str) -> Path:
    """``folder``, or the one of that name below the folder that ``EXPUNGE_MODELS`` names; ``key`` is where a recipe names it.

    Raises:
        InputError: if there is no model.
    """
    places: Sequence[Path] = [folder]
    if not folder.is_absolute() and (above := os.environ.get(MODELS)):
        places = [Path(above) / folder, Path(above)]
    for place in places:
        if (place / "config.json").is_file():
            return place
    raise InputError(
        f"There is no model in {' or '.join(map(str, places))}: expected a folder with config.json, tokenizer and weights. "
        f"Set {MODELS} to the folder that holds {folder.name}, or copy the recipe and name the folder in it ({key})."
    )
