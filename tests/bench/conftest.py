from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """One cache for all tests: original and retrained models of the tiny world are trained once."""
    return tmp_path_factory.mktemp("bench-cache")
