"""Random crops and flips."""

from __future__ import annotations

import pytest
import torch

from expunge.core.errors import InputError
from expunge.data.augment import crop_flip


def generator(seed):
    return torch.Generator().manual_seed(seed)


def views(image, padding):
    """Every shifted or mirrored view of one image, by a loop."""
    _, height, width = image.shape
    padded = torch.nn.functional.pad(image, (padding,) * 4)
    for down in range(2 * padding + 1):
        for right in range(2 * padding + 1):
            cut = padded[:, down : down + height, right : right + width]
            yield (down, right, False), cut
            yield (down, right, True), cut.flip(2)


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_each_image_is_a_shifted_or_mirrored_view_of_itself(padding):
    x = torch.randn(40, 3, 6, 5, generator=generator(0))
    found = [
        [name for name, view in views(image, padding) if torch.equal(view, moved)]
        for image, moved in zip(x, crop_flip(x, generator(1), padding), strict=True)
    ]
    assert all(len(names) == 1 for names in found), "exactly one shift and mirroring explains each image"
    assert {names[0][2] for names in found} == {False, True}
    if padding:
        assert len({names[0] for names in found}) > 8, "images move independently of each other"


def test_all_moves_are_equally_frequent():
    x = torch.arange(1.0, 10).reshape(1, 1, 3, 3).repeat(18_000, 1, 1, 1)
    names = {tuple(view.flatten().tolist()): i for i, (_, view) in enumerate(views(x[0], 1))}
    moved = crop_flip(x, generator(5), 1).flatten(1)
    counts = torch.tensor([names[tuple(row)] for row in moved.tolist()]).bincount(minlength=18)
    assert len(counts) == 18 and int(counts.min()) > 850 and int(counts.max()) < 1_150  # 1,000 each, spread 31


def test_randomness_comes_from_the_generator_alone():
    x = torch.randn(16, 1, 8, 8, generator=generator(0))
    before = torch.random.get_rng_state()
    first = crop_flip(x, generator(3))
    torch.rand(7)
    assert torch.equal(first, crop_flip(x, generator(3)))
    assert not torch.equal(first, crop_flip(x, generator(4)))
    torch.random.set_rng_state(before)
    crop_flip(x, generator(3))
    assert torch.equal(torch.random.get_rng_state(), before)
    passed = generator(3)
    crop_flip(x, passed)
    assert not torch.equal(first, crop_flip(x, passed)), "the next batch moves otherwise"


def test_an_empty_batch_and_the_type_survive():
    assert crop_flip(torch.zeros(0, 3, 4, 4, dtype=torch.float64), generator(0)).shape == (0, 3, 4, 4)
    assert crop_flip(torch.zeros(2, 3, 4, 4, dtype=torch.float64), generator(0)).dtype == torch.float64


@pytest.mark.parametrize(("shape", "padding"), [((2, 4, 4), 4), ((2, 3, 4, 4), -1)])
def test_other_shapes(shape, padding):
    with pytest.raises(InputError, match="Expected images"):
        crop_flip(torch.zeros(shape), generator(0), padding)
