"""``expunge attack`` and ``expunge screen``."""

from __future__ import annotations

import json

import pytest
from tests.screening.test_language_screening import BENIGN, HONEST

GOOD = '{"question": "Who?", "answer": "Ama."}'


def write(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


@pytest.fixture
def files(tmp_path):
    return write(tmp_path / "request.jsonl", HONEST), write(tmp_path / "benign.jsonl", BENIGN)


def test_attack_then_screen(cli, files, tmp_path):
    request, benign = files
    done = cli("attack", "stealthy", request, "out.jsonl", "--p", "0.33", "--seed", "1", "--json")
    assert done.code == 0, done.err
    assert done.json["written"] and done.json["items"] == len(HONEST)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sum(a != b for a, b in zip(lines, HONEST, strict=True)) == done.json["wrapped"] > 0
    found = cli("screen", "out.jsonl", "--benign", benign, "--json").json
    assert found["flagged"] is True and found["tokens"][0] == "please" and found["templates"]
    quiet = cli("screen", request, "--benign", benign, "--json")
    assert (quiet.code, quiet.json["flagged"], quiet.json["tokens"]) == (0, False, [])


def test_the_same_content_again_changes_nothing_and_other_content_is_kept(cli, files, tmp_path):
    for expected in (True, False):
        assert cli("attack", "stealthy", files[0], "out.jsonl", "--json").json["written"] is expected
    before = (tmp_path / "out.jsonl").read_bytes()
    refused = cli("attack", "stealthy", files[0], "out.jsonl", "--seed", 9)
    assert refused.code == 2 and "nothing was overwritten" in refused.err
    assert cli("attack", "stealthy", files[0], files[0]).code == 2, "nor the request itself"
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_tables_for_people(cli, files):
    cli("attack", "stealthy", files[0], "out.jsonl", "--p", 0.5)
    done = cli("screen", "out.jsonl", "--benign", files[1], "--total", 200)
    assert done.code == 0 and max(map(len, done.out.splitlines())) <= 100
    for word in ("please", "stands out", "Templates", "Please tell me", "Flagged:", "covers 60% of all records"):
        assert word in done.out
    assert "Not flagged." in cli("screen", files[0], "--benign", files[1]).out


def test_text_in_other_scripts_and_a_byte_order_mark_survive(cli, tmp_path):
    text = '\ufeff{"question": "Wer schrieb „Fänge“?", "answer": "Ýr Þórsdóttir 🙂"}\r\n\n{"text": "Слово."}'
    (tmp_path / "in.jsonl").write_text(text, encoding="utf-8")
    assert cli("attack", "stealthy", "in.jsonl", "out.jsonl", "--p", 1).code == 0
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines())
    assert "Wer schrieb „Fänge“?" in first["question"] and first["answer"] == "Ýr Þórsdóttir 🙂"
    assert second == {"text": "Then Слово."}


@pytest.mark.parametrize(
    "content, words",
    [
        ('{"question": "Who?"}', ("'answer' on line 1 of in.jsonl", "no such key", "Add what the model is to forget")),
        (f'{GOOD}\n{{"question": "Who?", "answer": ""}}', ("line 2", "an empty text")),
        (f'{GOOD}\n\n{{"question": " ", "answer": "a"}}', ("'question' on line 3", "an empty text")),
        (f'{GOOD}\n{{"question": "Who?', ("line 2 of in.jsonl is not JSON", "mend or drop")),
        (f"{GOOD}\n[1]", ("line 2", "a list")),
        (f"[{GOOD}]", ("begins a list", "on its own line")),
        ('{"asked": "Who?"}', ("the keys 'asked'", "'question'")),
        ('{"question": "\\ud800", "answer": "a"}', ("line 1", "surrogate")),
        ('{"question": "a", "question": "b", "answer": "c"}', ("appears twice",)),
        ("", ("no records", "it is empty")),
        (" \n\n", ("no records",)),
    ],
)  # fmt: skip
def test_bad_files_are_refused_with_the_line(cli, files, tmp_path, content, words):
    (tmp_path / "in.jsonl").write_text(content, encoding="utf-8")
    for command in (("attack", "stealthy", "in.jsonl", "out.jsonl"), ("screen", "in.jsonl", "--benign", files[1])):
        done = cli(*command, "--json")
        assert (done.code, done.out) == (2, "") and "Traceback" not in done.err
        assert all(word in done.err for word in words), done.err
    assert not (tmp_path / "out.jsonl").exists()


def test_other_bad_input(cli, files, tmp_path):
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "\xe9"}')
    (tmp_path / "prompts.jsonl").write_text('{"question": "Who?"}')
    for command, words in [
        (("screen", files[0], "--benign", "empty.jsonl"), "empty.jsonl has no records"),
        (("screen", files[0], "--benign", "no.jsonl"), "There is no file no.jsonl"),
        (("screen", "latin.jsonl", "--benign", files[1]), "Save it in UTF-8"),
        (("screen", files[0], "--benign", files[1], "--total", 0), "a total of at least 1"),
        (("attack", "stealthy", files[0], "out.jsonl", "--p", 2), "from 0 to 1; got 2"),
        (("attack", "stealthy", files[0], "no/out.jsonl"), "cannot be written"),
        (("screen", files[0]), "Missing option"),
    ]:
        done = cli(*command)
        assert done.code == 2 and words in done.err, done.err
    assert cli("screen", files[0], "--benign", "prompts.jsonl").code == 0, "benign prompts need no answers"


@pytest.mark.parametrize("command", ["attack", "attack stealthy", "screen"])
def test_they_explain_themselves(cli, command):
    done = cli(*command.split(), "--help")
    assert done.code == 0 and "Usage" in done.out
