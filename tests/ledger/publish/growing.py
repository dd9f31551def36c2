"""Ledgers that grow, published as tiles, for tests."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from liberate.crypto.note import (
    Checkpoint,
    SignatureType,
    WitnessPolicy,
    cosign,
    sign_checkpoint,
    verifier_key,
    verify_checkpoint,
)
from liberate.crypto.signing import SigningKey
from liberate.ledger.format.records import DatasetRecord
from liberate.ledger.interface import Ledger
from tests.ledger.world import LOG_KEY, LOG_VKEY, ORIGIN, PARTICIPANTS, World, digest

AUTHOR = PARTICIPANTS[0]


def grow(ledger: Ledger, size: int) -> None:
    """Append entries up to a size; the ledger's people must be enrolled."""
    if size == ledger.size:
        return
    world = World(ledger)
    first = world.seq(AUTHOR)
    numbers = range(first, first + size - ledger.size - 1)  # the block is the last entry
    world.add(*(DatasetRecord(origin=ORIGIN, author=AUTHOR, seq=n, commitment=digest(n)) for n in numbers))
    assert ledger.size == size


def signed(checkpoint: Checkpoint) -> str:
    """A checkpoint that the log really signed, true or not."""
    return sign_checkpoint(checkpoint, LOG_KEY)


def cosigned(note: str, n_witnesses: int) -> str:
    """A note with the cosignatures of the first witnesses."""
    checkpoint = verify_checkpoint(note, LOG_VKEY)
    return note + "".join(
        cosign(checkpoint, f"w{n}.example", witness_key(n), 1_700_000_000) for n in range(n_witnesses)
    )


def witness_key(number: int) -> SigningKey:
    """The key of a witness."""
    return SigningKey.from_seed(digest(("witness", number)))


def policy(threshold: int) -> WitnessPolicy:
    """A policy that knows three witnesses."""
    type_ = SignatureType.COSIGNATURE_V1
    return WitnessPolicy(
        tuple(verifier_key(f"w{n}.example", witness_key(n).public, type_) for n in range(3)), threshold
    )


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, by path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing about it."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path, handler: type[Quiet] = Quiet) -> Iterator[str]:
    """Serve a folder's files on this machine; gives the address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
