"""A request means what is written, all of it, and nothing else. Inputs of others that went wrong are in ``tests/inputs``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.product.language import facts, write, write_job

from expunge import Request, Target
from expunge.core.data import Deletion, Ids
from expunge.core.errors import InputError
from expunge.data.images import class_folders, image_folder
from expunge.data.look_alikes import copies_that_stay, look_alikes
from expunge.data.rows import Rows
from expunge.data.tables import read_arrays, read_csv
from expunge.data.texts import Texts, left_out, read_jsonl
from expunge.jobs.schema import load_job
from expunge.modalities.classification import opening as build
from expunge.modalities.classification.config import ClassifierJob as Job
from expunge.modalities.language import asking
from expunge.modalities.language import opening as language
from expunge.modalities.language.config import LanguageJob

INPUTS = Path(__file__).parents[1] / "inputs"
TRAPS = [
    *(
        "010",
        "1_000",
        "1:30",
        "0x10",
        "1e3",
        "no",
        "Yes",
        "on",
        "1.50",
        "~",
        "null",
        ".5",
        "+3",
        "-0",
        "00",
        ".nan",
        ".inf",
    ),
    *("0b11", "12:30:45", "2001-01-01T10:00:00Z", "2001-99-99"),
]


@pytest.fixture
def given(tmp_path):
    """A copy of an input that went wrong."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(INPUTS / name, tmp_path / name))

    return copy


def forgotten(folder: Path, *overrides: str) -> Deletion:
    """What the job in ``folder`` would forget."""
    job = opened(folder / "job.yaml", *overrides)
    data, probes = build.data_of(job)
    return Deletion.of(data, job.request.asked(), probes)


def people(count: int = 6, names: tuple[str, ...] = ()) -> Rows:
    return Rows.of(np.eye(count), np.arange(count) % 3, {"who": [f"p{i}" for i in range(count)]}, names=names)


def opened(path: Path, *overrides: str) -> Job:
    job = load_job(path, overrides)
    assert isinstance(job, Job)
    return job


def opened_language(path: Path) -> LanguageJob:
    job = load_job(path)
    assert isinstance(job, LanguageJob)
    return job


def asked(*targets: tuple[str, dict]) -> Request:
    return Request("somebody", tuple(Target(kind, where) for kind, where in targets))


# --- YAML numbers name nobody else


def test_patient_010_is_not_patient_8(given):
    folder = given("yaml_octal_person")
    with pytest.raises(InputError, match=r"'010'; YAML reads it as 8\. Quote it"):
        forgotten(folder)
    text = (folder / "job.yaml").read_text()
    (folder / "job.yaml").write_text(text.replace("010", '"010"'))
    assert set(forgotten(folder).forget.columns["patient"]) == {"010"}
    (folder / "job.yaml").write_text(text.replace("010", "8"))
    assert set(forgotten(folder).forget.columns["patient"]) == {"8"}


@pytest.mark.parametrize("written", TRAPS)
def test_what_yaml_understands_as_another_value_is_to_be_quoted(given, refused, written):
    folder = given("yaml_octal_person")
    text = (folder / "job.yaml").read_text()
    for value in (written, f"[P5, {written}]"):
        (folder / "job.yaml").write_text(text.replace("010", value))
        with pytest.raises(InputError, match="Quote it"):
            load_job(folder / "job.yaml")
    (folder / "job.yaml").write_text(text.replace("010", "P5"))
    for override in (
        f"request.targets.0.where.patient={written}",
        f"request.targets.0.where={{patient: {written}}}",
        f"request.targets.0={{kind: user, where: {{patient: [{written}]}}}}",
        f"request={{subject: a, targets: [{{kind: user, where: {{patient: {written}}}}}]}}",
    ):
        with pytest.raises(InputError, match="Quote it"):
            load_job(folder / "job.yaml", [override])
    add = ("requests", "add", "--ledger", "book.sqlite", "--subject", "a", "--where")
    assert "Quote it" in refused(*add, f"patient={written}")


@pytest.mark.parametrize("content", ["x: &n 010\n{where}: {{a: *n}}", "b: &b {{a: 010}}\n{where}: {{<<: *b}}",
                                     "{where}: {{010: a}}", "{where}: {{a: !!int 010}}"])  # fmt: skip
