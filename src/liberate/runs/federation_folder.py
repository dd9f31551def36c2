"""The folder of a federation: its ledger, devices and keys, and what its runs must know of each other."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from liberate.runs.folder import Run, load_run


def federation_folder_of(folder: Path) -> Path:
    """Give the folder of the federation to which a run folder belongs; another folder is given back."""
    path = folder / "run.toml"
    if not path.exists():
        return folder
    return folder / str(tomllib.loads(path.read_text("utf-8")).get("record", {}).get("federation", "."))


def ledger_folder_of(folder: Path) -> Path:
    """Give the folder of the ledger of a run or a federation; another folder is given back."""
    ledger = federation_folder_of(folder) / "ledger"
    return ledger if ledger.is_dir() else folder


ITEMS_FILE = "items.parquet"
_STANDING = "federation.toml"


@dataclass(frozen=True, slots=True)
class FederationFolder:
    """The folder of a federation: `ledger/`, `devices/`, `keys/`, and what its runs must know of each other.

    Attributes:
        folder: Where it lies.
    """

    folder: Path

    @property
    def items_path(self) -> Path:
        """The catalogue of all runs so far; an item's index never changes."""
        return self.folder / ITEMS_FILE

    @property
    def standing_path(self) -> Path:
        """Where the folder of the last run is written down, relative to this one."""
        return self.folder / _STANDING

    def holds_beginning_of(self, items: pa.Table) -> bool:
        """Whether a catalogue only adds items to the one here."""
        if not self.items_path.exists():
            return True
        known = pq.read_table(self.items_path, columns=["item_id"])["item_id"]
        return bool(items["item_id"][: len(known)].equals(known))

    def run_folders(self) -> list[Path]:
        """Give the folders of the last run that began here and of the one before, whether they still exist or not."""
        if not self.standing_path.exists():
            return []
        known = tomllib.loads(self.standing_path.read_text("utf-8"))
        return [self.folder / str(known[name]) for name in ("last_run", "run_before") if name in known]

    def all_run_folders(self) -> list[Path]:
        """Give the folders of all runs that began here, whether they still exist or not."""
        if not self.standing_path.exists():
            return []
        known = tomllib.loads(self.standing_path.read_text("utf-8"))
        begun = [known[name] for name in ("last_run", "run_before") if name in known]
        return [self.folder / str(name) for name in known.get("runs", begun)]

    def last_run(self, out: Path) -> Run | None:
        """Give the last run that began here, finished or not, or the one before if that was `out`'s first attempt.

        None before the first, and where its folder is gone.
        """
        for folder in self.run_folders():
            if (folder / "run.toml").exists():
                return load_run(folder)
            if folder.resolve() != out.resolve():
                return None
        return None
