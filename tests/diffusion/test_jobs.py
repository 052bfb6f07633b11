"""Jobs and measurements of diffusion models: what is refused, and which numbers there are."""

from __future__ import annotations

import base64
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from tests.diffusion.tiny import CLASSES, FORGET_CLASS, squares, tiny, write_job

from expunge.core.data import Deletion
from expunge.core.errors import InputError
from expunge.core.request import Target
from expunge.data.rows import Rows
from expunge.evidence.comparison import Models
from expunge.jobs.schema import load_job
from expunge.modalities.classification.config import DigitsData
from expunge.modalities.diffusion import MODALITY, readings
from expunge.modalities.diffusion.judge import Judge, judge_of
from expunge.modalities.diffusion.opening import data_of


def opened(path: Path):
    return MODALITY.open(load_job(path))


def test_a_job_opens_as_images_and_a_task_that_accepts_them(tmp_path):
    found = opened(write_job(tmp_path))
    assert found.task.shape == (1, 8, 8) and found.task.classes == CLASSES and found.task.images == 20
    assert set(found.probes) == {"test"} and found.recipe is not None and found.recipe.optimizer == "adam"


def test_a_checkpoint_of_another_channel_count_is_refused_before_anything_runs(tmp_path):
    weights = dict(tiny().build().state_dict())
    weights["leave.2.weight"] = weights["leave.2.weight"].repeat(3, 1, 1, 1)
    save_file(weights, tmp_path / "coloured.safetensors")
    path = write_job(tmp_path, training={"kind": "checkpoint", "path": "coloured.safetensors"})
    with pytest.raises(InputError, match=r"another architecture.*leave\.2\.weight"):
        opened(path)


@pytest.mark.parametrize(
    "x, words",
    [
        (squares(60).x.numpy() * 255, "pixels from 0 to 1"),
        (squares(60).x.numpy()[:, 0], r"\(n, channels, height, width\)"),
        (squares(60).x.numpy()[:, :, :7], "sides that 4 divides"),
    ],
    ids=["bytes", "no channels", "odd sides"],
)
def test_arrays_that_are_no_images_are_refused(x, words, tmp_path):
    path = write_job(tmp_path)
    for name in ("squares", "test"):
        np.savez(tmp_path / f"{name}.npz", x=x, y=squares(60).y.numpy())
    with pytest.raises(InputError, match=words):
        opened(path)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"hidden": 0.0}, "Set guidance: 0"),
        ({"model": "resnet"}, "model among unet, diffusers"),
        ({"model": "diffusers"}, "config.json"),
        ({"classes": 2}, "labels below 2"),
        ({"model_settings": {"depths": 1}}, "does not take model_settings"),
    ],
    ids=["guidance without any class", "unknown", "no config", "too few classes", "unknown setting"],
)
def test_settings_that_do_not_fit_are_refused(changes, words, tmp_path):
    with pytest.raises(InputError, match=words):
        opened(write_job(tmp_path, **changes))


def test_without_diffusers_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)  # import fails, installed or not
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    with pytest.raises(InputError, match=r"expunge\[diffusion\]"):
        opened(write_job(tmp_path, model="diffusers", model_settings={}, config="config.json"))


def test_a_request_that_leaves_one_class_is_refused(tmp_path):
    targets = [{"kind": "class", "where": {"label": label}} for label in (0, 1)]
    path = write_job(tmp_path, request={**FORGET_CLASS, "targets": targets})
    job = load_job(path)
    with pytest.raises(InputError, match="leaves 1 of 3 classes"):
        MODALITY.ask(job, MODALITY.open(job))


def deletion_of(*targets: Target) -> dict[str, Rows]:
    data = squares(60)
    ids = data.select(targets[0])
    made = Deletion(data, data.without(ids), data.only(ids), ids)
    return {"retain": made.after, "forget": made.forget}


