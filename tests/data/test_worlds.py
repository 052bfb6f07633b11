"""Worlds that can be seen: what is held out, what their facts say, and what becomes of damaged data."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from expunge.core.errors import InputError
from expunge.data.characters_world import characters_world
from expunge.data.digits_world import digits_world
from expunge.data.emoji_world import chosen, emoji_world, look
from expunge.data.picture_world import CONCEPT, MEASURED, WORDS
from expunge.data.pictures import IMAGE
from expunge.data.views import varied
from expunge.tasks.micro_language import word_tokenizer

COLOURS = [(250, 0, 0), (0, 200, 0), (0, 0, 250), (250, 220, 0)]
CATEGORIES = ("Activities", "Animals & Nature", "Food & Drink", "Objects", "Travel & Places")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Emoji of our own: ten concepts, one colour each, in two styles and a third for testing; two names that are no words."""
    place = tmp_path_factory.mktemp("emoji")
    names = ["ball", "skis", "ant", "bee", "egg", "fig", "bed", "pen", "bus", "sun", "hot dog", "T-rex"]
    for split, styles in (("train", ("a", "b")), ("test", ("c",))):
        rows = []
        for i, name in enumerate(names):
            for j, style in enumerate(styles):
                file = place / split / f"{style}-{i}.png"
                file.parent.mkdir(exist_ok=True)
                image = Image.new("RGB", (16, 16), "white")
                image.paste(COLOURS[i % 4], (2, 2, 12, 12))
                image.paste((30 * j, 30, 30), (12, 12, 14, 14))
                image.save(file)
                category = CATEGORIES[i // 2] if i < 10 else CATEGORIES[2]
                rows.append({"file_name": file.name, "concept": name, "category": category, "style": style})
        (place / split / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return place


@pytest.fixture(scope="module")
def emoji(folder):
    return emoji_world(folder, each=2, views=3, side=16)


WORLDS = ["emoji", "characters", "digits"]


@pytest.fixture(scope="module")
def world(request, emoji):
    return {"emoji": emoji, "characters": characters_world(1), "digits": digits_world()}[request.param]


@pytest.mark.parametrize("world", WORLDS, indirect=True)
def test_what_is_held_out_is_never_trained_on(world):
    trained = {record[IMAGE] for record in world.train.records if IMAGE in record}
    held = {picture for picture, _ in (*world.held_out, *world.other_style)}
    assert held and not trained & held
    assert {name for _, name in world.held_out} == {*world.names}
    assert {name for _, name in world.other_style} in (set(), {*world.names})
    shown = {*world.train.columns[CONCEPT].tolist()}
    assert shown == {*world.names, WORDS}


@pytest.mark.parametrize("world", WORLDS, indirect=True)
def test_questions_by_yes_or_no_are_right_half_of_the_time_and_wordings_for_measuring_are_not_in_items(world):
    asked = [record for record in world.train.records if record.get("asks") == "yes or no"]
    for record in asked:
        (name,) = [name for name in world.names if name in record["question"].split()]
        assert record["answer"] == ("yes ." if name == record["shows"] else "no .")
    assert 0.4 < np.mean([record["answer"] == "yes ." for record in asked]) < 0.6 or len(asked) < 100
    first, *_ = world.names
    assert all(record["answer"] == "yes ." for record in world.yes_no(first))
    assert all(
        record["answer"] == "no ." and f" {first} " not in record["question"]
        for record in world.yes_no(first, right=False)
    )
    assert not {*world.speech.asked[-MEASURED:]} & {*world.speech.templates.asked}
    assert {record["question"] for record in world.named(*world.names)} == {*world.speech.asked[-MEASURED:]}


@pytest.mark.parametrize("world", WORLDS, indirect=True)
def test_every_word_is_in_the_vocabulary_and_every_concept_is_one_word_with_a_substitute_and_a_look(world):
    tokenizer = word_tokenizer(world.vocabulary)
    texts = [record[key] for record in world.train.records for key in ("question", "answer")]
    assert tokenizer.unk_token_id not in {t for ids in tokenizer(sorted({*texts}))["input_ids"] for t in ids}
    for name in world.names:
        assert " " not in name and name not in world.alike[name] and {*world.alike[name]} < {*world.names}
        assert world.looks[name] and world.facts[name]


def test_facts_of_emoji_are_true_of_their_names(emoji):
    assert emoji.names == ("ant", "ball", "bed", "bee", "bus", "egg", "fig", "pen", "skis", "sun")
    said = {(record["relation"], record["answer"]) for record in emoji.facts["bee"]}
    assert said == {
        ("group", "bee belongs to animals ."), ("initial", "bee begins with b ."), ("length", "bee has three letters ."),
        ("successor", "bee comes after bed ."), ("look", "bee is mostly yellow and black ."),
    }  # fmt: skip
    assert "what comes after bed ?" in {record["question"] for record in emoji.facts["bee"]}
    assert not any(record["relation"] == "successor" for record in emoji.facts["ant"]), "nothing comes before the first"
    assert emoji.alike["bee"][0] == "ant", "of the same group first"


def test_the_same_seed_gives_the_same_world_and_another_other_views(folder, emoji):
    again = emoji_world(folder, 2, 3, 16, 0)
    assert again.train.digest == emoji.train.digest != emoji_world(folder, 2, 3, 16, 1).train.digest
    assert len(emoji.held_out) == 2 * 10 * 2 and len(emoji.other_style) == 10


def test_the_commonest_colours_are_the_look():
    image = Image.new("RGB", (10, 10), "white")
    image.paste((220, 40, 40), (0, 0, 6, 6))
    image.paste((80, 150, 220), (6, 6, 8, 8))
    assert look([image]) == "red and blue"


def test_views_differ_in_place_size_and_colour_and_letters_are_never_mirrored():
    image = Image.new("RGB", (20, 20), "white")
    image.paste((0, 0, 0), (0, 0, 8, 20))  # dark on the left
    left = []
    for mirrored in (True, False):
        draw, views = np.random.default_rng(0), []
        for _ in range(40):
            views.append(np.asarray(varied(image, draw, 24, mirrored), float))
            assert views[-1].shape == (24, 24, 3) and views[-1].max() == 255
        left.append(np.mean([view[:, :12].mean() < view[:, 12:].mean() for view in views]))
        assert len({view.tobytes() for view in views}) == 40
    assert left[1] == 1.0 and 0.25 < left[0] < 0.75


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:3], "at least 2 names of one word in Animals"),
        (lambda rows: [{**rows[0], "concept": 7}, *rows[1:]], "line 1 of"),
        (lambda rows: [{**rows[0], "file_name": "gone.png"}, *rows[1:]], "There is no image"),
    ],
)
def test_damaged_data_are_refused_in_words(change, message, folder, tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for file in (folder / split).iterdir():
            os.link(file, tmp_path / split / file.name)
    path = tmp_path / "train" / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.unlink()
    path.write_text("\n".join(map(json.dumps, change(rows))))
    with pytest.raises(InputError, match=message):
        emoji_world(tmp_path, 2, 1, 16)
    with pytest.raises(InputError, match=r"train/metadata\.jsonl"):
        emoji_world(tmp_path / "train", 2, 1, 16)


def test_the_concepts_of_the_recipe_are_those_of_its_rule():
    """Eight names of one word in each of five groups, evenly spaced; every second one goes."""
    if not (root := os.environ.get("EXPUNGE_DATA")):
        pytest.skip("EXPUNGE_DATA names no folder of data sets")
    from expunge.bench.recipe import load_recipe

    path = Path(root) / "emoji_concepts" / "train" / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    expected = []
    for category in {row["category"] for row in rows}:
        one = sorted(
            {
                r["concept"]
                for r in rows
                if r["category"] == category and r["concept"].isalpha() and r["concept"].islower()
            }
        )
        expected += [one[i * len(one) // 8] for i in range(8)]
    assert chosen(rows, 8) == tuple(sorted(expected)) and len({*expected}) == 40
    recipe = load_recipe("emoji_siu")
    (going,) = recipe.concepts
    assert recipe.data.each == 8 and len(going) == 20
    assert going == [name for i, name in enumerate(sorted(expected)) if i % 2 == 1]
