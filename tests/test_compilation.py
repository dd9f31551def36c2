"""Loops are compiled wherever the package lies, also where numba has no folder to keep machine code in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

_TRAINING = """
import liberate
import liberate.compilation, liberate.model.kernels.device as device

assert liberate.__file__.startswith({package!r}), liberate.__file__
assert device.fit_profiles._cache.__class__.__name__ == "NullCache"

learning = ["model.n_factors=2", "federation.rounds=1", "privacy.mode=local", "privacy.epsilon=1"]
settings = liberate.configure("data.source={ratings}", "data.rating_min=1", "data.rating_max=5", *learning)
liberate.train(settings, {folder!r})
"""


def test_training_works_where_nothing_can_be_kept_on_disk(repository: Path, tmp_path: Path) -> None:
    """As in a read-only installation without a home; permissions would not do, for a superuser has them all."""
    package = tmp_path / "site" / "liberate"
    shutil.copytree(repository / "src" / "liberate", package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (folder / "__pycache__").write_text("a file, so that there can be no folder of this name")

    ratings = tmp_path / "ratings.csv"
    rows = [f"{user},{item},{1 + (user + item) % 5}" for user in range(6) for item in range(user % 2, 8, 2)]
    ratings.write_text("\n".join(["user,item,rating", *rows]))
    code = _TRAINING.format(package=str(package), ratings=ratings, folder=str(tmp_path / "run"))

    environment = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_CACHE", "XDG_"))}
    environment |= {"HOME": "/dev/null/nowhere", "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
