"""An exception that nobody expected is seen: no handler hides it behind a message about the user's file."""

from __future__ import annotations

import ast
import errno
import re
from pathlib import Path

import numpy as np
import pytest

from expunge.core.errors import MACHINE, InputError, foreign

SOURCE = Path(__file__).parents[2] / "src" / "expunge"
# handlers of everything, and what becomes of the error; all others name what they expect
EVERYTHING = {
    "cli/__init__.py": "prints the traceback and exits with 70",
    "training/retrainings.py": "raised again once the other processes are done",
    "report/verify/findings.py": "a finding of its own: the folder does not verify, and type and words are shown",
    "tasks/pretrained.py": "around one call into transformers each, code of many authors",
    "tasks/folder_check.py": "around one call into gguf; the reader that comes next explains",
}


def handlers_of_everything(path: Path) -> list[ast.ExceptHandler]:
    """Handlers of Exception or more that do not end by raising the same error again."""

    def broad(handler: ast.ExceptHandler) -> bool:
        names = (
            {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
            if handler.type
            else {"Exception"}
        )
        last = handler.body[-1]
        again = isinstance(last, ast.Raise) and last.exc is None
        return bool(names & {"Exception", "BaseException"}) and not again

    text = path.read_text(encoding="utf-8")
    if not re.search(r"except( \(?[^:]*\b(Base)?Exception\b[^:]*)?:", text):  # parsing every file takes long
        return []
    tree = ast.parse(text)
    return [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and broad(node)]


def test_handlers_name_what_they_expect_but_for_those_with_a_reason():
    found = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if handlers_of_everything(path)}
    assert found == EVERYTHING.keys()


def test_errors_of_ours_and_of_the_machine_pass_a_reader_and_damage_becomes_words():
    def reading(error: Exception) -> None:
        with foreign(lambda e: f"damaged: {e}", ValueError, OSError, RuntimeError):
            raise error

    with pytest.raises(InputError, match="damaged: cut"):
        reading(ValueError("cut"))
    with pytest.raises(InputError, match="damaged"):
        reading(OSError(errno.EINVAL, "a place that is not there"))
    for passes in (*(OSError(number, "x") for number in MACHINE), KeyError("ours"), MemoryError(), InputError("words")):
        with pytest.raises(type(passes)) as seen:
            reading(passes)
        assert seen.value is passes


@pytest.mark.parametrize("name", ["rows.npz", "g.npz", "ids.npy", "pack.gz", "train-images-idx3-ubyte", "picture.png"])
def test_a_disk_that_does_not_answer_is_not_called_a_damaged_file(tmp_path, monkeypatch, name):
    from expunge.data import arrays, bounds, idx, images
    from expunge.data.graphs import files
    from expunge.modalities import id_files

    path = tmp_path / name
    path.write_bytes(b"x" * 100)

    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("zipfile.ZipFile", broken)
    monkeypatch.setattr(np, "load", broken)
    monkeypatch.setattr(Path, "open", broken)
    monkeypatch.setattr("PIL.Image.open", broken)
    read = {
        "rows.npz": lambda: arrays.read_arrays(path), "g.npz": lambda: files.read_graph(path),
        "ids.npy": lambda: id_files.read_ids(path), "pack.gz": lambda: bounds.unpacked(path),
        "train-images-idx3-ubyte": lambda: idx.read_idx(path), "picture.png": lambda: images._size(path, ("PNG",)),
    }  # fmt: skip
    with pytest.raises(OSError) as seen:
        read[name]()
    assert seen.value.errno == errno.EIO
