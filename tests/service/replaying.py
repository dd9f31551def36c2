"""Witnesses in this process that replay the rules, for real distributed runs in tests."""

from __future__ import annotations

import http.server
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, Thread

from liberate.crypto.note import SignatureType, read_unverified, verifier_key
from liberate.crypto.signing import SigningKey
from liberate.errors import LedgerError, LiberateError
from liberate.ledger.format.entries import decode_record
from liberate.ledger.format.records import Genesis
from liberate.ledger.publish.checkpoints import WitnessAddress
from liberate.ledger.publish.witness_http import WitnessClient
from liberate.ledger.witness.follower import Follower, entries_in_folder
from liberate.ledger.witness.protocol import AddCheckpointRequest, AddCheckpointResponse
from liberate.ledger.witness.witness import Witness

NAME = "witness.example/replay"
KEY = SigningKey.from_seed(bytes([77]) * 32)
VKEY = verifier_key(NAME, KEY.public, SignatureType.COSIGNATURE_V1)
DIRECT = WitnessAddress("http://replaying.invalid", VKEY)
"""A replaying witness that is reached by a call, without a network: see `stage` in tests/worlds.py."""


class ReplayingWitness:
    """A witness that replays the ledger in a folder as soon as there is one, and takes its log's key from there.

    A witness of somebody else is told the log's key; in a test there is nobody else to tell it.

    Args:
        ledger: The ledger's folder.
        state: Where the witness's state is kept; not in the federation's folder.
    """

    def __init__(self, ledger: Path, state: Path) -> None:
        self._ledger = ledger
        self._state = state
        self._witnesses: dict[str, Witness] = {}
        self._lock = Lock()

    def submit(self, url: str, body: bytes) -> AddCheckpointResponse:
        """Answer a request, as `Submit` wants it."""
        with self._lock:
            try:
                origin = read_unverified(AddCheckpointRequest.decode(body).note).origin
                witness = self._witnesses.get(origin) or self._follow(origin)
            except LiberateError as error:
                return AddCheckpointResponse(503, f"{error}\n")
        return witness.add_checkpoint(body)

    def newest(self, url: str, origin: str) -> str:
        """Return the newest checkpoint that was cosigned, as `Newest` wants it."""
        if origin not in self._witnesses:
            raise LedgerError("nothing was cosigned")
        return self._witnesses[origin].newest(origin).body

    @property
    def client(self) -> WitnessClient:
        """Reaches this witness by a call."""
        return WitnessClient(self.submit, self.newest)

    def close(self) -> None:
        """Release the files."""
        for witness in self._witnesses.values():
            witness.close()

    def _follow(self, origin: str) -> Witness:
        read = entries_in_folder(self._ledger)
        vkey = decode_record(next(read(0, 1)), Genesis).log_vkey
        followers = {origin: Follower(vkey, read)}
        witness = Witness(NAME, KEY, [vkey], self._state, lambda: 1_700_000_000, followers)
        return self._witnesses.setdefault(origin, witness)


@contextmanager
def replaying(run: Path, port: int = 0) -> Iterator[list[str]]:
    """A replaying witness of the federation in a run folder, on the loopback; yields settings that name it."""
    witness = ReplayingWitness(run / "ledger", run.parent / f"{run.name}-witness")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answer = witness.submit(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.end_headers()
            self.wfile.write(answer.body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield [f"ledger.witnesses={json.dumps([f'http://127.0.0.1:{server.server_port} {VKEY}'])}"]
    finally:
        server.shutdown()
        server.server_close()
        witness.close()
