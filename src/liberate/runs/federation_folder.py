"""The folder of a federation: its ledger, devices and keys, and what its runs must know of each other."""

from __future__ import annotations

import os
import tomllib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w

from liberate.errors import LedgerError
from liberate.files import write_atomic
from liberate.ledger.format.entries import decode_record
from liberate.ledger.format.records import Genesis
from liberate.ledger.log import tables
from liberate.runs.folder import Run, load_run
from liberate.runs.run_data import save_table

ITEMS_FILE = "items.parquet"
_STATE_FILE = "federation.toml"


def federation_folder_of(folder: Path) -> Path:
    """Return the folder of the federation to which a run folder belongs; another folder is returned itself."""
    path = folder / "run.toml"
    if not path.exists():
        return folder
    return folder / str(tomllib.loads(path.read_text("utf-8")).get("record", {}).get("federation", "."))


def ledger_folder_of(folder: Path) -> Path:
    """Return the folder of the ledger of a run or a federation; another folder is returned itself."""
    ledger = federation_folder_of(folder) / "ledger"
    return ledger if ledger.is_dir() else folder


def is_simulated(folder: Path) -> bool | None:
    """Return whether the genesis of a run's or a federation's ledger names a simulation; None if it cannot be read."""
    try:
        with tables.translated(), closing(tables.connect(ledger_folder_of(folder), mode="ro")) as connection:
            return decode_record(tables.read_entry(connection, 0), Genesis).simulated
    except LedgerError:
        return None


class _Runs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The folders of a federation's runs, relative to its own; what `federation.toml` holds.

    Attributes:
        last_run: Of the run that began last.
        run_before: Of the one before, finished; None where there is none, or its folder was gone.
        runs: Of all runs.
    """

    last_run: str
    run_before: str | None = None
    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FederationFolder:
    """The folder of a federation: `ledger/`, `devices/`, `keys/`, and what its runs must know of each other.

    Attributes:
        folder: Where it is.
    """

    folder: Path

    @property
    def items_path(self) -> Path:
        """The catalogue of all runs so far; an item's index never changes."""
        return self.folder / ITEMS_FILE

    def add_items(self, items: pa.Table) -> None:
        """Write a catalogue that begins with the present one."""
        save_table(self.items_path, items)

    def holds_beginning_of(self, items: pa.Table) -> bool:
        """Whether a catalogue only adds items to the present one."""
        if not self.items_path.exists():
            return True
        known = pq.read_table(self.items_path, columns=["item_id"])["item_id"]
        return bool(items["item_id"][: len(known)].equals(known))

    def all_run_folders(self) -> list[Path]:
        """Return the folders of all runs that began here, whether they still exist or not."""
        known = self._read_runs()
        return [] if known is None else [self.folder / name for name in known.runs]

    def newest_run_folders(self) -> list[Path]:
        """Return the folders of the last run that began here and of the one before, whether they exist or not."""
        known = self._read_runs()
        names = [] if known is None else [known.last_run, known.run_before]
        return [self.folder / name for name in names if name is not None]

    def last_run(self, out: Path) -> Run | None:
        """Return the last run that began here, finished or not, or the one before if that was `out`'s first attempt.

        None before the first run, and where its folder is gone.
        """
        for folder in self.newest_run_folders():
            if (folder / "run.toml").exists():
                return load_run(folder)
            if folder.resolve() != out.resolve():
                return None
        return None

    def write_last_run(self, out: Path, before: Path | None) -> None:
        """Write down which run begins here now, and which came before it; durable on return."""
        known = _Runs(
            last_run=self._relative(out),
            run_before=None if before is None else self._relative(before),
            runs=tuple(sorted({self._relative(path) for path in [*self.all_run_folders(), out]})),
        )
        write_atomic(self.folder / _STATE_FILE, tomli_w.dumps(msgspec.to_builtins(known)).encode())

    def _read_runs(self) -> _Runs | None:
        path = self.folder / _STATE_FILE
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), _Runs) if path.exists() else None

    def _relative(self, path: Path) -> str:
        return os.path.relpath(path.resolve(), self.folder.resolve())
