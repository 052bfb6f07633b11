"""A model that was tuned elsewhere, as a file or as an adapter, with the training that made it to compare with."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from safetensors.torch import save_file
from tests.product.language import SMALL_LANGUAGE, facts, write

from expunge.core.errors import InputError
from expunge.core.method import silent
from expunge.jobs.run import prepared
from expunge.training.language import LanguageTraining


def job(folder, **changes):
    write(folder / "facts.jsonl", facts())
    content = {**yaml.safe_load(SMALL_LANGUAGE), **changes}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def made(path):
    """The model that is to forget, as a run would have it, and the case it came from."""
    _, case, _, _ = prepared(path, [], None)
    return case.make(silent), case


def test_a_file_is_the_model_and_the_settings_are_how_it_is_retrained(tmp_path):
    taught = {"kind": "language", "steps": 3, "lr": 0.01, "batch_size": 16}
    trained, case = made(job(tmp_path, training=taught))
    assert case.trains
    weights = {name: tensor + 0.25 for name, tensor in trained.artifact.tensors.items()}
    save_file(weights, tmp_path / "mine.safetensors")
    finished, case = made(job(tmp_path, training={**taught, "path": "mine.safetensors"}))
    assert not case.trains and case.untrained is None
    assert all(torch.equal(finished.artifact.tensors[name], weight) for name, weight in weights.items())
    assert isinstance(finished.recipe, LanguageTraining) and finished.recipe.steps == 3
    again = finished.recipe.fit(
        finished.task, finished.data, seed=finished.seed
    )  # from where training began, not from the file
    assert all(torch.equal(again.artifact.tensors[name], trained.artifact.tensors[name]) for name in weights)


def test_two_places_and_an_adapter_without_a_folder_are_refused(tmp_path):
    both = {"kind": "language", "steps": 3, "lr": 0.01, "path": "a.safetensors", "adapter": "b"}
    with pytest.raises(InputError, match="in one place: path or adapter"):
        prepared(job(tmp_path, training=both), [], None)
    with pytest.raises(InputError, match=r"leave model\.adapter out"):
        prepared(job(tmp_path, training={"kind": "language", "steps": 3, "lr": 0.01, "adapter": "b"}), [], None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft, about a name in transformers
def test_an_adapter_on_a_folder_is_the_model_and_training_begins_without_it(tmp_path, real_data):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = real_data("stories260k") / "stories260k"
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(r=2, target_modules=["q_proj"]))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(0, 0.1)
    model.save_pretrained(tmp_path / "adapter")
    taught = {"kind": "language", "steps": 1, "lr": 1e-3, "adapter": "adapter"}
    changes = {"model": {"folder": str(folder), "context": 64}, "data": {"format": "jsonl", "path": "facts.jsonl"}}
    asked = {"subject": "a", "targets": [{"kind": "samples", "where": {"ids": [9]}}]}
    finished, _ = made(job(tmp_path, training=taught, request=asked, **changes))
    merged = model.merge_and_unload().state_dict()
    base = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.allclose(finished.artifact.tensors[name], merged[name], atol=1e-6)
    assert not torch.allclose(merged[name], base[name], atol=1e-3)
    assert torch.equal(finished.task.start[name], base[name])
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 2
