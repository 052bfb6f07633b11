"""What importing costs, and what is public."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.product.conftest import ROOT, process

import expunge

HEAVY = "{'torch', 'numpy', 'pydantic', 'scipy', 'pandas', 'sklearn', 'matplotlib'}"


def test_importing_expunge_imports_neither_torch_nor_numpy():
    code = f"import sys, expunge; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "src")
    assert done.stdout.strip() == "[]"


def test_help_imports_nothing_heavy():
    code = (
        "import sys, expunge.cli\nsys.argv = ['expunge', '--help']\n"
        f"try:\n    expunge.cli.main()\nexcept SystemExit as end:\n    print(end.code, sorted({HEAVY} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "src")
    assert done.stdout.strip().endswith("0 []")


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(expunge, "forget_everything")


def test_the_two_commands_of_the_readme_are_in_the_makefile():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= targets
    used = set(re.findall(r"\bmake ([a-z]+)", (ROOT / "README.md").read_text()))
    assert used <= targets, f"README.md names {sorted(used - targets)}, which the Makefile does not have"


def test_version_is_the_package_s():
    done = process("--version")
    assert (done.returncode, done.stdout.strip()) == (0, expunge.__version__)
