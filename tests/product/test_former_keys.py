"""Job files of the version before are read: former keys under their new names, with one warning."""

from __future__ import annotations

import logging

import pytest
import yaml
from tests.product.conftest import ROOT, SMALL
from tests.product.language import SMALL_LANGUAGE

from expunge import modalities
from expunge.bench.recipe import load_recipe
from expunge.core.errors import InputError
from expunge.jobs.schema import load_job
from expunge.measuring import MeasureSettings
from expunge.modalities import settings


@pytest.fixture(autouse=True)
def new_process():
    """A process warns once."""
    settings._warn_of_names.cache_clear()


def written(folder, text: str, evidence: dict):
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(text), "evidence": evidence}))
    return path


@pytest.mark.parametrize(
    ("text", "former", "present"),
    [
        (SMALL, {"references": 4, "twins": 1}, {"shadow_models": 4, "replicates": 1}),
        (SMALL_LANGUAGE, {"twins": 3, "pdf": False}, {"replicates": 3, "pdf": False}),
    ],
)
def test_former_keys_mean_the_present_ones_and_are_warned_of_once(text, former, present, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    jobs = [load_job(written(tmp_path, text, evidence)) for evidence in (former, former, present)]
    assert jobs[0] == jobs[1] == jobs[2]
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    renamed = {"references": "shadow_models", "twins": "replicates"}
    assert all(f"{name} (now {renamed[name]})" in warnings[0] for name in former if name in renamed)
    measuring = MeasureSettings(**jobs[0].evidence.measuring())
    assert measuring.replicates == present["replicates"]
    assert measuring.shadow_models == present.get("shadow_models", 0)


def test_the_warning_leaves_standard_output_to_the_result(cli, tmp_path, caplog):
    """It is a log message: Python writes these to standard error where nothing else is set up."""
    done = cli("run", written(tmp_path, SMALL, {"twins": 1}), "--set", "method.name=nothing")
    assert done.code == 2 and done.out == "" and caplog.text.count("twins (now replicates)") == 1


def test_two_names_of_one_key_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"evidence: .*twins is the former name of replicates; say the latter alone"):
        load_job(written(tmp_path, SMALL, {"twins": 1, "replicates": 2}))


def test_a_key_that_never_was_is_still_unknown(tmp_path):
    with pytest.raises(InputError, match="unknown key"):
        load_job(written(tmp_path, SMALL_LANGUAGE, {"references": 1}))


def test_measuring_knows_the_present_names_alone():
    for former in ("references", "twins"):
        with pytest.raises(TypeError):
            MeasureSettings(**{former: 1})


@pytest.mark.parametrize("path", sorted(ROOT.glob("tests/inputs/*/job.yaml")), ids=lambda path: path.parent.name)
def test_evidence_of_jobs_that_were_written_for_the_version_before_is_read(path, caplog):
    content = yaml.safe_load(path.read_text())
    evidence = modalities.load(content.get("task", "classification")).job.model_fields["evidence"].annotation
    read = evidence.model_validate(content["evidence"])
    assert read.replicates == content["evidence"]["twins"] and "twins (now replicates)" in caplog.text


def test_a_recipe_with_the_former_key_is_the_recipe_with_the_present_one(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    text = (ROOT / "src" / "expunge" / "recipes" / "omniglot_user.yaml").read_text()
    assert text.count("\nretrained_models: 5\n") == 1
    former = tmp_path / "omniglot_user.yaml"
    former.write_text(text.replace("\nretrained_models: 5\n", "\nreferences: 5\n"))
    assert load_recipe(str(former)) == load_recipe("omniglot_user")
    assert [
        record.getMessage() for record in caplog.records if "references (now retrained_models)" in record.getMessage()
    ]
