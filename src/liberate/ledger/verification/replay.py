"""Replay stored entries by the rules, their signatures verified ahead, in other processes when there are many.

Whether rows derived from the entries are right is seen by comparing them with what a replay has left.
"""

from __future__ import annotations

import gc
import sqlite3
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256

from liberate.crypto.merkle import CompactRange, leaf_hash
from liberate.crypto.note import parse_verifier_key
from liberate.crypto.signing import SignatureClaim, verify_batch
from liberate.crypto.verifier_pool import SignatureVerifierPool
from liberate.errors import InvalidRecord, RefusedEntry
from liberate.identifiers import Digest
from liberate.ledger.format.entries import Entry, decode_entry, principals_of, signed_bytes
from liberate.ledger.format.parts import KeyName, NewKey
from liberate.ledger.format.records import ZERO, Enrol, Genesis, KeyRecord, Record
from liberate.ledger.log import tables
from liberate.ledger.log.tables import Row
from liberate.ledger.rules.principal import key_name_of
from liberate.ledger.rules.state import State
from liberate.ledger.rules.transition import apply_entry, verify_signatures
from liberate.ledger.verification.findings import FindingCollector, RowComparison, describe_difference
from liberate.ledger.verification.resumption import VerifiedPrefix

EntryProgress = Callable[[int, int], None]
"""Is told how many entries are done, of how many."""

_BATCH = 250
_BYTES_AHEAD = 4_000_000
"""Entries whose signatures are verified ahead of the replay."""
_WORTH_PROCESSES = 10_000
"""Entries from which on other processes verify signatures."""
_ENTRY_COLUMNS = ("position", "entry", "kind", "author", "seq")


@dataclass(frozen=True, slots=True)
class _Batch:
    """Stored entries whose signatures are being verified.

    Attributes:
        rows: As stored.
        entries: As decoded; None for what cannot be.
        claims: Of each entry by an author who has been announced: its signature is the author's.
        verdicts: Whether that is true, or None when nobody was asked yet.
    """

    rows: Sequence[Row]
    entries: Sequence[Entry | None]
    claims: Sequence[SignatureClaim]
    verdicts: Future[list[bool]] | None

    @property
    def n_bytes(self) -> int:
        return sum(len(entry.data) for entry in self.entries if entry)

    def keys(self) -> list[bytes | None]:
        """Wait until they are verified, and return for each entry the key that signed it, or None."""
        verdicts = self.verdicts.result() if self.verdicts else verify_batch(self.claims)
        return [claim.public if is_true else None for claim, is_true in zip(self.claims, verdicts, strict=True)]


_NO_CLAIM = SignatureClaim(ZERO, b"", b"")


