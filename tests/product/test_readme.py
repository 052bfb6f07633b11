"""What README and docs show is run, or read by the code that would read it: Python, job files, recipes and commands.

A block says in its first line what it is. ``python`` is executed as it stands, the blocks of a page one after another.
``yaml`` is a whole job or recipe; ``yaml fragment`` and ``yaml fragment language`` are laid over a small job. Every line of a
``console`` block that begins with ``$`` is a command: those of :data:`RUN` are run, all others are parsed by the real parser,
with the job or recipe that they name. ``text`` is output. There is no list of exceptions.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer.main
import yaml
from tests.product.conftest import ROOT, SMALL
from tests.product.language import SMALL_LANGUAGE

from expunge.bench.recipe import load_recipe
from expunge.cli.app import app
from expunge.jobs.schema import load_job
from expunge.jobs.search import parse_guarantee

README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
RUN = ("methods", "key", "screen examples", "attack stealthy examples", "calibrate r2d", "requests add", "bench --list")
ROOT_COMMAND = typer.main.get_command(app)


def blocks(page: Path, kind: str) -> list[str]:
    return [body for info, body in fences(page.read_text(encoding="utf-8")) if info == kind]


def fences(text: str) -> list[tuple[str, str]]:
    """First line and content of every fenced block, in order."""
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    """Every command of a page, without prompt, comment and the file that its output goes to."""
    lines = [line[2:] for body in blocks(page, "console") for line in body.splitlines() if line.startswith("$ ")]
    return [re.sub(r"\s+[#>].*", "", line).strip() for line in lines]


ALL = list(dict.fromkeys(command for page in PAGES for command in commands(page)))
PYTHON = [page for page in PAGES if blocks(page, "python")]
YAML = [
    pytest.param(info, body, id=f"{page.stem}-{i}")
    for page in PAGES
    for i, (info, body) in enumerate(fences(page.read_text(encoding="utf-8")))
    if info.split()[:1] == ["yaml"]
]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty folder with the examples, as after a checkout; the example of a kind of model counts as installed."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    package = ROOT / "examples" / "modality_package"
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    made = tmp_path / "site" / "example-0.dist-info"
    made.mkdir(parents=True)
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 0\n")
    ((group, points),) = project["entry-points"].items()
    (made / "entry_points.txt").write_text(f"[{group}]\n" + "".join(f"{n} = {to}\n" for n, to in points.items()))
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_says_what_it_is(page):
    known = {"python", "console", "text", "json", "yaml", "yaml fragment", "yaml fragment language"}
    for info, body in fences(page.read_text(encoding="utf-8")):
        assert info in known, f"{page.name}: {info!r} is none of {sorted(known)}"
        if info == "json":
            json.loads(body)
        if info == "console":
            assert re.search(r"^\$ ", body, flags=re.MULTILINE), f"{page.name}: a console block without a command"


@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.stem)
def test_python_runs_as_it_stands(page, place):
    names: dict = {}
    for body in blocks(page, "python"):
        exec(compile(body, page.name, "exec"), names)
    if page == README:
        assert (place / "evidence" / "report.html").is_file()
        assert names["evidence"].outcome.verdict == "certified" and names["outcome"].certificate.epsilon <= 1.0
        assert names["evidence"]["accuracy", "test"].value > 0.75, "a guarantee that costs the model is no example"


@pytest.mark.parametrize(("info", "body"), YAML)
def test_yaml_is_what_the_schema_allows(info, body, tmp_path):
    content = yaml.safe_load(body)
    path = tmp_path / "file.yaml"
    if info == "yaml" and "forget" in content:
        path.write_text(body)
        load_recipe(str(path))
        return
    if info != "yaml":
        base = SMALL_LANGUAGE if info.endswith("language") else SMALL
        content = {**yaml.safe_load(base), **content}
    path.write_text(yaml.safe_dump(content, sort_keys=False) if info != "yaml" else body)
    load_job(path)


def parsed(words: list[str]) -> tuple[str, dict]:
    """The name of a command of expunge and its arguments, by the real parser; a usage error raises."""
    command, context, name = ROOT_COMMAND, None, []
    while hasattr(command, "commands"):
        context = command.make_context("expunge", list(words), parent=context)
        rest = [*context._protected_args, *context.args]
        if not rest:  # --help or --version
            return " ".join(name), {}
        name.append(rest[0])
        command, words = command.commands[rest[0]], rest[1:]
    return " ".join(name), command.make_context(name[-1], words, parent=context).params


def read(name: str, given: dict) -> None:
    """Read the job or recipe that a command names where it is one of the repository's."""
    job = given.get("job")
    if job is not None and str(job).startswith("examples/"):
        load_job(ROOT / job, given.get("set_") or ())
    if name == "calibrate search":
        parse_guarantee(given["guarantee"])
    if name == "bench" and given.get("recipe") and not given["recipe"].endswith(".yaml"):
        load_recipe(given["recipe"])


@pytest.mark.parametrize("command", ALL)
def test_a_command_is_one_that_exists(command, place, cli):
    words = [
        word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=\S+", word)
    ]  # without settings before it
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
        return
    if words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
            "optional-dependencies"
        ]
        for word in words[2:]:
            folder, _, extra = word.partition("[")
            assert (ROOT / folder / "pyproject.toml").is_file(), "from a checkout"
            assert set(filter(None, extra.rstrip("]").split(","))) <= extras.keys()
        return
    if words[0] == "python":
        module = words[2].replace(".", "/") + ".py"
        assert words[1] == "-m" and any((folder / module).is_file() for folder in (ROOT, ROOT / "src"))
        return
    if words[:2] == ["accelerate", "launch"]:
        words = words[words.index("-m") + 1 :]
    assert words[0] == "expunge", "a command of another program: say how it is tested"
    name, given = parsed(words[1:])
    read(name, given)
    if any(" ".join(words[1:]).startswith(quick) for quick in RUN):
        done = cli(*words[1:])
        assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("wrong", "why"),
    [("forget", "forget"), ("run", "Missing parameter"), ("plan a.yaml --epsilon 1", "No such option"),
     ("bench --seeds x", "valid integer")],
)  # fmt: skip
def test_the_parser_refuses_what_does_not_exist(wrong, why):
    """The negative control."""
    with pytest.raises(Exception, match=why):
        parsed(wrong.split())


def test_the_first_commands_are_to_install_and_to_try():
    assert commands(README)[0].startswith("pip install ")
    assert "expunge demo" in commands(README)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_files_named_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    missing = []
    for link in re.findall(r"\]\(([^)]+)\)", text):
        target, _, anchor = link.partition("#")
        if "://" in link:
            continue
        file = page if not target else page.parent / target
        if not file.exists() or (
            anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8"))
        ):
            missing.append(link)
    named = re.findall(r"`((?:training|privacy|methods|metrics)/[a-z0-9_]+\.py)", text)
    missing += [job for job in re.findall(r"examples/jobs/\w+\.yaml", text) if not (ROOT / job).exists()]
    missing += [name for name in named if not (ROOT / "src" / "expunge" / name).exists()]
    assert not missing


def anchors(text: str) -> set[str]:
    """What a link may name in a page: its headings, as GitHub writes them."""
    heads = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads}


def test_every_page_is_reached_from_the_readme():
    linked = set(re.findall(r"\]\(docs/(\w+\.md)", README.read_text(encoding="utf-8")))
    assert linked == {page.name for page in (ROOT / "docs").glob("*.md")}
