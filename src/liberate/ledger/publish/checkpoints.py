"""Checkpoints that are published: cosigned by enough witnesses, and remembered.

What was published cannot be taken back: a ledger that lacks it, or holds something else in its place, was rolled back.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
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
from liberate.errors import InvalidRecord, LedgerError, NoQuorum, ProofMismatch, RolledBack
from liberate.files import write_atomic
from liberate.ledger.interface import Ledger
from liberate.ledger.witness.protocol import MAX_BODY_BYTES, SIZE_TYPE, AddCheckpointRequest, AddCheckpointResponse

TIME_LIMIT_S = 10.0
_ATTEMPTS = 3
_LONGEST_REASON = 200

Submit = Callable[[str, bytes], AddCheckpointResponse]
"""Sends the body of a request to a witness by its URL; raises LedgerError where there is no answer."""


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


def submit(url: str, body: bytes) -> AddCheckpointResponse:
    """Send a request over HTTP."""
    request = urllib.request.Request(f"{url}/add-checkpoint", data=body, headers={"Content-Type": "text/plain"})
    try:
        with _open(request) as answer:
            text = answer.read(MAX_BODY_BYTES).decode("utf-8", "replace")
            content_type = (answer.headers.get("Content-Type") or "").partition(";")[0].strip()
            return AddCheckpointResponse(answer.status or 0, text, content_type)
    except (OSError, HTTPException) as error:
        raise LedgerError(f"no answer: {error}") from error


def _open(request: urllib.request.Request) -> HTTPResponse | urllib.error.HTTPError:
    try:
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=TIME_LIMIT_S)
    except urllib.error.HTTPError as error:  # an answer, only not a good one
        return error
    return answer


class Publisher:
    """Publishes the newest checkpoint of a ledger.

    Args:
        ledger: The ledger.
        witnesses: Who is asked to cosign.
        threshold: How many must, 0 <= threshold <= number of witnesses.
        kept: File in which the newest published checkpoint is kept, outside the ledger.
        send: Reaches the witnesses.
    """

    def __init__(
        self, ledger: Ledger, witnesses: Sequence[WitnessAddress], threshold: int, kept: Path, send: Submit = submit
    ) -> None:
        self._ledger = ledger
        self._witnesses = witnesses
        self._threshold = threshold
        self._kept = kept
        self._send = send
        self._sizes = dict.fromkeys(witnesses, 0)
        self._published = ("", "")

    def publish(self) -> str:
        """Return the newest checkpoint, cosigned and kept.

        Raises:
            NoQuorum: Too few witnesses have cosigned it; nothing is published.
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
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

        count = self._count(cosigned)
        if count < self._threshold:
            said = "; ".join(f"{witness.url}: {reason}" for witness, reason in reasons.items())
            raise NoQuorum(
                f"{count} of {len(self._witnesses)} witnesses have cosigned, {self._threshold} are wanted ({said})",
                hint="start the witnesses; the same command goes on",
            )
        return cosigned

    def _count(self, note: str) -> int:
        return len(cosignature_times(note, [witness.key for witness in self._witnesses]))

    def _ask(self, pool: ThreadPoolExecutor, witness: WitnessAddress, note: str) -> Future[AddCheckpointResponse]:
        old, new = self._sizes[witness], read_unverified(note).size
        proof = self._ledger.consistency_proof(old, new) if 0 < old < new else []
        return pool.submit(self._send, witness.url, AddCheckpointRequest(old, proof, note).encode())

    def _add_answer(self, note: str, witness: WitnessAddress, answer: AddCheckpointResponse) -> str:
        """Return a note with the cosignature that a witness has answered.

        Raises:
            _OtherSize: The witness wants a proof from another size.
            LedgerError: It has not cosigned the note, or has cosigned another history.
        """
        if answer.status == 200:
            cosigned = add_cosignature(note, answer.body, witness.key)
            self._sizes[witness] = read_unverified(note).size
            return cosigned

        if answer.status != 409 or answer.content_type != SIZE_TYPE or not answer.body.strip().isdecimal():
            raise LedgerError(f"{answer.status} {answer.body.strip()[:_LONGEST_REASON]}")

        size = int(answer.body)
        if size > self._ledger.size:
            raise LedgerError(
                f"it has cosigned {size} entries, the ledger has {self._ledger.size}: was it rolled back?"
            )
        if size == self._sizes[witness]:
            raise LedgerError(f"it has cosigned another tree of {size} entries")
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
