from __future__ import annotations

import functools
import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from expunge.core.errors import InputError
from expunge.data.rows import Rows
from expunge.tasks.classification import Classification
from expunge.tasks.networks import mlp
from expunge.training import stochastic
from expunge.training.batches import ORDER, epoch_order, epoch_seed
from expunge.training.optimizers import SGD
from expunge.training.recipes import Stochastic
from expunge.training.stochastic import split_order

CHANNELS_LAST = torch.channels_last


def convolutional(classes: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, classes),
    )  # fmt: skip


class Views(nn.Module):
    """A network that says .view() where the layout of memory matters."""

    def __init__(self):
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(2, 8, 3, padding=1), nn.Linear(8 * 64, 3)

    def forward(self, x):
        return self.linear(self.convolution(x).view(len(x), -1))


def normalised() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(128, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def images(n: int = 50) -> Rows:
    generator = torch.Generator().manual_seed(0)
    return Rows.of(torch.randn(n, 2, 8, 8, generator=generator), torch.randint(0, 3, (n,), generator=generator))


class Spy(Classification):
    """Remembers what every batch held."""

    seen: list[torch.Tensor]

    def losses(self, model, params, batch):
        if torch.is_grad_enabled():
            self.seen.append(batch["x"].clone())
        return super().losses(model, params, batch)


def spy(factory=normalised) -> Spy:
    task = Spy(factory)
    object.__setattr__(task, "seen", [])
    return task


def same(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def by_hand(task, rows, recipe, seed):
    """The recipe as a textbook writes it: plain modules, gradient + l2 w, velocities; a step size an epoch."""
    model = task.build(seed=seed).train()
    velocity = [torch.zeros_like(p) for p in model.parameters()]
    batch = task.batch(rows)
    for epoch in range(1, recipe.epochs + 1):
        angle = torch.tensor(torch.pi * (epoch - 1) / recipe.epochs, dtype=torch.float64)
        rate = recipe.lr * (float(1 + angle.cos()) / 2 if recipe.schedule == "cosine" else 1.0)
        for index in epoch_order(len(rows), seed, epoch).split(recipe.batch_size):
            model.zero_grad()
            nn.functional.cross_entropy(model(batch["x"][index]), batch["y"][index]).backward()
            with torch.no_grad():
                for p, v in zip(model.parameters(), velocity, strict=True):
                    v.mul_(recipe.momentum).add_(p.grad + recipe.l2 * p)
                    p.sub_(rate * v)
    return model.state_dict()


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("factory", [convolutional, normalised])
def test_training_is_what_a_textbook_says_with_batch_normalisation(factory, schedule, seed):
    task, rows = Classification(factory, dtype=torch.float64), images()
    recipe = Stochastic(epochs=4, lr=0.1, batch_size=16, momentum=0.9, l2=0.01, schedule=schedule)
    found, expected = recipe.fit(task, rows, seed=seed).artifact.tensors, by_hand(task, rows, recipe, seed)
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-11)
    other = by_hand(task, rows, Stochastic(epochs=4, lr=0.1, batch_size=16, momentum=0.9, schedule=schedule), seed)
    assert not all(torch.allclose(found[n], other[n], rtol=1e-6) for n in found), "the comparison can fail"


@pytest.mark.parametrize("seed", range(3))
def test_another_layout_of_memory_changes_rounding_only_and_shows_nowhere(seed, monkeypatch):
    task, rows = Classification(convolutional), images()
    recipe = Stochastic(epochs=2, lr=0.05, batch_size=16, momentum=0.9)
    found = recipe.fit(task, rows, seed=seed).artifact.tensors
    assert all(tensor.is_contiguous() for tensor in found.values())
    monkeypatch.setattr(stochastic, "prefer_channels_last", lambda *a: None)
    plain = recipe.fit(task, rows, seed=seed).artifact.tensors
    for name in found:
        torch.testing.assert_close(found[name], plain[name], rtol=1e-3, atol=1e-4)


def test_convolutions_are_laid_out_unless_the_module_depends_on_its_layout():
    rows, layouts = images(), {}
    for factory in (convolutional, Views):
        task = Classification(factory)
        model = task.build()
        stochastic.run_epochs(
            task, model, rows, torch.optim.SGD(model.parameters(), 0.1), epochs=1, batch_size=16, seed=0
        )
        weight = next(p for p in model.parameters() if p.ndim == 4)
        layouts[factory] = weight.is_contiguous(memory_format=CHANNELS_LAST)
    assert layouts == {convolutional: True, Views: False}


def test_what_an_optimizer_remembers_keeps_its_layout():
    task, rows = Classification(convolutional), images()
    model = task.build()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, fused=True)
    nn.functional.cross_entropy(model(rows.x), rows.y).backward()
    optimizer.step()
    stochastic.run_epochs(task, model, rows, optimizer, epochs=1, batch_size=16, seed=0)
    for p in model.parameters():
        assert p.stride() == optimizer.state[p]["momentum_buffer"].stride()


def test_batches_follow_from_seed_and_epoch_alone():
    rows = images()
    seen = {}
    for epochs, seed in ((3, 7), (2, 7), (2, 8)):
        task = spy()
        Stochastic(epochs=epochs, lr=0.1, batch_size=16).fit(task, rows, seed=seed)
        seen[epochs, seed] = torch.cat(task.seen)
    assert torch.equal(seen[3, 7][:100], seen[2, 7])
    assert torch.equal(seen[3, 7][100:], rows.x[epoch_order(50, 7, 3)])
    assert not torch.equal(seen[2, 7], seen[2, 8])
    assert not torch.equal(seen[2, 7][:50], seen[2, 7][50:])
    assert sorted(epoch_order(50, 7, 3).tolist()) == list(range(50))
    assert len({epoch_seed(s, e, t) for s in (-1, 0, 1, 2**40) for e in (1, 2) for t in (ORDER, ORDER + 1)}) == 16


