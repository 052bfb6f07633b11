"""What importing costs, and what is public."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from tests.product.conftest import ROOT, process

import expunge
from expunge.methods import registry
from expunge.methods.declared import declared
from expunge.methods.no_op import NoOp

HEAVY = "{'torch', 'numpy', 'pydantic', 'scipy', 'pandas', 'sklearn', 'matplotlib'}"


def test_importing_expunge_imports_neither_torch_nor_numpy():
    code = f"import sys, expunge; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT / "src")
    assert done.stdout.strip() == "[]"


COMMANDS = """
import sys, expunge.cli
for arguments in [["--help"], ["methods"], ["methods", "--json"], *[["run", job] for job in sys.argv[1:]]]:
    sys.argv = ["expunge", *arguments]
    try:
        expunge.cli.main()
        code = 0
    except SystemExit as end:
        code = end.code
    print("::", code, *sorted({'torch', 'numpy', 'scipy', 'pandas', 'sklearn', 'matplotlib'} & set(sys.modules)))
    if arguments == ["--help"]:
        print("::", *sorted({'pydantic', 'yaml'} & set(sys.modules)))
"""


def test_nothing_heavy_is_imported_before_there_is_anything_to_compute(tmp_path):
    """Help, the table of methods, and job files that cannot be used: no torch."""
    model = "model: m:f\ndata: {format: digits}\nrequest: {subject: a, targets: [{kind: user, where: {person: 3}}]}\n"
    classifier = model + "training: {kind: gradient_descent, steps: 5}\nmethod: {name: r2d}\n"
    language = "task: language\n" + classifier.replace("m:f", "{micro: true, widht: 9}")
    jobs = {"misspelt": classifier + "sead: 3\n", "unknown": classifier.replace("r2d", "r3d"), "language": language}
    for name, text in jobs.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    paths = [str(tmp_path / f"{name}.yaml") for name in jobs]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, *paths], capture_output=True, text=True, check=True, cwd=ROOT / "src"
    )
    codes = [line.split() for line in done.stdout.splitlines() if line.startswith("::")]
    assert codes == [["::", "0"], ["::"], ["::", "0"], ["::", "0"], ["::", "2"], ["::", "2"], ["::", "2"]], done.stderr
    for said in ("did you mean seed?", "Expected a method among", "did you mean width?"):
        assert said in done.stderr


def test_the_table_of_methods_says_what_their_classes_do():
    """It is read in their source, without a fallback to importing them."""
    for name, target in registry.targets().items():
        cls = registry.load(name)
        if name in registry.BUILTIN:
            assert declared(target, "capabilities") == cls.capabilities, name
            assert declared(target, "papers") == cls.papers, name
    assert {row["name"] for row in registry.table()} == set(registry.targets())


def test_a_declaration_that_is_computed_is_taken_from_the_class(tmp_path, monkeypatch):
    """For example in a package of somebody else's."""
    (tmp_path / "elsewhere.py").write_text(
        "from expunge.core.method import Capabilities, Paper\n"
        "from expunge.methods.no_op import NoOp\n"
        "KINDS = ('edge',)\n"
        "class Computed(NoOp):\n"
        "    name = 'computed'\n"
        "    capabilities: Capabilities = Capabilities(kinds=KINDS)\n"
        "class Inherited(\n"
        "    NoOp,\n"
        "):\n"
        "    name = 'inherited'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = {"computed": "elsewhere:Computed", "inherited": "elsewhere:Inherited"}
    monkeypatch.setattr(registry, "targets", lambda: found)
    for target in found.values():
        with pytest.raises(LookupError):
            declared(target, "capabilities")
    computed, inherited = registry.table()
    assert computed["kinds"] == ["edge"] and inherited["kinds"] == list(NoOp.capabilities.kinds)


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