def test_aliases_merges_and_names_of_columns_are_no_way_round(tmp_path, content):
    from expunge.jobs.yaml_files import read_yaml

    path = tmp_path / "x.yaml"
    path.write_text(content.format(where="where"))
    with pytest.raises(InputError, match="Quote it"):
        read_yaml(path)


@pytest.mark.parametrize(
    "written", ["17", "-3", "1.5", "P5", "NA", "2001-01-01", '"010"', "'no'", "true", "O'Brien", "ü"]
)
def test_what_has_one_meaning_needs_no_quotes(cli, written):
    done = cli("requests", "add", "--ledger", "b.sqlite", "--subject", "a", "--where", f"patient={written}", "--json")
    assert done.code == 0, done.err


def test_quoted_and_plain_dates_are_one_request(cli):
    add = ("requests", "add", "--ledger", "b.sqlite", "--subject", "a", "--json", "--where")
    assert cli(*add, "day=2001-01-01").json["id"] == cli(*add, "day='2001-01-01'").json["id"]
    assert cli(*add, "day='010'").json["id"] != cli(*add, "day=8").json["id"]


@pytest.mark.parametrize("written", [" b", "b ", "a #b", "a: b", "- a", "{x}", "#x", "", "[", "*x", "&x [*x]", "\t", "@a",
                                     "!!python/name:os.system", "[" * 3000])  # fmt: skip
def test_a_value_on_the_command_line_is_all_of_what_is_written(refused, written):
    add = ("requests", "add", "--ledger", "book.sqlite", "--subject", "a", "--where", f"patient={written}")
    refused(*add)


def test_a_column_named_twice_is_not_the_last_one(refused):
    add = (
        "requests",
        "add",
        "--ledger",
        "b.sqlite",
        "--subject",
        "a",
        "--where",
        "patient=P5",
        "--where",
        "patient=P6",
    )
    assert "--where 'patient=[…, …]'" in refused(*add)


def test_a_job_that_repeats_itself_without_an_end(tmp_path):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)]
    (tmp_path / "x.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match="by repeating itself"):
        load_job(tmp_path / "x.yaml")


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), [], [3, None], {"a": None}, "\udcff"])
def test_a_target_that_can_name_nobody(value):
    with pytest.raises(InputError):
        Target("user", {"person": value})


# --- every target matches, value by value


def test_a_partial_request_names_what_is_not_there(given):
    with pytest.raises(
        InputError, match=r"2 of 3 do not: target 2 \(user\): patient 'P66'; target 3 .*ids 400, 401 \(2 of 3\)"
    ):
        forgotten(given("partial_request_certified"))


@pytest.mark.parametrize(
    ("target", "named"),
    [
        (("samples", {"ids": [3, 999999, -7]}), "ids -7, 999999"),
        (("class", {"label": [0, 77]}), "label 77"),
        (("user", {"who": ["p1", "p9"]}), "who 'p9'"),
        (("user", {"who": "P1"}), r"who 'P1' \(there is 'p1'\)"),
        (("user", {"who": "p01"}), r"there is 'p1'"),
    ],
)
def test_every_value_of_a_target_must_be_there(target, named):
    for targets in ([target], [("samples", {"ids": [2]}), target]):
        with pytest.raises(InputError, match=named):
            Deletion.of(people(), asked(*targets))


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("Maria Gonzlez", True), ("Maria Gonzalezz", True), ("Maria Gonsalez", True), ("Maria Gonzaelz", True),
     ("Gonzalez, Maria", True), ("gonzalez maria", True), ("Mario Gonsalez", False), ("Maria", False), ("u012", False)],
)  # fmt: skip
def test_a_name_with_one_letter_wrong_or_in_another_order_is_named_and_never_a_number_s_neighbour(wrong, meant):
    rows = Rows.of(np.eye(3), np.arange(3) % 2, {"who": ["Maria Gonzalez", "u011", "Bo"]})
    with pytest.raises(InputError) as refusal:
        Deletion.of(rows, asked(("user", {"who": wrong})))
    assert ("there is 'Maria Gonzalez'" in str(refusal.value)) == meant and "u011" not in str(refusal.value)