@pytest.mark.parametrize(
    "factory", [convolutional, lambda: nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(128, 3))]
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_equal_seeds_give_equal_bits_and_random_state_is_left_alone(factory, optimizer):
    task, rows = Classification(factory), images()
    recipe = Stochastic(epochs=2, lr=0.01, batch_size=16, optimizer=optimizer, l2=1e-3)
    state = torch.get_rng_state()
    first = recipe.fit(task, rows, seed=1).artifact.tensors
    torch.manual_seed(99)
    assert same(first, recipe.fit(task, rows, seed=1).artifact.tensors)
    assert not same(first, recipe.fit(task, rows, seed=2).artifact.tensors)
    torch.set_rng_state(state)


def test_one_row_left_over_joins_the_batch_before_where_it_has_no_variance():
    rows = images(33)
    task = spy(normalised)
    Stochastic(epochs=1, lr=0.1, batch_size=16).fit(task, rows)
    assert [len(x) for x in task.seen] == [16, 17]
    task = spy(lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 3)))
    Stochastic(epochs=1, lr=0.1, batch_size=16).fit(task, rows)
    assert [len(x) for x in task.seen] == [16, 16, 1]
    assert [len(part) for part in split_order(torch.arange(1), 16, 1)] == [1]


def shifted(x, generator, padding=4):
    return x + torch.rand(len(x), 1, 1, 1, generator=generator)


def test_augmentation_is_recorded_drawn_anew_each_epoch_and_repeated_by_the_seed(monkeypatch):
    module = ModuleType("expunge.data.augment")
    module.crop_flip = shifted  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "expunge.data.augment", module)
    rows, recipe = images(), Stochastic(epochs=2, lr=0.1, batch_size=16, augment="crop_flip")
    seen = []
    for epochs in (2, 2, 1):
        task = spy(convolutional)
        trained = Stochastic(epochs=epochs, lr=0.1, batch_size=16, augment="crop_flip").fit(task, rows, seed=4)
        seen.append(torch.cat(task.seen))
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0][:50], seen[2])
    shifts = [(part - rows.x[epoch_order(50, 4, e)]).flatten(1)[:, 0] for e, part in enumerate(seen[0].split(50), 1)]
    assert all((shift > 0).all() for shift in shifts) and not torch.equal(*shifts)
    assert trained.fact("augmentation") is True and recipe.describe()["augment"] == "crop_flip"
    assert Stochastic(epochs=1, lr=0.1).fit(Classification(convolutional), rows).fact("augmentation") is False


def test_crops_and_flips_follow_the_seed():
    recipe = Stochastic(epochs=2, lr=0.05, batch_size=16, augment="crop_flip")
    first, again, other = (
        recipe.fit(Classification(convolutional), images(), seed=seed).artifact.tensors for seed in (1, 1, 2)
    )
    assert same(first, again) and not same(first, other)


@pytest.mark.parametrize("settings", [{"augment": "mixup"}, {"optimizer": "lion"}, {"schedule": "step"}, {"epochs": 0}])
def test_impossible_settings_are_refused_in_words(settings):
    with pytest.raises(InputError, match="Expected"):
        Stochastic(**{"epochs": 1, "lr": 0.1, **settings})


def test_rows_that_are_no_images_cannot_be_cropped():
    flat = Rows.of(torch.randn(8, 128), torch.zeros(8))
    with pytest.raises(InputError, match="Expected images"):
        Stochastic(epochs=1, lr=0.1, augment="crop_flip").fit(Classification(normalised), flat)


def test_divergence_names_the_epoch():
    with pytest.raises(InputError, match="epoch 1 of 3"):
        Stochastic(epochs=3, lr=1e30, l2=1.0, batch_size=4).fit(
            Classification(functools.partial(convolutional)), images()
        )


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_closed_form_takes_the_steps_of_autograd_and_leaves_frozen_weights(sign, monkeypatch):
    factory, rows = functools.partial(mlp, 128, 3, (6,)), images()
    task, found = Classification(factory, dtype=torch.float64), []
    for form in (stochastic.closed_form, lambda *_: None):
        monkeypatch.setattr(stochastic, "closed_form", form)
        model = task.build(seed=1)
        dict(model.named_parameters())["1.bias"].requires_grad_(False)
        start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        optimizer = SGD([p for p in model.parameters() if p.requires_grad], 0.05, 0.9, 1e-3)
        stochastic.run_epochs(task, model, rows, optimizer, epochs=3, batch_size=7, seed=5, sign=sign)
        found.append({name: tensor - start[name] for name, tensor in model.state_dict().items()})
    written, differentiated = found
    for name, moved in differentiated.items():
        assert torch.allclose(written[name], moved, rtol=0, atol=1e-12), name
        assert bool(moved.abs().max() > 1e-3) is (name != "1.bias")


def test_a_closed_form_that_diverges_names_the_epoch():
    task, rows = Classification(functools.partial(mlp, 128, 3, (6,))), images()
    with pytest.raises(InputError, match="epoch"):
        Stochastic(epochs=50, batch_size=10, lr=1e30).fit(task, rows)
