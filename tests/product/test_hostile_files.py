"""Files that carry code or bombs: refused, nothing in them runs, and no memory to speak of is taken.

Watched are the interpreter's own audit events (a process, a shell, another program, compiled code from the folder), both
streams, and the peak of memory.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import resource
import shutil
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from expunge.core.errors import InputError
from expunge.data.cifar import read_plain_pickle
from expunge.data.idx import read_idx
from expunge.data.images import FORMATS, image_folder, omniglot, orl_faces
from expunge.data.tables import read_arrays, read_csv

STARTS = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "pty.spawn",
)
_events: list[str] = []
_watching = [False]
SPARE = 300_000  # kilobytes


def _hook(event: str, _: Any) -> None:
    if _watching[0] and event in STARTS:
        _events.append(event)


sys.addaudithook(_hook)


@pytest.fixture
def refused(capfd, tmp_path) -> Callable[..., str]:
    """Call something that must raise InputError; return its message. Nothing runs, is printed or fills the memory."""

    def call(what: Callable[..., Any], *arguments: Any, **options: Any) -> str:
        capfd.readouterr()
        _events.clear()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        _watching[0] = True
        try:
            with pytest.raises(InputError) as error:
                what(*arguments, **options)
        finally:
            _watching[0] = False
        assert not _events, "something was started"
        assert capfd.readouterr() == ("", ""), "something was printed"
        assert not (tmp_path / "executed").exists()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < SPARE, "too much memory"
        return str(error.value)

    return call


class Code:
    """A pickle that leaves a trace if anybody executes it."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return Path.mkdir, (self.folder / "executed",)


POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
    b"(POSTSCRIPT RAN: ) print 6 7 mul == flush\n8 8 scale 8 8 8 [8 0 0 -8 0 8] {currentfile} image\nshowpage\n%%EOF\n"
)


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that claims a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data or zlib.compress(b"")) + chunk(b"IEND", b"")
    )


# --- images


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "images" / "a").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a" / "0.png")
    return tmp_path / "images"


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_postscript_called_an_image_is_not_handed_to_an_interpreter(refused, folder, ending):
    (folder / "a" / f"1.{ending}").write_bytes(POSTSCRIPT)
    for size in (None, 8):
        assert "is none of PNG, JPEG" in refused(image_folder, folder, size)


@pytest.mark.parametrize("kind", ["ICO", "PCX", "TGA", "SGI", "JPEG2000", "EPS", "PDF"])
def test_what_the_reader_does_not_name_is_not_decoded(refused, folder, kind):
    try:
        Image.new("RGB", (8, 8)).save(folder / "a" / "1.png", format=kind)
    except (OSError, KeyError):
        pytest.skip(f"Pillow was built without {kind}")
    assert "cannot be read as an image" in refused(image_folder, folder)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_that_the_reader_names_is_read_whatever_the_file_is_called(folder, kind):
    Image.new("RGB", (8, 8)).save(folder / "a" / "1.png", format=kind)
    assert len(image_folder(folder)) == 2


def test_readers_of_one_data_set_take_its_own_format(refused, tmp_path):
    place = tmp_path / "orl_faces" / "s1"
    place.mkdir(parents=True)
    Image.new("L", (8, 8)).save(place / "1.pgm", format="PNG")
    assert "none of PPM" in refused(orl_faces, tmp_path)
    place = tmp_path / "omniglot" / "images_background_small1" / "Greek" / "character01"
    place.mkdir(parents=True)
    Image.new("L", (8, 8)).save(place / "0001_01.png", format="GIF")
    assert "none of PNG" in refused(omniglot, tmp_path)


def test_an_image_of_billions_of_pixels(refused, folder, monkeypatch):
    (folder / "a" / "1.png").write_bytes(png(100_000, 100_000))
    refused(image_folder, folder)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as programs do that met a large image
    for size in (None, 8):
        assert "10000000000" in refused(image_folder, folder, size) or "pixels" in refused(image_folder, folder, size)


