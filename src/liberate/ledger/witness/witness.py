"""A witness: cosigns a log's checkpoints, each only when it continues the one before (C2SP tlog-witness).

`Witness.add_checkpoint` takes the body of a request and returns the answer, `Witness.newest` what anybody may read;
HTTP is put around them elsewhere. What it has cosigned is durable before a cosignature leaves, so that it never
contradicts itself, wherever it is killed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from threading import Lock

from liberate.crypto.merkle import EMPTY_ROOT, verify_consistency
from liberate.crypto.note import (
    REPLAY_SUFFIX,
    Checkpoint,
    SignatureType,
    add_cosignature,
    cosign,
    is_replaying,
    parse_verifier_key,
    read_unverified,
    verifier_key,
    verify_checkpoint,
)
from liberate.crypto.signing import SigningKey
from liberate.database import SqliteStore
from liberate.errors import InvalidRecord, LedgerError, ProofMismatch, RefusedEntry, SettingsError
from liberate.identifiers import Digest
from liberate.ledger.evidence import split_view
from liberate.ledger.witness.follower import Follower
from liberate.ledger.witness.protocol import (
    MAX_BODY_BYTES,
    SIZE_TYPE,
    TEXT_TYPE,
    AddCheckpointRequest,
    AddCheckpointResponse,
)

_logger = logging.getLogger(__name__)

_SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS cosigned (
    origin TEXT NOT NULL, size INTEGER NOT NULL, root BLOB NOT NULL, note TEXT NOT NULL, PRIMARY KEY (origin, size)
) STRICT, WITHOUT ROWID;
"""


class _Rejected(Exception):
    def __init__(self, status: int, body: str, content_type: str = TEXT_TYPE) -> None:
        super().__init__(body)
        self.answer = AddCheckpointResponse(status, f"{body}\n", content_type)


