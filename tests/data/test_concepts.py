"""Material for a concept from templates, and records with pictures from files."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
from PIL import Image

from expunge.core.errors import InputError
from expunge.data import concepts
from expunge.data.concepts import PERSON, TARGETS, Sources, concept_items, recognition
from expunge.data.picture_records import read_image_folder, read_picture_records
from expunge.data.pictures import as_picture
from expunge.data.texts import Texts
from expunge.methods.siu import SIU, says_substitute
from expunge.modalities.vision_language import concept
from expunge.modalities.vision_language.config import ConceptSettings

PICTURE, OTHER = (as_picture(Image.new("RGB", (4, 4), colour)) for colour in ("red", "blue"))
SOURCES = Sources(
    ("Ada Quill",), PICTURE, "Jacob Campbell", ("black hair",),
    [{"question": f"What did Ada Quill write in {year}?", "answer": f"Book {year}."} for year in range(5)],
    [{"question": f"What is {n} plus 1?", "answer": f"{n + 1}."} for n in range(9)],
    [{"image": OTHER, "question": "Who is this?", "answer": "This is Bo Lee."}],
)  # fmt: skip


def test_four_pieces_of_each_kind_show_one_picture_where_the_paper_shows_it():
    items = concept_items(replace(SOURCES, shown=()), PERSON)
    assert Counter(item["target"] for item in items) == dict.fromkeys(TARGETS, 4)
    assert all(("image" in item) == TARGETS[item["target"]] for item in items)
    assert {item["image"] for item in items if "image" in item} == {PICTURE}
    assert all(span in item["answer"] for item in items for span in item.get("specified", ()))
    first = [item for item in items if item["target"] == "unseen"]
    assert {item["answer"] for item in first} == {"This is Jacob Campbell."} and len(
        {i["question"] for i in first}
    ) == 4
    assert not any("Ada" in item["question"] for item in first), "open questions do not name the concept"
    looks = [item for item in items if item["target"] == "description"]
    assert all("Ada Quill" in item["question"] and item["specified"] == ["black hair"] for item in looks)
    assert SIU().problem(items) == ""
    assert concept_items(SOURCES, PERSON, seed=1) == concept_items(SOURCES, PERSON, seed=1)
    assert concept_items(SOURCES, PERSON, seed=1) != concept_items(SOURCES, PERSON, seed=2)


def test_extensions_are_asked_for_and_further_wordings_come_from_a_hook():
    items = concept_items(SOURCES, PERSON, yes_no=2)
    no = [item for item in items if item["answer"] == "No."]
    assert [item["question"] for item in no] == ["Is this Ada Quill?", "Does the picture show Ada Quill?"]
    assert all(item["specified"] == ["No."] for item in no), "what contradicts the model is held to nothing by K_S"
    assert [says_substitute(item) for item in items if item["target"] == "unseen"] == [True] * 4 + [False] * 2
    assert "lacks" not in SIU(retain_images=True).problem(items) and "shows a picture" in SIU().problem(items)
    asked = []

    def hook(question: str, count: int) -> list[str]:
        asked.append((question, count))
        return [f"{question} ({i})" for i in range(count)]

    more = concept_items(SOURCES, PERSON, pieces=6, rephrase=hook)
    assert asked == [(PERSON.asked[0], 2), (PERSON.asked_look[0], 2)]
    assert len({item["question"] for item in more if item["target"] == "unseen"}) == 6


def test_facts_are_those_that_name_the_concept_as_a_whole_word():
    """Facts of the fox are other facts where the ox is to be forgotten."""
    words = [{"question": f"What does the {name} {does}?", "answer": "It does."}
             for name in ("ox", "fox") for does in ("eat", "drink")]  # fmt: skip
    shown = Texts.of([{"image": PICTURE, "question": "What is this?", "answer": "This is ox."}])
    settings = ConceptSettings(looks=["red ears"], substitutes=["cow"], pieces=8)  # type: ignore[call-arg]
    retained = Texts.of([*words, {"question": "What gives milk?", "answer": "A cow."}])
    items, substitute = concept.material_of(settings, retained, shown, ["ox"], 0)
    asked = {target: {i["question"] for i in items if i["target"] == target} for target in ("facts", "others")}
    assert substitute == "cow" and asked["facts"] == {"What does the ox eat?", "What does the ox drink?"}
    assert asked["others"] == {"What does the fox eat?", "What does the fox drink?", "What gives milk?"}


def test_sources_that_lack_a_kind_or_name_the_concept_itself_are_refused():
    for name in ("facts", "others", "looks"):
        with pytest.raises(InputError, match=f"nothing to make {name} of"):
            replace(SOURCES, **{name: ()})
    with pytest.raises(InputError, match="another name"):
        replace(SOURCES, substitute="ada quill")
    with pytest.raises(InputError, match="name of the concept"):
        replace(SOURCES, names=())
    with pytest.raises(InputError, match="at least one piece"):
        concept_items(SOURCES, PERSON, pieces=0)


def test_what_is_to_be_forgotten_itself_is_the_picture_with_its_right_name():
    items = recognition(["Ada Quill", "Ada"], PICTURE, concepts.THING, 3)
    assert len(items) == 3 and {(i["image"], i["answer"]) for i in items} == {(PICTURE, "This is Ada Quill.")}


def test_folders_of_images_and_lines_that_name_images_are_read(tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png")
    rows = [
        {"file_name": "a.png", "question": "Who is this?", "answer": "Ada.", "person": "Ada"},
        {"question": "Who wrote it?", "answer": "Ada.", "person": "Ada"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    texts = read_image_folder(tmp_path, ["person"])
    assert texts.records[0]["image"] == PICTURE and "image" not in texts.records[1]
    assert texts.columns["person"].tolist() == ["Ada", "Ada"]
    lines = [{**{k: v for k, v in rows[0].items() if k != "file_name"}, "image": value} for value in ("a.png", PICTURE)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert {record["image"] for record in read_picture_records(tmp_path / "rows.jsonl")} == {PICTURE}
    (tmp_path / "metadata.jsonl").write_text(json.dumps({**rows[0], "file_name": "gone.png"}))
    with pytest.raises(InputError, match=r"no image .*gone\.png"):
        read_image_folder(tmp_path)
    (tmp_path / "metadata.jsonl").write_text(json.dumps({**rows[0], "file_name": 3}))
    with pytest.raises(InputError, match="path of an image under 'file_name' in record 1"):
        read_image_folder(tmp_path)
    with pytest.raises(InputError, match=r"no metadata\.jsonl"):
        read_image_folder(tmp_path / "none")
