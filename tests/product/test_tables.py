"""Tables and arrays from disk."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.core.errors import InputError
from expunge.core.request import Target
from expunge.data.tables import read_arrays, read_csv

TABLE = "who,age,colour,ill\n007,20,red,yes\n7,55,blue,no\nx,90,red,no\n007,30,blue,yes\n"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    return path


def read(*paths, **options):
    settings = {"label": "ill", "users": ["who"], "categories": {"colour": ["red", "blue"]}, "classes": ["no", "yes"]}
    return read_csv(paths, **settings | options)


def test_a_declared_table_is_read_row_by_row(table):
    (rows,) = read(table, scale={"age": (20, 70)})
    assert rows.x.tolist() == [[0.0, 1, 0], [pytest.approx(0.7), 0, 1], [1.0, 1, 0], [pytest.approx(0.2), 0, 1]]
    assert rows.y.tolist() == [1, 0, 0, 1]
    assert rows.preprocessing.value == "fixed"


def test_users_are_compared_as_the_file_writes_them(table):
    """``007`` and ``7`` are two people, although they are one number."""
    (rows,) = read(table)
    assert rows.select(Target("user", {"who": "007"}))["row"].tolist() == [0, 3]
    assert rows.select(Target("user", {"who": 7}))["row"].tolist() == [1]
    assert rows.select(Target("user", {"who": "nobody"}))["row"].tolist() == []


def test_a_user_column_is_no_feature_unless_listed(table):
    (rows,) = read(table)
    assert rows.x.shape == (4, 3)
    assert list(rows.columns) == ["who"]
    table.write_text(TABLE.replace("007", "8").replace("x", "9"))
    (rows,) = read(table, features=["who", "age"])
    assert rows.x[:, 0].tolist() == [8, 7, 9, 8]


def test_scaled_values_stay_in_their_range(table):
    (rows,) = read(table, scale={"age": (30, 60)})
    assert rows.x[:, 0].tolist() == pytest.approx([0, 25 / 30, 1, 0])


def test_labels_that_are_numbers_are_taken_as_they_are(table):
    table.write_text(TABLE.replace("yes", "2").replace("no", "0"))
    (rows,) = read(table, classes=None)
    assert rows.y.tolist() == [2, 0, 0, 2]
    assert rows.preprocessing.value == "fixed"


def test_labels_that_are_text_are_learnt_from_the_first_table(table, tmp_path):
    test = tmp_path / "test.csv"
    test.write_text("who,age,colour,ill\n1,50,red,yes\n")
    train, held_out = read(table, test, classes=None)
    assert train.y.tolist() == [1, 0, 0, 1]
    assert held_out.y.tolist() == [1], "the test table alone would have called it 0"
    assert train.preprocessing.value == "fitted", "the set of labels looked at all rows"


def test_standardising_uses_the_first_table_and_says_so(table, tmp_path):
    test = tmp_path / "test.csv"
    test.write_text("who,age,colour,ill\n1,48.75,red,yes\n")
    train, held_out = read(table, test, standardise=True, features=["age"])
    assert float(train.x.mean()) == pytest.approx(0, abs=1e-6)
    assert float(train.x.std(correction=0)) == pytest.approx(1)
    assert float(held_out.x) == pytest.approx(0), "48.75 is the mean of the first table"
    assert train.preprocessing.value == "fitted"


def test_standardising_voids_the_certificate(cli, job, tmp_path):
    generator = np.random.default_rng(0)
    lines = [f"{i // 5},{a:.3f},{b:.3f},{int(a > b)}" for i, (a, b) in enumerate(generator.random((400, 2)))]
    (tmp_path / "rows.csv").write_text("\n".join(["who,a,b,label", *lines]))
    (tmp_path / "test.csv").write_text("\n".join(["who,a,b,label", *lines[:30]]))
    data = {"format": "csv", "path": "rows.csv", "test_path": "test.csv", "label": "label", "users": ["who"]}
    settings = {  # of 100 rows at epsilon 5 the noise ended one run in five in utility-collapse
        "model_settings": {"features": 2, "classes": 2}, "publish": {"epsilon": 10, "delta": 1e-5, "capacity": 5},
        "request": {"subject": "a", "targets": [{"kind": "user", "where": {"who": 3}}]},
    }  # fmt: skip
    plain = cli("run", job(data=data, **settings), "--out", "plain", "--json").json["runs"][0]
    assert (plain["verdict"], plain["epsilon"]) == ("certified-under-declared-constants", pytest.approx(10))
    data["standardise"] = True
    held = cli("run", job(data=data, **settings), "--out", "fitted", "--json")
    assert held.code == 3 and "held back" in held.err and "accept" in held.err
    assert not (tmp_path / "fitted" / "models").exists() and (tmp_path / "fitted.private" / "review.html").is_file()
    review = " ".join((tmp_path / "fitted.private" / "review.html").read_text().split())
    assert "Held back.</b>" in review and "was delivered and" not in review and "hip it" not in review
    accepted = {"by": "the officer", "reason": "the numbers are public anyway"}
    fitted = cli("run", job(data=data, accept=accepted, **settings), "--out", "fitted", "--json")
    assert fitted.code == 0, fitted.err
    assert (fitted.json["runs"][0]["verdict"], fitted.json["runs"][0]["epsilon"]) == ("void", None)
    assert "the numbers are public anyway" in (tmp_path / "fitted" / "report.html").read_text()
    assert cli("verify", "fitted").code == 5


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (("55", ""), {}, "'age' of table.csv has 1 missing value"),
        (("x,", ","), {}, "could not be found again"),
        (("blue", "green"), {}, "'green', which is not in its categories"),
        (("yes", "maybe"), {}, "'maybe' of table.csv is not among the classes no, yes"),
        (("yes", ""), {}, "'ill' of table.csv has 2 missing"),
        (("", ""), {"categories": {}}, "is text; list its values"),
        (("", ""), {"scale": {"age": (5, 5)}}, "low < high"),
        (("", ""), {"features": ["weight"]}, "has no column weight; it has who, age, colour, ill"),
        (("", ""), {"users": ["who", "age", "colour"], "categories": {}}, "no column left"),
        ((TABLE, ""), {}, "cannot be read as a CSV table"),
        ((TABLE, 'who\n"'), {}, "cannot be read as a CSV table"),
        ((TABLE, "who,age,colour,ill\n"), {}, "has no rows"),
    ],
)
def test_what_cannot_be_used(table, change, options, message):
    table.write_text(TABLE.replace(*change) if change[0] else TABLE)
    with pytest.raises(InputError, match=message):
        read(table, **options)


def test_bytes_that_are_no_text(table):
    table.write_bytes(b"who,age,colour,ill\n\xff\xfe\xfa,1,red,yes\n")
    with pytest.raises(InputError, match="cannot be read as a CSV table"):
        read(table)


def test_arrays_carry_users(tmp_path):
    np.savez(tmp_path / "rows.npz", x=np.eye(4), y=np.arange(4), who=np.array(["a", "b", "a", "c"]))
    rows = read_arrays(tmp_path / "rows.npz")
    assert rows.select(Target("user", {"who": "a"}))["row"].tolist() == [0, 2]


def test_ids_of_arrays_name_rows_and_each_of_them_once(tmp_path):
    path, content = tmp_path / "rows.npz", {"x": np.eye(4), "y": np.arange(4)}
    np.savez(path, **content, ids=np.array([7, 0, 40, 3]))
    rows = read_arrays(path)
    asked = rows.select(Target("samples", {"ids": [40, 3]}))
    assert sorted(rows.only(asked).y.tolist()) == [2, 3] and "ids" not in rows.columns
    for ids, said in (
        ([7, 0, 40, 7], "Expected each id once; 7 names 2 rows"), ([7, 0, 40], "Expected 4 whole numbers as ids"),
        ([0.5, 1.0, 2.0, 3.0], "Expected 4 whole numbers"), (["a", "b", "c", "d"], "another name than ids"),
        (np.array([2**63, 1, 2, 3], np.uint64), "Expected 4 whole numbers"),
    ):  # fmt: skip
        np.savez(path, **content, ids=np.array(ids))
        with pytest.raises(InputError, match=f"rows.npz: .*{said}"):
            read_arrays(path)
        assert len(read_arrays(path, people=False)) == 4  # nobody asks for test rows


@pytest.mark.parametrize("name", ["rows.npz", "rows.safetensors", "rows.txt"])
def test_arrays_that_are_none(tmp_path, name):
    (tmp_path / name).write_bytes(b"no arrays")
    with pytest.raises(InputError, match=r"rows\."):
        read_arrays(tmp_path / name)


def test_arrays_without_labels(tmp_path):
    np.savez(tmp_path / "rows.npz", x=np.eye(4))
    with pytest.raises(InputError, match="no array y; it has x"):
        read_arrays(tmp_path / "rows.npz")
