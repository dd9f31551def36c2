"""Signatures verified in other processes: the same verdicts, whatever becomes of the processes."""

from __future__ import annotations

import pytest

from liberate.crypto import verifier_pool
from liberate.crypto.signing import SignatureClaim, SigningKey
from liberate.crypto.verifier_pool import SignatureVerifierPool


@pytest.mark.parametrize("program", [verifier_pool._PROGRAM, "raise SystemExit", None])
def test_processes_say_what_verify_says_even_when_they_cannot_run(
    program: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if program is None:
        monkeypatch.setattr("sys.executable", "/nonexistent")
    else:
        monkeypatch.setattr(verifier_pool, "_PROGRAM", program)
    pair = SigningKey.from_seed(bytes(32))
    claims = [SignatureClaim(pair.public, bytes([i]), pair.sign(bytes([i if i % 3 else 255]))) for i in range(200)]

    verifiers = SignatureVerifierPool(2)
    answers = [verifiers.submit(claims[begin : begin + 50]) for begin in range(0, 200, 50)]
    verdicts = [verdict for answer in answers for verdict in answer.result()]
    verifiers.close()

    assert verdicts == [i % 3 > 0 for i in range(200)]