def test_sizes_are_looked_at_before_anything_is_decoded(refused, folder):
    (folder / "a" / "1.png").write_bytes(png(9000, 9000, zlib.compress(bytes(9001 * 9000), 9)))
    assert "9000 x 9000 pixels, a/0.png 8 x 8. Give a size" in refused(image_folder, folder)


def test_pipes_and_links_to_nowhere(refused, folder):
    import os

    os.mkfifo(folder / "a" / "1.png")
    assert "it is no file" in refused(image_folder, folder)
    (folder / "a" / "1.png").unlink()
    (folder / "a" / "1.png").symlink_to(folder / "nowhere.png")
    assert "it is no file" in refused(image_folder, folder)


# --- tables and arrays


def table(path: Path, **options: Any) -> Any:
    return read_csv([path], label="y", users=["who"], **options)


HEAD = b"who,a,y\n"


def packed(ending: str, content: bytes) -> bytes:
    if ending == "zip":
        place = io.BytesIO()
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("d.csv", content)
        return place.getvalue()
    return {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[ending](content)


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz", "zip"])
def test_a_packed_table_is_read_and_a_bomb_is_not(refused, tmp_path, monkeypatch, ending):
    path = tmp_path / f"d.csv.{ending}"
    path.write_bytes(packed(ending, HEAD + b"p1,0.5,0\np2,0.25,1\n"))
    assert table(path)[0].x.tolist() == [[0.5], [0.25]]
    monkeypatch.setattr("expunge.data.bounds.FLOOR", 2**20)
    path.write_bytes(packed(ending, HEAD + b"p1,0.5,0\n" * 2**21))
    assert "exhaust memory" in refused(table, path)
    path.write_bytes(path.read_bytes()[:-20])
    refused(table, path)


def test_formulas_and_scripts_in_a_table_are_texts(tmp_path):
    path = tmp_path / "d.csv"
    path.write_bytes(HEAD + b"\"=cmd|' /C calc'!A0\",1,0\n\"__import__('os').system('id')\",2,1\n")
    assert table(path)[0].columns["who"].tolist()[1] == "__import__('os').system('id')"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"who,a,y\np1,0.5,0\np2,9,0.25,1\n", "row 2 has 4"),
        (b"who,a,y\n9,p1,0.5,0\n9,p2,0.25,1\n", "Expected 3 fields .* row 1 has 4"),
        (b"who,a,y\np1,0.5\n", "row 1 has 2"),
        (b"who,a,a,y\np1,1,2,0\n", "'a' twice"),
        (b"who,,y\np1,1,0\n", "Column 2 of d.csv has no name"),
        (b",who,a,y\n5,p1,1,0\n6,p2,2,1\n", "Column 1 of d.csv has no name"),
        (b"Unnamed: 0,who,a,y\n5,p1,1,0\n6,p2,2,1\n", "Column 1 of d.csv has no name"),
        (b",,who,a,y\n0,0,p1,1,0\n1,1,p2,2,1\n", "Column 2 of d.csv has no name"),
        (b"who,a,y\np1,1,01\np2,2,1\n", "'01' and '1' of d.csv are one number and two texts"),
        (b"who,a,y\n ,1,0\n", "could not be found again"),
        (b'who,a,y\np1,"1,0\n', "cannot be read as a CSV table"),
        (b"who,a,y\np1,\x00,0\n", "d.csv"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_read_with_certainty(refused, tmp_path, content, message):
    import re

    (tmp_path / "d.csv").write_bytes(content)
    assert re.search(message, refused(table, tmp_path / "d.csv"))


def test_categories_are_compared_as_texts(tmp_path):
    (tmp_path / "d.csv").write_text("who,code,y\np1,01,0\np2,1,1\np3,NA,0\n")
    (rows,) = table(tmp_path / "d.csv", categories={"code": ["1", "01", "NA"]})
    assert rows.x.argmax(1).tolist() == [1, 0, 2]
    with pytest.raises(InputError, match="one number and two texts"):
        table(tmp_path / "d.csv", categories={"code": [1, "NA"]})
    with pytest.raises(InputError, match="once"):
        table(tmp_path / "d.csv", categories={"code": [1, "1", "NA"]})
    (tmp_path / "d.csv").write_text("who,code,y\np1,1.0,no\np2,2.0,yes\n")
    (rows,) = table(tmp_path / "d.csv", categories={"code": [1, 2]}, classes=["no", "yes"])
    assert (rows.x.argmax(1).tolist(), rows.y.tolist()) == ([0, 1], [0, 1])
    with pytest.raises(InputError, match="YAML reads no, off and yes, on as false and true"):
        table(tmp_path / "d.csv", categories={"code": [1, 2]}, classes=[False, True])


def test_a_user_that_is_a_feature_too_keeps_its_zeros(tmp_path):
    (tmp_path / "d.csv").write_text("who,a,y\n007,1,0\n7,2,1\n")
    (rows,) = table(tmp_path / "d.csv", features=["who", "a"])
    assert rows.columns["who"].tolist() == ["007", "7"] and rows.x[:, 0].tolist() == [7, 7]


def npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def npy(array: np.ndarray, claims: tuple[int, ...] | None = None) -> bytes:
    place = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        place,
        {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": claims or array.shape},
    )
    return place.getvalue() + array.tobytes()


def test_arrays_that_claim_more_than_they_have(refused, tmp_path):
    y = npy(np.zeros(4, np.int64))
    path = npz(tmp_path / "d.npz", x=npy(np.zeros((4, 2)), claims=(300_000_000, 2)), y=y)
    assert "claims shape (300000000, 2)" in refused(read_arrays, path)
    path = npz(tmp_path / "d.npz", x=npy(np.zeros((4, 2)))[:40], y=y)
    refused(read_arrays, path)
    content = bytearray(npz(tmp_path / "d.npz", x=npy(np.arange(4000.0).reshape(-1, 2)), y=y).read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)
    refused(read_arrays, path)


def test_an_archive_of_arrays_that_unpacks_without_an_end(refused, tmp_path, monkeypatch):
    monkeypatch.setattr("expunge.data.bounds.FLOOR", 2**20)
    path = npz(tmp_path / "d.npz", x=npy(np.zeros((2**20, 2))), y=npy(np.zeros(2**20, np.int64)))
    assert "exhaust memory" in refused(read_arrays, path)


def test_arrays_of_something_else_than_numbers(refused, tmp_path):
    path, y = tmp_path / "d.npz", np.zeros(3, np.int64)
    for x in (
        np.array([["a"]] * 3), np.zeros((3, 1), np.complex128), np.zeros((3, 1), "M8[D]"),
        np.zeros((3, 1), [("a", "f4")]), np.array([[Code(tmp_path)]] * 3, dtype=object),
    ):  # fmt: skip
        np.savez(path, x=x, y=y)
        refused(read_arrays, path)
    for extra in (np.array(3), np.array([1.0, np.nan, 2.0]), np.array(["a", "b"])):
        np.savez(path, x=np.eye(3), y=y, who=extra)
        assert "who" in refused(read_arrays, path)
    np.savez(path, x=np.eye(3), y=y, who=np.array([1.0, np.nan, 2.0]))
    assert not read_arrays(path, people=False).columns, "nobody asks to be forgotten from test rows"
    path.write_bytes(pickle.dumps(Code(tmp_path)))
    refused(read_arrays, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy(np.eye(3)))
        archive.writestr("y.npy", npy(y))
        with pytest.warns(UserWarning):
            archive.writestr("x.npy", npy(np.ones((3, 3))))
    assert "twice" in refused(read_arrays, path)


def test_safetensors_of_a_type_that_numpy_has_not(refused, tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(3, 2, dtype=torch.bfloat16), "y": torch.zeros(3)}, tmp_path / "d.safetensors")
    refused(read_arrays, tmp_path / "d.safetensors")


