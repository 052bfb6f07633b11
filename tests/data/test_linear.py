"""Large inputs: the fast ways find what the slow and obvious ways find."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from expunge.core.data import Deletion, Ids
from expunge.core.errors import InputError
from expunge.core.request import Request, Target
from expunge.data import csv_files, digits
from expunge.data.rows import Rows
from expunge.data.tables import read_csv
from expunge.data.texts import Texts
from expunge.modalities.language import matching

BENCH = Path(__file__).parents[2] / "bench" / "large_inputs.py"


@pytest.mark.parametrize("seed", range(4))
def test_targets_over_several_columns_match_as_a_scan_does(seed):
    draw = np.random.default_rng(seed)
    columns = {
        "ward": draw.choice(["a", "b", "7", "07"], 60).astype(object),
        "age": draw.integers(5, 9, 60),
        "staff": [list(draw.choice(["x", "y", "z"], draw.integers(1, 3))) for _ in range(60)],
    }
    rows = Rows.of(draw.normal(size=(60, 2)), draw.integers(0, 2, 60), columns)
    for _ in range(30):
        names = draw.choice(list(columns), draw.integers(1, 4), replace=False)
        values = {"ward": ["a", "b", "7", "07", 7, "none"], "age": [5, 6, "7", 8.0, 99], "staff": ["x", "y", "z", "w"]}
        where = {str(name): [values[name][k] for k in draw.integers(0, len(values[name]), 2)] for name in names}

        def has(i: int, name: str, value) -> bool:
            cell = columns[name][i]
            texts = cell if isinstance(cell, list) else [str(cell)]
            return str(int(value) if isinstance(value, float) else value) in texts

        target = Target("user", where)
        inside = [i for i in range(60) if all(any(has(i, n, v) for v in vs) for n, vs in where.items())]
        assert rows.select(target)["row"].tolist() == inside
        lost = {
            (n, str(v)) for n, vs in where.items() for v in vs if not any(has(i, n, v) for i in _others(where, n, has))
        }
        assert len({tuple(text.split()[:2]) for text in rows.unmatched(target)}) == len(
            {(n, v.split(".")[0]) for n, v in lost}
        )


def _others(where, name, has):
    rest = {n: vs for n, vs in where.items() if n != name}
    return [i for i in range(60) if all(any(has(i, n, v) for v in vs) for n, vs in rest.items())]


def test_many_ids_at_once_are_those_one_after_another():
    parts = [Ids({"row": np.array([3, 1])}), Ids.none(), Ids({"edge": np.array([2]), "row": np.array([1, 9])})]
    one_by_one = Ids.none()
    for part in parts:
        one_by_one = one_by_one | part
    assert Ids.union(parts) == one_by_one and Ids.union([]) == Ids.none()
    rows = Rows.of(np.zeros((6, 1)), np.zeros(6), {"who": list("aabbcc")})
    request = Request("s", tuple(Target("user", {"who": name}) for name in "ca"))
    assert Deletion.of(rows, request).ids["row"].tolist() == [0, 1, 4, 5]


TABLES = {
    "plain": b"a,b,who\n1,2,x\n3,4,NA\n",
    "carriage returns": b"a,b,who\r\n1,2,x\r\n3,4,\xc3\xa9\r\n",
    "no last line end, a mark in front": b"\xef\xbb\xbfa,b,who\n1,,x\n3,4,y",
    "quoted": b'a,b,who\n1,2,"x, y"\n3,4,z\n',
    "blank lines": b"a,b,who\n\n1,2,x\n\n3,4,y\n",
    "unnamed": b",b,who\n0,2,x\n1,4,y\n",
    "lone carriage return": b"a,b,who\n1,2,x\r3,4,y\n",
    "two errors that cancel": b"a,b,who\n1,2,x,9\n3,y\n",
    "short": b"a,b,who\n1,2\n",
    "one column": b"who\nx\ny\n",
    "no rows": b"a,b,who\n",
    "not text": b"a,b,who\n1,2,\xff\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_commas_counted_many_lines_at_a_time_say_what_the_csv_module_says(name, tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_bytes(TABLES[name])

    def outcome():
        try:
            table = csv_files.open_csv(tmp_path / "t.csv")
            both = table.read(table.names[2:], table.names[:2]) if len(table.names) > 2 else table.read(table.names)
            return table, both.to_dict("list").__repr__()
        except InputError as error:
            return str(error)

    monkeypatch.setattr(csv_files, "_CHUNK", 4)  # several pieces
    fast = outcome()
    quick = csv_files._without_quotes
    monkeypatch.setattr(csv_files, "_without_quotes", lambda content, name: None)
    assert fast == outcome()
    if name in ("plain", "carriage returns", "no last line end, a mark in front"):
        assert quick(tmp_path / "t.csv", "t.csv") is not None, "the fast way was not taken"


def test_texts_stay_texts_beside_numbers_in_one_pass(tmp_path):
    (tmp_path / "t.csv").write_text("who,ward,size,y\nNA,01,1.5,0\nnull,,NA,1\n")
    table = csv_files.open_csv(tmp_path / "t.csv").read(["who", "ward"], ["size"])
    assert table["who"].tolist() == ["NA", "null"] and table["ward"].tolist() == ["01", ""]
    assert table["size"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    "labels", [["0", "1", "2"], ["1", "0", "1"], ["0", "-0", "1"], ["0.0", "1", "2"], ["no", "yes", "no"]]
)
def test_labels_are_read_as_pandas_reads_them(labels, tmp_path):
    (tmp_path / "t.csv").write_text("x,z,y\n" + "".join(f"{i},1,{label}\n" for i, label in enumerate(labels)))
    (rows,) = read_csv([tmp_path / "t.csv"], label="y", categories={"z": [2, 1]})
    known = sorted(set(labels)) if "no" in labels else None
    assert rows.y.tolist() == [known.index(label) if known else int(float(label)) for label in labels]
    assert rows.x.tolist() == [[i, 0, 1] for i in range(3)]


@pytest.mark.parametrize("few", [0, 10**9])
@pytest.mark.parametrize("seed", range(6))
def test_records_with_shared_answers_match_as_every_pair_compared(seed, few, monkeypatch):
    draw = random.Random(seed)
    words = ["who", "who is", "is", "Is ada", "ada", "ada b", "where", " b ", "", "who is ada b"]
    data = Texts.of([
        {"question": draw.choice([w for w in words if w.strip()]), "answer": draw.choice("xy")} for _ in range(20)
    ])  # fmt: skip
    monkeypatch.setattr(matching, "_FEW", few)
    for _ in range(40):
        asked = [
            {"question": " ".join(draw.choices(words, k=draw.randint(1, 3))), "answer": draw.choice("xyz" if seed else "x")}
            for _ in range(draw.randint(1, 6))
        ]  # fmt: skip
        assert _outcome(asked, data) == _pairs(asked, data)


def _outcome(asked, data):
    try:
        return matching.matched(asked, data, "r")[0].tolist()
    except InputError as error:
        return {word for word in ("match no training", "match several", "mean a training record") if word in str(error)}


def _pairs(asked, data):
    """Every record held against every other."""
    taken, problems = [], set()
    for record in asked:
        meant = [i for i, trained in enumerate(data.records) if trained["answer"] == record["answer"]]
        inside = [i for i in meant if data.records[i]["question"].strip().casefold() in record["question"].casefold()]
        free = [i for i in inside or meant if i not in taken]
        if not meant:
            problems.add("match no training")
        elif not free:
            problems.add("mean a training record")
        elif len({data.records[i]["question"] for i in free}) > 1:
            problems.add("match several")
        else:
            taken.append(free[0])
    return problems or sorted(taken)


def test_digits_are_scikit_learn_s_also_where_their_file_has_moved():
    for name in ("digits.csv.gz", "elsewhere.csv.gz"):
        pixels, labels = digits._read(name)
        assert pixels.shape == (1797, 64) and labels.sum() == 8070 and pixels.sum() == 561718


def test_the_benchmark_of_large_inputs_runs(capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location("large_inputs", BENCH)
    assert spec is not None and spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    monkeypatch.setattr(sys, "argv", ["large_inputs.py", "--smoke"])
    bench.main()
    printed = capsys.readouterr().out
    for what in ("examples", "features", "users", "records", "ratio", "spread", "MiB", "exponent"):
        assert what in printed
