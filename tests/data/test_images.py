"""Folders of images, Omniglot and the ORL faces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from expunge.core import on_disk
from expunge.core.errors import InputError
from expunge.core.request import Target
from expunge.data import images
from expunge.data.images import class_folders, image_folder, omniglot, orl_faces

WHO = r"/(?P<who>[a-z]+)-[0-9]+[.]png$"


def picture(path, value=0, size=(6, 4), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0]), value, dtype=np.uint8)).convert(mode).save(path)


@pytest.fixture
def folder(tmp_path):
    for name, value in {"s10/anna-1": 10, "s2/ben-10": 20, "s2/anna-9": 30, "s2/ben-2": 40}.items():
        picture(tmp_path / f"{name}.png", value)
    (tmp_path / "README.txt").write_text("not an image")
    picture(tmp_path / ".hidden" / "x.png")
    return tmp_path


def test_the_class_is_the_folder_and_the_order_is_natural(folder):
    rows = image_folder(folder, channels=1, users=WHO)
    assert rows.x.shape == (4, 1, 4, 6) and rows.x.dtype == torch.float32
    assert (rows.x[:, 0, 0, 0] * 255).round().tolist() == [30, 40, 20, 10]
    assert rows.y.tolist() == [0, 0, 0, 1] and class_folders(folder) == ["s2", "s10"]
    assert rows.select(Target("user", {"who": "anna"}))["row"].tolist() == [0, 3]
    assert rows.preprocessing.value == "fitted", "the labels are the folders that were there"


def test_declared_classes_are_fixed_whatever_folders_there_are(folder):
    rows = image_folder(folder, channels=1, classes=["s10", "s7", "s2"])
    assert rows.y.tolist() == [2, 2, 2, 0] and rows.preprocessing.value == "fixed"
    with pytest.raises(InputError, match=r"the folders s10, s7 in .*; there is also s2"):
        image_folder(folder, classes=["s10", "s7"])


def test_one_image_s_preparation_does_not_look_at_another(folder):
    whole = image_folder(folder, 3, channels=3, mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 3.0])
    assert whole.x.shape == (4, 3, 3, 3)
    assert float(whole.x[0, 2, 1, 1]) == pytest.approx((30 / 255 - 0.3) / 3)
    (folder / "s2" / "ben-10.png").unlink()
    part = image_folder(folder, 3, channels=3, mean=[0.1, 0.2, 0.3], std=[1.0, 2.0, 3.0])
    assert torch.equal(part.x, whole.x[[0, 1, 3]])


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_pixel(tmp_path, mode, channels):
    picture(tmp_path / "a" / "x.png", 255, mode=mode)
    assert image_folder(tmp_path, channels=channels).x.unique().tolist() == [1.0]


def test_colours_keep_their_order(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (2, 3), (255, 0, 51)).save(tmp_path / "a" / "x.png")
    assert image_folder(tmp_path).x[0, :, 0, 0].tolist() == pytest.approx([1.0, 0.0, 0.2])


def test_a_size_is_height_and_width(folder):
    assert image_folder(folder, (2, 5)).x.shape == (4, 3, 2, 5)


def test_large_images_lie_in_a_file_with_the_same_bits(folder, monkeypatch):
    settings = {"channels": 1, "size": 9, "mean": [0.3], "std": [0.7]}
    held = image_folder(folder, **settings)
    monkeypatch.setattr(on_disk, "IN_MEMORY", 0)
    monkeypatch.setattr(images, "_DECODED", 2)
    monkeypatch.setenv("EXPUNGE_CACHE", str(folder.parent / "cache"))
    found = image_folder(folder, **settings)
    assert isinstance(found.x, on_disk.OnDisk) and torch.equal(found.x.read(), held.x) and found.digest == held.digest
    assert found.prepared() == held.prepared() and np.array_equal(found.row_digests, held.row_digests)


def test_nested_folders_are_classes_by_their_path(tmp_path):
    for name in ("b/x/1", "a/y/1", "a/x/2"):
        picture(tmp_path / f"{name}.png")
    assert class_folders(tmp_path) == ["a/x", "a/y", "b/x"]
    assert image_folder(tmp_path).y.tolist() == [0, 1, 2]


@pytest.mark.parametrize("cut", [0, 5, 40])
def test_a_damaged_image(folder, cut):
    path = folder / "s2" / "ben-2.png"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"ben-2\.png cannot be read as an image"):
        image_folder(folder)


def test_an_image_larger_than_any_should_be(folder, monkeypatch):
    for limit in (1, 20):  # an error beyond twice the limit, a warning beyond it
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(InputError, match="cannot be read as an image"):
            image_folder(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 2}, "1 channel .grey. or 3 .colours.; got 2"),
        ({"size": (1, 2, 3)}, "size as a side or"),
        ({"size": 0}, "size as a side or"),
        ({"users": "("}, "no regular expression"),
        ({"users": "[a-z]+"}, "Expected a named group"),
        ({"users": "(?P<who>anna)"}, "s2/ben-2.png does not match users"),
        ({"users": "(?P<who>ben)|anna"}, "s2/anna-9.png does not match users"),
        ({"mean": [0.5]}, "mean and std as 3 number"),
        ({"std": [1, 1, 0]}, "std above 0"),
    ],
)
def test_settings_that_cannot_be_used(folder, settings, message):
    with pytest.raises(InputError, match=message):
        image_folder(folder, **settings)


def test_folders_that_cannot_be_used(folder, tmp_path):
    picture(folder / "s3" / "x.png", size=(4, 4))
    with pytest.raises(InputError, match=r"s3/x\.png has 4 x 4 pixels, s2/anna-9\.png 4 x 6\. Give a size"):
        image_folder(folder)
    with pytest.raises(InputError, match="There is no folder"):
        image_folder(folder / "no")
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="There is no image in"):
        image_folder(folder / "empty")
    picture(folder / "x.png")
    with pytest.raises(InputError, match=r"x\.png lies in .* itself"):
        image_folder(folder, 4)


def test_sixteen_bits(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((3, 3), 40_000, dtype=np.uint16)).save(tmp_path / "a" / "x.png")
    with pytest.raises(InputError, match=r"x\.png has more than 8 bits"):
        image_folder(tmp_path)


def test_omniglot_holds_drawers_out(real_data):
    train, test = omniglot(real_data("omniglot"))
    assert (len(train), len(test)) == (136 * 16, 136 * 4) and train.x.shape[1:] == (1, 28, 28)
    assert set(train.columns["drawer"]) == {f"{i:02d}" for i in range(1, 17)}
    assert set(test.columns["drawer"]) == {"17", "18", "19", "20"}
    assert train.y.bincount().tolist() == [16] * 136 and test.y.bincount().tolist() == [4] * 136
    assert len(train.select(Target("user", {"drawer": "07"}))) == 136
    assert len(train.select(Target("user", {"drawer": "07", "alphabet": "Greek"}))) == 24
    assert 0.03 < float(train.x.mean()) < 0.15, "ink is 1"
    assert train.preprocessing.value == "fixed"
    assert not set(train.ids) & set(test.ids)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.05])
def test_omniglot_can_hold_drawings_out_with_every_drawer_in_both_parts(real_data, share):
    train, test = omniglot(real_data("omniglot"), 14, split="drawings", share=share)
    assert len(test) == pytest.approx(2_720 * share, rel=0.01)
    for part in (train, test):
        assert len(set(part.columns["drawer"])) == 20 and len(part.y.unique()) == 136
    with pytest.raises(InputError, match="split drawers or drawings"):
        omniglot(real_data("omniglot"), split="random")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"share of test rows from 0\.05 to 0\.5; got 0\.8"):
        omniglot(real_data("omniglot"), share=0.8)


def test_the_faces_are_classes_and_users(real_data):
    train, test = orl_faces(real_data("orl_faces"))
    assert train.y.bincount().tolist() == [8] * 40 and test.y.bincount().tolist() == [2] * 40
    assert train.x.shape == (320, 1, 56, 46) and train.preprocessing.value == "fixed"
    person = train.select(Target("user", {"person": 17}))
    assert person == train.select(Target("class", {"label": 16})) and len(person) == 8
    full, one = orl_faces(real_data("orl_faces"), (112, 92), test=[1])
    assert full.x.shape == (360, 1, 112, 92)
    with Image.open(real_data("orl_faces") / "orl_faces" / "s3" / "1.pgm") as image:
        assert (one.x[2, 0] * 255).round().to(torch.uint8).tolist() == np.asarray(image).tolist()
    for numbers in ([], [0], [11], range(1, 11)):
        with pytest.raises(InputError, match="numbers from 1 to 10"):
            orl_faces(real_data("orl_faces"), test=numbers)


@pytest.mark.parametrize("read", [omniglot, orl_faces])
def test_public_sets_that_are_not_there(tmp_path, monkeypatch, read):
    with pytest.raises(InputError, match=r"There is no \w+ in .*; looked in .* Get "):
        read(tmp_path)
    monkeypatch.delenv("EXPUNGE_DATA", raising=False)
    with pytest.raises(InputError, match=r"set EXPUNGE_DATA to your folder of data sets\. Get "):
        read()
