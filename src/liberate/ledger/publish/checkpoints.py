"""Checkpoints that are published: cosigned by enough witnesses, and remembered.

What was published cannot be taken back: a ledger that lacks it, or holds something else in its place, was rolled back.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from liberate.crypto.merkle import verify_consistency
from liberate.crypto.note import (
    Checkpoint,
    WitnessPolicy,
    add_cosignature,
    cosignature_times,
    parse_witness_key,
    read_unverified,
    verify_checkpoint,
    verify_cosigned_checkpoint,
)
from liberate.errors import InvalidRecord, LedgerError, NoQuorum, ProofMismatch, RejectedCheckpoint, RolledBack
from liberate.files import write_atomic
from liberate.ledger.evidence import split_view
from liberate.ledger.interface import Ledger
from liberate.ledger.publish.witness_http import WitnessClient
from liberate.ledger.witness.protocol import SIZE_TYPE, AddCheckpointRequest, AddCheckpointResponse

_logger = logging.getLogger(__name__)

_ATTEMPTS = 3
_LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class WitnessAddress:
    """Where a witness is reached, and its verifier key."""

    url: str
    key: str


def parse_address(text: str) -> WitnessAddress:
    """Read `URL VKEY`.

    Raises:
        InvalidRecord: not an address, http or https, and a witness's verifier key.
    """
    url, _, vkey = text.partition(" ")
    if not url.startswith(("http://", "https://")):
        raise InvalidRecord(f"not a witness, http://... and a verifier key: {text!r}")
    parse_witness_key(vkey)
    return WitnessAddress(url.rstrip("/"), vkey)


class Publisher:
    """Publishes the newest checkpoint of a ledger.

    Args:
        ledger: The ledger.
        witnesses: Who is asked to cosign.
        threshold: How many must, 0 <= threshold <= number of witnesses.
        kept: File in which the newest published checkpoint is kept, outside the ledger; `evidence/` beside it is for
            what proves that the log has contradicted itself.
        client: Reaches the witnesses.
    """

    def __init__(
        self,
        ledger: Ledger,
        witnesses: Sequence[WitnessAddress],
        threshold: int,
        kept: Path,
        client: WitnessClient = WitnessClient(),  # noqa: B008 - frozen
    ) -> None:
        self._ledger = ledger
        self._witnesses = witnesses
        self._threshold = threshold
        self._kept = kept
        self._client = client
        self._sizes = dict.fromkeys(witnesses, 0)
        self._published = ("", "")

    def publish(self) -> str:
        """Return the newest checkpoint, cosigned and kept.

        Raises:
            NoQuorum: Too few witnesses have cosigned it; nothing is published.
            RejectedCheckpoint: Likewise, and one of them says that it contradicts what it knows of the log.
            RolledBack: A witness has shown a checkpoint of this log that the ledger does not continue.
        """
        note = self._ledger.checkpoint()
        if note != self._published[0]:
            published = self._cosigned(note) if self._witnesses else note
            write_atomic(self._kept, published.encode())
            self._published = (note, published)
        return self._published[1]

    def _cosigned(self, note: str) -> str:
        """Ask all witnesses at once, until enough have cosigned."""
        cosigned = note
        reasons: dict[WitnessAddress, str] = {}
        rejecting: list[WitnessAddress] = []
        attempts = dict.fromkeys(self._witnesses, 1)

        pool = ThreadPoolExecutor(len(self._witnesses))
        try:
            running = {self._ask(pool, witness, note): witness for witness in self._witnesses}
            while running and self._count(cosigned) < self._threshold:
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    witness = running.pop(done)
                    try:
                        cosigned = self._add_answer(cosigned, witness, done.result())
                    except _OtherSize:
                        attempts[witness] += 1
                        reasons[witness] = f"it wants a proof from {self._sizes[witness]} entries"
                        if attempts[witness] <= _ATTEMPTS:
                            running[self._ask(pool, witness, note)] = witness
                    except LedgerError as error:
                        reasons[witness] = error.message
                        if isinstance(error, RejectedCheckpoint):
                            rejecting.append(witness)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

        for witness in rejecting:
            self._compare(witness)
            _logger.warning("witness %s: %s", witness.url, reasons[witness])
        self._check_count(self._count(cosigned), reasons, is_rejected=bool(rejecting))
        return cosigned

    def _check_count(self, count: int, reasons: Mapping[WitnessAddress, str], *, is_rejected: bool) -> None:
        if count >= self._threshold:
            return
        said = "; ".join(f"{witness.url}: {reason}" for witness, reason in reasons.items())
        message = f"{count} of {len(self._witnesses)} witnesses have cosigned, {self._threshold} are wanted ({said})"
        if is_rejected:
            raise RejectedCheckpoint(message, hint="liberate ledger verify says whether the ledger follows its rules")
        vkey = self._ledger.state.founding.log_vkey
        raise NoQuorum(message, hint=f"start the witnesses, with --log {vkey}; the same command goes on")

    def _compare(self, witness: WitnessAddress) -> None:
        """Hold the ledger against the newest checkpoint that a witness has cosigned, which its log must have signed.

        Raises:
            RolledBack: The ledger does not continue it.
        """
        try:
            seen = self._client.newest(witness.url, self._ledger.origin)
            verify_checkpoint(seen, self._ledger.state.founding.log_vkey)
        except LedgerError:
            return  # it shows nothing: only what the log has signed says anything against the log

        try:
            check_published(self._ledger, seen, self._ledger.state.founding.log_vkey)
        except RolledBack as error:
            path = split_view.keep_evidence(
                self._kept.parent / "evidence", split_view.evidence_of_fork(self._ledger, seen) or seen.encode()
            )
            raise RolledBack(
                f"witness {witness.url} has cosigned another history of this log: {error.message}; see {path}",
                size=error.size,
                published=error.published,
                hint=error.hint,
            ) from error

    def _count(self, note: str) -> int:
        return len(cosignature_times(note, [witness.key for witness in self._witnesses]))

    def _ask(self, pool: ThreadPoolExecutor, witness: WitnessAddress, note: str) -> Future[AddCheckpointResponse]:
        old, new = self._sizes[witness], read_unverified(note).size
        proof = self._ledger.consistency_proof(old, new) if 0 < old < new else []
        return pool.submit(self._client.submit, witness.url, AddCheckpointRequest(old, proof, note).encode())

    def _add_answer(self, note: str, witness: WitnessAddress, answer: AddCheckpointResponse) -> str:
        """Return a note with the cosignature that a witness has answered.

        Raises:
            _OtherSize: The witness wants a proof from another size.
            RejectedCheckpoint: It has cosigned another history, or says that the entries break the rules.
            LedgerError: It has not cosigned the note.
        """
        if answer.status == 200:
            cosigned = add_cosignature(note, answer.body, witness.key)
            self._sizes[witness] = read_unverified(note).size
            return cosigned

        if answer.status == 422:
            raise RejectedCheckpoint(f"422 {answer.body.strip()[:_LONGEST_REASON]}")
        if answer.status != 409 or answer.content_type != SIZE_TYPE or not answer.body.strip().isdecimal():
            raise LedgerError(f"{answer.status} {answer.body.strip()[:_LONGEST_REASON]}")

        size = int(answer.body)
        if size > self._ledger.size:
            raise RejectedCheckpoint(
                f"it has cosigned {size} entries, the ledger has {self._ledger.size}: was it rolled back?"
            )
        if size == self._sizes[witness]:
            raise RejectedCheckpoint(f"it has cosigned another tree of {size} entries")
        self._sizes[witness] = size
        raise _OtherSize


class _OtherSize(Exception):
    """The witness wants a proof from another size."""


def checkpoint_for_publication(ledger: Ledger, note: str | None = None) -> tuple[str, Checkpoint]:
    """Return a checkpoint under which a ledger may be published: the note, or the newest one.

    Raises:
        InvalidRecord: The ledger's log has not signed it.
        NoQuorum: Fewer witnesses have cosigned it than the genesis wants.
    """
    founding, text = ledger.state.founding, note or ledger.checkpoint()
    policy = WitnessPolicy(founding.witnesses.keys, founding.witnesses.threshold)
    return text, verify_cosigned_checkpoint(text, founding.log_vkey, policy)


def check_published(ledger: Ledger, note: str, vkey: str) -> None:
    """Check that a ledger still holds everything that a published checkpoint covers.

    Raises:
        RolledBack: it is smaller, or holds other entries.
        InvalidRecord: the note is no checkpoint of this log.
    """
    published, present = verify_checkpoint(note, vkey), verify_checkpoint(ledger.checkpoint(), vkey)
    hint = "put the newest copy of the ledger back; one that was published cannot be taken back"
    if published.size > present.size:
        message = f"the ledger has {present.size} entries, but {published.size} were published: it was rolled back"
        raise RolledBack(message, size=present.size, published=published.size, hint=hint)
    if published.size == 0:
        return
    try:
        proof = ledger.consistency_proof(published.size, present.size) if published.size < present.size else []
        verify_consistency(published.size, present.size, proof, published.root, present.root)
    except ProofMismatch as error:
        message = f"the first {published.size} of the ledger's {present.size} entries are not those that were published"
        raise RolledBack(message, size=present.size, published=published.size, hint=hint) from error