class CosignedCheckpoints(SqliteStore):
    """The checkpoints that a witness has cosigned, each durable before its cosignature leaves.

    Rows are only ever added. Two processes that share the file exclude each other for the time of an addition.

    Args:
        folder: Holds `witness.sqlite`; made if absent, readable by the owner only.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "witness.sqlite", _SCHEMA, is_shared=True)

    def latest(self, origin: str) -> Checkpoint | None:
        """Return the largest checkpoint cosigned for a log."""
        select = "SELECT size, root FROM cosigned WHERE origin = ? ORDER BY size DESC LIMIT 1"
        row = self._row(select, (origin,))
        return None if row is None else Checkpoint(origin, row[0], Digest(row[1]))

    def note(self, origin: str, size: int) -> str | None:
        """Return the note cosigned at a size."""
        select = "SELECT note FROM cosigned WHERE origin = ? AND size = ?"
        row = self._row(select, (origin, size))
        return None if row is None else str(row[0])

    def advance(self, known: Checkpoint | None, checkpoint: Checkpoint, note: str) -> bool:
        """Add a checkpoint, durable on return, if `known` is still the latest one; say whether it is."""
        with self._transaction():
            is_current = self.latest(checkpoint.origin) == known
            if is_current and known != checkpoint:
                row = (checkpoint.origin, checkpoint.size, checkpoint.root, note)
                self._execute("INSERT INTO cosigned VALUES (?, ?, ?, ?)", row)
        return is_current


class Witness:
    """Cosigns checkpoints of the logs it knows.

    Args:
        name: The witness's name, a schemeless URL.
        key: Its key, used for nothing else.
        logs: Verifier keys of the logs.
        folder: Where its state is kept, and `evidence/` of logs that contradict themselves.
        now: Returns seconds since 1970-01-01 UTC.
        followers: By origin: replays a log's entries, so that a cosignature vouches for the state roots too. A name
            that ends in `/replay` says that this is done for every log, and no other name may replay.

    Raises:
        SettingsError: The name promises a replay that is not done for every log, or does not say that one is done.
    """

    def __init__(
        self,
        name: str,
        key: SigningKey,
        logs: Sequence[str],
        folder: Path,
        now: Callable[[], int],
        followers: Mapping[str, Follower] | None = None,
    ) -> None:
        self.verifier_key = verifier_key(name, key.public, SignatureType.COSIGNATURE_V1)
        self._name = name
        self._key = key
        self._logs = {parse_verifier_key(vkey).name: vkey for vkey in logs}
        self._folder = folder
        self._now = now
        self._followers = dict(followers or {})
        _check_name(name, self._logs.keys(), self._followers.keys())
        self._lock = Lock()
        self._cosigned = CosignedCheckpoints(folder)

    def add_checkpoint(self, body: bytes) -> AddCheckpointResponse:
        """Answer a request; may be called from several threads."""
        try:
            submission = _decoded(body)
            with self._lock:
                checkpoint = self._accept(submission)
            return AddCheckpointResponse(200, cosign(checkpoint, self._name, self._key, self._now()))
        except _Rejected as rejected:
            _logger.info("rejected: %d %s", rejected.answer.status, rejected)
            return rejected.answer

    def newest(self, origin: str) -> AddCheckpointResponse:
        """Return the newest checkpoint cosigned for a log, cosigned again now; may be called from several threads."""
        with self._lock:
            known = self._cosigned.latest(origin)
            note = None if known is None else self._cosigned.note(origin, known.size)
        if known is None or note is None:
            return AddCheckpointResponse(404, f"nothing was cosigned for {origin}\n")
        return AddCheckpointResponse(
            200, add_cosignature(note, cosign(known, self._name, self._key, self._now()), self.verifier_key)
        )

    def close(self) -> None:
        """Release the files."""
        self._cosigned.close()

    def _accept(self, submission: AddCheckpointRequest) -> Checkpoint:
        """Make durable that a checkpoint is the latest one of its log."""
        checkpoint = self._open(submission.note)
        if submission.old > checkpoint.size:
            raise _Rejected(400, f"old size {submission.old} is above the checkpoint's {checkpoint.size}")

        known = self._cosigned.latest(checkpoint.origin)
        self._compare(checkpoint, submission.note)
        if submission.old != (known.size if known else 0):
            raise self._conflict(checkpoint.origin)
        _check_continues(known, checkpoint, submission.proof)
        self._replay(checkpoint)

        if not self._cosigned.advance(known, checkpoint, submission.note):
            raise self._conflict(checkpoint.origin)
        return checkpoint

    def _open(self, note: str) -> Checkpoint:
        try:
            origin = read_unverified(note).origin
        except InvalidRecord as error:
            raise _Rejected(400, error.message) from error
        if origin not in self._logs:
            raise _Rejected(404, f"no log {origin} is known here")
        try:
            return verify_checkpoint(note, self._logs[origin])
        except InvalidRecord as error:
            raise _Rejected(403, error.message) from error

    def _compare(self, checkpoint: Checkpoint, note: str) -> None:
        """Refuse, and keep as evidence, another root for a size that was cosigned."""
        earlier = self._cosigned.note(checkpoint.origin, checkpoint.size)
        if earlier is not None and read_unverified(earlier).root != checkpoint.root:
            path = split_view.keep_evidence(self._folder / "evidence", split_view.evidence_same_size(earlier, note))
            _logger.warning("%s has signed two roots for size %d: %s", checkpoint.origin, checkpoint.size, path)
            raise self._conflict(checkpoint.origin)

    def _conflict(self, origin: str) -> _Rejected:
        """Return the answer to a request that does not start from the newest checkpoint."""
        latest = self._cosigned.latest(origin)
        return _Rejected(409, str(latest.size if latest else 0), SIZE_TYPE)

    def _replay(self, checkpoint: Checkpoint) -> None:
        follower = self._followers.get(checkpoint.origin)
        if follower is None:
            return
        try:
            follower.follow(checkpoint)
        except (InvalidRecord, ProofMismatch, RefusedEntry) as error:
            raise _Rejected(422, f"the entries do not lead to this checkpoint: {error}") from error
        except (LedgerError, OSError) as error:
            raise _Rejected(503, f"the entries cannot be replayed now: {error}") from error


def _check_name(name: str, logs: Collection[str], replayed: Collection[str]) -> None:
    """Check that a witness's name says whether it replays: others see nothing else of it."""
    unreplayed = sorted(set(logs) - set(replayed))
    if is_replaying(name) and unreplayed:
        raise SettingsError(
            f"{name} promises to replay each log, and there is no copy of {unreplayed[0]}",
            hint="--replay PLACE, or another name with a key of its own",
        )
    if replayed and not is_replaying(name):
        raise SettingsError(
            f"a witness that replays has a name that says so, {name} does not",
            hint=f"a key of its own, and --name {name}{REPLAY_SUFFIX}",
        )


def _decoded(body: bytes) -> AddCheckpointRequest:
    if len(body) > MAX_BODY_BYTES:
        raise _Rejected(400, f"a request has at most {MAX_BODY_BYTES} bytes")
    try:
        return AddCheckpointRequest.decode(body)
    except InvalidRecord as error:
        raise _Rejected(400, error.message) from error


def _check_continues(known: Checkpoint | None, checkpoint: Checkpoint, proof: Sequence[Digest]) -> None:
    try:
        if known is not None and known.size > 0:
            verify_consistency(known.size, checkpoint.size, proof, known.root, checkpoint.root)
        elif proof:
            raise ProofMismatch("the proof from an empty tree is empty")
        elif checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
            raise ProofMismatch("not the root of the empty tree")
    except ProofMismatch as error:
        raise _Rejected(422, error.message) from error
