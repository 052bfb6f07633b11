"""The public interface: one list, lazily loaded, documented, and enough for everything that readers are shown."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re

import pytest
from tests.product.conftest import ROOT

import expunge

NAMES = [name for name in expunge.__all__ if name not in ("__version__", "methods")]
PAGE = (ROOT / "docs" / "api_reference.md").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_list_for_type_checkers_is_the_list():
    """Both stand in one file; neither may have a name that the other lacks."""
    tree = ast.parse((ROOT / "src" / "expunge" / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    typed = {(f"{node.module}", alias.name) for node in imports for alias in node.names if alias.name == alias.asname}
    assert len(typed) == sum(len(node.names) for node in imports), "each name is written  X as X"
    listed = {(module, name) for module, names in expunge._EXPORTS.items() for name in names}
    assert typed == listed | {("expunge", "methods")}


def test_every_public_name_can_be_had():
    assert dir(expunge) == expunge.__all__ == sorted(set(expunge.__all__))
    for name in expunge.__all__:
        assert getattr(expunge, name) is not None, name
    starred: dict = {}
    exec("from expunge import *", starred)
    assert starred.keys() >= {"Texts", "Language", "Request", "train", "publish", "plan", "measure", "InputError"}


def test_the_reference_lists_every_public_name_once_and_nothing_else():
    listed = re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)
    assert sorted(listed) == sorted(NAMES)


def parameters(public: object) -> list[str]:
    """What somebody may pass: fields of a record, keys of a section, arguments of a function or of a constructor."""
    if inspect.isfunction(public):
        return list(inspect.signature(public).parameters)
    assert inspect.isclass(public)
    if dataclasses.is_dataclass(public):
        return [field.name for field in dataclasses.fields(public) if field.init and not field.name.startswith("_")]
    if hasattr(public, "model_fields"):
        return [name for name in public.model_fields if name in inspect.get_annotations(public)]
    if "__init__" in vars(public) and not getattr(public, "_is_protocol", False):
        return [
            name for name in inspect.signature(public.__init__).parameters if name not in ("self", "args", "kwargs")
        ]
    return []


def undocumented(public: object) -> list[str]:
    """Parameters that the docstring does not speak of; all of them where it has none of its own."""
    text = vars(public).get("__doc__") if inspect.isclass(public) else public.__doc__
    automatic = inspect.isclass(public) and (text or "").startswith(f"{public.__name__}(")  # what dataclasses write
    if not text or automatic:
        return [*parameters(public), "(no docstring)"]
    bases = (
        public.__mro__[1:-1] if inspect.isclass(public) else ()
    )  # inherited fields are described where they are declared
    texts = " ".join(
        [text, *(base.__doc__ or "" for base in bases if not (base.__doc__ or "").startswith(f"{base.__name__}("))]
    )
    return [name for name in parameters(public) if not re.search(rf"\b{re.escape(name)}\b", texts)]


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_has_a_complete_docstring(name):
    public = getattr(expunge, name)
    if not inspect.isclass(public) and not inspect.isfunction(public):
        assert name == "Ranges", "a type without a docstring: describe it in the reference"
        return
    assert not undocumented(public)


def test_the_docstring_test_sees_what_lacks():
    """The negative control."""

    def of(rows, limit):
        """Rows, at most some of them."""

    @dataclasses.dataclass
    class Bare:
        x: int

    assert undocumented(of) == ["rows", "limit"]
    assert undocumented(Bare) == ["x", "(no docstring)"]


def imported(source: str) -> set[str]:
    """Every ``expunge…`` name that a piece of code imports or reads as an attribute of the package."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "expunge":
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "expunge" and "." in alias.name}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "expunge":
            found.add(f"expunge.{node.attr}")
    return found


def blocks(page) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", [*PAGES, *EXAMPLES], ids=lambda path: str(path.relative_to(ROOT)))
def test_what_readers_are_shown_uses_public_names_alone(path):
    sources = [path.read_text(encoding="utf-8")] if path.suffix == ".py" else blocks(path)
    used = set().union(*map(imported, sources), set())
    allowed = {f"expunge.{name}" for name in expunge.__all__}
    assert used <= allowed, "import it from expunge, and add it to the list in src/expunge/__init__.py"


def test_the_test_of_imports_sees_modules_and_attributes():
    """The negative control."""
    code = "import expunge.tasks.networks\nfrom expunge.data.rows import Rows\nexpunge.secret\nfrom expunge import Rows"
    assert imported(code) == {"expunge.tasks.networks", "expunge.data.rows.Rows", "expunge.secret", "expunge.Rows"}
