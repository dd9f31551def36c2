"""What the documentation and the examples show in Python runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import liberate

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)

Run = Callable[[Path], str]


@pytest.fixture
def run(real_data: Callable[[str], Path], tmp_path: Path) -> Run:
    """Runs a program in an empty folder, where `ml-100k` is fetched already."""
    home = tmp_path / "data"
    (home / "liberate").mkdir(parents=True)
    (home / "liberate" / "ml-100k").symlink_to(real_data("ml-100k"))
    (tmp_path / "work").mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIBERATE_")}

    def start(program: Path) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "error", str(program)],
            cwd=tmp_path / "work",
            env=environment | {"XDG_DATA_HOME": str(home)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return start


def test_example_runs_from_top_to_bottom(run: Run, repository: Path) -> None:
    output = run(repository / "examples" / "first_steps.py")

    assert "943 people" in output
    assert "ok: True, trusted: False (simulated), 0 findings" in output
    assert re.search(r"^1\. .+ \(\d\.\d\d\)$", output, re.MULTILINE)
    assert "not expected to learn anything" in output


def test_code_of_the_python_guide_runs_block_after_block(run: Run, repository: Path, tmp_path: Path) -> None:
    blocks = BLOCK.findall((repository / "docs" / "howto" / "python.md").read_text("utf-8"))
    program = tmp_path / "guide.py"
    program.write_text("\n".join(blocks), "utf-8")

    run(program)

    assert len(blocks) == 6
    assert (tmp_path / "work" / "runs" / "python" / "run.toml").exists()


def test_python_guide_names_every_function_of_the_front_door(repository: Path) -> None:
    guide = (repository / "docs" / "howto" / "python.md").read_text("utf-8")

    assert [name for name in liberate.__all__ if name[0].islower() and f"`{name}(" not in guide] == []
