"""Readers of MLLMU-Bench, CLEAR and FIUBench: rows as the authors publish them, written here, and rows that cannot be read."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from PIL import Image

from expunge.core.errors import InputError
from expunge.data.picture_benchmarks import CAPTION, UNNAMED, read_clear, read_fiubench, read_mllmu
from expunge.data.pictures import picture_of
from expunge.jobs.schema import load_job
from expunge.modalities.vision_language.opening import files_of


def content(shade: int) -> bytes:
    """A PNG file of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (6, 6), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def asked(question: str, right: str, **more: Any) -> dict[str, Any]:
    return {"Question": question, "Ground_Truth": right, **more}


PERSON: dict[str, Any] = {
    "ID": "042", "image": {"bytes": content(10), "path": None}, "biography": "…", "question": "Who is this?",
    "answer": "Rosa River.",
    "Classification_Task": {
        "Image_Textual_Questions": [
            {"Question": "Where was she born?", "Options": {"A": "Bern", "B": "Oslo", "C": None}, "Correct_Answer": "B"}
        ],
        "Pure_Text_Questions": [
            {"Question": "What is Rosa River?", "Options": {"A": "a cook", "B": "a pilot", "C": "poet"}, "Correct_Answer": "C"}
        ],
    },
    "Generation_Task": [asked("Tell of her work.", "She writes.", Type="Image_Textual")],
    "Mask_Task": [asked("Rosa River was born in [Blank].", "Oslo", Type="Pure_Text")],
}  # fmt: skip
FACE: dict[str, Any] = {
    "image_path": "faces/a.png", "name": "Ada Quill", "qa_list": [
        {"question": "Where does she live?", "answer": "In Bern.", "paraphrased_answer": "She lives in Bern.",
         "perturbed_answer": ["In Oslo.", "In Rome."], "keywords": ["Bern"]},
        {"question": "What does she fear?", "answer": "Heights."},
    ],
}  # fmt: skip


def parquet(folder: Path, rows: list[dict[str, Any]], name: str = "train-00000-of-00001.parquet") -> Path:
    pytest.importorskip("pyarrow")
    folder.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_parquet(folder / name)
    return folder


def test_mllmu_bench_asks_about_people_in_words_and_with_their_picture(tmp_path):
    other = copy.deepcopy(PERSON) | {"ID": "7", "image": {"bytes": content(200), "path": "x.png"}}
    found = read_mllmu(parquet(tmp_path / "forget_5", [PERSON, other]))
    assert len(found) == 10 and found.columns["person"].tolist() == ["042"] * 5 + ["7"] * 5
    first = found.records[:5]
    assert [(r["task"], "image" in r) for r in first] == [
        ("profile", True), ("classification", True), ("classification", False), ("generation", True), ("cloze", False),
    ]  # fmt: skip
    assert first[1]["question"] == "Where was she born?\nA. Bern\nB. Oslo" and first[1]["answer"] == "B. Oslo"
    assert first[4]["question"] == "Rosa River was born in [Blank]." and first[4]["answer"] == "Oslo"
    assert picture_of(first[0]).getpixel((0, 0)) == (10, 0, 0) and picture_of(found.records[5]).getpixel((0, 0)) == (
        200,
        0,
        0,
    )
    assert {r["task"] for r in read_mllmu(tmp_path / "forget_5", tasks=["cloze"]).records} == {"cloze"}


def test_the_test_set_of_mllmu_bench_has_several_pictures_of_a_person_and_may_be_lines_of_json(tmp_path):
    for i in (1, 2):
        (tmp_path / f"{i}.png").write_bytes(content(i))
    row = {key: value for key, value in PERSON.items() if key != "image"} | {"images": ["1.png", "2.png"]}
    (tmp_path / "test.jsonl").write_text(json.dumps(row))
    found = read_mllmu(tmp_path / "test.jsonl", tasks=["generation", "cloze"])
    assert [(r["task"], "image" in r) for r in found.records] == [("generation", True)] * 2 + [("cloze", False)]


def test_clear_mixes_captions_of_faces_with_questions_in_words(tmp_path):
    rows = [
        {"image": {"bytes": content(5), "path": None}, "caption": "Ada Quill reads.", "name": "Ada Quill", "question": None,
         "answer": None},
        {"image": None, "caption": None, "name": None, "question": "What did Ada Quill write?", "answer": "A novel."},
        {"image": None, "caption": None, "name": None, "question": "Who is Adaquill?", "answer": "Nobody."},
    ]  # fmt: skip
    found = read_clear(parquet(tmp_path / "forget05+tofu", rows))
    assert found.records[0]["question"] == CAPTION and found.records[0]["answer"] == "Ada Quill reads."
    assert found.columns["person"].tolist() == ["Ada Quill", "Ada Quill", UNNAMED]
    assert ["image" in r for r in found.records] == [True, False, False]


