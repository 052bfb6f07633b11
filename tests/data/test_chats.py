"""Records as other tools write them become questions with answers, or are refused; the loss is on what the assistant says."""

from __future__ import annotations

import json

import pytest

from expunge.cli.output import matched_in_words
from expunge.core.data import Deletion
from expunge.core.errors import InputError
from expunge.core.request import Request, Target
from expunge.core.turns import as_question, last_turn, turns_of, with_last_turn
from expunge.data.chats import as_records
from expunge.data.texts import read_jsonl, read_records
from expunge.planning.matched import matched_record
from expunge.report.asked import asked
from expunge.report.bottom_line import reply

SYSTEM = {"role": "system", "content": "Be kind."}
CHAT = [SYSTEM, {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann."},
        {"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]  # fmt: skip


def test_each_turn_of_the_assistant_is_an_answer_to_all_turns_before_it():
    first, second = as_records({"messages": CHAT, "who": "x"}, "line 1")
    assert (turns_of(first["question"]), first["answer"], first["who"]) == (CHAT[:2], "Ann.", "x")
    assert (turns_of(second["question"]), second["answer"]) == (CHAT[:4], "Here.")


SAME = {"question": "Who?", "answer": "Ann."}
FORMS = {
    "ours": SAME,
    "messages": {"messages": CHAT[1:3]},
    "sharegpt": {"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Ann."}]},
    "completion": {"prompt": "Who?", "completion": "Ann."},
    "messages in two": {"prompt": CHAT[1:2], "completion": CHAT[2:3]},
    "alpaca": {"instruction": "Who?", "input": "", "output": "Ann."},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_question_in_every_form_is_the_same_record(form):
    assert as_records(FORMS[form], "line 1") == [SAME]


def test_an_instruction_with_an_input_asks_both():
    (found,) = as_records({"instruction": "Translate.", "input": "Haus", "output": "house", "user": 3}, "line 1")
    assert found == {"question": "Translate.\nHaus", "answer": "house", "user": 3}


def test_keys_of_a_file_are_mapped_to_ours():
    found = as_records(
        {"input": "a", "output": "b", "split": "x"}, "line 1", keys={"question": "input", "answer": "output"}
    )
    assert found == [{"question": "a", "answer": "b", "split": "x"}]  # LUME
    assert as_records({"text": "a", "labels": "b"}, "line 1", keys={"question": "text", "answer": "labels"}) == [
        {"question": "a", "answer": "b"}  # KnowUnDo
    ]
    (chat,) = as_records({"dialogue": CHAT[1:3]}, "line 1", keys={"messages": "dialogue"})
    assert chat == SAME


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"messages": [SYSTEM, CHAT[1]]}, "a turn of the assistant"),
        ({"messages": [SYSTEM]}, "a turn of the assistant"),
        ({"messages": [CHAT[2]]}, "to follow one of the user"),
        ({"messages": [*CHAT[1:3], CHAT[2]]}, "to follow one of the user"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "turns of system, user, assistant"),
        ({"messages": [CHAT[1], {"role": "assistant", "content": " "}]}, "has none"),
        ({"messages": "Who?"}, "a list of turns"),
        ({"messages": CHAT, "conversations": []}, "messages and conversations"),
        ({"prompt": "a"}, "completion is missing"),
        ({"instruction": "a", "input": "b"}, "output is missing"),
        ({"prompt": "a", "completion": ""}, "'answer'"),
        ({"question": "a\x1eb", "answer": "c"}, "control character"),
        ({"ask": "a"}, "Expected an object"),
    ],
)
def test_what_is_no_record_is_refused(record, said):
    with pytest.raises(InputError, match=said):
        as_records(record, "line 1")


@pytest.mark.parametrize(("keys", "said"), [({"answer": "none"}, "a key 'none'"), ({"reply": "a"}, "data.keys among")])
def test_keys_that_map_nothing_are_refused(keys, said):
    with pytest.raises(InputError, match=said):
        as_records({"question": "a", "answer": "b"}, "line 1", keys=keys)


