"""What a vision tower makes of pictures, in five families."""

from __future__ import annotations

import pytest
import torch
from tests.vision_models import FAMILIES, PREFIXES, picture, task_of

from expunge.tasks.picture_features import picture_features


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_has_one_vector_whatever_others_are_looked_at(family):
    task = task_of(family)
    tensors = task.released(task.build(seed=1))
    found = picture_features(task, tensors, [picture(7), picture(2), picture(7)])
    assert found.shape[0] == 3 and found.dim() == 2 and bool(torch.isfinite(found).all())
    assert torch.equal(found[0], found[2]) and not torch.allclose(found[0], found[1])
    assert torch.equal(picture_features(task, tensors, [picture(2)])[0], found[1])


def test_it_is_the_mean_over_places_of_what_the_tower_gives():
    task = task_of("llava")
    tensors = task.released(task.build(seed=1))
    tower = task.build(tensors).eval().get_submodule(PREFIXES["llava"][1])
    pixels = task.encode([{"image": picture(7), "question": "what is this ?", "answer": "seven"}])["pixel_values"]
    with torch.no_grad():
        by_hand = tower(pixel_values=pixels).last_hidden_state[0].mean(0)
    assert torch.allclose(picture_features(task, tensors, [picture(7)])[0], by_hand, atol=1e-6)
