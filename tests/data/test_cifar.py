"""CIFAR-10: pickles that hold plain data, and pickles that would rather do something."""

from __future__ import annotations

import copyreg
import os
import pickle

import numpy as np
import pytest
import torch

from expunge.core.errors import InputError
from expunge.data.cifar import IMAGENET_MEAN, IMAGENET_STD, MEAN, STD, cifar10, read_plain_pickle

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 3072), dtype=np.uint8)
LABELS = [i % 10 for i in range(40)]


def batch(folder, name, protocol=2, **changes):
    content = {"data": PIXELS, "labels": LABELS, "batch_label": "a batch", "filenames": ["a.png"] * 40} | changes
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(pickle.dumps(content, protocol))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "cifar-10-batches-py"
    for name in ("data_batch_1", "data_batch_3", "test_batch"):
        batch(path, name)
    return path


def test_the_published_part(real_data):
    train, test = cifar10(real_data("cifar10"))
    assert train.y.bincount().tolist() == [1005, 974, 1032, 1016, 999, 937, 1030, 1001, 1025, 981]
    assert test.y.bincount().tolist() == [196, 198, 195, 199, 198, 185, 216, 193, 217, 203]
    assert train.x.shape == (10_000, 3, 32, 32) and train.x.dtype == torch.float32
    assert train.x.mean((0, 2, 3)).abs().max() < 0.02 and (train.x.std((0, 2, 3)) - 1).abs().max() < 0.02
    assert train.preprocessing.value == "fixed"


