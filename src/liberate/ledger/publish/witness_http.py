"""Witnesses over HTTP: C2SP tlog-witness's `add-checkpoint`, and the newest checkpoint that one has cosigned."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from urllib.parse import quote

from liberate.errors import LedgerError
from liberate.ledger.witness.protocol import MAX_BODY_BYTES, AddCheckpointResponse

TIME_LIMIT_S = 10.0

Submit = Callable[[str, bytes], AddCheckpointResponse]
"""Sends the body of a request to a witness by its URL; raises LedgerError where there is no answer."""

Newest = Callable[[str, str], str]
"""Asks a witness by its URL for the newest checkpoint that it has cosigned of an origin; raises likewise."""


def submit(url: str, body: bytes) -> AddCheckpointResponse:
    """Send a request over HTTP."""
    request = urllib.request.Request(f"{url}/add-checkpoint", data=body, headers={"Content-Type": "text/plain"})
    return _answer(request)


def newest(url: str, origin: str) -> str:
    """Ask for a checkpoint over HTTP."""
    answer = _answer(urllib.request.Request(f"{url}/checkpoint/{quote(origin)}"))
    if answer.status != 200:
        raise LedgerError(f"no checkpoint: {answer.status}")
    return answer.body


@dataclass(frozen=True, slots=True)
class WitnessClient:
    """Reaches witnesses by their URLs."""

    submit: Submit = submit
    newest: Newest = newest


def _answer(request: urllib.request.Request) -> AddCheckpointResponse:
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
