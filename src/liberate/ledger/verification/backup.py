"""A copy of a ledger that is consistent while its owner appends, and verified before it gets its name."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from pathlib import Path

from liberate.errors import LedgerError
from liberate.files import fsync_path, write_atomic
from liberate.ledger.log import tables
from liberate.ledger.verification.replay import EntryProgress
from liberate.ledger.verification.trust import PUBLISHED_FILE, published_note
from liberate.ledger.verification.verify import VerificationReport, verify_ledger


def backup(
    folder: Path, to: Path, *, key: str | None = None, progress: EntryProgress | None = None
) -> VerificationReport:
    """Copy a ledger, in use or not, as it stands at one block, with its newest published checkpoint.

    Args:
        folder: The ledger's folder.
        to: A new folder: it appears as a whole, durable and verified, or not at all.
        key: The log's verifier key, known from elsewhere.
        progress: Is told how far the verification of the copy is.

    Returns:
        What the verification of the copy found: nothing.

    Raises:
        LedgerError: there is no ledger in the folder, `to` exists, the copy cannot be written, or a fault was found.
    """
    if not (folder / tables.LEDGER_FILE).is_file():
        raise LedgerError(f"there is no ledger in {folder}")
    if to.exists():
        raise LedgerError(f"{to} exists already", hint="backups are never overwritten: choose another folder")

    with tables.translated():
        to.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{to.name}.partial-", dir=to.parent))
        try:
            _copy_published(folder, partial)
            audit = verify_ledger(partial, key=key, progress=progress)
            if not audit.ok:
                first = audit.findings[0]
                raise LedgerError(f"not backed up: {first.place}: {first.reason}", hint="liberate ledger verify")

            # What is in the copy must be durable before the copy has its name.
            fsync_path(partial / tables.LEDGER_FILE)
            fsync_path(partial)
            partial.rename(to)
            fsync_path(to.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return audit


def _copy_published(folder: Path, to: Path) -> None:
    """Copy a ledger and its newest published checkpoint, which is read first: so what it holds is in the copy."""
    note = published_note(folder)
    _copy(folder, to)
    if note is not None:
        write_atomic(to / PUBLISHED_FILE, note.encode())


def _copy(folder: Path, to: Path) -> None:
    """Copy one snapshot of the database; whoever appends meanwhile does not wait."""
    with closing(tables.connect(folder, mode="ro")) as source, closing(tables.connect(to, mode="rwc")) as target:
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM checkpoint").fetchone()
        source.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")  # one file, which can be read on read-only media too
