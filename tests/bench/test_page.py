"""How a benchmark's record is shown: every case that it can hold, on the page, in Markdown and on a terminal."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser

import pytest

from expunge import modalities
from expunge.bench import page, page_plots, page_rows, page_sheet
from expunge.cli.bench_output import show_bench, show_recipes
from expunge.core.errors import InputError
from expunge.metrics.catalogue import METRICS
from expunge.modalities.classification.benchmark import LAYOUT

from . import worlds

FIGURES = LAYOUT.figures  # gaps first


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.svgs: list[dict] = []
        self.headers: list[dict] = []
        self.captions = 0
        self.said: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.captions += tag == "caption"
        self.svgs += [given] if tag == "svg" else []
        self.headers += [given] if tag == "th" else []
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given[name] for name in ("src", "href", "xlink:href", "action", "data") if name in given]

    def handle_data(self, data):
        self.said.append(data)


@pytest.fixture(scope="module")
def record() -> dict:
    return worlds.special()


@pytest.fixture(scope="module")
def text(record) -> str:
    return page.html(record)


def tables(record: dict) -> dict:
    """What is on the page beside figures, which take most of the time."""
    return page_sheet.sheet(record, figures=False)


def bare(**more) -> dict:
    """A record whose rows have no numbers at all."""
    return worlds.whole([worlds.row("scrub_r", "refused", "It needs validation rows.", seeds=0)], **more)


def test_rows_are_in_the_order_of_reading(record):
    lines = page_rows.ordered(record)
    assert [line.name for line in lines] == [
        "salun+dual", "salun", "fine_tune", "random_labels", "neg_grad_plus", "scrub_r", "scrub", "sfron",
    ]  # fmt: skip
    assert [line.number for line in lines] == list(range(1, 9))
    assert page_rows.word_of({"verdict": "failed (1 of 3)"}) == "failed"


def test_files_are_whole_and_equal_for_an_equal_record(record, tmp_path):
    first = page.write_page(record, tmp_path / "first")
    shuffled = dict(reversed(copy.deepcopy(record).items()))
    second = page.write_page(shuffled, tmp_path / "second")
    assert {name: path.name for name, path in first.items()} == {
        "html": "index.html", "markdown": "leaderboard.md", "json": "record.json",
    }  # fmt: skip
    for name, path in first.items():
        assert path.read_bytes() == second[name].read_bytes()
        assert not list(path.parent.glob(".*"))
    assert json.loads(first["json"].read_bytes()) == record


def test_a_folder_that_is_a_file_is_refused(record, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken"):
        page.write_page(record, tmp_path / "taken")


def test_the_page_is_self_contained(text):
    shown = Page(text)
    assert not {"script", "link", "iframe", "img", "object", "embed"} & set(shown.tags)
    assert all(link.startswith("#") for link in shown.links)
    assert not re.search(r"@import|url\((?!#)|\son\w+=", text)
    assert len(shown.ids) == len(set(shown.ids))
    assert "--accent: #0b5d7a" in text and "prefers-color-scheme: dark" in text, "the report's style"


def test_the_page_can_be_read_without_seeing_it(text):
    shown = Page(text)
    assert len(shown.svgs) == 3 and all(svg.get("role") == "img" and len(svg["aria-label"]) > 60 for svg in shown.svgs)
    assert shown.captions == shown.tags.count("table")
    assert all(header.get("scope") in ("row", "col", "rowgroup") for header in shown.headers)
    gaps, forgetting, privacy = (svg["aria-label"] for svg in shown.svgs)
    assert "salun+dual: Gap per seed" in gaps and " to " in gaps
    assert "retrained: FA 92.1" in forgetting and "original: FA 99.6" in forgetting
    assert "MIA entropy, members" in privacy and "MIA SVC" in privacy
    assert "Seconds" in gaps


def test_every_number_stands_beside_what_it_should_be(text):
    said = " ".join(Page(text).said).replace("\N{NO-BREAK SPACE}", " ")
    assert "retrained 92.1 ± 1.4" in said and "ideal 0, by chance 0.62" in said and "ideal 1" in said
    assert "by chance 2.40" in said, "KLOM"
    assert "mia_entropy_member" in said and "mia_svc_nonmember" in said
    assert not re.search(r"(?<!\w)MIA(?= *\d)", said), "no MIA without its convention"


def test_the_first_paragraph_counts_in_words(record):
    summary = page_sheet.summary(record, page_rows.ordered(record))
    assert "three seeds on three forget sets, beside six models" in summary
    assert "two forget, one forgets too little" in summary
    assert "one loses its utility, one was refused, one failed and one was not run" in summary
    assert "a single seed" in page_sheet.summary({**record, "seeds": 1}, []) and "no rows" in page_sheet.summary(
        record, []
    )
    assert "no result" in page_sheet.summary({**record, "quick": True}, [])


@pytest.mark.parametrize(
    ("forget", "counts", "words"),
    [
        ({"kind": "samples", "share": 0.1}, [40, 40], "random 10 % of the training rows (40 rows)"),
        ({"kind": "user", "column": "writer"}, [7, 31], "one user, by column writer (7 to 31 rows)"),
        ({"kind": "class", "labels": [3, 5]}, [], "a whole class, of 3 or 5; test rows"),
    ],
)
def test_what_was_forgotten_is_said(record, forget, counts, words):
    said = page_sheet.forgotten({**record, "forget": forget, "n_forget": counts}).replace("\N{NO-BREAK SPACE}", " ")
    assert words in said


def test_reasons_are_told_with_those_without_numbers_first(record, text):
    reasons = tables(record)["reasons"]
    assert [item["name"] for item in reasons[:4]] == ["sfron", "scrub", "scrub_r", "neg_grad_plus"]
    assert "Weights of layer.0 are not finite after step 12." in text and "No reason is recorded." in text


def test_weak_numbers_are_marked_with_their_reason(record, text):
    other = tables(record)["others"]
    klom = next(column for column in other["columns"] if column["name"] == "klom")
    reasons = dict(other["notes"])
    assert "too few models for a headline: 100 needed" in reasons[klom["mark"]].lower()
    leaderboard = tables(record)["leaderboard"]
    assert [column["name"] for column in leaderboard["columns"] if column["mark"]] == ["gap_per_seed", "gap"]
    assert "5 needed" in leaderboard["notes"][0][1] and "3 here" in leaderboard["notes"][0][1]
    strong = worlds.realistic()
    assert not tables(strong)["leaderboard"]["notes"]


def test_marks_and_chance_stand_in_the_cell_where_rows_differ(record):
    mixed = copy.deepcopy(record)
    mixed["rows"][1] = worlds.row(
        "salun", "forgets", "Yes.", 5, worlds.metrics(91.5, 98.9, 91.1, 4.4, seeds=5, tag="s")
    )
    board = tables(mixed)["leaderboard"]
    gap = [column["name"] for column in board["columns"]].index("gap")
    assert board["columns"][gap]["mark"] == "" and "in cells" in board["columns"][gap]["target"]
    dual, salun = (row["cells"][gap] for row in board["groups"][0]["rows"])
    assert dual["mark"] and not salun["mark"]
    assert "chance 0.36" in dual["notes"] and "chance 0.28" in salun["notes"]


def test_published_numbers_stand_apart(record, text):
    published = tables(record)["published"]
    assert published["names"] == ["FA", "TA", "MIA (as the paper counts it)"]
    assert published["rows"][0]["published"][0] == "97.2 ± 0.4" and published["rows"][0]["ours"][0].startswith("91.5 (")
    assert published["rows"][1]["ours"][0].startswith("92.1"), "the retrained row is ours too"
    assert "does not say in what" in published["differs"][0]
    assert "What papers print" not in page.markdown({**record, "published": []})
    assert "97.2" not in text[: text.index('id="published"')]


def test_what_it_cost(record, text):
    cost = dict(tables(record)["cost"])
    assert cost["Training the original"] == "44 s" and cost["Training 6 retrained models"] == "4.1 min"
    assert cost["Tuning, 20 trials"] == "91 s"
    assert cost["Beside each other"] == "cells ran 2 at a time: seconds are longer than alone"
    alone = dict(tables({**bare(jobs=1), "from_cache": True})["cost"])
    assert alone["Beside each other"] == "cells ran one at a time" and "Original and retrained models" in alone
    assert alone["Tuning"].startswith("none")


def test_every_number_of_the_record_is_defined(record):
    definitions = {item["name"]: item for item in tables(record)["definitions"]}
    found = {name for row in record["rows"] for name in row["metrics"]}
    assert found <= definitions.keys()
    assert definitions["FA"]["ideal"] == "the retrained model's value" and definitions["ulira"]["ideal"] == "0.5"
    assert definitions["klom"]["ideal"] == "what chance gives" and definitions["klom"]["direction"] == "lower"


@pytest.mark.parametrize("kind", modalities.names())
def test_labels_of_figures_name_the_unit_of_what_is_drawn(kind):
    """A recall of .9 was drawn on an axis that said per cent."""
    for figure in modalities.load(kind).benchmark.layout.figures:
        for panel in figure.panels:
            percents = {METRICS[metric].unit.startswith("percent") for metric in panel.metrics}
            assert percents == {"%" in panel.label}, (figure.name, panel.label)


def test_a_number_that_the_catalogue_does_not_know_is_shown_as_such(record):
    odd = copy.deepcopy(record)
    odd["rows"][1]["metrics"]["novel"] = worlds.item("novel", 3.25, None)
    assert "not in the catalogue" in page.html(odd)


def test_a_single_seed_has_no_interval(record):
    one = worlds.whole(
        [worlds.row("salun", "forgets", "Yes.", 1, worlds.metrics(91.5, 98.9, 91.1, 4.4, seeds=1))],
        seeds=1,
        forget_sets=1,
    )
    shown = tables(one)
    (salun,) = shown["leaderboard"]["groups"][0]["rows"]
    assert salun["cells"][0] == {"value": "91.5", "notes": [], "mark": ""}
    assert "there is a single seed" in page.markdown(one)
    assert "there is a single seed" not in page.markdown(record)


@pytest.mark.parametrize("missing", [{"reference": {}}, {"reference": None, "source": None}])
def test_without_models_to_compare_with(missing):
    values = worlds.metrics(91.5, 98.9, 91.1, 4.4)
    values = {n: {**i, "ideal": None, "null": None} for n, i in values.items() if not n.startswith(("gap", "tow"))}
    lonely = worlds.whole([worlds.row("salun", "undecidable", "There is no retrained model.", 3, values)], **missing)
    text = page.html(lonely)
    assert "without any retrained model" in text and "no\N{NO-BREAK SPACE}retrained\N{NO-BREAK SPACE}model" in text
    assert len(Page(text).svgs) == 2, "gaps and cost have nothing to show"
    assert "undecidable" in page.markdown(lonely)


def test_rows_without_numbers_make_a_page_without_figures():
    text = page.html(bare())
    assert "nothing to draw" in text and "It needs validation rows." in text and not Page(text).svgs
    assert "The table has no rows." in page.html(worlds.whole([]))


def test_nothing_that_is_no_number_is_shown(record, tmp_path, capsys):
    holed = copy.deepcopy(record)
    metrics = holed["rows"][1]["metrics"]
    metrics["FA"]["null"] = metrics["gap"]["mean"] = float("nan")
    metrics["RA"] |= {"low": float("-inf"), "high": float("inf")}
    holed["reference"]["metrics"]["gap_per_seed"]["null"] = float("nan")
    for path in page.write_page(holed, tmp_path).values():
        assert not re.search(r"\b(nan|inf|NaN|Infinity|None)\b", path.read_text()), path.name
    show_bench(holed, True)
    assert json.loads(capsys.readouterr().out)["rows"][1]["metrics"]["gap"]["mean"] is None


def test_hostile_words_stay_text(record, capsys):
    evil = '<script>alert("x")</script>|[x](javascript:y) $\\alpha$'
    hostile = copy.deepcopy(record)
    hostile["title"] = hostile["note"] = evil
    hostile["rows"][1] |= {"method": evil, "reason": evil}
    text = page.html(hostile)
    assert "<script" not in text and "&lt;script&gt;" in text and "$\\alpha$" in text
    markdown = page.markdown(hostile)
    assert "<script" not in markdown and "[x](" not in re.sub(r"\\\[", "", markdown)
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in tables[:12]}) == 1, "no cell was split"
    hostile["rows"][1]["method"] = "[bold]row[/x]"
    show_bench(hostile, False)
    assert "[bold]row[/x]" in capsys.readouterr().out


def test_markdown_holds_the_same_tables(record):
    markdown = page.markdown(record)
    assert markdown.startswith("# Blobs, small network\n")
    for heading in (
        "Leaderboard",
        "Why each row has its outcome",
        "Other numbers",
        "What papers print",
        "What it cost",
    ):
        assert f"\n## {heading}\n" in markdown
    line = next(line for line in markdown.splitlines() if line.startswith("| 1 | salun+dual |"))
    assert "std" in line and line.endswith("✓ forgets |")
    assert "| – | – |" in next(line for line in markdown.splitlines() if line.startswith("| 6 | scrub_r |"))


def test_figures_leave_out_what_is_not_there(record):
    assert not [shown for shown in FIGURES if page_plots.draw(bare(), shown)]
    gaps = page_plots.draw(record, FIGURES[0])
    assert gaps is not None and "A triangle lies beyond" in gaps.caption and "72.55" in gaps.svg
    alike = worlds.whole(
        [worlds.row(n, "forgets", "", 3, worlds.metrics(92.1, 99.2, 91.8, 1.0, tag="x")) for n in "ab"]
    )
    assert all(page_plots.draw(alike, shown) for shown in FIGURES)


def test_figures_of_collapsed_rows_alone():
    lost = [
        worlds.row(n, "utility-collapse", "", 3, worlds.metrics(10.0 + i, 20.0, 19.0, 1.0, tag=n))
        for i, n in enumerate("abc")
    ]
    figure = page_plots.draw(worlds.whole(lost), FIGURES[0])
    assert figure is not None and "triangle" not in figure.caption, "they are all that there is to see"


@pytest.mark.parametrize("make", [worlds.special, worlds.realistic])
def test_the_terminal_table_fits(make, capsys, tmp_path):
    record = make()
    show_bench(record, False, {"html": tmp_path / "index.html"})
    out = capsys.readouterr().out
    table = out.split("\n\n")[0].splitlines()
    assert max(map(len, out.replace(str(tmp_path), "").splitlines())) <= 100
    lines = [line.split() for line in out.splitlines() if line.strip()]
    heads = [line[0] for line in lines]
    assert heads.index("retrained") < heads.index("original") < heads.index(page_rows.ordered(record)[0].name)
    assert "±" in out and "under-forgets" in out and table
    for row in record["rows"]:
        assert sum(line[0] == row["method"] for line in lines) == 1 + (row["verdict"] != "forgets")
    assert "scrub_r was refused: SCRUB+R needs validation rows" in out
    assert f"Page: {tmp_path / 'index.html'}" in out


def test_json_is_the_record_alone(record, capsys, tmp_path):
    show_bench(record, True, {"html": tmp_path / "index.html"})
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and json.loads(out) == record
    assert "index.html" in err


def test_a_single_seed_on_the_terminal(capsys):
    one = worlds.whole(
        [worlds.row("salun", "forgets", "", 1, worlds.metrics(91.5, 98.9, 91.1, 4.4, seeds=1))], seeds=1, jobs=1
    )
    show_bench({**one, "quick": True}, False)
    out = capsys.readouterr().out
    assert "(1 seed, 3 forget sets)" in out and "±" not in out and "no result" in out and "at a time" not in out


def test_recipes_are_listed(capsys):
    rows = [{"name": "cifar", "title": "CIFAR-10, ResNet-18", "marks": ["gpu"]}]
    show_recipes(rows, False)
    assert "gpu" in capsys.readouterr().out
    show_recipes(rows, True)
    assert json.loads(capsys.readouterr().out) == rows
    show_recipes([], False)
    assert "contains no recipe" in capsys.readouterr().out


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Run ``expunge bench`` in this process: exit code, stdout and stderr."""
    import sys

    from expunge.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["expunge", "bench", *arguments])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("arguments", "says"),
    [((), "--list"), (("nope",), "nope"), (("x.yaml",), "no recipe file"), (("nope", "--seeds", "0"), "--seeds")],
)
def test_the_command_refuses_in_words(command, tmp_path, arguments, says):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "") and says in err and "Traceback" not in err
    assert not list(tmp_path.iterdir()), "something was written"


