"""Check a ledger again from its bytes and keys, trusting nothing that can be derived.

Every entry is decoded, verified and replayed by the rules; every stored row is compared with the one that follows from
the entries. What is wrong becomes a finding with its place, never an exception.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from liberate.crypto.note import Checkpoint, parse_verifier_key
from liberate.crypto.signing import key_id
from liberate.database import FAILURES
from liberate.errors import LedgerError, ProofMismatch, RefusedEntry
from liberate.identifiers import Digest, KeyId
from liberate.ledger.evidence.equivocation import check_equivocation
from liberate.ledger.format.entries import decode_entry, principals_of
from liberate.ledger.format.records import ZERO
from liberate.ledger.log import tables
from liberate.ledger.log.tables import Row
from liberate.ledger.verification.checkpoints import (
    check_holds,
    check_newest,
    check_published,
    check_remembered,
    open_remembered,
)
from liberate.ledger.verification.findings import Finding, FindingCollector, RowComparison
from liberate.ledger.verification.replay import EntryProgress, Replay, chain
from liberate.ledger.verification.resumption import VerifiedPrefix, load, save
from liberate.ledger.verification.trust import Distrust, cosigned_size, judge, published_note, wrong_key


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationReport:
    """The result of a full check.

    Attributes:
        ok: Nothing is wrong.
        trusted: Nothing is wrong with a ledger that is no simulation, its log's key is the one given from outside, and
            enough witnesses have cosigned all of it.
        distrust: Why it is not trusted, or not all of it; None: it is.
        simulated: Whether keys, noise and time came from a seed; None without a genesis.
        entry_count: Number of stored entries.
        trusted_size: How many of the first entries are trusted.
        cosigned_size: How many of them enough witnesses have cosigned; None where the genesis wants no cosignature.
        root: Root of the tree over them; None when there are none.
        origin: Name of the ledger; None without a genesis.
        key_id: Short name of the log's key; None without a genesis.
        resumed_at: Entries before this position were verified earlier; they, and the rows derived from them, were not
            read again.
        findings: What is wrong.
    """

    ok: bool
    trusted: bool
    distrust: Distrust | None
    simulated: bool | None
    entry_count: int
    trusted_size: int
    cosigned_size: int | None
    root: Digest | None
    origin: str | None
    key_id: KeyId | None
    resumed_at: int = 0
    findings: tuple[Finding, ...]


def verify_ledger(
    folder: Path,
    *,
    key: str | None = None,
    checkpoint: str | None = None,
    published: str | None = None,
    resume: Path | None = None,
    progress: EntryProgress | None = None,
) -> VerificationReport:
    """Check a ledger, in memory that grows with the number of principals, not of entries.

    Args:
        folder: The ledger's folder.
        key: The log's verifier key, known from elsewhere.
        checkpoint: A signed note that was kept: the ledger must still hold what it held then.
        published: The newest published checkpoint, with its cosignatures, which the ledger must hold likewise; by
            default what lies in the folder, or beside one named `ledger`.
        resume: File of what was verified before and is not read again; without it all is. Written if nothing is found.
        progress: Is called again and again.

    Raises:
        LedgerError: there is no ledger in the folder, or `resume` cannot be read or written.
        InvalidRecord: `key` is no verifier key.
    """
    _require_ledger(folder)
    if key is not None:
        parse_verifier_key(key)

    # Before the ledger is opened, which a training may go on to extend: what was published before it must be there.
    published = published or published_note(folder)
    replay = Replay(FindingCollector(), load(resume) if resume else None)
    cosigned = _replay_file(folder, replay, key, checkpoint, published, progress)

    report = _report(key, replay, cosigned)
    if report.ok and resume:
        with tables.translated():
            save(resume, VerifiedPrefix(size=replay.edge.size, roots=replay.edge.roots, state=replay.state))
    return report


def _replay_file(
    folder: Path,
    replay: Replay,
    key: str | None,
    checkpoint: str | None,
    published: str | None,
    progress: EntryProgress | None,
) -> int | None:
    """Replay the entries of a ledger's file, and return how many of them the witnesses have cosigned."""
    with replay.findings.reading(tables.LEDGER_FILE), closing(tables.connect(folder, mode="ro")) as connection:
        # text that is no longer UTF-8 must be read, to be found different
        connection.text_factory = lambda data: str(data, "utf-8", "surrogateescape")
        connection.execute("BEGIN")
        _check_layout(connection, replay.findings)
        remembered = open_remembered(connection, checkpoint, key, replay.findings)
        _check_rows(connection, folder, remembered, replay, progress)
        check_published(connection, published, replay)
        return _cosigned_size(connection, replay, published, checkpoint)
    return None


