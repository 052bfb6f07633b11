"""One thread a process, and a state folder of the session's own: no test touches the user's keys or caches."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: two spinning threads slow a tiny step a lot

# a property holds or does not, however long a busy machine takes to look
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        (home / "temporary").mkdir()
        patch.setattr(tempfile, "tempdir", str(home / "temporary"))  # what is cached for the session goes with it
        patch.setenv("EXPUNGE_HOME", str(home / "home"))
        # trained models may be kept between sessions: they are found by content
        patch.setenv("EXPUNGE_CACHE", os.environ.get("EXPUNGE_TEST_CACHE") or str(home / "cache"))
        yield home


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """The folder of real data sets, asked for by name: skips without ``EXPUNGE_DATA``, fails where the set lacks in it."""

    def folder(name: str) -> Path:
        root = os.environ.get("EXPUNGE_DATA")
        if not root:
            pytest.skip("EXPUNGE_DATA is not set: it names the folder of real data sets")
        if not (Path(root) / name).is_dir():
            pytest.fail(f"EXPUNGE_DATA is set and holds no {name}")
        return Path(root)

    return folder