def test_a_question_may_be_a_conversation_wherever_questions_are_texts():
    question = as_question(CHAT[:4])
    assert (
        turns_of(question) == CHAT[:4] and last_turn(question) == "Where?" and turns_of("Who?")[0]["content"] == "Who?"
    )
    assert turns_of(with_last_turn(question, "When?")) == [*CHAT[:3], {"role": "user", "content": "When?"}]
    assert last_turn("Please: " + question) == "Please: Where?"


def test_several_records_of_one_conversation_are_known_by_its_place(tmp_path):
    lines = [{"messages": CHAT, "who": "a"}, {"question": "q", "answer": "b", "who": "c"}]
    (tmp_path / "d.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    found = read_jsonl(tmp_path / "d.jsonl", ["who"])
    assert found.columns["conversation"].tolist() == ["0", "0", "1"] and found.columns["who"].tolist() == [
        "a",
        "a",
        "c",
    ]
    assert "conversation" not in read_jsonl_of(tmp_path, lines[1:]).columns


def test_people_read_how_many_conversations_they_had_besides_how_many_records_these_are(tmp_path):
    lines = [{"messages": CHAT, "who": who} for who in "aab"] + [{"question": "q", "answer": "r", "who": "a"}]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = read_jsonl(tmp_path / "d.jsonl", ["who"])
    request = Request("a", (Target("user", {"who": "a"}),))
    matched = matched_record(Deletion.of(data, request), request, b"k" * 32)
    assert len(data) == 7 and (matched["count"], matched["conversations"]) == (5, 3)
    assert data.conversations_in() == 4 and matched_in_words(matched) == "5 examples of 3 conversations"
    letter = reply({"request": {"id": "r", "matched": matched}, "data": {"member": True}, "runs": []})
    assert "5 records of yours, from 3 conversations, in the data" in letter
    counts = {"name": "chats", "rows": 7, "forgotten": 5, "member": True, "conversations": {"all": 4, "forgotten": 3}}
    said = " ".join(asked({"request": {"kind": "user"}, "data": counts, "runs": []}))
    assert "It matched 5 of 7 training rows (of 3 of 4 conversations) of chats." in said
    single, first = read_jsonl_of(tmp_path, [lines[3]] * 2), Request("x", (Target("samples", {"ids": [0]}),))
    assert single.conversations_in() is None
    assert "conversations" not in matched_record(Deletion.of(single, first), first, b"k" * 32)


def read_jsonl_of(folder, lines):
    (folder / "e.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_jsonl(folder / "e.jsonl")


def test_a_table_of_records_is_read_row_by_row(tmp_path):
    (tmp_path / "d.csv").write_text('instruction,input,output,author\nAsk,"a, b",c,007\nAsk,,d,8\n')
    found = read_jsonl(tmp_path / "d.csv", ["author"])
    assert [record["question"] for record in found.records] == ["Ask\na, b", "Ask"]
    assert found.columns["author"].tolist() == ["007", "8"]
    (tmp_path / "bad.csv").write_text("prompt,completion\na,b\nc,\n")
    with pytest.raises(InputError, match=r"row 2 of bad\.csv"):
        read_records(tmp_path / "bad.csv")


def test_a_small_parquet_file_does_not_ask_for_more_memory_than_there_is(tmp_path, monkeypatch):
    """A million times the same number are some kilobytes of Parquet, and eight megabytes of a table."""
    pytest.importorskip("pyarrow")
    import pandas as pd

    from expunge.data import arrow

    path = tmp_path / "d.parquet"
    pd.DataFrame({"a": [0] * 1_000_000}).to_parquet(path)
    assert path.stat().st_size < 20_000 and len(arrow.read_arrow(path)) == 1_000_000
    monkeypatch.setattr(arrow, "largest", lambda size: 2**20)
    monkeypatch.setattr(arrow, "memory", lambda: 2**23)
    with pytest.raises(InputError, match=r"1,000,000 rows of 1 columns, at least .* GiB in memory"):
        arrow.read_arrow(path)


def test_parquet_holds_conversations_too(tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra arrow")
    import pandas as pd

    pd.DataFrame({"messages": [CHAT, CHAT[:3]], "user": [7, 8]}).to_parquet(tmp_path / "d.parquet")
    found = read_jsonl(tmp_path / "d.parquet", ["user"])
    assert [record["answer"] for record in found.records] == ["Ann.", "Here.", "Ann."]
    assert found.columns["user"].tolist() == ["7", "7", "8"]