def test_an_idx_file_that_claims_two_gigabytes(refused, tmp_path):
    head = b"\0\0\x08\x03" + struct.pack(">3I", 2_000_000, 28, 28)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(head + bytes(100))
    assert "should hold" in refused(read_idx, tmp_path / "train-images-idx3-ubyte")
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + bytes(100)))
    assert "damaged" in refused(read_idx, tmp_path / "t10k-images-idx3-ubyte")


def test_a_pickle_that_copies_its_content_over_and_over(refused, tmp_path):
    text = b"X" + struct.pack("<I", 10**6) + b"a" * 10**6
    content = b"\x80\x02]" + text + b"q\x000" + b"c_codecs\nencode\nq\x010" + b"h\x01h\x00\x85Ra" * 2000 + b"."
    (tmp_path / "data_batch_1").write_bytes(content)
    assert "over and over" in refused(read_plain_pickle, tmp_path / "data_batch_1")


# --- models


@pytest.fixture
def model(real_data, tmp_path) -> Callable[..., Path]:
    """A small real model with other entries in its configuration, and code beside it that leaves a trace where it runs."""

    def make(**config: Any) -> Path:
        place = tmp_path / "model"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(real_data("stories260k") / "stories260k", place, copy_function=shutil.copyfile)
        trace = f"import pathlib\npathlib.Path({str(tmp_path / 'executed')!r}).mkdir()\nprint('RAN')\n"
        (place / "evil.py").write_text(trace + "class Config: pass\nclass Model: pass\nclass Tok: pass\n")
        content = json.loads((place / "config.json").read_text()) | config
        (place / "config.json").write_text(json.dumps(content))
        return place

    return make