def test_ids_that_an_earlier_request_removed_count_as_matched():
    gone, request = Ids.rows([1, 2]), asked(("samples", {"ids": [1, 2, 3]}))
    whole = people()
    for data in (whole, whole.without(gone)):
        deletion = Deletion.of(data, request, gone=gone)
        assert deletion.ids["row"].tolist() == [3]
        assert deletion.after.ids.tolist() == [0, 4, 5], "what went before is not retained"
    assert Deletion.of(whole, asked(("user", {"who": ["p1", "p3"]})), gone=gone).ids["row"].tolist() == [3]
    with pytest.raises(InputError, match="ids 1, 2"):
        Deletion.of(whole.without(gone), request)
    with pytest.raises(InputError, match="already: nothing is left"):
        Deletion.of(whole, asked(("samples", {"ids": [1]})), gone=gone)


def test_many_people_in_one_target(given):
    assert set(forgotten(given("many_people_in_one_target")).forget.columns["patient"]) == {"P5", "P6"}


def test_of_two_columns_each_value_must_be_there_and_both_hold():
    rows = Rows.of(np.eye(4), np.arange(4) % 2, {"who": ["a", "a", "b", "b"], "day": [1, 2, 1, 3]})
    both = Deletion.of(rows, asked(("user", {"who": ["a", "b"], "day": 1})))
    assert both.ids["row"].tolist() == [0, 2]
    with pytest.raises(InputError, match="day '3'"):
        Deletion.of(rows, asked(("user", {"who": "a", "day": [1, 3]})))


@pytest.mark.parametrize("name", ["gone.npy", "gone.txt", "gone.json"])
def test_ids_in_a_file_are_the_request_of_these_ids(given, cli, name):
    folder = given("many_people_in_one_target")
    np.save(folder / "gone.npy", np.array([3, 5]))
    (folder / "gone.txt").write_text("3\n5\n\n")
    (folder / "gone.json").write_text("[3, 5]")
    targets = "request.targets=[{kind: samples, where: {ids: %s}}]"
    deletion = forgotten(folder, targets % name)
    assert deletion.ids["row"].tolist() == [3, 5]
    ids = {opened(folder / "job.yaml", targets % each).request.asked().id(b"k") for each in (name, "[3, 5]")}
    assert len(ids) == 1
    add = ("requests", "add", "--ledger", "b.sqlite", "--subject", "a", "--kind", "samples", "--json", "--where")
    assert cli(*add, f"ids={folder / name}").json["id"] == cli(*add, "ids=[3, 5]").json["id"]


@pytest.mark.parametrize("content", [b"3\nfive\n", b"010\n", b"", b"\xff\xfe", b"1.0\n"])
def test_a_file_of_ids_that_holds_something_else(given, content):
    folder = given("many_people_in_one_target")
    (folder / "gone.txt").write_bytes(content)
    (folder / "gone.npy").write_bytes(content)
    (folder / "gone.json").write_bytes(content)
    for name in ("gone.txt", "gone.npy", "gone.json", "gone.pt", "missing.txt"):
        with pytest.raises(InputError):
            forgotten(folder, f"request.targets=[{{kind: samples, where: {{ids: {name}}}}}]")


def test_classes_go_by_the_names_that_the_job_declares(tmp_path):
    (tmp_path / "d.csv").write_text("who,a,kind\n1,0.1,cat\n2,0.2,dog\n3,0.3,bird\n")
    (rows,) = read_csv([tmp_path / "d.csv"], label="kind", users=["who"], classes=["dog", "cat", "bird"])
    assert rows.select(Target("class", {"label": ["cat", "bird"]}))["row"].tolist() == [0, 2]
    assert rows.select(Target("class", {"label": 1}))["row"].tolist() == [0], "a number is a place in classes"
    with pytest.raises(InputError, match="the classes are dog, cat, bird"):
        rows.select(Target("class", {"label": "fish"}))


def test_a_number_that_is_the_name_of_another_class_is_not_guessed(tmp_path):
    (tmp_path / "d.csv").write_text("who,a,kind\n1,0.1,1\n2,0.2,2\n3,0.3,3\n")
    (rows,) = read_csv([tmp_path / "d.csv"], label="kind", users=["who"], classes=[1, 2, 3])
    with pytest.raises(InputError, match=r"Quote it to name the class: label: '2'"):
        rows.select(Target("class", {"label": 2}))
    assert rows.select(Target("class", {"label": "2"}))["row"].tolist() == [1]