def test_what_is_drawn_is_judged_where_a_class_goes_and_losses_alone_where_it_stays():
    task = replace(tiny(), images=6)
    tensors = dict(task.build(seed=0).state_dict())
    whole, single = (
        readings.score(readings.read(task, tensors, deletion_of(target)))
        for target in (Target("class", {"label": 2}), Target("samples", {"ids": [0, 4]}))
    )
    places = {score.place: score for score in whole}
    assert {("accuracy", "forget"), ("accuracy", "retain"), ("frechet", "retain"), ("loss", "forget")} <= places.keys()
    assert places["accuracy", "forget"].n == 6 and places["accuracy", "retain"].n == 12
    assert ("accuracy", "forget") not in {score.place for score in single}


def test_the_judge_knows_real_images_and_is_made_once():
    data = squares(120)
    judge = judge_of(data, CLASSES)
    assert judge_of(data, CLASSES) is judge and judge.accuracy(squares(90, seed=5)) > 0.95
    seen, features = judge.looks(squares(9, seed=6).x)
    assert seen.shape == (9,) and features.shape[0] == 9 and features.dtype == np.float64
    assert isinstance(judge, Judge) and torch.is_tensor(next(iter(judge.tensors.values())))


@pytest.mark.slow
def test_the_judge_knows_digits_of_other_writers():
    train, sets = data_of(DigitsData(format="digits"))
    assert Judge.of(train, 10).accuracy(sets["test"]) > 0.89


def test_shares_of_drawn_images_count_what_was_asked_for():
    drawn = readings.Drawn(
        np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 1, 0, 2]), np.zeros((6, 2)), (2,), torch.zeros(6, 1, 2, 2)
    )
    forgotten, retained = drawn.right(True), drawn.right(False)
    assert forgotten is not None and retained is not None
    assert forgotten.value == pytest.approx(1 / 2) and retained.value == pytest.approx(3 / 4)
    assert replace(drawn, gone=()).right(True) is None


@pytest.mark.parametrize("channels", [1, 3])
def test_drawn_images_stand_side_by_side_for_a_person_forgotten_classes_first(channels):
    draw = torch.Generator().manual_seed(channels)
    images = torch.rand(12, channels, 4, 5, generator=draw)
    asked = np.array([0, 1, 2] * 4)
    one = readings.Readings({}, readings.Drawn(asked, asked, np.zeros((12, 2)), (2,), images))
    other = readings.Readings({}, readings.Drawn(asked, asked, np.zeros((12, 2)), (2,), 1 - images))
    lines = MODALITY.pictures(Models(one, original=other))
    assert [(line["set"], line["asked"]) for line in lines] == [
        ("forget", "class 2"), ("retain", "class 0"), ("retain", "class 1")
    ]  # fmt: skip
    for line, label in zip(lines, (2, 0, 1), strict=True):
        assert line["retrained"] is None
        for name, shown in (("after", images), ("before", 1 - images)):
            content = base64.b64decode(line[name].removeprefix("data:image/png;base64,"))
            pixels = np.asarray(Image.open(io.BytesIO(content)))[::12, ::12]  # 4 high: twelve times as large
            assert pixels.shape == (4, 20, 3)
            for i, at in enumerate(np.flatnonzero(asked == label)):
                wanted = shown[at].permute(1, 2, 0).expand(4, 5, 3).numpy() * 255
                assert np.abs(pixels[:, 5 * i : 5 * i + 5] - wanted).max() <= 0.51
    assert MODALITY.pictures(Models(readings.Readings({}))) == []


def test_recipes_say_what_jobs_say(tmp_path):
    from expunge.bench.recipe import load_recipe

    for name in ("digits_ddpm", "mnist_ddpm", "cifar10_ddpm"):
        recipe = load_recipe(name)
        assert recipe.task == "diffusion" and recipe.forgets["kind"] == "class"
        for row in recipe.rows:
            assert "diffusion" in recipe.method(row).capabilities.tasks or "*" in recipe.method(row).capabilities.tasks
    assert yaml.safe_load(write_job(tmp_path).read_text())["task"] == "diffusion"
