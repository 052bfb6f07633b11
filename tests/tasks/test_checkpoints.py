"""Checkpoints as people have them: wrapped modules, nested files, outputs with members, weights under two names."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

import expunge
from expunge.core.errors import InputError
from expunge.tasks.wrappers import unwrapped
from expunge.training.store import load_checkpoint


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))


ROWS = expunge.Rows.of(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "_module.", "model.", "module._orig_mod.", "model.module."]
)
def test_a_prefix_before_every_name_is_taken_off(prefix):
    weights = network().state_dict()
    names, off = unwrapped(weights, {prefix + name: tensor for name, tensor in weights.items()})
    assert (list(names), off) == (list(weights), prefix)
    assert all(names[name] is weights[name] for name in weights)
    built = expunge.Classification(network).build({prefix + name: tensor for name, tensor in weights.items()})
    assert all(torch.equal(built.state_dict()[name], tensor) for name, tensor in weights.items())


def test_other_differences_are_left_for_the_check_of_the_architecture():
    weights = network().state_dict()
    some = {("module." if i else "") + name: tensor for i, (name, tensor) in enumerate(weights.items())}
    assert unwrapped(weights, some) == (some, "")
    other = {"module.other": torch.zeros(1)}
    assert unwrapped(weights, other) == (other, "")
    with pytest.raises(InputError, match="another architecture"):
        expunge.adopt(expunge.Classification(network), other, ROWS)


def test_a_wrapped_module_is_adopted_as_what_it_wraps():
    model = network()
    adopted = expunge.adopt(expunge.Classification(network), nn.DataParallel(model), ROWS)
    assert adopted.artifact.tensors.keys() == model.state_dict().keys()
    assert all(torch.equal(adopted.artifact.tensors[n], t) for n, t in model.state_dict().items())


@pytest.mark.parametrize("entry", ["state_dict", "model_state_dict", "model", "net", "weights"])
def test_weights_inside_a_checkpoint_are_read(tmp_path, entry):
    weights = network().state_dict()
    torch.save({entry: weights, "epoch": 3, "optimizer": {"lr": 0.1}}, tmp_path / "c.pt")
    loaded = load_checkpoint(tmp_path / "c.pt")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())


def test_a_checkpoint_of_two_models_is_refused(tmp_path):
    weights = network().state_dict()
    torch.save({"model": weights, "net": weights}, tmp_path / "c.pt")
    with pytest.raises(InputError, match="several models"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_checkpoint_whose_weights_have_numbers_for_names_is_refused(tmp_path):
    torch.save({1: torch.ones(1)}, tmp_path / "c.pt")
    with pytest.raises(InputError, match="something else than named tensors"):
        load_checkpoint(tmp_path / "c.pt")


def test_a_checkpoint_whose_directory_names_a_place_that_no_file_has_is_refused(tmp_path):
    """The reader seeks to it, and the operating system calls that an invalid argument."""
    torch.save(network().state_dict(), tmp_path / "c.pt")
    content = bytearray((tmp_path / "c.pt").read_bytes())
    at = content.index(b"PK\x06\x06") + 48  # end of the central directory (zip64): where the directory begins
    content[at : at + 8] = b"\xff" * 8
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(InputError, match="not a file of plain tensors"):
        load_checkpoint(tmp_path / "c.pt")


class Wraps(nn.Module):
    """Returns what ``form`` makes of the logits."""

    def __init__(self, form):
        super().__init__()
        self.inner, self.form = network(), form

    def forward(self, x):
        return self.form(self.inner(x))


def test_logits_are_taken_from_an_output_object_and_a_tuple_is_refused():
    task = expunge.Classification(lambda: Wraps(lambda logits: SequenceClassifierOutput(logits=logits)))
    task.check(ROWS)
    model, plain = task.build(seed=3), expunge.Classification(lambda: Wraps(lambda logits: logits)).build(seed=3)
    batch = task.batch(ROWS)
    torch.testing.assert_close(
        task.losses(model, dict(model.named_parameters()), batch),
        nn.functional.cross_entropy(plain(batch["x"]), batch["y"], reduction="none"),
    )
    with pytest.raises(InputError, match="it returns tuple"):
        expunge.Classification(lambda: Wraps(lambda logits: (logits, logits))).check(ROWS)


class Tied(nn.Module):
    """Two layers that share one weight."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x).relu())


def test_one_weight_under_two_names_is_refused_before_training():
    with pytest.raises(InputError, match=r"a\.weight and b\.weight are one tensor"):
        expunge.Classification(Tied).check(ROWS)
