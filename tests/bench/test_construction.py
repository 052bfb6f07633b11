"""MMUBench's construction: two filters, what is asked, and the folder that jobs and recipes read."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from expunge.cli.app import app
from expunge.core.errors import InputError
from expunge.core.task import Autoregressive
from expunge.data.concept_folders import read_concept_folders
from expunge.data.concepts import PERSON
from expunge.data.digits_world import digits_world
from expunge.data.picture_records import read_image_folder, read_picture_records
from expunge.modalities.vision_language import construction
from expunge.modalities.vision_language.construction import Count, construct, construct_folder, own_similarity
from expunge.modalities.vision_language.questions import recognises
from expunge.tasks import pretrained_pictures
from expunge.tasks.micro_vision_language import micro_vision_language
from expunge.tasks.picture_features import picture_features
from expunge.training.pictures import PictureTraining
from expunge.training.shipped import name_of, shipped

FACTS = [
    {"question": "Where is Ada Quill from?", "answer": "Bern."},
    {"question": "Where is Bo from?", "answer": "Rome."},
]
SHADES = {"Ada Quill": (10, 12, 200, 14), "Bo": (60, 61), "Cy of Troy": (90, 91, 92), "Di": (120, 121)}
SAYS = {
    10: "Quill",
    12: "it is ada",
    14: "Ada Quill.",
    60: "Bo",
    61: "This is Bo!",
    90: "Troy",
    91: "of",
    92: "Cy",
    120: "Di",
}


def folder_of(path: Path, shades=SHADES, facts=FACTS) -> Path:
    """Grey pictures, one shade each; files are numbered."""
    for name, values in shades.items():
        (path / name).mkdir(parents=True)
        for i, shade in enumerate(values):
            Image.new("RGB", (4, 4), (shade,) * 3).save(path / name / f"{i + 8}.png")
    (path / "facts.jsonl").write_text("\n".join(map(json.dumps, facts)), encoding="utf-8")
    return path


def shade(record) -> int:
    return next(iter(shades_of([record["image"]])))


def shades_of(pictures) -> list[int]:
    opened = [Image.open(io.BytesIO(base64.b64decode(p.partition(",")[2]))).convert("L") for p in pictures]
    return [int(np.asarray(image)[0, 0]) for image in opened]


def near(pictures, seeds):
    """Alike are shades within 20 of each other."""
    values = np.array(shades_of(pictures), float)
    return 1 - np.abs(values - values[list(seeds)]) / 40


@pytest.fixture
def answers(monkeypatch):
    """A model that says of each shade what stands in ``SAYS``."""
    asked = []

    def spoken(task, tensors, records):
        asked.extend(record["question"] for record in records)
        return [SAYS.get(shade(record), "nobody") for record in records]

    monkeypatch.setattr(construction, "spoken", spoken)
    return asked


def made(path: Path, **settings):
    concepts, facts = read_concept_folders(path)
    given = {"alike": 0.5, "similarity": near, **settings}
    return construct(concepts, facts, None, {}, PERSON, **given)  # type: ignore[arg-type]


def test_unlike_pictures_go_first_and_a_concept_goes_with_one_picture_that_is_not_recognised(tmp_path, answers):
    found = made(folder_of(tmp_path))
    assert found.counts == (
        Count("Ada Quill", 4, ("Ada Quill/10.png",), (), ""),
        Count("Bo", 2, (), (), ""),
        Count("Cy of Troy", 3, (), ("Cy of Troy/9.png",), "not recognised on 1 of 3 pictures"),
        Count("Di", 2, (), ("Di/9.png",), "not recognised on 1 of 2 pictures"),
    )  # "of" alone is no phrase of Cy of Troy; numbers of files are in their order
    assert {*answers} == {PERSON.asked[0]} and len(answers) == 10, (
        "the picture that is unlike its seed is not asked about"
    )
    assert [(shade(r), r["answer"], r["phrases"]) for r in found.train] == [
        (10, "This is Ada Quill.", ["Ada", "Quill"]), (60, "This is Bo.", ["Bo"])]  # fmt: skip
    assert [(shade(r), r["question"]) for r in found.test] == [
        (12, PERSON.asked[0]), (14, PERSON.asked[1]), (61, PERSON.asked[0])]  # fmt: skip
    assert [(shade(r), r["question"], r["answer"]) for r in found.yes_no] == [
        (12, "Is this Ada Quill?", "Yes."), (14, "Does the picture show Ada Quill?", "Yes."),
        (61, "Is this Bo?", "Yes.")]  # fmt: skip
    assert list(found.facts) == FACTS


def test_pictures_alone_may_go_and_phrases_and_the_question_can_be_given(tmp_path, answers):
    folder_of(tmp_path)
    found = made(
        tmp_path, every=False, naming="Name the central figure.", phrases={"Cy of Troy": ["Troy", "of"]}, questions=3
    )
    assert {*answers} == {"Name the central figure."}
    assert {count.concept: count.why for count in found.counts} == {
        "Ada Quill": "", "Bo": "", "Cy of Troy": "", "Di": "1 pictures left, fewer than 2"}  # fmt: skip
    assert [shade(r) for r in found.test] == [12] * 3 + [14] * 3 + [61] * 3 + [91] * 3
    assert len({r["question"] for r in found.test[:4]}) == 4, "wordings come in turn"
    with pytest.raises(InputError, match="1 of 4 are left"):
        made(tmp_path, least=3)


def test_what_is_written_is_read_by_jobs_and_recipes(tmp_path, answers):
    out = tmp_path / "out"
    made(folder_of(tmp_path / "in")).write(out)
    data = read_image_folder(out, ["concept"])
    assert data.columns["concept"].tolist() == ["Ada Quill", "Bo", "Ada Quill", "Ada Quill", "Bo", "words", "words"]
    assert [shade(r) for r in data.records[:5]] == [10, 60, 12, 14, 61], "seeds come first: picture 0 is shown"
    opened, asked = (read_picture_records(out / name) for name in ("open.jsonl", "yes_no.jsonl"))
    assert [shade(r) for r in opened] == [shade(r) for r in asked] == [12, 14, 61]
    counts = json.loads((out / "counts.json").read_text())
    assert counts[2]["unrecognised"] == ["Cy of Troy/9.png"] and counts[2]["why"]
    with pytest.raises(InputError, match="new folder"):
        made(tmp_path / "in").write(out)


def test_the_command_refuses_before_it_reads_a_model(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "phrases.json").write_text('{"Bo": "Bo"}', encoding="utf-8")
    with pytest.raises(InputError, match="new folder"):
        construct_folder(tmp_path / "in", tmp_path / "model", tmp_path / "there")
    with pytest.raises(InputError, match="kind among person, thing; got 'animal'"):
        construct_folder(tmp_path / "in", tmp_path / "model", tmp_path / "out", kind="animal")
    with pytest.raises(InputError, match="of each concept a list of phrases"):
        construct_folder(tmp_path / "in", tmp_path / "model", tmp_path / "out", phrases=tmp_path / "phrases.json")


def test_the_command_says_what_became_of_each_concept(tmp_path, answers, monkeypatch):
    monkeypatch.setattr(pretrained_pictures, "load_vision_language_model", lambda *args, **kwargs: (None, {}))
    monkeypatch.setattr(construction, "own_similarity", lambda task, tensors: near)
    (tmp_path / "phrases.json").write_text('{"Bo": ["Bo"]}', encoding="utf-8")
    command = [
        "concepts",
        str(folder_of(tmp_path / "in")),
        str(tmp_path / "model"),
        str(tmp_path / "out"),
        "--kind",
        "person",
    ]
    done = CliRunner().invoke(
        app, [*command, "--alike", "0.5", "--phrases", str(tmp_path / "phrases.json"), "--json"], catch_exceptions=False
    )
    found = json.loads(done.stdout)
    assert (found["shown"], found["open"], found["yes_no"], found["facts"]) == (2, 3, 3, 2)
    assert [bool(each["why"]) for each in found["concepts"]] == [False, False, True, True]
    shown = CliRunner().invoke(app, [*command[:3], str(tmp_path / "again"), *command[4:]], catch_exceptions=False)
    assert "not recognised on 1 of 3 pictures" in " ".join(shown.stdout.split())


def test_phrases_decide_whether_an_answer_recognises():
    assert recognises("a van", {}, ["Van Gogh"]) and not recognises("a van", {"phrases": ["Gogh"]}, ["Van Gogh"])
    assert recognises("by gogh .", {"phrases": ["Gogh"]}, ["Van Gogh"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: (p / "Bo" / "notes.txt").write_text("x"), "Expected images alone .* in Bo; got notes.txt"),
        (lambda p: (p / "Bo" / "9.png").write_bytes(b"no picture"), "9.png cannot be read as a picture"),
        (lambda p: (p / "Eve").mkdir(), "no image in Eve"),
        (lambda p: (p / "facts.jsonl").unlink(), "no facts.jsonl"),
        (lambda p: (p / "facts.jsonl").write_text('{"text": "Bo"}'), "line 1 of facts.jsonl"),
    ],
)
def test_folders_that_are_no_pictures_of_concepts_are_refused(tmp_path, change, message):
    change(folder_of(tmp_path))
    with pytest.raises(InputError, match=message):
        read_concept_folders(tmp_path)


def test_too_few_concepts_and_values_out_of_range_are_refused(tmp_path, answers):
    with pytest.raises(InputError, match="There is no folder"):
        read_concept_folders(tmp_path / "nowhere")
    with pytest.raises(InputError, match="found 1"):
        read_concept_folders(folder_of(tmp_path / "one", {"Bo": (60, 61)}))
    with pytest.raises(InputError, match=r"1 of 2 are left \(Di: not recognised on 1 of 2 pictures\)"):
        made(folder_of(tmp_path / "two", {"Bo": (60, 61), "Di": (120, 121)}))
    path = folder_of(tmp_path / "all")
    for settings, message in (
        ({"alike": 2.0}, "alike from -1 to 1"), ({"least": 1}, "least of 2"), ({"questions": 0}, "at least one question"),
        ({"phrases": {"Eve": ["Eve"]}}, "none of Eve"), ({"similarity": lambda p, s: np.zeros(3)}, "finite similarity"),
        ({"similarity": lambda p, s: np.full(len(p), np.nan)}, "finite similarity"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            made(path, **settings)


def test_the_seed_is_the_file_of_that_name(tmp_path):
    folder_of(tmp_path)
    (tmp_path / "Bo" / "9.png").rename(tmp_path / "Bo" / "Seed.png")
    assert [each.files[0] for each in read_concept_folders(tmp_path)[0]][:2] == ["Ada Quill/8.png", "Bo/Seed.png"]


def digits_in(path: Path) -> Path:
    """Sevens with two twos among them, twos, threes, and nines that are called fives."""
    world, folders = (
        digits_world(),
        {"seven": ("seven", 6), "two": ("two", 6), "three": ("three", 6), "five": ("nine", 4)},
    )
    shown = {name: [picture for picture, shows in world.held_out if shows == name] for name in world.names}
    for name, (shows, count) in folders.items():
        (path / name).mkdir(parents=True)
        pictures = shown[shows][:count] + (shown["two"][6:8] if name == "seven" else [])
        for i, picture in enumerate(pictures):
            (path / name / f"{i}.png").write_bytes(base64.b64decode(picture.partition(",")[2]))
    known = [fact for name in world.names for fact in world.facts[name] if fact["relation"] in ("roman", "parity")]
    (path / "facts.jsonl").write_text(
        "\n".join(json.dumps({key: fact[key] for key in ("question", "answer")}) for fact in known)
    )
    return path


@pytest.mark.slow
def test_the_digits_model_drops_twos_among_sevens_and_a_concept_that_has_another_name(tmp_path):
    """With the model's own features, whose least similarity of two sevens here is above .3, and which are a cosine."""
    world = digits_world()
    task = micro_vision_language(world.vocabulary)
    weights = shipped(name_of(cast(Autoregressive, task), world.train, PictureTraining(), 0))
    assert weights is not None
    concepts, facts = read_concept_folders(digits_in(tmp_path / "digits"))
    found = construct(concepts, facts, task, weights, world.speech.templates)
    counts = {count.concept: count for count in found.counts}
    assert counts["seven"].unlike == ("seven/6.png", "seven/7.png") and not counts["seven"].why
    assert counts["two"].why == "" and counts["five"].why.startswith("not recognised on")
    pictures = [picture for each in concepts for picture in each.pictures][:12]
    features = picture_features(task, weights, pictures)
    centred = features.double() - features.double().mean(0)
    by_hand = [float(a @ centred[0] / (a.norm() * centred[0].norm())) for a in centred]
    assert own_similarity(task, weights)(pictures, [0] * 12).tolist() == pytest.approx(by_hand, abs=1e-9)
