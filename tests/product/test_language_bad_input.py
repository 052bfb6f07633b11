"""Jobs on language models that cannot be carried out: what was expected, what came, what to do; and nothing is written."""

from __future__ import annotations

import json

import pytest
from tests.product.language import asked, facts, write, write_job

from expunge.core.data import Ids
from expunge.data.texts import Texts
from expunge.jobs.schema import load_job
from expunge.modalities.language import asking
from expunge.modalities.language import config as language_config
from expunge.modalities.language import opening as build
from expunge.modalities.language.config import LanguageJob
from expunge.modalities.vision_language import config as vision_language_config
from expunge.tasks import adapters
from expunge.tasks.language import Language
from expunge.tasks.micro_language import micro_language, word_tokenizer


def with_fact(**keys: str | None) -> list[dict[str, str]]:
    """The facts, the third with other keys (``None`` removes one)."""
    third = {key: value for key, value in {**facts()[2], **keys}.items() if value is not None}
    return [*facts()[:2], third, *facts()[3:]]


def test_an_answer_that_is_missing(refused, tmp_path):
    message = refused("run", write_job(tmp_path, with_fact(answer=None)))
    assert (
        "Expected a text under 'answer' on line 3 of facts.jsonl; got no such key. Add what the model is to" in message
    )
    words = write(tmp_path / "words.jsonl", [{**fact, "answer": " "} for fact in asked(3)])
    message = refused("run", write_job(tmp_path, request={"wording": words}))
    assert "Expected a text under 'answer' on line 1 of words.jsonl; got an empty text" in message


def test_an_empty_question(refused, tmp_path):
    message = refused("run", write_job(tmp_path, with_fact(question="")))
    assert (
        "Expected a text under 'question' on line 3 of facts.jsonl; got an empty text. Fill it in, or drop" in message
    )


def test_a_record_longer_than_the_context(refused, tmp_path):
    """Refused with counts, unless the job says what is to become of such records; then the report counts them."""
    long = [
        *facts(),
        *({"question": "what " * n + "?", "answer": "pet1 pet2", "subject": "nobody"} for n in (29, 40, 50)),
    ]
    message = refused("run", write_job(tmp_path, long))
    assert "in data, 2 of 63 records leave no room for an answer in 32 tokens, and 1 lose the end of theirs" in message
    assert "Take a larger model.context, shorten them, or set data.too_long: cut" in message
    job = load_job(write_job(tmp_path, long, data={"too_long": "cut"}))
    assert isinstance(job, LanguageJob)
    files = build.files_of(job)
    task, _ = build.task_of(job, files.data)
    found = asking.fitted(job, task, files, Ids.none())
    assert len(found.dropped) == 2 and len(found.shortened) == 1
    assert found.note == (
        "In data, 2 of 63 records leave no room for an answer in 32 tokens, and 1 lose the end of theirs."
    )
    words = write(tmp_path / "words.jsonl", [{**fact, "question": "please " * 40} for fact in asked(3)])
    message = refused("run", write_job(tmp_path, request={"wording": words}, data={"too_long": "cut"}))
    assert "3 of the 3 records of the request leave none" in message


def test_a_scope_term_whose_joint_prompts_do_not_fit(refused, tmp_path):
    job = write_job(tmp_path, model={"context": 14}, method={"name": "npo+su", "steps": 2})
    assert "context" in refused("run", job)


def test_an_unknown_split(refused, tmp_path):
    (tmp_path / "tofu").mkdir()
    write(tmp_path / "tofu" / "full.json", facts())
    data = {"format": "tofu", "path": "tofu", "split": "retain91", "users": None}
    message = refused("run", write_job(tmp_path, data=data))
    assert "Expected a split of TOFU" in message and "got 'retain91'. There are: full." in message


def test_a_tokenizer_of_another_model(refused, tmp_path):
    words = build.vocabulary(Texts.of(facts()), [])
    write_folder(tmp_path / "model", micro_language(words, width=16, layers=1, heads=2, inner=32))
    word_tokenizer([*words, "one", "more"]).save_pretrained(tmp_path / "model")
    message = refused("run", write_job(tmp_path, model=folder_model(tmp_path)))
    assert f"The tokenizer gives token {len(words) + 4}, and the model knows {len(words) + 3}" in message
    assert "Load both from one folder" in message


def test_an_adapter_for_another_model(refused, tmp_path):
    words = build.vocabulary(Texts.of(facts()), [])
    write_folder(tmp_path / "model", micro_language(words, width=16, layers=1, heads=2, inner=32))
    wide = micro_language(words, width=24, layers=1, heads=2, inner=32).build()
    adapters.inject(wide, {"r": 2})
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(adapters.adapter_settings(wide)))
    from safetensors.torch import save_file

    save_file(adapters.adapter_tensors(wide), tmp_path / "adapter" / "adapter_model.safetensors")
    job = write_job(tmp_path, model={**folder_model(tmp_path), "adapter": "adapter"})
    message = refused("run", job)
    assert "The adapter belongs to another model" in message and "Load it on the model it was trained for" in message