def _require_ledger(folder: Path) -> None:
    if not (folder / tables.LEDGER_FILE).is_file():
        raise LedgerError(f"there is no ledger in {folder}")


def _cosigned_size(connection: sqlite3.Connection, replay: Replay, *notes: str | None) -> int | None:
    """Return how many entries the witnesses of the genesis have cosigned, by notes that the ledger holds."""
    given = [note for note in notes if note is not None]
    return cosigned_size(replay.state.genesis, given, partial(check_holds, connection, replay))


def _report(key: str | None, replay: Replay, cosigned: int | None) -> VerificationReport:
    genesis = replay.state.genesis
    log_vkey = genesis.log_vkey if genesis else None
    if key is not None and key != log_vkey:
        replay.findings.add("entry 0", wrong_key(genesis, key))

    listed = replay.findings.listed()
    trust = judge(genesis, key, is_sound=not listed, size=replay.edge.size, cosigned_size=cosigned)
    return VerificationReport(
        ok=not listed,
        trusted=trust.distrust is None,
        distrust=trust.distrust,
        simulated=genesis.simulated if genesis else None,
        entry_count=replay.edge.size,
        trusted_size=trust.size,
        cosigned_size=trust.cosigned_size,
        root=replay.edge.root() if replay.edge.size else None,
        origin=genesis.origin if genesis else None,
        key_id=key_id(parse_verifier_key(log_vkey).public) if log_vkey else None,
        resumed_at=replay.begin,
        findings=listed,
    )


# --- the file, its entries and what is derived -----------------------------------------------------------------------


def _check_rows(
    connection: sqlite3.Connection,
    folder: Path,
    remembered: Checkpoint | None,
    replay: Replay,
    progress: EntryProgress | None,
) -> None:
    """Replay the entries, and compare all else that is stored or was remembered with what the replay has left."""
    # An auditor who goes on from an earlier check does not want to wait until the whole file is read.
    with ThreadPoolExecutor(1) as pool:
        damages = None if replay.begin else pool.submit(_damages, folder)
        replay.run(connection, progress)
    for damage in damages.result() if damages else ():
        replay.findings.add(tables.LEDGER_FILE, damage)

    check_remembered(connection, remembered, replay)
    _check_about(connection, replay)
    _check_principals(connection, replay)
    _check_evidence(connection, replay)
    check_newest(connection, replay)


def _check_layout(connection: sqlite3.Connection, findings: FindingCollector) -> None:
    """Check that there are the tables and indexes of a ledger, and no others."""
    (layout,) = connection.execute("PRAGMA user_version").fetchone()
    if layout != tables.LAYOUT_VERSION:
        findings.add(tables.LEDGER_FILE, f"the layout is {layout}, wanted {tables.LAYOUT_VERSION}")
    with closing(sqlite3.connect(":memory:")) as sample:
        tables.create_tables(sample)
        wanted = _schema(sample)
    stored = _schema(connection)
    for name in sorted(wanted.keys() | stored.keys()):
        if name not in wanted:
            findings.add(f"schema {name}", "does not belong to a ledger")
        elif stored.get(name) != wanted[name]:
            findings.add(f"schema {name}", f"is {stored.get(name)}, wanted {wanted[name]}")


