"""Imports go down only. The one place that knows the order of rooms."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "expunge"
LONGEST = 400  # lines; a longer module hides two ideas

# Lowest first; rooms in one group do not know each other, except where a name says that one is above.
ORDER = [
    ["core"], ["data"], ["tasks"], ["privacy", "curvature"], ["training"], ["metrics"], ["network"], ["descent"],
    ["objectives"], ["methods"], ["screening", "attacks"], ["evidence"], ["ledger"], ["requests_book"], ["model_folder"],
    ["report"], ["modalities"], ["planning"], ["auditing", "checking"], ["measuring"], ["jobs"], ["bench"], ["demo"], ["cli"],
]  # fmt: skip
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
MODULES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem not in ("__init__", "__main__")
)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


ROOMS = LEVEL.keys() | {room_of(module) for module in MODULES}


def imported_rooms(path: Path) -> set[str]:
    """First parts of every ``expunge.x`` that a module imports anywhere, also inside functions and for types only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            above = ["expunge", *path.relative_to(PACKAGE).parts[: -node.level]]
            names = [".".join([*above, *([node.module] if node.module else []), alias.name]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("expunge.")}
    return found & ROOMS


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    room = room_of(path)
    assert room in LEVEL, f"the room {room!r} has no place in the order: add it to ORDER and to the design"
    wrong = {other for other in imported_rooms(path) if other != room and LEVEL[other] >= LEVEL[room]}
    assert not wrong, f"{path.relative_to(PACKAGE)} imports {sorted(wrong)}, which are not below {room}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_hides_two_ideas(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{path.relative_to(PACKAGE)} has {lines} lines"


def test_the_test_sees_function_level_and_relative_imports(tmp_path, monkeypatch):
    """The negative control."""
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "core").mkdir()
    bad = tmp_path / "core" / "bad.py"
    bad.write_text(
        "def f():\n    from expunge import planning\n    from ..methods import r2d\n    import expunge.jobs.run\n"
    )
    assert imported_rooms(bad) == {"planning", "methods", "jobs"}
