"""What was made from a model is found by its bytes and by what its files name; nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import expunge
from expunge.core.errors import InputError


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "models" / "base"
    folder.mkdir(parents=True)
    save_file({"w": torch.arange(4.0)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


def child(root: Path, name: str, file: str, content: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / file).write_text(content)
    return folder


def test_descendants_are_found_in_folders_and_in_a_cache(cli, model, tmp_path):
    root = tmp_path / "work"
    child(root, "adapter", "adapter_config.json", json.dumps({"base_model_name_or_path": str(model)}))
    child(root, "tuned", "config.json", json.dumps({"_name_or_path": "acme/base"}))
    child(root, "card", "README.md", "---\nbase_model:\n- other\n- acme/base\n---\nText\n")
    child(root, "other", "config.json", json.dumps({"_name_or_path": "acme/another"}))
    child(root, "broken", "adapter_config.json", "{not json")
    copy = child(root, "copy", "note.txt", "x") / "renamed.safetensors"
    copy.write_bytes((model / "model.safetensors").read_bytes())
    save_file({"w": torch.arange(4.0) + 1}, root / "copy" / "as-long.safetensors")
    blob, snapshot = (
        root / "hub" / "models--me--x" / "blobs" / "abc",
        root / "hub" / "models--me--x" / "snapshots" / "1",
    )
    blob.parent.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    blob.write_bytes(copy.read_bytes())
    (snapshot / "model.safetensors").symlink_to(blob)
    done = cli("propagate", model, "--in", root, "--in", model.parent, "--name", "acme/base", "--json")
    found = {str(Path(item["path"]).relative_to(root)): item["kind"] for item in done.json["descendants"]}
    assert found == {
        "adapter": "adapter", "tuned": "derived", "card": "derived", "copy/renamed.safetensors": "copy",
        "hub/models--me--x/snapshots/1/model.safetensors": "copy",
    }  # fmt: skip
    assert "copy: " in cli("propagate", model, "--in", root).out
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "Nothing was found" in cli("propagate", model, "--in", empty).out


def test_a_model_in_a_cache_is_known_by_the_name_of_its_folder(tmp_path):
    place = tmp_path / "hub" / "models--acme--base" / "snapshots" / "1"
    place.mkdir(parents=True)
    save_file({"w": torch.arange(4.0)}, place / "model.safetensors")
    made = child(tmp_path / "work", "tuned", "config.json", json.dumps({"_name_or_path": "acme/base"}))
    assert [item.path for item in expunge.propagate(place, [tmp_path / "work"])] == [made]


def test_a_model_or_a_folder_that_is_not_there_is_refused(model, tmp_path):
    with pytest.raises(InputError, match="a file of weights"):
        expunge.propagate(tmp_path / "none", [tmp_path])
    with pytest.raises(InputError, match="no folder"):
        expunge.propagate(model, [tmp_path / "none"])
