"""The noise schedule, the loss and the sampler of diffusion models, against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.diffusion.tiny import CLASSES, SIDE, squares, tiny
from torch import nn

from expunge.core.errors import InputError
from expunge.core.task import FromFactory
from expunge.data.rows import Rows
from expunge.tasks.diffusion.images import noise_of
from expunge.tasks.diffusion.sampling import Sampler
from expunge.tasks.diffusion.schedule import NoiseSchedule
from expunge.tasks.diffusion.unet import waves


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_what_is_kept_of_an_image_falls_from_nearly_all_to_nearly_nothing(kind):
    kept = NoiseSchedule(kind).kept
    assert len(kept) == 1000 and bool((kept[1:] < kept[:-1]).all()) and kept[0] > 0.999 and 0 < kept[-1] < 5e-5
    product = 1.0
    for step in range(1, 1001):  # DDPM's own formula, one factor after another
        if kind == "linear":
            beta = 1e-4 + (0.02 - 1e-4) * (step - 1) / 999
        else:
            f = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (step - 1, step)]
            beta = min(1 - f[1] / f[0], 0.999)
        product *= 1 - beta
        assert float(kept[step - 1]) == pytest.approx(product, rel=1e-9)


def test_a_schedule_of_fewer_levels_ends_where_the_long_one_ends():
    short, long = (math.log(float(NoiseSchedule("linear", levels).kept[-1])) for levels in (100, 1000))
    assert short == pytest.approx(long, rel=0.1)  # unscaled, the short one would end at exp(-1)


def test_noised_images_keep_unit_variance():
    schedule, draw = NoiseSchedule("cosine", 10), torch.Generator().manual_seed(0)
    x = torch.randn(4000, 1, 4, 4, generator=draw, dtype=torch.float64)
    noise = torch.randn(x.shape, generator=draw, dtype=torch.float64)
    for level in (0, 4, 9):
        noised = schedule.noised(x, torch.full((4000,), level), noise)
        assert float(noised.var()) == pytest.approx(1, abs=0.02)
        image, error = schedule.factors(torch.tensor([level]), x)
        assert float(image) ** 2 + float(error) ** 2 == pytest.approx(1, abs=1e-12)
        assert float((noised * x).mean() / x.square().mean()) == pytest.approx(float(image), abs=0.02)


def test_a_sampling_path_goes_from_the_noisiest_to_the_cleanest_level():
    schedule = NoiseSchedule("linear", 10)
    assert schedule.path(10) == list(range(9, -1, -1)) and schedule.path(1) == [9] and schedule.path(4) == [9, 6, 3, 0]
    for steps in (0, 11):
        with pytest.raises(InputError, match="sampling steps"):
            schedule.path(steps)
    for wrong in ({"kind": "square"}, {"levels": 1}):
        with pytest.raises(InputError):
            NoiseSchedule(**wrong)


class Perfect(nn.Module):
    """Knows the one image that there is: predicts the noise exactly."""

    def __init__(self, image: torch.Tensor, schedule: NoiseSchedule):
        super().__init__()
        self.image, self.schedule, self.weight = image, schedule, nn.Parameter(torch.ones(1, dtype=image.dtype))

    def forward(self, x, t, y):
        kept, error = self.schedule.factors(t, x)
        return self.weight * (x - kept * self.image) / error


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_ddim_with_the_true_noise_ends_in_the_image_exactly(steps):
    image = torch.linspace(-0.9, 0.9, SIDE * SIDE, dtype=torch.float64).view(1, 1, SIDE, SIDE)
    task = tiny(torch.float64, sampler=Sampler(steps, 0.0), hidden=0.1)
    model = Perfect(image, task.schedule)
    drawn = task.draw(model, dict(model.named_parameters()), torch.tensor([0, 1]), 0)
    assert torch.allclose(drawn, ((image + 1) / 2).expand(2, -1, -1, -1), atol=1e-9)
    batch = task.batch(Rows.of((image + 1) / 2, [0]))
    assert float(task.losses(model, dict(model.named_parameters()), batch).detach()) == pytest.approx(0, abs=1e-18)


class Conditional(nn.Module):
    """Noise that is a constant of the condition."""

    def __init__(self, values):
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values, dtype=torch.float64))

    def forward(self, x, t, y):
        return self.values[y].view(-1, 1, 1, 1).expand_as(x)


def test_guidance_is_one_plus_w_times_the_class_minus_w_times_any_class():
    from expunge.tasks.diffusion.sampling import _guided

    model, w = Conditional([1.0, 2.0, 3.0, 10.0]), 2.0
    task = tiny(torch.float64, sampler=Sampler(1, w))
    x, y = torch.zeros(3, 1, SIDE, SIDE, dtype=torch.float64), torch.arange(3)
    guided = _guided(task, model, dict(model.named_parameters()), x, torch.zeros(3, dtype=torch.long), y)
    assert guided[:, 0, 0, 0].tolist() == [(1 + w) * value - w * 10 for value in (1.0, 2.0, 3.0)]


def test_the_diffusion_classifier_finds_the_condition_that_predicts_the_noise():
    """With noise e and a constant guess c, the squared error is sum (e - c)²: the logit of each class in closed form."""
    task = tiny(torch.float64)
    model = Conditional([0.5, 0.0, -0.5, 0.0])
    batch = task.batch(squares(4))
    logits = task.outputs(model, dict(model.named_parameters()), batch).logits
    noise = torch.stack([each for _, each in task.fixed(batch)])
    for label, value in enumerate((0.5, 0.0, -0.5)):
        expected = -(noise - value).square().flatten(2).sum(2).mean(0)
        assert torch.allclose(logits[:, label], expected)


def test_a_loss_in_evaluation_mode_is_a_function_of_the_image_and_not_of_its_batch():
    task, data = tiny(torch.float64), squares(12)
    model = task.build(seed=1).eval()
    params = dict(model.named_parameters())
    batch = task.batch(data)
    together = task.losses(model, params, batch)
    torch.manual_seed(5)
    alone = torch.cat(
        [task.losses(model, params, part) for part in batch.take(torch.arange(11, -1, -1)).parts(5)]
    ).flip(0)
    assert torch.allclose(together, alone, rtol=1e-10)
    other = task.losses(model, params, batch.with_columns(id=batch["id"] + 100))
    assert not torch.allclose(together, other)


def test_a_training_loss_follows_from_the_global_seed_and_hides_a_tenth_of_the_labels():
    task, data = tiny(), squares(12)
    model = task.build(seed=1).train()
    params, batch = dict(model.named_parameters()), task.batch(data)
    losses = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        losses.append(task.losses(model, params, batch))
    assert torch.equal(losses[0], losses[1]) and not torch.equal(losses[0], losses[2])
    torch.manual_seed(0)
    y = torch.arange(CLASSES).repeat(4000)
    hidden = task.sometimes_hidden(y)
    changed = hidden != y
    assert abs(float(changed.double().mean()) - 0.1) < 0.012 and {*hidden[changed].tolist()} == {task.any_class}
    assert torch.equal(replace(task, hidden=0.0, sampler=Sampler(2, 0.0)).sometimes_hidden(y), y)


def test_equal_seeds_give_equal_images_alone_and_together():
    task = tiny()
    model = task.build(seed=2)
    params, labels = dict(model.named_parameters()), torch.tensor([0, 2, 1, 1])
    first, again, other = (task.draw(model, params, labels, seed) for seed in (7, 7, 8))
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=1e-3)
    assert first.shape == (4, 1, SIDE, SIDE) and float(first.min()) >= 0 and float(first.max()) <= 1
    assert model.training  # as it was
    assert torch.allclose(task.draw(model, params, labels[:1], 7), first[:1], atol=1e-5)


def test_waves_are_sines_and_cosines_of_the_level():
    t = torch.tensor([0, 3])
    found = waves(t, 6)
    for i, frequency in enumerate((1.0, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3))):
        assert found[:, i].tolist() == pytest.approx([0.0, math.sin(3 * frequency)], abs=1e-5)
        assert found[:, 3 + i].tolist() == pytest.approx([1.0, math.cos(3 * frequency)], abs=1e-5)


def test_a_checkpoint_of_another_channel_count_is_refused():
    task, coloured = tiny(), tiny()
    weights = dict(task.build().state_dict())
    weights["enter.weight"] = weights["enter.weight"].repeat(1, 3, 1, 1)
    with pytest.raises(InputError, match=r"another architecture.*enter\.weight"):
        coloured.build(weights)


def images(**changes) -> Rows:
    return replace(squares(6), **changes)


@pytest.mark.parametrize(
    "data, words",
    [
        (images(x=squares(6).x * 2), "pixels from 0 to 1"),
        (images(x=squares(6).x - 0.5), "do not standardise"),
        (images(x=squares(6).x.repeat(1, 3, 1, 1)), r"\(1, 8, 8\); the data hold \(3, 8, 8\)"),
        (images(y=torch.full((6,), 3)), "labels below 3"),
    ],
    ids=["too bright", "negative", "coloured", "a class that is not there"],
)
def test_images_that_do_not_fit_are_refused(data, words):
    with pytest.raises(InputError, match=words):
        tiny().check(data)


def test_guidance_needs_a_branch_without_a_condition():
    with pytest.raises(InputError, match="never trained"):
        tiny(hidden=0.0)
    fewer = replace(tiny(), factory=lambda: Conditional([1.0, 2.0, 3.0]))  # none for "any class"
    with pytest.raises(InputError, match="any class"):
        fewer.check(squares(6))
    replace(fewer, hidden=0.0, sampler=Sampler(2, 0.0)).check(squares(6))
    tiny().check(squares(6))


def test_outputs_of_diffusers_are_read_and_others_are_refused():
    noise = torch.zeros(1)
    assert noise_of(SimpleNamespace(sample=noise)) is noise
    with pytest.raises(InputError, match=r"\.sample"):
        noise_of((noise,))


def test_a_model_that_returns_another_shape_is_refused():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x, t, y):
            return self.weight * x.flatten(1)

    with pytest.raises(InputError, match="shape of the images"):
        replace(tiny(), factory=Flat).check(squares(6))


def test_the_task_is_one_from_a_factory_and_its_network_is_small():
    task = tiny()
    assert isinstance(task, FromFactory) and task.name == "diffusion"
    assert sum(each.numel() for each in task.build().parameters()) < 20_000
    assert np.isfinite(task.build()(torch.zeros(1, 1, SIDE, SIDE), torch.tensor([3]), torch.tensor([0])).sum().item())