class Replay:
    """Follows the entries from the first to the last.

    Attributes:
        findings: What is wrong.
        state: What the rules make of them, up to the first one that does not follow.
        is_following: Whether all entries have followed so far.
        edge: Tree over all stored entries.
        begin: Size of the tree that was verified earlier.
        about: For each principal, a chain over the positions of the entries that concern it.
    """

    def __init__(self, findings: FindingCollector, verified: VerifiedPrefix | None) -> None:
        self.findings = findings
        self.state = verified.state if verified else State()
        self.edge = CompactRange(verified.size, verified.roots) if verified else CompactRange()
        self.begin = self.edge.size
        self.is_following = True
        self.about: defaultdict[int, Digest] = defaultdict(lambda: ZERO)
        self._is_dense = True
        self._announced: dict[tuple[int, KeyName], bytes] = {}
        for number, principal in enumerate(self.state.principals):
            self._announced[number, "person"] = principal.key
            self._announced[number, "device"] = principal.device_key

    def run(self, connection: sqlite3.Connection, progress: EntryProgress | None) -> None:
        """Check all entries to come and the nodes over them."""
        last = connection.execute("SELECT max(position) FROM entry").fetchone()[0]
        size = last + 1 if isinstance(last, int) else 0
        nodes = RowComparison(connection, "node", ("position", "level"), self.findings, begin=self.begin)
        n_processes = 2 if size - self.begin >= _WORTH_PROCESSES else 0

        with self.findings.reading("entry"), _without_cycle_search(), ExitStack() as stack:
            verifiers = stack.enter_context(closing(SignatureVerifierPool(n_processes))) if n_processes else None
            for batch in self._batches(connection, verifiers):
                for row, entry, key in zip(batch.rows, batch.entries, batch.keys(), strict=True):
                    self._take(row, entry, key, nodes)
                if progress:
                    progress(self.edge.size, size)

        if self._is_dense:
            nodes.end()
        if self.is_following and self.state.block_size != self.state.size:
            self.findings.add(f"entry {self.state.size - 1}", "no block ends the last batch")
        if size < self.begin:
            self.findings.add("entry", f"the ledger was cut short: {size} entries are left of {self.begin}")
        if not self.edge.size:
            self.findings.add("entry", "there are no entries")

    def _batches(self, connection: sqlite3.Connection, verifiers: SignatureVerifierPool | None) -> Iterator[_Batch]:
        """Read entries and have their signatures verified some megabytes before they are replayed."""
        columns = ", ".join(_ENTRY_COLUMNS)
        statement = f"SELECT {columns} FROM entry WHERE position >= ? OR ? = 0 ORDER BY position"
        cursor = connection.execute(statement, (self.begin, self.begin))
        ahead: deque[_Batch] = deque()
        n_bytes = 0

        while rows := cursor.fetchmany(_BATCH):
            entries = [self._decode(row) for row in rows]
            claims = [self._claim(entry) for entry in entries]
            verdicts = verifiers.submit(claims) if verifiers else None
            ahead.append(_Batch(rows, entries, claims, verdicts))
            n_bytes += ahead[-1].n_bytes

            while ahead and (n_bytes > _BYTES_AHEAD or verifiers is None):
                n_bytes -= ahead[0].n_bytes
                yield ahead.popleft()
        yield from ahead

    def _claim(self, entry: Entry | None) -> SignatureClaim:
        """Return what an entry's signature says, if its author's key is the one that was announced last.

        Whether it is, the rules decide: they are told by whose key the signature is.
        """
        if entry is None:
            return _NO_CLAIM

        # The key before this entry: an entry that announces a key is signed by another one.
        author_key = self._announced.get((entry.record.author, self._key_name_of(entry.record)), ZERO)
        match entry.record:
            case Genesis(registrars=registrars, log_vkey=log_vkey):
                self._announced.update({(number, "person"): key for number, key in enumerate(registrars)})
                with suppress(InvalidRecord):
                    self._announced[len(registrars), "person"] = parse_verifier_key(log_vkey).public
            case Enrol(number=number, key=key, device_key=device_key):
                self._announced[number, "person"] = key
                self._announced[number, "device"] = device_key or ZERO
            case KeyRecord(number=number, which=which, key=NewKey(public=key)):
                self._announced[number, which] = key
            case _:
                pass

        return SignatureClaim(author_key, signed_bytes(entry.body), entry.signature)

    def _key_name_of(self, record: Record) -> KeyName:
        """Say which key signs a record, by what was announced: a principal without a device's key is no participant."""
        has_device = self._announced.get((record.author, "device"), ZERO) != ZERO
        return key_name_of(record, "participant") if has_device else "person"

    def _decode(self, row: Row) -> Entry | None:
        position, data = int(row[0]), row[1]
        place = f"entry {position}"
        if not isinstance(data, bytes):
            self.findings.add(place, "holds no bytes")
            return None
        try:
            entry = decode_entry(data)
        except RefusedEntry as refused:
            self.findings.add(place, str(refused))
            return None
        difference = describe_difference(_ENTRY_COLUMNS, row, tables.entry_row(position, entry))
        if difference:
            self.findings.add(place, difference)
        return entry

    def _take(self, row: Row, entry: Entry | None, verified_by: bytes | None, nodes: RowComparison) -> None:
        position, data = int(row[0]), row[1]
        wanted = self.edge.size
        if self._is_dense and position != wanted:
            self.findings.add(f"entry {min(position, wanted)}", f"position {position} follows {wanted - 1}")
            self._is_dense = self.is_following = False
        if entry is None:
            self.is_following = False
        else:
            self._follow(position, entry, verified_by)
        completed = self.edge.append(entry.leaf_hash if entry else leaf_hash(data) if isinstance(data, bytes) else ZERO)
        if self._is_dense:
            for node in tables.node_rows(position, completed):
                nodes.expect(node)

    def _follow(self, position: int, entry: Entry, verified_by: bytes | None) -> None:
        """Apply an entry; after the first one that does not follow, only signatures can be checked."""
        for number in principals_of(entry.record):
            self.about[number] = chain(self.about[number], position)
        if self.is_following:
            try:
                apply_entry(self.state, entry, position, verified_by=verified_by)
            except RefusedEntry as refused:
                self.findings.add(f"entry {position}", str(refused))
                self.is_following = False
        elif (
            entry.record.author < len(self.state.principals)
            and verified_by is None
            and not verify_signatures(self.state, [entry])
        ):
            self.findings.add(f"entry {position}", "the signature is wrong, or the sequence is not a new one")


@contextmanager
def _without_cycle_search() -> Iterator[None]:
    """Keep Python from looking for cycles among entries, which have none: an eighth of a replay's time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def chain(head: Digest, position: int) -> Digest:
    """Advance a chain over increasing positions, by which two lists of them are compared in constant memory."""
    return Digest(sha256(head + position.to_bytes(8, "big", signed=True)).digest())
