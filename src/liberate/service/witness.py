"""The HTTP witness: `POST /add-checkpoint` (C2SP tlog-witness), and `GET /checkpoint/ORIGIN` for whoever compares."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from liberate.crypto.note import parse_verifier_key
from liberate.crypto.signing import load_key
from liberate.errors import LedgerError, SettingsError
from liberate.ledger.format.entries import decode_record
from liberate.ledger.format.records import Genesis
from liberate.ledger.publish.tile_replay import entries_in_tiles
from liberate.ledger.witness.follower import Follower, ReadEntries, entries_in_folder
from liberate.ledger.witness.protocol import MAX_BODY_BYTES
from liberate.ledger.witness.witness import Witness
from liberate.runs.federation_folder import federation_folder_of, ledger_folder_of

_logger = logging.getLogger(__name__)

_BACKLOG = 128
_LONGEST_SHUTDOWN_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessConfig:
    """How a witness is run.

    Attributes:
        folder: Where its state is kept; made if absent.
        name: Its name, a schemeless URL; it ends in `/replay` if, and only if, every log is replayed.
        key: The file of its signing key.
        logs: Verifier keys of the logs whose checkpoints it cosigns.
        replay: Copies of ledgers whose entries it replays before it cosigns, one for each log or none.
        host: Address to listen on.
        port: Port to listen on, 0 <= port < 65,536; 0 takes a free one.
    """

    folder: Path
    name: str
    key: Path
    logs: Sequence[str]
    replay: Sequence[str] = ()
    host: str = "127.0.0.1"
    port: int = 0


def application(witness: Witness) -> Starlette:
    """Put HTTP around a witness."""

    async def add_checkpoint(request: Request) -> Response:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY_BYTES:
                return PlainTextResponse(f"a request has at most {MAX_BODY_BYTES} bytes\n", 400)
        answer = await run_in_threadpool(witness.add_checkpoint, bytes(body))
        return Response(answer.body, answer.status, media_type=answer.content_type)

    async def checkpoint(request: Request) -> Response:
        answer = await run_in_threadpool(witness.newest, request.path_params["origin"])
        return Response(answer.body, answer.status, media_type=answer.content_type)

    return Starlette(
        routes=[
            Route("/add-checkpoint", add_checkpoint, methods=["POST"]),
            Route("/checkpoint/{origin:path}", checkpoint, methods=["GET"]),
        ]
    )


def serve(config: WitnessConfig, announce: Callable[[str, str], None]) -> None:
    """Run a witness until SIGTERM or SIGINT; requests under way are answered first.

    Args:
        config: How.
        announce: Told the URL and the verifier key as soon as connections are taken.

    Raises:
        SettingsError: no log is named, a copy to replay is none of theirs, its name does not say whether it replays,
            or its key lies in the federation's folder.
        LiberateError: the key, or a copy, cannot be read.
    """
    if not config.logs:
        raise SettingsError("a witness needs the verifier key of a log", hint="--log VKEY, as `train` prints it")

    key = load_key(config.key)
    _check_place(config)
    followers = _followers(config)
    witness = Witness(config.name, key, config.logs, config.folder, lambda: int(time.time()), followers)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises the signal again when it has shut down
    with closing(witness), socket.create_server((config.host, config.port), backlog=_BACKLOG) as listener:
        host, port = listener.getsockname()[:2]
        announce(f"http://{host}:{port}", witness.verifier_key)
        settings = uvicorn.Config(
            application(witness),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=_LONGEST_SHUTDOWN_S,
        )
        uvicorn.Server(settings).run(sockets=[listener])


def _check_place(config: WitnessConfig) -> None:
    """Refuse a key that lies with the ledger that it is to watch: whoever owns one owns both."""
    for place in config.replay:
        federation = federation_folder_of(Path(place))
        if federation.is_dir() and config.key.resolve().is_relative_to(federation.resolve()):
            raise SettingsError(
                f"{config.key} lies in {federation}, the folder of the federation that the witness is to watch",
                hint="keep it where the federation's owner cannot read it",
            )


def _followers(config: WitnessConfig) -> dict[str, Follower]:
    logs = {parse_verifier_key(vkey).name: vkey for vkey in config.logs}
    followers = {}
    for place in config.replay:
        read = _reader(place)
        origin = _origin(place, read)
        if origin not in logs:
            raise SettingsError(f"{place} is a copy of {origin}, which is none of the logs", hint="--log VKEY")
        followers[origin] = Follower(logs[origin], read)
    return followers


def _reader(place: str) -> ReadEntries:
    folder = Path(place)
    if place.startswith(("http://", "https://")) or (folder / "tile").is_dir():
        return entries_in_tiles(place)
    return entries_in_folder(ledger_folder_of(folder))


def _origin(place: str, read: ReadEntries) -> str:
    for data in read(0, 1):
        return decode_record(data, Genesis).origin
    raise LedgerError(f"{place} does not begin with a genesis")