def test_records_that_are_forgotten_and_retained(refused, tmp_path):
    """Also where the request has other words for them."""
    copies = [*facts(), {**facts()[9], "subject": "somebody"}]
    message = refused("run", write_job(tmp_path, copies))
    assert "1 forgotten record(s) are retained as well, word for word" in message
    assert "Forget every copy, or take the copies out of the request" in message
    words = write(tmp_path / "words.jsonl", asked(3))
    message = refused("run", write_job(tmp_path, copies, request={"wording": words}))
    assert "1 forgotten record(s) are retained as well" in message


def test_a_request_that_means_no_training_record(refused, tmp_path):
    records = write(tmp_path / "request.jsonl", [*asked(3), {"question": "who ?", "answer": "nobody"}])
    message = refused("run", write_job(tmp_path, request={"targets": None, "records": records}))
    assert "each of the 4 records of request.jsonl to mean one training record: 1 match no training record" in message
    assert "(the first is record 4)" in message
    words = write(tmp_path / "words.jsonl", asked(3, 4))
    message = refused("run", write_job(tmp_path, request={"wording": words}))
    assert "Expected 3 records in words.jsonl, one for each that request.targets names; got 6" in message


@pytest.mark.parametrize(
    ("given", "came"),
    [({"records": "request.jsonl"}, "targets, records"), ({"targets": None}, "none of them"),
     ({"targets": None, "wording": "request.jsonl"}, "wording")],
)  # fmt: skip
def test_a_request_says_once_what_it_means(refused, tmp_path, given, came):
    write(tmp_path / "request.jsonl", asked(3))
    assert f"own words already; got {came}." in refused("run", write_job(tmp_path, request=given))


def test_keys_that_a_job_for_a_language_model_does_not_have(refused, tmp_path):
    message = refused("run", write_job(tmp_path, publish={"epsilon": 1, "capacity": 10}))
    assert "No method for language models has a promise to publish: leave publish out of the job" in message
    assert "model.widht: unknown key; did you mean width?" in refused("run", write_job(tmp_path, model={"widht": 8}))
    message = refused("run", write_job(tmp_path, training={"epoch": 3}))
    assert "training.epoch: unknown key; did you mean epochs?" in message
    message = refused("run", write_job(tmp_path, request={"on_screening": "pray"}))
    assert "request.on_screening" in message and "'augment'" in message
    assert "evidence.audit: unknown key" in refused("run", write_job(tmp_path, evidence={"audit": True}))
    assert "request: missing; every job for a language model" in refused("run", without(tmp_path, "request"))


def test_what_else_cannot_be(refused, tmp_path):
    taken = {"sets": {"forget": write(tmp_path / "more.jsonl", facts())}}
    assert "'forget' is what evidence calls a set of its own" in refused("run", write_job(tmp_path, data=taken))
    message = refused("run", write_job(tmp_path, data={"users": ["author"]}))
    assert "Expected a key 'author' in every record of facts.jsonl, as data.users says; record 1 has none" in message
    checkpoint = {"kind": "checkpoint", "steps": None, "lr": None, "batch_size": None}
    assert "A micro model has no folder with weights" in refused("run", write_job(tmp_path, training=checkpoint))
    assert "Expected a width that 2 heads can share; got 15" in refused("run", write_job(tmp_path, model={"width": 15}))
    assert "runs on classification" in refused("run", write_job(tmp_path, method={"name": "scrub"}))
    assert "There is no device 'gpu'" in refused("run", write_job(tmp_path, device="gpu"))
    assert "There is no folder" in refused("run", write_job(tmp_path, model=folder_model(tmp_path)))
    method = {"name": "npo", "lora": {"rang": 2}}
    assert "LoRA settings {'rang': 2} cannot be used" in refused("run", write_job(tmp_path, method=method))


def test_a_guarantee_cannot_be_planned_for_a_language_model(cli, tmp_path):
    done = cli("calibrate", "search", write_job(tmp_path), "--guarantee", "epsilon=1")
    assert done.code == 2
    assert "A guarantee can be planned for training.kind gradient_descent" in done.err


def folder_model(folder) -> dict[str, str | None]:
    """The section ``model`` for a folder beside the job."""
    return {
        "folder": "model",
        "micro": None,
        **dict.fromkeys(("width", "layers", "heads", "inner", "context", "words")),
    }


def write_folder(folder, task: Language) -> None:
    model = task.build()
    model.save_pretrained(folder)  # type: ignore[operator]
    task.prompts.tokenizer.save_pretrained(folder)


def without(folder, section: str):
    """The job without a section."""
    import yaml

    path = write_job(folder)
    content = yaml.safe_load(path.read_text())
    del content[section]
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("kind", [language_config.MicroModel, vision_language_config.MicroModel])
def test_a_tiny_network_has_bounds_of_every_kind(kind):
    """A hundred thousand layers are memory and minutes before anything can be refused."""
    for name in ("layers", "width", "heads", "inner", "context"):
        with pytest.raises(ValueError, match="less than or equal to"):
            kind(micro=True, **{name: 100_000})
