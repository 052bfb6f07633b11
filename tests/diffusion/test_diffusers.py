"""Networks of the package diffusers: what it saves in a folder is what expunge runs, unlearns and hands back."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.diffusion.tiny import CLASSES, write_job

from expunge.cli import main
from expunge.core.errors import InputError
from expunge.jobs.schema import load_job
from expunge.modalities.diffusion import MODALITY
from expunge.tasks.diffusion.pretrained import unet2d

pytestmark = pytest.mark.slow  # importing diffusers takes seconds

SETTINGS = {
    "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1, "block_out_channels": [8, 8],
    "norm_num_groups": 4, "down_block_types": ["DownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "num_class_embeds": CLASSES + 1,
}  # fmt: skip


@functools.cache
def network() -> torch.nn.Module:
    diffusers = pytest.importorskip("diffusers", reason="the extra diffusion is not installed")
    torch.manual_seed(3)
    return diffusers.UNet2DModel(**SETTINGS)


def saved(folder: Path) -> Path:
    network().save_pretrained(folder)  # type: ignore[operator]
    return folder


def described(folder: Path, **changes) -> dict:
    training = {"kind": "checkpoint", "path": f"{folder.name}/diffusion_pytorch_model.safetensors"}
    return {
        "model": "diffusers",
        "model_settings": {},
        "config": f"{folder.name}/config.json",
        "training": training,
    } | changes


def test_what_diffusers_saved_gives_the_same_noise(tmp_path):
    folder = saved(tmp_path / "unet")
    opened = MODALITY.open(load_job(write_job(tmp_path, **described(folder))))
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    levels, classes = torch.tensor([0, 3, 5, 9, 2]), torch.tensor([0, 1, 2, 3, 3])
    model = opened.task.build(opened.weights).eval()
    with torch.no_grad():
        ours, theirs = model(x, levels, classes), network().eval()(x, levels, classes)
    assert torch.equal(ours.sample, theirs.sample)


def test_a_job_unlearns_a_class_and_its_weights_load_into_diffusers(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("EXPUNGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    folder = saved(tmp_path / "unet")
    training = {"kind": "stochastic", "epochs": 1, "lr": 0.01, "batch_size": 20}
    job = write_job(tmp_path, **described(folder, training=training))
    monkeypatch.setattr(sys, "argv", ["expunge", "run", str(job), "--out", str(tmp_path / "evidence"), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, 4)  # accepted, or delivered and not accepted: so short a training draws nothing
    assert "float32" not in capfd.readouterr().err  # diffusers' warning about every cast
    (weights,) = (tmp_path / "evidence" / "models").glob("*.safetensors")
    again = unet2d(folder / "config.json")
    again.load_state_dict(load_file(weights))
    moved = [
        name for name, tensor in network().state_dict().items() if not torch.equal(tensor, again.state_dict()[name])
    ]
    assert moved


def test_a_network_without_class_embeddings_is_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"_class_name": "UNet2DModel", **SETTINGS, "num_class_embeds": None}))
    with pytest.raises(InputError, match="knows no classes"):
        unet2d(path)