# --- look-alikes that stay


def test_look_alikes_are_named_and_stay():
    names = ["Ann", "Ann ", "ann", "Anne", "René", "Rene\u0301", "Zoë", "\uff21nn", "A\u200bnn"]
    rows = Rows.of(np.eye(9), np.arange(9) % 2, {"who": names})
    target = Target("user", {"who": "Ann"})
    assert rows.select(target)["row"].tolist() == [0]
    found = look_alikes(rows, [target])
    assert {each.stays for each in found} == {"Ann ", "ann", "\uff21nn", "A\u200bnn"}
    assert {(each.named, each.column, each.rows) for each in found} == {("Ann", "who", 1)}
    assert [each.stays for each in look_alikes(rows, [Target("user", {"who": "René"})])] == ["Rene\u0301"]
    assert look_alikes(rows, [Target("user", {"who": "Anne"})]) == ()
    both = [Target("user", {"who": name}) for name in names if name not in ("Anne", "Zoë")]
    assert look_alikes(rows, both) == (), "who goes too does not stay"
    named = Rows.of(np.eye(2), [0, 1], names=("Cat", "cat"))
    assert [str(each) for each in look_alikes(named, [Target("class", {"label": "Cat"})])] == [
        "label 'cat' looks like 'Cat' and stays (1 row(s))"
    ]


def test_equal_rows_of_somebody_else_are_counted():
    x = np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [3.0, 4.0], [1.0, 2.5]])
    rows = Rows.of(x, [0, 0, 1, 0, 0], {"who": list("aabcd")})
    assert copies_that_stay(rows, Ids.rows(np.array([0]))) == 1, "the second; the third has another label"
    assert copies_that_stay(rows, Ids.rows(np.array([0, 1]))) == 0
    assert copies_that_stay(rows, Ids.rows(np.array([3]))) == 0


# --- rows do not shift, and ids with gaps are nobody


def test_na_is_a_person(given):
    folder = given("user_id_NA")
    assert len(forgotten(folder).forget) == 10
    rows = read_csv([folder / "d.csv"], label="y", users=["patient"])[0]
    assert set(rows.columns["patient"]) == {"NA", "US", "DE", "FR"}
    assert len(rows.select(Target("user", {"patient": "NA"}))) == 10


def test_classes_declared_as_text_are_the_texts_of_the_file(given):
    assert forgotten(given("classes_declared_as_text")).before.y.unique().tolist() == [0, 1]


def test_row_numbers_without_a_name_are_no_feature(given, caplog):
    rows = read_csv([given("unnamed_index_is_a_feature") / "d.csv"], label="y", users=["patient"])[0]
    assert rows.x.shape[1] == 2
    assert "has no name and counts the rows" in caplog.text and "was left out" in rows.preprocessing.note


def test_null_is_nobody_and_1_finds_1_0(given, tmp_path):
    path = given("jsonl_null_and_float_users") / "d.jsonl"
    with pytest.raises(InputError, match=r"record 1 of d\.jsonl; got nobody"):
        read_jsonl(path, ["subject"])
    records = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [record for record in records if record["subject"] is not None]
    write(tmp_path / "kept.jsonl", kept)
    texts = read_jsonl(tmp_path / "kept.jsonl", ["subject"])
    for one in (1, 1.0, "1"):
        assert len(texts.select(Target("user", {"subject": one}))) == 3
    assert len(texts.select(Target("user", {"subject": "None"}))) == 0


@pytest.mark.parametrize("subject", [None, "", " ", [], [None], ["a", ""], True, {"name": "a"}, [["a"]]])
def test_a_record_of_nobody(tmp_path, subject):
    write(tmp_path / "d.jsonl", [{"text": "x", "who": "a"}, {"text": "y", "who": subject}])
    with pytest.raises(InputError, match="'who' of record 2"):
        read_jsonl(tmp_path / "d.jsonl", ["who"])


