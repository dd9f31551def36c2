"""`import liberate` gives the commands as functions, quickly, and no name by accident."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import liberate
from liberate.errors import SettingsError

NAMES = [
    "LiberateError",
    "Result",
    "Run",
    "Settings",
    "configure",
    "consent",
    "erase",
    "evaluate",
    "fetch_data",
    "load_data",
    "load_run",
    "own_error",
    "plan_privacy",
    "received",
    "recommend",
    "report_privacy",
    "run_study",
    "share",
    "trace",
    "train",
    "verify",
    "withdraw",
]


def test_front_door_has_exactly_these_names() -> None:
    assert liberate.__all__ == NAMES
    assert dir(liberate) == sorted([*NAMES, "__version__"])


@pytest.mark.parametrize("name", NAMES)
def test_name_leads_to_something_documented_and_stays(name: str) -> None:
    found = getattr(liberate, name)

    assert found.__doc__
    assert vars(liberate)[name] is found


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'liberate' has no attribute 'recomend'"):
        liberate.recomend  # type: ignore[attr-defined]  # noqa: B018 - the typing mistake that is meant


def test_import_alone_loads_no_package_but_the_standard_library() -> None:
    program = (
        "import sys; before = set(sys.modules); import liberate; "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    )

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert loaded.split() == ["liberate"]


def test_first_use_of_a_submodule_hides_no_function() -> None:
    """Importing `liberate.x` binds the name x in `liberate`, so no function may be called like a room of the house."""
    rooms = {path.stem for path in Path(liberate.__file__).parent.iterdir()}

    assert rooms.isdisjoint(NAMES)


def test_configure_composes_a_file_and_assignments(tmp_path: Path) -> None:
    file = tmp_path / "local.toml"
    file.write_text('[privacy]\nmode = "local"\nepsilon = 4.0\n', "utf-8")

    settings = liberate.configure("data.source=ml-100k", "privacy.epsilon=8", file=str(file))

    assert (settings.data.source, settings.privacy.mode, settings.privacy.epsilon) == ("ml-100k", "local", 8.0)


def test_configure_refuses_what_it_does_not_know() -> None:
    with pytest.raises(SettingsError, match=r"unknown setting privacy\.epsilom") as caught:
        liberate.configure("privacy.epsilom=8")

    assert caught.value.hint == "did you mean privacy.epsilon?"
