"""What the vision tower of a model makes of pictures: one vector for each, to see which are alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from expunge.core.errors import InputError
from expunge.data.pictures import IMAGE
from expunge.tasks.model_parts import model_parts
from expunge.tasks.vision_language import VisionLanguage


@torch.no_grad()
def picture_features(task: VisionLanguage, tensors: Mapping[str, Tensor], pictures: Sequence[str]) -> Tensor:
    """The mean over places of what the vision tower gives for each picture; one pass of the model for each.

    Args:
        task, tensors: the model.
        pictures: as ``data.pictures`` writes them.

    Shapes:
        n pictures → (n, width).

    Raises:
        InputError: for a model without a vision tower.

    Formal guarantee: none. Source: ours.
    """
    model = task.build(tensors, share=True).eval()
    if (parts := model_parts(model)) is None:
        raise InputError("Expected a model with a vision tower; found none. Give a similarity of your own.")
    found: list[Tensor] = []
    hook = model.get_submodule(parts.vision).register_forward_hook(lambda _, __, out: found.append(_states(out)))
    try:
        for picture in pictures:
            batch = task.encode([{IMAGE: picture, "question": "?", "answer": "."}])
            task.answered(model, dict(model.named_parameters()), batch)
    finally:
        hook.remove()
    return torch.stack(found)


def _states(out: Any) -> Tensor:
    """Hidden states, whichever way a tower gives them, as their mean over everything but their width."""
    states = getattr(out, "last_hidden_state", out[0] if isinstance(out, tuple) else out)
    return states.flatten(0, -2).float().mean(0)
