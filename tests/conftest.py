"""What every test may ask for: third-party vectors, real ratings, a browser."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("NUMBA_NUM_THREADS", "2")

import platformdirs
import pytest
from hypothesis import HealthCheck, settings

from tests.browser import Browser
from tests.service.replaying import replaying

REPOSITORY = Path(__file__).resolve().parents[1]
REQUIRE_ENGINES = "LIBERATE_REQUIRE_ENGINES"

# Machines differ in speed, so no example has a deadline. CI tries the same examples each time.
settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("local"), derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder beside the repository with `vectors/` and `data/`; where it is absent, the test is skipped."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder ../shared with third-party vectors and ratings beside the repository")
    return folder


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Return the folder of a real data set by name; where it is nowhere on the machine, the test is skipped."""

    def find(name: str) -> Path:
        places = [REPOSITORY.parent / "shared" / "data" / name, platformdirs.user_data_path("liberate") / name]
        for place in places:
            if place.exists():
                return place
        pytest.skip(f"no {name} on this machine; `liberate data get {name}` fetches it")

    return find


@pytest.fixture(scope="session")
def oracle() -> Callable[[str], ModuleType]:
    """Returns somebody else's module; where it is absent, the test is skipped, or fails when engines are required."""

    def find(name: str) -> ModuleType:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            reason = f"no {name.partition('.')[0]} on this machine; `make oracles` installs it"
            if os.environ.get(REQUIRE_ENGINES):
                pytest.fail(reason)
            pytest.skip(reason)

    return find


@pytest.fixture(scope="session")
def browser() -> Browser:
    """Headless Chromium; where it is absent, the test is skipped, or fails when engines are required."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        reason = "no Chromium on this machine; on Debian: apt-get install chromium"
        if os.environ.get(REQUIRE_ENGINES):
            pytest.fail(reason)
        pytest.skip(reason)
    return Browser(program)


@pytest.fixture
def replaying_witness(tmp_path: Path) -> Iterator[list[str]]:
    """Settings that name a witness, on the loopback, that replays the ledger of the run in `tmp_path / "run"`."""
    with replaying(tmp_path / "run") as settings:
        yield settings