def test_a_record_that_names_two_people_belongs_to_each(tmp_path):
    write(
        tmp_path / "d.jsonl",
        [{"text": "x", "who": ["Ann", 7]}, {"text": "y", "who": "Ben"}, {"text": "z", "who": "Ann"}],
    )
    texts = read_jsonl(tmp_path / "d.jsonl", ["who"])
    assert texts.select(Target("user", {"who": "Ann"}))["row"].tolist() == [0, 2]
    assert texts.select(Target("user", {"who": 7}))["row"].tolist() == [0]
    assert Deletion.of(texts, asked(("user", {"who": [7, "Ben"]}))).ids["row"].tolist() == [0, 1]
    assert look_alikes(texts, [Target("user", {"who": "ann"})])[0].stays == "Ann"


def test_text_with_labels_is_not_the_question_alone(given):
    with pytest.raises(InputError, match="got text with 'labels' beside it"):
        read_jsonl(given("text_with_labels_forgets_the_question") / "d.jsonl")
    for key in ("answer", "output", "completion", "response", "Label"):
        with pytest.raises(InputError, match=f"{key!r}"):
            Texts.of([{"text": "Where does Ann live?", key: "In a red house."}])
    Texts.of([{"text": "A text.", "label": 1, "title": "T", "output": None}])


def test_big_endian_arrays_are_read(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
    who = np.array([f"p{i % 10}" for i in range(40)])
    np.savez(
        tmp_path / "be.npz", x=x.astype(">f4"), y=y.astype(">i8"), who=who.astype(">U4"), n=np.arange(40).astype(">i4")
    )
    np.savez(tmp_path / "le.npz", x=x.astype("f4"), y=y, who=who, n=np.arange(40))
    big, little = read_arrays(tmp_path / "be.npz"), read_arrays(tmp_path / "le.npz")
    assert big.digest == little.digest
    assert big.select(Target("user", {"who": "p5", "n": 5}))["row"].tolist() == [5]
    np.savez(tmp_path / "text.npz", x=x, y=np.array(["cat", "dog"])[y])
    with pytest.raises(InputError, match=r"text\.npz: Expected labels in numbers"):
        read_arrays(tmp_path / "text.npz")


def test_linked_class_folders_are_followed(tmp_path):
    for kind in ("cat", "dog"):
        (tmp_path / "real" / kind).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (8, 8), (i * 40, 0, 0)).save(tmp_path / "real" / kind / f"{i}.png")
    data = tmp_path / "data"
    data.mkdir()
    for kind in ("cat", "dog"):
        (data / kind).symlink_to(tmp_path / "real" / kind)
    assert len(image_folder(data)) == 6 and class_folders(data) == ["cat", "dog"]
    assert image_folder(data).select(Target("class", {"label": "dog"}))["row"].tolist() == [3, 4, 5]
    (tmp_path / "real" / "dog" / "again").symlink_to(data)
    with pytest.raises(InputError, match="link to a folder that it lies in"):
        image_folder(data)


# --- language


def test_what_a_context_leaves_out_of_a_request_can_be_counted():
    whole = Texts.of([{"text": f"text {i}"} for i in range(5)])
    kept = whole.at([0, 2, 3])
    assert left_out(whole, kept)["row"].tolist() == [1, 4]
    assert len(left_out(whole, kept) & Ids.rows([4, 0])) == 1


def test_a_language_job_takes_lists_and_files_and_names_what_is_missing(tmp_path):
    (tmp_path / "gone.txt").write_text("0\n7\n")
    targets = [
        {"kind": "user", "where": {"subject": ["person3", "person4"]}},
        {"kind": "samples", "where": {"ids": "gone.txt"}},
    ]
    job = opened_language(write_job(tmp_path, facts(), request={"targets": targets}))
    files = language.files_of(job)
    request, _ = asking.asked_of(job, files.data, files.asked)
    assert Deletion.of(files.data, request).ids["row"].tolist() == [0, 7, 9, 10, 11, 12, 13, 14]
    targets[0]["where"]["subject"].append("Person5")
    job = opened_language(write_job(tmp_path, facts(), request={"targets": targets}))
    request, _ = asking.asked_of(job, files.data, None)
    with pytest.raises(InputError, match=r"'Person5' \(there is 'person5'\)"):
        Deletion.of(files.data, request)
