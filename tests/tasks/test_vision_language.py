"""Five families of image-text-to-text models: pictures are seen, padding is not, and adapters stay in the text part."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from tests.vision_models import (
    FAMILIES,
    ID,
    PREFIXES,
    SPECIAL,
    VOCABULARY,
    losses,
    picture,
    processor_of,
    record,
    task_of,
)

from expunge.core.errors import InputError
from expunge.data.pictures import as_picture, picture_of, read_picture
from expunge.data.texts import Texts
from expunge.tasks import adapters
from expunge.tasks.generation import generate
from expunge.tasks.language import decoder_layers
from expunge.tasks.model_parts import model_parts
from expunge.tasks.prompts import NO_LABEL
from expunge.tasks.vision_language import ImagePrompts, VisionLanguage

MIXED = [
    record(1), record(None, "what is the successor of six ?", "seven"), record(2, "is it a seven ?", "no"),
    record(None, "is it a digit ?", "yes yes"),
]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_are_those_of_the_classes(family):
    parts = model_parts(task_of(family).build())
    assert (parts.text, parts.vision, parts.connector) == PREFIXES[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_picture_matters_and_what_fills_up_does_not(family):
    task, first = task_of(family), record(1)
    alone = losses(task, [first])
    assert not torch.allclose(alone, losses(task, [record(2)]), atol=1e-6)
    longer = record(3, "is it the successor of a seven ? is it a nine ?", "no no no no")
    assert torch.allclose(alone[0], losses(task, [longer, first])[1], atol=1e-5)
    assert torch.allclose(alone[0], losses(task, [MIXED[3], first])[1], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_check_a05_labels_are_the_answer_and_its_end_and_a_batch_is_the_mean_of_its_rows(family):
    """Spec check A5, on image, text-only and mixed batches."""
    task = task_of(family)
    answers = [[*(ID[word] for word in each["answer"].split()), ID["<end>"]] for each in MIXED]
    for rows in (MIXED[::2], MIXED[1::2], MIXED):
        batch = task.encode(rows)
        own = [labels[labels != NO_LABEL].tolist() for labels in batch["labels"]]
        assert own == [answers[MIXED.index(each)] for each in rows]
        assert batch["has_image"].tolist() == ["image" in each for each in rows]
        alone = torch.cat([losses(task, [each]) for each in rows])
        assert torch.allclose(losses(task, rows), alone, atol=1e-5)
    assert "pixel_values" not in task.encode(MIXED[1::2])


def test_pictures_of_different_sizes_share_a_batch():
    task = task_of("qwen2_vl")
    rows = [record(1, size=(16, 16)), record(2, size=(32, 16)), record(None)]
    counts = (task.encode(rows)["input_ids"] == ID["<|image_pad|>"]).sum(1).tolist()
    assert counts == [4, 8, 0]  # patches of 4 pixels, merged two by two
    assert torch.allclose(losses(task, rows), torch.cat([losses(task, [each]) for each in rows]), atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scope", [None, "text", "text+connector"])
def test_check_a08_an_adapter_touches_its_scope_alone(family, scope):
    """Spec check A8: the set of touched parts equals the request."""
    model = task_of(family).build()
    parts = model_parts(model)
    adapters.inject(model, {} if scope is None else {"scope": scope})
    touched = {parts.part_of(name) for name in adapters.layers(model)}
    assert touched == set((scope or "text").split("+"))


@pytest.mark.parametrize("family", [each for each in FAMILIES if not each.startswith("qwen")])
def test_check_a08_a_list_of_suffixes_that_leaks_is_refused_with_the_modules(family):
    model = task_of(family).build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError) as refused:
        adapters.inject(model, {"target_modules": ["q_proj", "k_proj", "v_proj"]})
    vision = PREFIXES[family][1]
    assert str(refused.value).count(f"{vision}.") == 6, "three projections in each of two layers of the vision tower"
    assert not adapters.has_adapter(model) and model.state_dict().keys() == before.keys()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    text = PREFIXES[family][0].replace(".", r"\.")
    adapters.inject(model, {"target_modules": rf"{text}\..*\.[qkv]_proj"})
    assert len(adapters.layers(model)) == 6


def test_a_scope_needs_a_model_that_sees_and_a_known_name():
    with pytest.raises(InputError, match="text, text"):
        adapters.inject(task_of("llava").build(), {"scope": "vision"})
    with pytest.raises(InputError, match="that has none"):
        adapters.inject(torch.nn.Sequential(torch.nn.Linear(2, 2)), {"scope": "text"})


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_step_leaves_vision_and_connector_as_they_are_and_reverts(family):
    """Spec check A7, apart from the bound on merging."""
    task = task_of(family)
    model = task.build(seed=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    was = losses(task, MIXED, before)
    names = adapters.inject(model, {})
    moving = {name: dict(model.named_parameters())[name] for name in names}
    batch = task.encode(MIXED)
    for _ in range(2):
        loss = task.losses(model, dict(model.named_parameters()), batch).mean()
        for tensor, step in zip(moving.values(), torch.autograd.grad(loss, list(moving.values())), strict=True):
            tensor.data -= 0.5 * step
    trained = task.losses(model.eval(), dict(model.named_parameters()), batch)
    assert (trained - was).abs().max() > 1e-4
    with torch.no_grad(), adapters.switched_off(model):
        assert torch.equal(task.losses(model, dict(model.named_parameters()), batch), was)
    adapters.merge(model)
    with torch.no_grad():
        assert torch.allclose(task.losses(model, dict(model.named_parameters()), batch), trained, atol=1e-4)
    after = model.state_dict()
    moved = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    assert moved and all(name.startswith(f"{PREFIXES[family][0]}.") for name in moved)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_those_that_read_text(family):
    model = task_of(family).build()
    text = model.get_submodule(PREFIXES[family][0])
    assert any(decoder_layers(model) is module for module in text.modules())


def test_a_processor_that_disagrees_with_the_model_is_refused_before_anything_is_trained():
    task = task_of("llava")
    processor = processor_of("llava")
    processor.patch_size = 4
    prompts = ImagePrompts(processor.tokenizer, task.prompts.template, 48, processor=processor, image_text="<image> ")
    other = VisionLanguage(task.factory, prompts)
    task.check(Texts.of(MIXED))
    with pytest.raises(InputError, match=r"16 image tokens .*patch_size"):
        other.check(Texts.of(MIXED))


def test_a_record_is_never_cut_through_its_image_tokens():
    short = task_of("llava", 9)
    with pytest.raises(InputError, match="no room for an answer"):
        short.encode([record(1)])
    kept, found = short.fitting(Texts.of([record(1), record(None, "is it ?", "no")]))
    assert found.dropped == 1 and len(kept) == 1
    with pytest.raises(InputError, match="the context might cut the picture"):
        short.encode([{"image": picture(1), "text": "a seven"}])


def test_pictures_that_cannot_be_used_are_refused(tmp_path, monkeypatch):
    Image.new("CMYK", (4, 4)).save(tmp_path / "print.jpg")
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n123")
    Image.new("L", (300, 200)).save(tmp_path / "large.png")
    monkeypatch.setattr("expunge.data.pictures.MOST_PIXELS", 50_000)
    for name, words in {
        "print.jpg": "mode CMYK", "torn.png": "cannot be read", "large.png": "300 x 200", "none.png": "no image",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=words):
            read_picture(tmp_path / name)
    for value in ("none.png", 3, "data:image/png;base64,%%"):
        with pytest.raises(InputError, match=r"data URI|base64"):
            picture_of({"image": value, "question": "what ?"})


def test_a_picture_survives_its_record_bit_for_bit_and_tells_records_apart():
    image = Image.effect_noise((9, 7), 80).convert("RGB")
    assert picture_of({"image": as_picture(image), "question": "?"}).tobytes() == image.tobytes()
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    assert picture_of({"image": as_picture(clear), "question": "?"}).getpixel((0, 0)) == (255, 255, 255)
    one, two = Texts.of([record(1)]), Texts.of([record(2)])
    assert one.digest != two.digest and one.contents() != two.contents()


def test_joint_prompts_keep_the_picture_of_the_retained_question():
    task, blind, seeing = task_of("llava"), Texts.of([record(None)]), Texts.of([record(1)])
    assert task.pair(blind, seeing).records[0]["image"] == picture(1)
    with pytest.raises(InputError, match="one picture"):
        task.pair(seeing, blind)


def test_a_chat_template_places_the_picture_and_the_system_turn():
    task, processor = task_of("llava"), processor_of("llava")
    processor.chat_template = (
        "{% for turn in messages %}{% for part in turn.content %}"
        "{% if part.type == 'image' %}<image> {% else %}{{ part.text }} {% endif %}{% endfor %}: {% endfor %}"
    )
    processor.tokenizer.chat_template = "{% for turn in messages %}{{ turn.content }} : {% endfor %}"
    prompts = ImagePrompts(processor.tokenizer, None, 48, system="the digit", processor=processor)
    (ids, start), (blind, _) = prompts.tokens([record(1), record(None)])
    said = [ID[word] for word in ("the", "digit", ":", *["<image>"] * 4, *["what", "digit", "is", "this", "?", ":"])]
    assert ids == [*said, ID["seven"], ID["<end>"]] and start == len(said)
    assert blind == [
        ID[word] for word in ["the", "digit", ":", "what", "digit", "is", "this", "?", ":", "seven", "<end>"]
    ]
    other = VisionLanguage(task.factory, prompts)
    assert losses(other, [record(1)]).isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_generated_is_the_likeliest_token_after_token_with_or_without_a_picture(family):
    task = task_of(family)
    model, said = task.build(seed=3).eval(), []
    for each in MIXED[:2]:
        answer = ""
        for _ in range(3):
            row = task.encode([{**each, "answer": f"{answer} seven".strip()}])
            with torch.no_grad():
                logits, labels = task.answered(model, dict(model.named_parameters()), row)
            place = len(answer.split())
            assert labels[0, place] == ID["seven"]
            token = int(logits[0, place].argmax())
            if token == ID["<end>"]:
                break
            answer = f"{answer} {VOCABULARY[token]}".strip()
        said.append(answer)
    words = [[word for word in text.split() if word not in VOCABULARY[: 3 + len(SPECIAL)]] for text in said]
    found = generate(task, model, MIXED[:2], max_new_tokens=3)
    assert [text.split() for text in found] == words and words[0] != []