def test_rows_are_named_by_their_place_in_the_whole_set(folder):
    train, test = cifar10(folder.parent)
    assert train.ids.tolist() == [*range(40), *range(20_000, 20_040)], "batch 2 is not there and keeps its numbers"
    assert test.ids.tolist() == list(range(40))
    expected = torch.from_numpy(PIXELS.reshape(40, 3, 32, 32).copy()).float() / 255
    expected = (expected - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(STD).reshape(3, 1, 1)
    assert torch.allclose(train.x[40:], expected, atol=1e-6)
    part, tested = cifar10(folder, per_class=3, test_limit=5)
    assert part.y.bincount().tolist() == [3] * 10 and len(tested) == 5
    assert torch.equal(part.x, train.x[torch.from_numpy(np.isin(train.ids, part.ids))])


def test_other_constants(folder):
    train, _ = cifar10(folder, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    assert float(train.x[0, 2, 0, 0]) == pytest.approx((PIXELS[0, 2048] / 255 - 0.406) / 0.225)
    with pytest.raises(InputError, match="mean and std as 3 number"):
        cifar10(folder, mean=[0.5], std=[0.5])
    with pytest.raises(InputError, match="std above 0"):
        cifar10(folder, std=[0.2, 0.0, 0.2])


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_what_python_3_writes_is_read_too(tmp_path, protocol):
    batch(tmp_path, "batch", protocol)
    found = read_plain_pickle(tmp_path / "batch")
    assert np.array_equal(found["data"], PIXELS) and found["labels"] == LABELS
    assert set(found) == {"data", "labels", "batch_label", "filenames"}


class Calls:
    """A pickle that calls something."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


class Late:
    """A pickle that runs from inside an object array."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def objects():
    return np.array([Late()], dtype=object)


HOSTILE = {
    "system": lambda: Calls(os.mkdir, "executed"),
    "eval": lambda: Calls(eval, "__import__('os').mkdir('executed')"),
    "getattr": lambda: Calls(getattr, 1, "real"),
    "import": lambda: Calls(__import__, "os"),
    "numpy load": lambda: Calls(np.load, "executed.npy"),
    "numpy function": lambda: Calls(np.fromfile, "executed.npy"),
    "object array": objects,
    "object type": lambda: np.dtype(object),
    "fields": lambda: np.zeros(2, dtype=[("a", "u1")]),
    "floats": lambda: np.zeros(4),
    "torch": lambda: torch.zeros(2),
    "bytearray": lambda: bytearray(b"a"),
    "copyreg": lambda: Calls(copyreg._reconstructor, object, object, None),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_pickle_that_wants_to_run_something_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    payload = HOSTILE[name]()
    for protocol in (0, 2, 4):
        for content in (payload, {"data": payload}, {"labels": [payload]}, [{"a": (payload,)}]):
            (tmp_path / "data_batch_1").write_bytes(pickle.dumps(content, protocol))
            with pytest.raises(InputError, match=r"was refused: .* nothing in it was executed"):
                cifar10(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_the_control_that_these_pickles_do_run(tmp_path, monkeypatch):
    """The negative control: an ordinary unpickler executes what the tests above plant."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(objects()))  # noqa: S301 - the point
    assert (tmp_path / "executed").is_dir()


STATE = (1, (1,), None, False, b"a")
U1 = b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR"  # the text protocol: names, a mark, arguments, a tuple, a call
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"


@pytest.mark.parametrize(
    "stream",
    [
        b"cnumpy.core.multiarray\n_reconstruct\n(S'found'\nS'x'\ndb.",  # sets an attribute of a callable
        b"cnumpy\nndarray\n(N(S'__setstate__'\nS'x'\ndtb.",
        b"(S'data'\ncnumpy\nndarray\nS'labels'\n(ld.",  # a name in place of a value
        b"(S'data'\n" + ARRAY + b"S'labels'\n(ld.",  # an array that never got content
        ARRAY + b"(I1\n(I5\nt" + U1 + b"I00\nS'ab'\ntb.",  # more values than bytes
        ARRAY + b"(I1\n(I-1\nt" + U1 + b"I00\nS'ab'\ntb.",
        ARRAY + b"(I1\n(I2\ntNI00\nS'ab'\ntb.",  # no type
        U1 + b"(I3\nS'|'\nS'a'\nNNI-1\nI-1\nI0\ntb.",  # a subtype
        b"c_codecs\nencode\n(S'a'\nS'rot13'\ntR.",
        b"}r\xff\xff\xff\x7f.",  # a place in the memo that would take gigabytes
    ],
)  # fmt: skip
def test_hand_written_streams(tmp_path, stream):
    (tmp_path / "batch").write_bytes(stream)
    with pytest.raises(InputError, match="was refused"):
        read_plain_pickle(tmp_path / "batch")


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b".",
        b"no pickle at all",
        b"\x80\x02}q",
        b"P1\n.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02\x96" + b"\xff" * 7 + b"\x7f.",
    ],
)
def test_damaged_streams(tmp_path, stream):
    (tmp_path / "batch").write_bytes(stream)
    with pytest.raises(InputError, match=r"is damaged or no batch|was refused"):
        read_plain_pickle(tmp_path / "batch")


def test_every_cut_of_a_batch_is_refused(folder):
    whole = (folder / "data_batch_1").read_bytes()
    for cut in [*range(0, 400, 7), *range(400, len(whole), 5003)]:
        (folder / "data_batch_1").write_bytes(whole[:cut])
        with pytest.raises(InputError):
            cifar10(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": [0] * 39 + [10]}, "labels from 0 to 9 in data_batch_1; row 39 has 10"),
        ({"labels": [0] * 39 + [-1]}, "row 39 has -1"),
        ({"labels": [0] * 39 + ["0"]}, "row 39 has '0'"),
        ({"labels": [0] * 39 + [True]}, "row 39 has True"),
        ({"labels": [0] * 39}, "a list of 40 labels in data_batch_1; got 39"),
        ({"labels": 3}, "got int"),
        ({"data": PIXELS[:, :3000]}, r"of shape \(n, 3072\), n up to 10000; got \(40, 3000\)"),
        ({"data": b"bytes"}, "got bytes"),
    ],
)
def test_content_that_does_not_fit(folder, changes, message):
    batch(folder, "data_batch_1", **changes)
    with pytest.raises(InputError, match=message):
        cifar10(folder)


def test_files_that_lack(folder, tmp_path):
    (folder / "test_batch").unlink()
    with pytest.raises(InputError, match="no file test_batch in"):
        cifar10(folder)
    with pytest.raises(
        InputError, match=r"no data_batch_1 in .*empty; looked in cifar10/cifar-10-batches-py.*cifar-10-python"
    ):
        cifar10(tmp_path / "empty")
    (folder / "data_batch_1").write_bytes(pickle.dumps([1, 2], 2))
    with pytest.raises(InputError, match="Expected data and labels in data_batch_1"):
        cifar10(folder)
