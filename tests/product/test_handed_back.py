"""A language model from a folder comes back as a folder: other programs load it, and so does the next request."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.llamas import TEMPLATE
from tests.product.language import write_job
from tests.product.test_language_jobs import LORA, stored
from tests.product.tofu import saved, small_tofu

from expunge.core.errors import InputError
from expunge.jobs.run import run_job
from expunge.report.verify import verify_folder
from expunge.tasks.folder_files import folder_files
from expunge.tasks.pretrained import load_language_model, transformers

NPO = {"name": "npo", "steps": 2, "lr": 0.01, "batch_size": 4}


@pytest.fixture
def place(tmp_path) -> Path:
    saved(tmp_path / "tiny", 0)
    small_tofu(tmp_path / "tofu")
    return tmp_path


def tofu_job(place: Path, model: str, author: int, method: dict[str, Any], **data: Any) -> Path:
    """Forgets one of TOFU's authors from the model in a folder, as it is."""
    content = {
        "task": "language",
        "model": {"folder": model, "template": TEMPLATE, "context": 32},
        "data": {"format": "tofu", "path": "tofu", "split": "full", **data},
        "training": {"kind": "checkpoint"},
        "request": {
            "subject": f"author {author}",
            "targets": [{"kind": "user", "where": {"author": author}}],
            "approved_by": "officer",  # half of all records: screening holds that back
        },
        "method": method,
        "evidence": {"reference": "none", "pdf": False},
    }
    path = place / f"author-{author}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("method", [NPO, {**NPO, "lora": {"r": 2}}], ids=["all weights", "adapter"])
def test_transformers_loads_what_was_released(place, method):
    run_job(tofu_job(place, "tiny", 1, method), [], place / "out")
    folder = place / "out" / "models" / "tiny"
    assert {"config.json", "generation_config.json", "tokenizer.json", "model.safetensors"} <= {
        p.name for p in folder.iterdir()
    }
    model = transformers().AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    tokenizer = transformers().AutoTokenizer.from_pretrained(folder, local_files_only=True)
    released = load_file(folder / "model.safetensors")
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in released.items())
    task, before = load_language_model(place / "tiny", template=TEMPLATE)
    assert tokenizer("w1 w2 w3")["input_ids"] == task.prompts.tokenizer("w1 w2 w3")["input_ids"]
    assert any(not torch.equal(released[name], tensor) for name, tensor in before.items())
    if "lora" in method:  # the adapter on the model of before is the same model
        _, merged = load_language_model(
            place / "tiny", template=TEMPLATE, adapter=place / "out" / "models" / "tiny.adapter"
        )
        assert all(torch.allclose(merged[name], tensor, atol=1e-6) for name, tensor in released.items())


def test_generation_settings_of_the_folder_come_back(tmp_path):
    """Where answers end may stand there alone; and many have a temperature without sampling, which transformers warns of."""
    place = saved(tmp_path / "tiny", 0) / "generation_config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"eos_token_id": [2, 7], "temperature": 0.6}))
    task, _ = load_language_model(tmp_path / "tiny", template=TEMPLATE)
    given = json.loads(task.files()["generation_config.json"])
    assert given["eos_token_id"] == [2, 7] and given["temperature"] == 0.6


def test_the_next_request_starts_from_it_and_it_is_measured(cli, place):
    assert (
        cli("run", tofu_job(place, "tiny", 1, NPO), "--out", place / "one").code == 4
    )  # no retrained model: undecidable
    folder = place / "one" / "models" / "tiny"
    data = {"measure": ["real_authors_perturbed"]}
    assert cli("run", tofu_job(place, str(folder), 0, NPO, **data), "--out", place / "two").code == 4
    first, second = (json.loads((place / out / "evidence.json").read_text())["runs"][0] for out in ("one", "two"))
    assert first["model"]["digest"] != second["model"]["digest"]
    tensors = load_file(place / "two" / first["model"]["file"])
    assert any(
        not torch.equal(tensors[name], tensor) for name, tensor in load_file(folder / "model.safetensors").items()
    )
    done = cli("eval", folder, "--data", place / "tofu", "--split", "forget50", "--template", TEMPLATE,
               "--max-new-tokens", 3, "--no-templates", "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads(done.out)["sets"]["forget"]["n"] == 20


def test_every_file_of_the_folder_is_signed(place):
    job = tofu_job(place, "tiny", 1, NPO)
    run_job(job, [], place / "out")
    folder = place / "out" / "models" / "tiny"
    assert verify_folder(place / "out").consistent
    for name in ("tokenizer.json", "config.json"):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(kept + b" ")
        assert not verify_folder(place / "out").consistent
        (folder / name).write_bytes(kept)
    (folder / "tokenizer.json").unlink()
    assert not verify_folder(place / "out").consistent


def test_words_of_the_records_do_not_leave_the_house(tmp_path):
    run_job(write_job(tmp_path, training=stored(tmp_path), method=LORA), [], tmp_path / "out")
    assert {path.name for path in (tmp_path / "out" / "models").iterdir()} == {"micro.safetensors", "micro.adapter"}


def test_a_configuration_does_not_call_plain_weights_quantised(tmp_path):
    task, _ = load_language_model(saved(tmp_path / "tiny", 0), template=TEMPLATE)
    model: Any = task.factory()
    model.config.quantization_config = {"quant_method": "gguf", "gguf_file": "there.gguf"}
    files = folder_files(model, torch.bfloat16, task.prompts.tokenizer)
    config = json.loads(files["config.json"])
    assert "quantization_config" not in config and config["dtype"] == "bfloat16"
    assert config["architectures"] == ["LlamaForCausalLM"]


def test_records_that_the_context_cuts_are_cut_and_counted(place, tmp_path):
    """Answers lose their end where the job says so; the report says how many, and the context is refused otherwise."""
    lines = (place / "tofu" / "full.json").read_text().splitlines()
    long = json.loads(lines[0])
    lines[0] = json.dumps({**long, "answer": " ".join([long["answer"]] * 12)})
    shutil.rmtree(place / "tofu")
    (place / "tofu").mkdir()
    (place / "tofu" / "full.json").write_text("\n".join(lines))
    with pytest.raises(InputError, match="0 of 40 records leave no room for an answer in 32 tokens, and 1 lose"):
        run_job(tofu_job(place, "tiny", 1, NPO), [], place / "out")
    assert not (place / "out").exists()
    run_job(tofu_job(place, "tiny", 1, NPO, too_long="cut"), [], place / "out")
    note = json.loads((place / "out" / "evidence.json").read_text())["data"]["note"]
    assert "In data, 0 of 40 records leave no room" in note and "1 lose the end of theirs" in note