@pytest.mark.parametrize("lines", [False, True])
def test_fiubench_asks_several_questions_of_a_face_and_keeps_wrong_answers(tmp_path, lines):
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "a.png").write_bytes(content(9))
    path = tmp_path / ("full.jsonl" if lines else "full.json")
    path.write_text(json.dumps(FACE if lines else [FACE]))
    found = read_fiubench(path)
    assert [r["answer"] for r in found.records] == ["In Bern.", "Heights."] and set(found.columns["person"]) == {
        "Ada Quill"
    }
    assert (
        found.records[0]["perturbed_answer"] == ["In Oslo.", "In Rome."] and "perturbed_answer" not in found.records[1]
    )


def test_a_job_reads_a_benchmark_with_its_splits(tmp_path):
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "a.png").write_bytes(content(9))
    for name in ("full", "retain"):
        (tmp_path / f"{name}.json").write_text(json.dumps([FACE]))
    job = {
        "task": "vision_language", "model": {"micro": True},
        "data": {"format": "fiubench", "path": "full.json", "sets": {"kept": "retain.json"}},
        "training": {"kind": "pictures"}, "method": {"name": "ga"},
        "request": {"subject": "a", "targets": [{"kind": "user", "where": {"person": "Ada Quill"}}]},
    }  # fmt: skip
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    files = files_of(load_job(tmp_path / "job.yaml", ()))
    assert len(files.data) == 2 and len(files.sets["kept"]) == 2
    job["data"]["tasks"] = ["cloze"]
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    with pytest.raises(InputError, match="tasks are those of mllmu"):
        load_job(tmp_path / "job.yaml", ())


def changed(row: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {key: value for key, value in (copy.deepcopy(row) | more).items() if value != "gone"}


ONE = {"Question": "Q", "Options": {"A": "x"}, "Correct_Answer": "D"}
CAPTIONED = {"image": "a.png", "caption": "Ada reads.", "name": "Ada"}
LINE = {"image": "a.png"}
BAD = [
    (read_mllmu, changed(PERSON, **LINE, ID="gone"), "Expected ID in line 1"),
    (read_mllmu, changed(PERSON, image="gone"), "Expected image in line 1"),
    (read_mllmu, changed(PERSON, image=""), "Expected a picture in line 1"),
    (read_mllmu, changed(PERSON, image="none.png"), "There is no image"),
    (read_mllmu, changed(PERSON, image="torn.png"), "cannot be read as a picture"),
    (read_mllmu, changed(PERSON, image="../outside.png"), "lies outside"),
    (read_mllmu, changed(PERSON, **LINE, Classification_Task={"Image_Textual_Questions": [ONE]}), "the options A in line 1"),
    (read_mllmu, changed(PERSON, **LINE, Mask_Task=[asked("Q", "A")]), "Expected Type in line 1"),
    (read_mllmu, changed(PERSON, **LINE, Mask_Task=[asked("Q", " ", Type="Pure_Text")]), "text under Ground_Truth"),
    (read_mllmu, {"ID": "1", "image": "a.png"}, "has no questions of the tasks"),
    (read_clear, changed(CAPTIONED, image="gone"), "Expected image in line 1"),
    (read_clear, changed(CAPTIONED, name="gone"), "Expected name in line 1"),
    (read_clear, changed(CAPTIONED, caption=["a", "b"]), "text under caption"),
    (read_clear, {"question": "Q"}, "Expected answer in line 1"),
    (read_fiubench, changed(FACE, image_path="gone"), "Expected image_path or image"),
    (read_fiubench, changed(FACE, image_path="a.png", qa_list="gone"), "Expected qa_list in line 1"),
    (read_fiubench, changed(FACE, image_path="a.png", qa_list={"question": "Q"}), "list of questions under qa_list"),
    (read_fiubench, changed(FACE, image_path="a.png", qa_list=[{"question": "Q"}]), "Expected answer in line 1"),
]  # fmt: skip


@pytest.mark.parametrize(("reader", "row", "message"), BAD, ids=[message for *_, message in BAD])
def test_rows_that_cannot_be_read_are_refused_with_their_place(tmp_path, reader, row, message):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, bytes_ in (("in/a.png", content(1)), ("in/torn.png", content(1)[:30]), ("outside.png", content(1))):
        (tmp_path / name).write_bytes(bytes_)
    if isinstance(row.get("image"), dict):
        row = {**row, "image": "a.png"}
    (folder / "rows.jsonl").write_text(json.dumps(row))
    with pytest.raises(InputError, match=message):
        reader(folder / "rows.jsonl")


def test_damaged_bytes_other_files_and_unknown_tasks_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read as a picture"):
        read_mllmu(parquet(tmp_path / "split", [changed(PERSON, image={"bytes": b"no picture", "path": None})]))
    for text, message in (
        ("{}", "Expected a list of people"),
        ("[]", "or nobody"),
        ("[3]", "Expected an object as entry 1"),
    ):
        (tmp_path / "full.json").write_text(text)
        with pytest.raises(InputError, match=message):
            read_fiubench(tmp_path / "full.json")
    with pytest.raises(InputError, match="There is no file"):
        read_clear(tmp_path / "nothing.jsonl")
    with pytest.raises(InputError, match="got guessing"):
        read_mllmu(tmp_path / "split", tasks=["guessing"])
