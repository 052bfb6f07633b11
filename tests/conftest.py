"""One thread a process, and a state folder of the session's own: no test touches the user's keys or caches."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: two spinning threads slow a tiny step a lot


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPUNGE_HOME", str(home / "home"))
        patch.setenv("EXPUNGE_CACHE", str(home / "cache"))
        yield home
