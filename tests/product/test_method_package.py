"""A method in a package of its own: installed, it is listed, makes a row, and the contract tests find it by themselves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "examples" / "method_package"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder that the package is installed in; nothing is downloaded."""
    folder = tmp_path_factory.mktemp("site")
    source = shutil.copytree(PACKAGE, folder / "source")  # building leaves files beside the source
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(folder / "site"), str(source)], check=True)
    return folder / "site"


def python(site: Path, *arguments: str) -> str:
    path = os.pathsep.join([str(site), str(ROOT / "src"), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_installed_method_is_listed_with_its_paper(site):
    listed = python(
        site, "-c", "from expunge.cli import main; import sys; sys.argv[1:] = ['methods', '--json']; main()"
    )
    (row,) = [row for row in json.loads(listed) if row["name"] == "cf_k"]
    assert "2201.06640" in row["paper"] and row["needs"] == ["retained data"] and not row["certified"]


def test_an_installed_method_is_a_row_with_something_to_tune(site):
    code = (
        "from expunge.bench import tuning; from expunge.methods import registry;"
        "from expunge.modalities.classification.recipes import every_row;"
        "print('cf_k' in every_row(), dict(tuning.ranges(registry.make('cf_k'))))"
    )
    assert python(site, "-c", code).strip() == "True {'lr': (0.001, 0.1)}"


def test_an_installed_method_moves_its_last_layers_alone(site):
    code = (
        "from cases import CASES; case = CASES['network'];"
        "outcome = case.plan(case.ready(), 'cf_k').run();"
        "print(outcome.status, outcome.own, sorted(n for n, size in outcome.change.items() if size > 0))"
    )
    status, own, *moved = python(site, "-c", code).strip().split(" ", 2)
    assert (status, own) == ("fulfilled", "False") and moved == ["['3.bias', '3.weight']"]


@pytest.mark.slow  # a session of pytest
def test_the_contract_tests_find_an_installed_method_by_themselves(site):
    told = python(
        site,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "tests/contract/test_methods.py",
        "-k",
        "cf_k",
    )
    count = int(told.strip().splitlines()[-1].split(" passed")[0].split()[-1])
    assert count > 20, told
