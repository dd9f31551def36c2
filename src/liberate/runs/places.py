"""Where the ledger and devices of a run lie: in its own folder, or in that of the federation it belongs to."""

from __future__ import annotations

import tomllib
from pathlib import Path


def home_of(folder: Path) -> Path:
    """Give the folder of the federation to which a run folder belongs; another folder is given back."""
    path = folder / "run.toml"
    if not path.exists():
        return folder
    return folder / str(tomllib.loads(path.read_text("utf-8")).get("record", {}).get("federation", "."))


def ledger_of(folder: Path) -> Path:
    """Give the folder of the ledger of a run or a federation; another folder is given back."""
    ledger = home_of(folder) / "ledger"
    return ledger if ledger.is_dir() else folder