def _damages(folder: Path) -> list[str]:
    """Return what is unsound about the file's pages and indexes; opens another connection, to run in another thread."""
    try:
        with closing(tables.connect(folder, mode="ro")) as connection:
            messages = [str(message) for (message,) in connection.execute("PRAGMA integrity_check")]
    except FAILURES as error:
        return [f"cannot be read: {error}"]
    return [message for message in messages if message != "ok"]


def _schema(connection: sqlite3.Connection) -> dict[str, Row]:
    """Return the definitions of tables and indexes by name."""
    rows = connection.execute("SELECT name, type, tbl_name, sql FROM sqlite_master")
    return {str(name): tuple(definition) for name, *definition in rows}


def _check_about(connection: sqlite3.Connection, replay: Replay) -> None:
    """Compare, principal by principal, whose history the rows say an entry belongs to."""
    stored: defaultdict[int, Digest] = defaultdict(lambda: ZERO)
    with replay.findings.reading("about"):
        statement = "SELECT principal, position FROM about WHERE position >= ? OR ? = 0 ORDER BY 1, 2"
        for principal, position in connection.execute(statement, (replay.begin, replay.begin)):
            if type(principal) is int and type(position) is int:
                stored[principal] = chain(stored[principal], position)
            else:
                replay.findings.add(f"about {principal!r}/{position!r}", "the key is no integer")
    numbers = stored.keys() | replay.about.keys()
    wrong = {number for number in numbers if stored.get(number) != replay.about.get(number)}
    if wrong:
        with replay.findings.reading("about"):
            _locate_about(connection, wrong, replay.begin, replay.findings)


def _locate_about(connection: sqlite3.Connection, wrong: set[int], begin: int, findings: FindingCollector) -> None:
    """Report which rows about some principals are missing, and which should not be there."""
    wanted: defaultdict[int, set[int]] = defaultdict(set)
    for position, data in connection.execute("SELECT position, entry FROM entry WHERE position >= ?", (begin,)):
        for number in wrong.intersection(_concerned(data)):
            wanted[number].add(position)
    for number in sorted(wrong):
        rows = connection.execute(
            "SELECT position FROM about WHERE principal = ? AND (position >= ? OR ? = 0)", (number, begin, begin)
        )
        stored = {position for (position,) in rows if type(position) is int}
        for position in sorted(wanted[number] ^ stored):
            reason = "is missing" if position in wanted[number] else "does not follow from the entries"
            findings.add(f"about {number}/{position}", reason)


def _concerned(data: object) -> list[int]:
    try:
        return principals_of(decode_entry(data).record) if isinstance(data, bytes) else []
    except RefusedEntry:
        return []


def _check_principals(connection: sqlite3.Connection, replay: Replay) -> None:
    """Compare the state leaves, if the replay came to its end."""
    if not replay.is_following:
        replay.findings.add("principal", "not compared: the entries could not be replayed to the end")
        return
    rows = RowComparison(connection, "principal", ("number",), replay.findings)
    for number, principal in enumerate(replay.state.principals):
        rows.expect(tables.principal_row(number, principal))
    rows.end()


def _check_evidence(connection: sqlite3.Connection, replay: Replay) -> None:
    """Check that each refused entry that is kept contradicts an accepted one."""
    statement = (
        "SELECT evidence.author, evidence.seq, evidence.entry, entry.position, entry.entry"
        " FROM evidence LEFT JOIN entry USING (author, seq) ORDER BY 1, 2"
    )
    with replay.findings.reading("evidence"):
        for author, seq, second, position, first in connection.execute(statement):
            with replay.findings.checking(f"evidence {author}/{seq}"):
                if not isinstance(first, bytes) or author >= len(replay.state.principals):
                    raise ProofMismatch("contradicts no entry")
                accepted = decode_entry(first)
                key = replay.state.author_key(accepted.record, position)
                check_equivocation(key, accepted, decode_entry(second))
