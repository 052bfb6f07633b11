"""Folders of image-text-to-text models: read, written again, and refused where parts are missing."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from tests.vision_models import processor_of, record, task_of

from expunge.core.errors import InputError
from expunge.tasks.generation import generate
from expunge.tasks.pretrained import quiet, transformers
from expunge.tasks.pretrained_pictures import load_vision_language_model

OPTIONS = {"template": "{question} : {answer}", "image_text": "<image> ", "context": 48}
CHAT = (
    "{% for turn in messages %}{% for part in turn.content %}{% if part.type == 'image' %}<image> {% else %}"
    "{{ part.text }} {% endif %}{% endfor %}{% endfor %}: "
)


def written(family: str, folder, **processor):
    model = task_of(family).build(seed=1)
    reads = processor_of(family)
    for name, value in processor.items():
        setattr(reads, name, value)
    with quiet():
        model.save_pretrained(folder)
    reads.save_pretrained(folder)
    return model


def loss(task, tensors, records):
    model = task.build(tensors).eval()
    with torch.no_grad():
        return task.losses(model, dict(model.named_parameters()), task.encode(records))


@pytest.mark.parametrize("family", ["llava", "idefics3"])
def test_a_folder_is_read_and_what_is_released_is_a_folder_again(family, tmp_path):
    model, rows = written(family, tmp_path / "a"), [record(1), record(None, "is it ?", "no")]
    task, tensors = load_vision_language_model(tmp_path / "a", **OPTIONS)
    expected = loss(task_of(family), task_of(family).released(model), rows)
    assert torch.allclose(loss(task, tensors, rows), expected, atol=1e-6)
    (tmp_path / "b").mkdir()
    for name, content in task.files().items():
        (tmp_path / "b" / name).write_bytes(content)
    save_file(
        {name: t.contiguous().clone() for name, t in tensors.items()},
        tmp_path / "b" / "model.safetensors",
        {"format": "pt"},
    )
    with quiet():
        other = transformers().AutoModelForImageTextToText.from_pretrained(str(tmp_path / "b"))
    assert type(other) is type(model)
    again, weights = load_vision_language_model(tmp_path / "b", **OPTIONS)
    assert torch.equal(loss(again, weights, rows), loss(task, tensors, rows))
    said = [generate(each, each.build(w), rows, max_new_tokens=2) for each, w in ((task, tensors), (again, weights))]
    assert said[0] == said[1]


def test_the_processor_s_chat_template_puts_pictures_and_words(tmp_path):
    written("llava", tmp_path, chat_template=CHAT)
    task, tensors = load_vision_language_model(tmp_path, context=48)
    rows = [record(1), record(None, "is it ?", "no")]
    assert torch.allclose(loss(task, tensors, rows), loss(task_of("llava"), tensors, rows), atol=1e-6)


def test_folders_of_other_models_and_without_a_processor_are_refused(tmp_path):
    written("llava", tmp_path / "a")
    for path in (tmp_path / "a").glob("*processor*"):
        path.unlink()
    with pytest.raises(InputError, match="processor"):
        load_vision_language_model(tmp_path / "a", **OPTIONS)
    with pytest.raises(InputError, match="There is no folder"):
        load_vision_language_model(tmp_path / "none")
