"""What the README shows is run: its Python block as it stands, and its two commands exist."""

import re
from pathlib import Path

import pytest

from expunge.data.digits import digits

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_block_runs_and_certifies_what_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EXPUNGE_HOME", str(tmp_path / "home"))
    train, test = digits()
    block = block.replace("steps=1000", "steps=300")  # the same calls, in a third of the time
    names = {"x": train.x, "y": train.y, "patient_ids": train.columns["person"], "test_rows": test}
    exec(block, names)
    assert (tmp_path / "evidence" / "report.html").is_file()
    # rows came as tensors: that their preparation looked at no other row is the caller's word
    assert names["evidence"].outcome.verdict == "certified-under-declared-constants"
    assert names["outcome"].certificate.epsilon <= 1.0


def test_the_two_commands_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ make (\w+)", README, flags=re.MULTILINE)
    assert commands == ["demo", "test"]
    assert all(re.search(rf"^{command}:", makefile, flags=re.MULTILINE) for command in commands)


@pytest.mark.parametrize(
    "page", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"], ids=lambda page: page.name
)
def test_links_and_files_named_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    named = re.findall(r"`((?:training|privacy|methods|metrics)/\w+\.py)", text)
    named_jobs = re.findall(r"examples/jobs/\w+\.yaml", text)
    missing = [job for job in named_jobs if not (ROOT / job).exists()]
    missing += [link for link in links if not (page.parent / link).exists()]
    missing += [name for name in named if not (ROOT / "src" / "expunge" / name).exists()]
    assert not missing
