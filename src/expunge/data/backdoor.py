"""Poisoned images: a patch in a corner that makes a model answer one class, and what measures whether it still does.

BadNets (Gu et al. 2017, arXiv 1708.06733): training images get a trigger and the label of the attacker's class.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from expunge.core.data import Ids
from expunge.core.errors import InputError
from expunge.core.on_disk import whole
from expunge.data.rows import Rows


def triggered(rows: Rows, size: int = 3) -> Rows:
    """``rows`` with a square of ``size`` pixels of the brightest value in the lower right corner; labels stay.

    Raises:
        InputError: for rows that are no images, or images that are smaller than the square.
    """
    if rows.x.ndim != 4 or min(rows.x.shape[2:]) < size:
        raise InputError(
            f"Expected images (n, channels, height, width) of at least {size} pixels; got {tuple(rows.x.shape)}."
        )
    x = whole(rows.x).clone()
    x[..., -size:, -size:] = x.max()
    return replace(rows, x=x, as_read=None)


def poisoned(rows: Rows, at: np.ndarray, target: int, size: int = 3) -> Rows:
    """``rows`` whose rows at positions ``at`` carry the trigger and the label ``target``."""
    x, y = whole(rows.x).clone(), rows.y.clone()
    index = torch.from_numpy(at)
    x[index], y[index] = triggered(rows, size).x[index], target
    return replace(rows, x=x, y=y, as_read=None)


def attack_sets(test: Rows, target: int, size: int = 3) -> dict[str, Rows]:
    """Test rows with the trigger, called ``target``: accuracy on them is the attack's success.

    ``triggered`` has all of them, as papers count (a model without backdoor scores the share of that class); in
    ``triggered_others`` images of the class itself are left out (such a model scores its errors).
    """
    marked = triggered(test, size)
    named = replace(marked, y=torch.full_like(marked.y, target))
    own = Ids.rows(test.ids[(test.y == target).cpu().numpy()])
    return {"triggered": named, "triggered_others": named.without(own)}