def test_the_command_passes_on_what_it_was_given(command, record, monkeypatch, tmp_path):
    from expunge.bench import recipe, run

    asked = {}

    def fake(loaded, folder, settings, *, watch):
        print("noise of the user's code")
        asked.update(loaded=loaded, folder=folder, settings=settings)
        return record

    class Loaded:
        name = "blobs"

    monkeypatch.setattr(recipe, "load_recipe", lambda name: Loaded())
    monkeypatch.setattr(run, "bench", fake)
    code, out, err = command(
        "blobs", "--methods", "salun, ssd", "--seeds", "4", "--forget-sets", "2", "--quick", "--jobs", "1", "--tune", "3",
        "--json",
    )  # fmt: skip
    assert code == 0 and json.loads(out) == record and "noise" in err and "index.html" in err
    assert asked["settings"] == run.BenchSettings(
        methods=("salun", "ssd"), seeds=4, forget_sets=2, quick=True, jobs=1, tune=3
    )
    assert str(asked["folder"]).replace("\\", "/") == "bench-results/blobs"
    assert (tmp_path / "bench-results" / "blobs" / "index.html").is_file()
    assert command("blobs", "--defaults", "--out", "other")[0] == 0
    assert asked["settings"] == run.BenchSettings(methods=("all",), defaults=True)
    assert (tmp_path / "other" / "leaderboard.md").is_file()


def test_the_command_lists_recipes(command):
    code, out, _ = command("--list", "--json")
    assert code == 0 and all(set(row) == {"name", "title", "marks"} for row in json.loads(out))
