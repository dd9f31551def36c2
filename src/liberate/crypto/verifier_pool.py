"""Ed25519 verification in processes of their own: it runs beside Python code, not in turns with it.

Threads are no answer here: a thread that verifies needs the interpreter between any two signatures.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue

import msgspec

from liberate.crypto.signing import SignatureClaim, verify_batch

_PROGRAM = "from liberate.crypto.verifier_pool import serve; serve()"
_LENGTH_BYTES = 8


class SignatureVerifierPool:
    """Processes that verify batches of signatures; close them at the end.

    A process that cannot be started or dies costs time only: its batches are verified here.
    """

    def __init__(self, n_processes: int) -> None:
        self._threads = ThreadPoolExecutor(n_processes)
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        with suppress(OSError):
            for _ in range(n_processes):
                self._processes.append(_start())
        for process in self._processes:
            self._idle.put(process)

    def submit(self, claims: Sequence[SignatureClaim]) -> Future[list[bool]]:
        """Find out in a process, for each claim, whether `verify_signature` would accept it."""
        return self._threads.submit(self._verify, claims)

    def close(self) -> None:
        """End the processes."""
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            with suppress(OSError), process:
                pass  # leaving closes the pipes, at which the process ends, and waits for it

    def _verify(self, claims: Sequence[SignatureClaim]) -> list[bool]:
        if not self._processes:
            return verify_batch(claims)
        process = self._idle.get()
        try:
            return _ask(process, claims)
        except (OSError, EOFError):
            return verify_batch(claims)
        finally:
            self._idle.put(process)


def _start() -> subprocess.Popen[bytes]:
    """Start a process that ends when its stdin does; an interrupt at the terminal is not for it."""
    command = [sys.executable, "-c", _PROGRAM]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)


def _ask(process: subprocess.Popen[bytes], claims: Sequence[SignatureClaim]) -> list[bool]:
    assert process.stdin is not None, "opened as a pipe"
    assert process.stdout is not None, "opened as a pipe"
    message = msgspec.msgpack.encode(claims)
    process.stdin.write(len(message).to_bytes(_LENGTH_BYTES, "big") + message)
    process.stdin.flush()
    answer = process.stdout.read(len(claims))
    if len(answer) < len(claims):
        raise EOFError
    return [verdict == 1 for verdict in answer]


def serve() -> None:
    """Answer batches of claims on stdin until it ends: for each claim one byte, 1 if it is valid."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    decoder = msgspec.msgpack.Decoder(list[SignatureClaim])
    while length := requests.read(_LENGTH_BYTES):
        claims = decoder.decode(requests.read(int.from_bytes(length, "big")))
        answers.write(bytes(verify_batch(claims, n_threads=1)))
        answers.flush()
