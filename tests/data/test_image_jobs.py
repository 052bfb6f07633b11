"""Job files that name images and public data sets."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import yaml
from tests.data.test_cifar import batch
from tests.data.test_idx import IMAGES, LABELS, idx
from tests.data.test_images import picture

from expunge import modalities
from expunge.core.errors import InputError
from expunge.data.rows import Rows
from expunge.jobs import schema
from expunge.jobs.run import method_of, shown
from expunge.modalities.classification import config
from expunge.modalities.classification import opening as build
from expunge.modalities.classification.config import called
from expunge.modalities.language import asking
from expunge.modalities.language import opening as language_build
from expunge.modalities.language.config import LanguageJob
from expunge.modalities.settings import Job

ROOT = Path(__file__).parents[2]
REST = """
model: expunge.tasks.networks:mlp
training: {kind: stochastic, epochs: 1, lr: 0.1}
request: {subject: a, targets: [{kind: samples, where: {ids: [3]}}]}
method: {name: fine_tune}
"""


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv("EXPUNGE_DATA", raising=False)


@pytest.fixture
def load(tmp_path):
    """A job with this section ``data``, and its rows."""

    def run(**data) -> tuple[Job, Rows, Rows | None]:
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(yaml.safe_load(REST) | {"data": data}))
        job = schema.load_job(tmp_path / "job.yaml")
        train, probes = build.data_of(job)
        return job, train, probes.get("test")

    return run


@pytest.fixture
def images(tmp_path):
    for part in ("train", "held out"):
        for name in ("cats/anna-1", "dogs/ben-2", "dogs/anna-3"):
            picture(tmp_path / "pets" / part / f"{name}.png", size=(6, 4))
    return tmp_path / "pets"


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("where", ["path", "variable"])
def test_idx_files(load, tmp_path, monkeypatch, name, where):
    folder = tmp_path / "sets" / name / {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[name] / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(IMAGES))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(LABELS))
    if where == "variable":
        monkeypatch.setenv("EXPUNGE_DATA", str(tmp_path / "sets"))
        job, train, test = load(format=name, per_class=2, test_limit=4, seed=3)
    else:
        job, train, test = load(format=name, per_class=2, test_limit=4, seed=3, path="sets")
    assert (len(train), len(test)) == (20, 4)
    assert called(job.data) == {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}[name]
    assert str(tmp_path) not in shown(job), "evidence names no folder of this machine"


def test_cifar(load, tmp_path):
    for name in ("data_batch_2", "test_batch"):
        batch(tmp_path / "cifar-10-batches-py", name)
    _, train, test = load(format="cifar10", path="cifar-10-batches-py", limit=12)
    assert len(train) == 12 and len(test) == 40 and train.ids.min() >= 10_000
    _, other, _ = load(format="cifar10", path="cifar-10-batches-py", limit=12, normalisation="imagenet")
    assert other.ids.tolist() == train.ids.tolist() and not (other.x == train.x).all()


def test_a_folder_of_images(load, images):
    users = r"/(?P<who>[a-z]+)-[0-9]+"
    job, train, test = load(format="images", path="pets/train", test_path="pets/held out", users=users)
    assert train.x.shape == (3, 3, 4, 6) and train.y.tolist() == [0, 1, 1] and train.preprocessing.value == "fitted"
    assert list(train.columns) == ["who"] and test is not None and not test.columns
    assert called(job.data) == "train"
    _, train, test = load(format="images", path="pets/train", size=[2, 3], channels=1, classes=["dogs", "cats"])
    assert train.x.shape == (3, 1, 2, 3) and train.y.tolist() == [1, 0, 0] and test is None
    assert train.preprocessing.value == "fixed"


def test_test_images_have_the_training_folder_s_labels_and_size(load, images):
    for path in list((images / "held out" / "cats").iterdir()):
        path.unlink()
    _, _, test = load(format="images", path="pets/train", test_path="pets/held out")
    assert test.y.tolist() == [1, 1], "dogs are 1, also where there is no cat"
    picture(images / "held out" / "cats" / "x.png", size=(9, 9))
    _, train, test = load(format="images", path="pets/train", test_path="pets/held out")
    assert test.x.shape[1:] == train.x.shape[1:]
    picture(images / "held out" / "birds" / "x.png")
    with pytest.raises(InputError, match=r"the folders cats, dogs .*; there is also birds"):
        load(format="images", path="pets/train", test_path="pets/held out")


def test_public_sets_with_people(load, real_data, monkeypatch):
    pytest.MonkeyPatch.undo(monkeypatch)
    real_data("omniglot"), real_data("orl_faces")
    _, train, test = load(format="omniglot", size=14)
    assert (len(train), len(test)) == (2_176, 544) and train.x.shape[1:] == (1, 14, 14)
    _, train, test = load(format="orl_faces", size=[28, 23], test=[1])
    assert (len(train), len(test)) == (360, 40) and train.x.shape[1:] == (1, 28, 23)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"format": "mnist", "limits": 3}, "data.limits: unknown key; did you mean limit?"),
        ({"format": "fashion_mnist", "limit": 0}, "data.limit: Input should be greater than or equal to 1"),
        ({"format": "mnist", "seed": -1}, "data.seed"),
        ({"format": "cifar10", "normalisation": "none"}, "data.normalisation: Input should be 'cifar' or 'imagenet'"),
        ({"format": "omniglot", "split": "random"}, "data.split: Input should be 'drawers' or 'drawings'"),
        ({"format": "orl_faces", "size": [1, 2, 3]}, "data.size"),
        ({"format": "images"}, "data.path: missing"),
        ({"format": "images", "path": "x", "channels": 2}, "data.channels: Input should be 1 or 3"),
        ({"format": "mnst"}, "'mnst' found using 'format' does not match any of the expected tags"),
        ({"format": "mnist"}, "Give root (data.path in a job file), or set EXPUNGE_DATA"),
        ({"format": "cifar10", "path": "no"}, "There is no data_batch_1 in"),
        ({"format": "omniglot", "path": "no", "share": 0.9}, "share of test rows"),
        ({"format": "orl_faces", "path": "no"}, "There is no s1 in"),
        ({"format": "images", "path": "no"}, "There is no folder"),
    ],
)
def test_data_that_cannot_be_used(load, data, message):
    with pytest.raises(InputError) as refused:
        load(**data)
    assert message in str(refused.value)


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "jobs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_a_job(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    job = schema.load_job(path)
    if job.task == "vision_language":
        modalities.load(job.task).open(job)
        return
    if isinstance(job, LanguageJob):
        files = language_build.files_of(job)
        asking.asked_of(job, files.data, files.asked), language_build.task_of(job, files.data)
        return
    job.request.asked(), method_of(job), build.task_of(job)


def test_every_format_is_documented():
    formats = {
        value: s
        for s in get_args(get_args(config.AnyData)[0])
        for value in get_args(s.model_fields["format"].annotation)
    }
    page = (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8")
    for name, section in formats.items():
        (row,) = [line for line in page.splitlines() if line.startswith("|") and f"`{name}`" in line.split("|")[1]]
        keys = set(section.model_fields) - {"format"}
        shared = set(formats["mnist"].model_fields) if name == "cifar10" else set()  # "the same and …"
        assert all(f"`{key}`" in row for key in keys - shared), name
