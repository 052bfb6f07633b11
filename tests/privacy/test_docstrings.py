"""Every number in a docstring is recomputed; the room imports neither torch nor, before use, scipy."""

import doctest
import importlib
import subprocess
import sys

import pytest

MODULES = [
    "audit",
    "composition",
    "constants",
    "descent_run",
    "descent_to_delete",
    "domain",
    "gaussian",
    "guessing",
    "langevin",
    "minibatch",
    "model_clipping",
    "newton",
    "noisy_fine_tuning",
    "replay",
    "rewind",
    "sensitivity",
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_numbers(name):
    result = doctest.testmod(importlib.import_module(f"expunge.privacy.{name}"))
    assert result.attempted > 0 and result.failed == 0


def test_the_mathematics_imports_neither_torch_nor_scipy():
    imports = ", ".join(f"expunge.privacy.{name}" for name in MODULES)
    code = (
        f"import sys; import {imports}; print([m for m in ('torch', 'scipy', 'expunge.methods') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