MAP = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.Tok", None]}


@pytest.mark.parametrize(
    "config",
    [
        {"auto_map": MAP, "model_type": "evil"},
        {"attn_implementation": "evil/kernel"},
        {"num_hidden_layers": 10**7},
        {"hidden_size": 10**6, "intermediate_size": 10**6},
        {"vocab_size": 10**10},
        {"vocab_size": "many"},
        {"num_attention_heads": 0},
    ],
)
def test_a_model_folder_that_names_code_or_claims_more_than_it_holds(refused, model, config):
    from expunge.tasks.pretrained import load_language_model

    load_language_model(model())  # what is imported and warmed up is no part of the measurement
    refused(load_language_model, model(**config))


@pytest.mark.parametrize("config", [{}, {"auto_map": MAP}])
def test_code_that_is_named_beside_a_known_kind_of_model_is_left_alone(model, tmp_path, capfd, config):
    """Many released models name their old code: the library's own is taken, and the release does not name it again."""
    from expunge.tasks.pretrained import load_language_model

    place = model(**config)
    settings = json.loads((place / "tokenizer_config.json").read_text())
    (place / "tokenizer_config.json").write_text(json.dumps(settings | {"auto_map": MAP} if config else settings))
    task, _ = load_language_model(place)
    assert not (tmp_path / "executed").exists() and capfd.readouterr().out == ""
    assert not any(b"evil" in content for content in task.beside.values())


def test_pickled_weights_in_a_model_folder_are_not_opened(refused, model, tmp_path):
    from expunge.tasks.pretrained import load_language_model

    place = model()
    (place / "model.safetensors").unlink()
    (place / "pytorch_model.bin").write_bytes(pickle.dumps(Code(tmp_path)))
    refused(load_language_model, place)


def test_a_gguf_file_whose_header_claims_layers_without_an_end(refused, model):
    from gguf import GGUFWriter

    from expunge.tasks.pretrained import load_language_model

    place = model()
    (place / "model.safetensors").unlink()
    writer = GGUFWriter(place / "m.gguf", "llama")
    writer.add_block_count(10**7)
    writer.add_tensor("token_embd.weight", np.zeros((8, 4), np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    assert "claims llama.block_count 10000000" in refused(load_language_model, place)
    (place / "m.gguf").write_bytes((place / "m.gguf").read_bytes()[:60])
    refused(load_language_model, place)
    (place / "m.gguf").write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 16)
    refused(load_language_model, place)
