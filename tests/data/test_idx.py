"""MNIST and Fashion-MNIST: the published files, and files that are none."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import torch

from expunge.core.errors import InputError
from expunge.core.request import Target
from expunge.data.idx import fashion_mnist, mnist, read_idx

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
LABELS = (np.arange(30) % 10).astype(np.uint8)


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def raw(tmp_path):
    for part in ("train", "t10k"):
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx(IMAGES))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(LABELS))
    return tmp_path


@pytest.mark.parametrize(
    ("read", "name", "mean", "train", "test"),
    [
        (
            mnist, "mnist", -0.42421296,
            [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
            [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
        ),
        (fashion_mnist, "fashion_mnist", -0.81019830, [6000] * 10, [1000] * 10),
    ],
)  # fmt: skip
def test_the_published_set(real_data, read, name, mean, train, test):
    rows, held_out = read(real_data(name))
    assert rows.y.bincount().tolist() == train and held_out.y.bincount().tolist() == test
    assert rows.x.shape == (60_000, 1, 28, 28) and rows.x.dtype == torch.float32
    assert abs(float(rows.x.mean())) < 1e-3 and float(rows.x.std()) == pytest.approx(1, abs=1e-3)
    assert float(rows.x.min()) == pytest.approx(mean, abs=1e-6), "black is (0 - mean) / std"
    assert rows.preprocessing.value == "fixed"


def test_a_part_keeps_the_ids_of_the_whole(raw):
    train, test = mnist(raw)
    assert train.ids.tolist() == list(range(30))
    part, tested = mnist(raw, per_class=2, test_limit=7)
    assert part.y.bincount().tolist() == [2] * 10 and len(tested) == 7
    assert part.ids.tolist() == sorted(part.ids.tolist()) != list(range(20))
    assert torch.equal(part.x, train.x[torch.from_numpy(part.ids)])
    assert torch.equal(tested.x, test.x[torch.from_numpy(tested.ids)])
    assert len(part.select(Target("samples", {"ids": [int(part.ids[-1])]}))) == 1
    assert mnist(raw, limit=9)[0].digest == mnist(raw, limit=9)[0].digest != mnist(raw, limit=9, seed=1)[0].digest


def test_gzip_and_plain_are_the_same_rows(raw):
    plain = [rows.digest for rows in mnist(raw)]
    for path in list(raw.iterdir()):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert [rows.digest for rows in mnist(raw)] == plain
    assert [rows.digest for rows in fashion_mnist(raw)] != plain, "other constants"


def test_the_variable_names_the_folder_and_an_argument_goes_first(raw, tmp_path, monkeypatch):
    inner = tmp_path / "all" / "mnist" / "MNIST" / "raw"
    inner.mkdir(parents=True)
    for path in raw.glob("*ubyte"):
        path.rename(inner / path.name)
    monkeypatch.setenv("EXPUNGE_DATA", str(tmp_path / "all"))
    before = sorted(tmp_path.rglob("*"))
    assert len(mnist()[0]) == len(mnist(tmp_path / "all" / "mnist")[0]) == len(mnist(inner)[0]) == 30
    assert sorted(tmp_path.rglob("*")) == before, "reading writes nothing beside the data"
    monkeypatch.setenv("EXPUNGE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(
        InputError, match=r"There is no train-images-idx3-ubyte in .*nowhere; looked in mnist/MNIST/raw"
    ):
        mnist()
    monkeypatch.delenv("EXPUNGE_DATA")
    with pytest.raises(InputError, match=r"none is given. Give root .* or set EXPUNGE_DATA .*torchvision"):
        mnist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(IMAGES)[:-1], r"should hold 23520 values of shape \(30, 28, 28\); it holds 23519"),
        (idx(IMAGES) + b"\0", "it holds more"),
        (gzip.compress(idx(IMAGES))[:-20], "cannot be read"),
        (gzip.compress(idx(IMAGES))[:60] + b"\xff" * 60, "cannot be read"),
        (b"", "begins with nothing"),
        (b"\0\0\x08\x03\0\0", "ends inside its header"),
        (b"\x89PNG and so on", "is not an idx file of unsigned bytes: it begins with 89 50 4e 47"),
        (struct.pack(">BBBB3I", 0, 0, 13, 3, 1, 1, 1), "is not an idx file of unsigned bytes"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, *[2**32 - 1] * 3), "its header is damaged"),
        (idx(IMAGES[:, :20]), r"images of shape \(n, 28, 28\)"),
        (idx(IMAGES[:29]), r"one train label an image .* got \(30,\) for 29 images"),
        (idx(IMAGES[:0]), "one train label an image"),
    ],
)
def test_images_that_are_none(raw, content, message):
    (raw / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(InputError, match=message):
        mnist(raw)


def test_a_label_outside(raw):
    (raw / "train-labels-idx1-ubyte").write_bytes(idx(np.where(np.arange(30) == 4, 10, LABELS).astype(np.uint8)))
    with pytest.raises(InputError, match=r"labels from 0 to 9 .* row 4 has 10"):
        mnist(raw)


def test_a_file_that_lacks(raw):
    (raw / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match=r"no file t10k-labels-idx1-ubyte \(or t10k-labels-idx1-ubyte\.gz\) in"):
        mnist(raw)


def test_a_part_larger_than_the_whole(raw):
    with pytest.raises(InputError, match="number of rows from 1 to 30; got 31"):
        mnist(raw, limit=31)
    with pytest.raises(InputError, match="per class from 1 to 3, the size of class 0; got 4"):
        mnist(raw, per_class=4)
    with pytest.raises(InputError, match="got both"):
        mnist(raw, limit=3, per_class=1)


def test_arrays_of_other_dimensions(tmp_path):
    (tmp_path / "a").write_bytes(idx(LABELS))
    assert read_idx(tmp_path / "a").tolist() == LABELS.tolist()
