"""Who was forgotten stays out of the next training, whatever trains it: tables, JSON lines, images, frames in memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import expunge
from expunge.core.errors import InputError
from expunge.core.keys import subject_key
from expunge.core.request import Request, Target
from expunge.data.images import image_folder
from expunge.data.marks import marks_of
from expunge.data.rows import Rows
from expunge.data.texts import Texts
from expunge.jobs.exclusion import exclude
from expunge.ledger import Ledger
from expunge.planning.matched import files_of
from expunge.requests_book import RequestBook

PEOPLE = ["Ann", "Bo", "007", "Cy", "Ann", "Zoë"]


def grant(path: Path, data, *targets: Target, subject: str = "somebody") -> str:
    """What a granted request leaves on a ledger, made by the code that runs a job."""
    request = Request(subject, targets)
    deletion = expunge.Deletion.of(data, request)
    with Ledger(path, create=not path.exists()) as ledger:
        book, key = RequestBook(ledger), subject_key()
        book.file_request(request.record(key))
        matched = {"count": deletion.size, "marks": marks_of(deletion, targets, key)}
        book.decide(request.id(key), {"decision": "grant", "reason": "asked", "by": "x", "matched": matched})
    return request.id(key)


@pytest.fixture
def ledger(tmp_path) -> Path:
    """Ann and 007 were forgotten from rows of a table, and a single record from texts."""
    path = tmp_path / "book.sqlite"
    rows = Rows.of(np.eye(6), np.array([0, 1] * 3), {"patient": PEOPLE}, names=("no", "yes"))
    grant(path, rows, Target("user", {"patient": ["Ann", "007"]}))
    texts = Texts.of([{"text": "a secret"}, {"text": "something else"}], {"author": ["x", "y"]})
    grant(path, texts, Target("samples", {"ids": [0]}), subject="another")
    return path


STAY = ["Bo", "Cy", "Zoë"]


def test_a_frame_keeps_only_who_may_be_learnt(ledger, monkeypatch):
    frame = pd.DataFrame({"patient": PEOPLE, "a": range(6)})
    assert frame[~expunge.excluded(frame, "patient", ledger=ledger)]["patient"].tolist() == STAY
    monkeypatch.setenv("EXPUNGE_LEDGER", str(ledger))
    assert expunge.excluded({"patient": PEOPLE}, "patient").tolist() == [True, False, True, False, True, False]
    several = {"patient": [["Bo", "Ann"], ["Cy"]]}  # a row that belongs to two people goes with either
    assert expunge.excluded(several, "patient").tolist() == [True, False]


def test_a_table_is_copied_without_them_field_by_field(cli, ledger, tmp_path):
    lines = ["patient,note,y", *(f'{who},"a, ""b""\nc",{i}' for i, who in enumerate(PEOPLE))]
    (tmp_path / "d.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = cli("exclude", "d.csv", "--ledger", ledger, "--users", "patient", "--out", "kept.csv", "--json")
    assert done.code == 0, done.err
    assert (done.json["examples"], done.json["excluded"], done.json["kept"]) == (6, 3, 3)
    assert len(done.json["requests"]) == 1 and len(done.json["elsewhere"]) == 1
    kept = pd.read_csv(tmp_path / "kept.csv", dtype=str)
    assert kept["patient"].tolist() == STAY and kept["y"].tolist() == ["1", "3", "5"] and kept["note"][0] == 'a, "b"\nc'
    shown = cli("exclude", "d.csv", "--ledger", ledger, "--users", "patient", "--out", "again.csv")
    assert "3 of 6 examples kept" in shown.out and "Nothing of 1 further" in shown.out


def test_a_class_that_was_forgotten_is_known_by_its_name(tmp_path):
    rows = Rows.of(np.eye(4), np.array([0, 1, 0, 1]), names=("cat", "dog"))
    grant(tmp_path / "book.sqlite", rows, Target("class", {"label": "dog"}))
    frame = {"kind": ["dog", "cat", "dog"]}
    assert expunge.excluded(frame, label="kind", ledger=tmp_path / "book.sqlite").tolist() == [True, False, True]


def test_json_lines_are_known_by_people_and_by_content(ledger, tmp_path):
    records = [{"text": "a secret", "patient": "Bo"}, {"text": "b", "patient": "Ann"}, {"text": "c", "patient": "Bo"}]
    records += [{"messages": [{"role": "user", "content": "d"}], "patient": ["Cy", "007"]}]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    done = exclude(tmp_path / "d.jsonl", tmp_path / "kept.jsonl", users=["patient"], ledger=ledger)
    assert done["kept"] == 1 and len(done["requests"]) == 2 and done["elsewhere"] == []
    assert [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()] == records[2:3]


@pytest.fixture
def images(tmp_path) -> Path:
    for i, who in enumerate(PEOPLE[:4]):
        place = tmp_path / "images" / ("cat" if i % 2 else "dog") / f"{who}-{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((2, 2, 3), i, dtype=np.uint8)).save(place)
    return tmp_path / "images"


def listing(tmp_path: Path, lines: list[str]) -> Path:
    (tmp_path / "who.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "who.csv"


OWNERS = [
    "path,patient",
    "dog/Ann-0.png,Ann",
    "cat/Bo-1.png,Bo",
    "dog/007-2.png,Cy",
    "cat/Cy-3.png,Cy",
    "cat/Cy-3.png,Ann",
]


def test_images_are_copied_without_them(ledger, images, tmp_path):
    pattern = "/(?P<patient>[^/]+)-[0-9]+[.]png$"
    assert exclude(images, tmp_path / "one", users=[pattern], ledger=ledger)["kept"] == 2
    assert sorted(path.name for path in (tmp_path / "one").rglob("*.png")) == ["Bo-1.png", "Cy-3.png"]
    done = exclude(images, tmp_path / "two", users=[str(listing(tmp_path, OWNERS))], ledger=ledger)
    assert done["kept"] == 2  # the table says whose they are, and one picture shows two people
    assert sorted(path.name for path in (tmp_path / "two").rglob("*.png")) == ["007-2.png", "Bo-1.png"]


def test_a_table_says_whose_each_image_is(images, tmp_path):
    rows = image_folder(images, users=listing(tmp_path, OWNERS))
    paths = ["cat/Bo-1.png", "cat/Cy-3.png", "dog/007-2.png", "dog/Ann-0.png"]
    order = {path: i for i, path in enumerate(sorted(paths, key=lambda path: (path.split("/")[0], path)))}
    found = rows.select(Target("user", {"patient": "Ann"}))["row"]
    assert (
        len(found) == 2 and len(rows.select(Target("user", {"patient": "Cy"}))["row"]) == 2 and len(order) == len(rows)
    )


def test_single_images_are_asked_for_by_their_paths_and_known_again_by_their_bytes(images, tmp_path):
    rows, book = image_folder(images), tmp_path / "images.sqlite"
    wanted = Target("samples", {"path": ["dog/Ann-0.png", "./cat/Cy-3.png", str(images / "dog/007-2.png")]})
    found = rows.select(wanted)["row"]
    assert rows.files_at(found.tolist()) == ["cat/Cy-3.png", "dog/007-2.png", "dog/Ann-0.png"]
    assert len(rows.without(rows.select(wanted)).select(Target("samples", {"path": "cat/Bo-1.png"}))) == 1, (
        "places move"
    )
    grant(book, rows, wanted)
    deletion = expunge.Deletion.of(rows, Request("somebody", wanted))
    assert files_of(deletion) == {"files": ["cat/Cy-3.png", "dog/007-2.png", "dog/Ann-0.png"]}, "what plans show"
    copy = tmp_path / "copied"  # under other names and other classes, with nobody named
    for i, place in enumerate(sorted(images.rglob("*.png"))):
        (copy / "all").mkdir(parents=True, exist_ok=True)
        (copy / "all" / f"{9 - i}.png").write_bytes(place.read_bytes())
    done = exclude(copy, tmp_path / "kept", ledger=book)
    assert (done["kept"], done["excluded"], done["elsewhere"]) == (1, 3, [])
    (left,) = (tmp_path / "kept").rglob("*.png")
    assert left.read_bytes() == (images / "cat/Bo-1.png").read_bytes()


def test_images_of_a_person_are_known_again_where_the_folder_names_nobody(images, tmp_path):
    rows, book = image_folder(images, users=listing(tmp_path, OWNERS)), tmp_path / "images.sqlite"
    grant(book, rows, Target("user", {"patient": "Bo"}))
    assert exclude(images, tmp_path / "kept", ledger=book)["excluded"] == 1
    assert not (tmp_path / "kept/cat/Bo-1.png").exists()


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"path": "Ann-0.png"}, "there is 'dog/Ann-0.png'"),
        ({"path": ["dog/Ann-0.png", "pictures/cat/Bo-1.png"]}, "'pictures/cat/Bo-1.png' .there is 'cat/Bo-1.png'"),
        ({"path": "cat/Bo-11.png"}, "there is 'cat/Bo-1.png'"),
        ({"path": 3}, "in texts"),
        ({"file": "cat/Bo-1.png"}, "'ids': …} or {'path': …}; got .'file'"),
        ({"path": "cat/Bo-1.png", "ids": [1]}, "samples target"),
    ],
)
def test_a_path_that_is_none_is_refused_with_what_it_may_mean(images, where, said):
    with pytest.raises(InputError, match=said):
        expunge.Deletion.of(image_folder(images), Request("somebody", Target("samples", where)))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([*OWNERS, "pictures/cat/Bo-1.png,Bo"], "there is 'cat/Bo-1.png'.. Paths begin in the folder of images"),
        ([*OWNERS, "nothing,Bo"], "an image is called, for example, 'cat/Bo-1.png'"),
        ([*OWNERS, "dog/none.png,Bo"], "dog/none.png, which is not among the images"),
        (OWNERS[:-2], "does not say whose cat/Cy-3.png is"),
        (["file,patient", *OWNERS[1:]], "a column path"),
        (["path,patient", "dog/Ann-0.png, ", *OWNERS[2:]], "names nobody for dog/Ann-0.png"),
    ],
)
def test_a_table_of_owners_that_cannot_be_used_is_refused(images, tmp_path, lines, said):
    with pytest.raises(InputError, match=said):
        image_folder(images, users=listing(tmp_path, lines))


def test_what_cannot_be_asked_of_a_frame_is_refused(ledger, tmp_path, monkeypatch):
    monkeypatch.delenv("EXPUNGE_LEDGER", raising=False)
    with pytest.raises(InputError, match="EXPUNGE_LEDGER"):
        expunge.excluded({"patient": PEOPLE}, "patient")
    with pytest.raises(InputError, match="no ledger"):
        expunge.excluded({"patient": PEOPLE}, "patient", ledger=tmp_path / "none.sqlite")
    with pytest.raises(InputError, match="a column 'who'; there are patient"):
        expunge.excluded({"patient": PEOPLE}, "who", ledger=ledger)
    with pytest.raises(InputError, match="names nobody"):
        expunge.excluded({"patient": ["Ann", None]}, "patient", ledger=ledger)
    with pytest.raises(InputError, match="a column that names people"):
        expunge.excluded({"patient": PEOPLE}, ledger=ledger)


def test_a_file_that_cannot_be_used_leaves_nothing_behind(ledger, tmp_path):
    (tmp_path / "d.csv").write_text("patient,y\nAnn,1\n007,2\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    for source, users, said in (
        ("d.csv", ["patient"], "nothing would be kept"),
        ("d.csv", ["who"], "no column who"),
        ("d.csv", [], "Name the columns"),
        ("d.txt", ["patient"], "Expected .csv"),
        ("none.csv", ["patient"], "no file"),
    ):
        with pytest.raises(InputError, match=said):
            exclude(tmp_path / source, tmp_path / "out.csv", users=users, ledger=ledger)
    with pytest.raises(InputError, match="there already"):
        exclude(tmp_path / "d.csv", tmp_path / "d.csv", users=["patient"], ledger=ledger)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_parquet_and_folders_of_datasets_are_copied_without_them(ledger, tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="needs the extra arrow")
    frame = pd.DataFrame({"patient": PEOPLE, "n": range(6)})
    frame.to_parquet(tmp_path / "d.parquet")
    folder = tmp_path / "saved"
    folder.mkdir()
    table = arrow.Table.from_pandas(frame, preserve_index=False)
    for i, part in enumerate((table.slice(0, 4), table.slice(4))):
        with (
            arrow.OSFile(str(folder / f"data-{i}.arrow"), "wb") as sink,
            arrow.ipc.new_stream(sink, part.schema) as stream,
        ):
            stream.write_table(part)
    state = {"_data_files": [{"filename": "data-0.arrow"}, {"filename": "data-1.arrow"}], "_indices_data_files": None}
    (folder / "state.json").write_text(json.dumps(state))
    for source in (tmp_path / "d.parquet", folder):
        out = tmp_path / f"{source.stem}.kept.parquet"
        assert exclude(source, out, users=["patient"], ledger=ledger)["kept"] == 3
        kept = pd.read_parquet(out)
        assert kept["patient"].tolist() == STAY and kept["n"].tolist() == [1, 3, 5]
    (folder / "state.json").write_text(json.dumps({**state, "_data_files": [{"filename": "../d.parquet"}]}))
    with pytest.raises(InputError, match="outside of its folder"):
        exclude(folder, tmp_path / "x.parquet", users=["patient"], ledger=ledger)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InputError, match="cannot be read as a table"):
        exclude(tmp_path / "broken.parquet", tmp_path / "x.parquet", users=["patient"], ledger=ledger)
