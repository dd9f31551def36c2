"""Accusations checked with nothing but the answer that makes them and the log's key: no ledger, no run, no trust."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from msgspec import Struct

from liberate.arrays import Int32Array
from liberate.crypto.commitments import salted_commitment
from liberate.crypto.note import Checkpoint, verify_checkpoint
from liberate.data.rating_scale import RatingScale
from liberate.data.ratings import Ratings
from liberate.errors import InvalidRecord, ProofMismatch
from liberate.ledger.format.entries import Entry, decode_included
from liberate.ledger.format.sharing_records import Receipt, Share
from liberate.privacy.fingerprinting import FALSE_ACCUSATION, score_recipient
from liberate.tracing.leak.answers import LeakFormat, OpenedShare, WholeEntry


class _Candidate(Struct, frozen=True):
    number: int
    accused: bool
    evidence: tuple[OpenedShare, ...]


class _Evidence(Struct, frozen=True):
    """What an accusation rests on, of all that the answer says."""

    format: LeakFormat
    checkpoint: str
    candidates: tuple[_Candidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedAccusation:
    """An accusation whose evidence holds.

    Attributes:
        number: Who is accused.
        log10_likelihood: As of `Attribution`.
        bound: On a false accusation of anybody among the candidates.
        rows: How many rows that leaked it rests on.
        received: Whether the accused has acknowledged all copies that it rests on.
    """

    number: int
    log10_likelihood: float
    bound: float
    rows: int
    received: bool


def is_accusation(data: bytes) -> bool:
    """Return whether bytes are a well-formed answer to whose copy leaked; what it proves is not checked."""
    try:
        _read(data)
    except InvalidRecord:
        return False
    return True


def check_accusations(data: bytes, vkey: str) -> list[VerifiedAccusation]:
    """Check all accusations of an answer of `trace --leak --json`.

    Each copy and base must open what a share for the accused commits to that lies under the log's signed tree, and the
    rows must accuse by themselves. That these rows are those of the leak, on the data set's scale, and that the answer
    names all candidates, is for whoever has the leak and the ledger.

    Args:
        data: The answer.
        vkey: The log's verifier key, known from elsewhere.

    Raises:
        InvalidRecord: The answer is none, of another version, or not signed with the key.
        ProofMismatch: Nobody is accused, or evidence does not open or does not accuse.
    """
    evidence = _read(data)
    checkpoint = verify_checkpoint(evidence.checkpoint, vkey)
    accused = [candidate for candidate in evidence.candidates if candidate.accused]
    if not accused:
        raise ProofMismatch("the answer accuses nobody")
    return [_check(candidate, checkpoint, len(evidence.candidates)) for candidate in accused]


def _read(data: bytes) -> _Evidence:
    try:
        return msgspec.json.decode(data, type=_Evidence)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRecord(f"not an answer of trace --leak --json: {error}") from error


def _check(accused: _Candidate, checkpoint: Checkpoint, n_candidates: int) -> VerifiedAccusation:
    # By base copy, as two copies of one base have the same rows: they may count once only.
    rows: dict[bytes, tuple[Int32Array, Int32Array, Int32Array]] = {}
    for opened in accused.evidence:
        _check_share(opened, accused.number, checkpoint)
        rows[opened.base_salt + opened.base] = _rows(opened)
    if not rows or len({opened.scale for opened in accused.evidence}) != 1:
        raise ProofMismatch(f"wanted copies of {accused.number}, all on one scale")

    leaked, base, copy = (np.concatenate(parts) for parts in zip(*rows.values(), strict=True))
    attribution = score_recipient(leaked, base, copy[None], accused.evidence[0].scale.levels)
    bound = float(attribution.bound[0]) * n_candidates
    if bound > FALSE_ACCUSATION:
        raise ProofMismatch(
            f"the rows bound a false accusation by {bound:.2g} only, at most {FALSE_ACCUSATION:g} is wanted"
        )

    return VerifiedAccusation(
        number=accused.number,
        log10_likelihood=float(attribution.log10_likelihood[0]),
        bound=bound,
        rows=len(leaked),
        received=all(opened.receipt is not None for opened in accused.evidence),
    )


def _check_share(opened: OpenedShare, recipient: int, checkpoint: Checkpoint) -> None:
    entry = _included(opened, checkpoint)
    share = entry.record
    if not isinstance(share, Share) or share.recipient != recipient:
        raise ProofMismatch(f"entry {opened.position} hands nothing to {recipient}")

    opens_copy = salted_commitment(opened.salt, opened.copy) == share.copy
    if not opens_copy or salted_commitment(opened.base_salt, opened.base) != share.base:
        raise ProofMismatch(f"copy or base do not open the commitments of entry {opened.position}")

    if opened.receipt is not None:
        receipt = _included(opened.receipt, checkpoint).record
        if not isinstance(receipt, Receipt) or (receipt.author, receipt.share) != (recipient, entry.leaf_hash):
            raise ProofMismatch(f"entry {opened.receipt.position} does not acknowledge entry {opened.position}")


def _included(whole: WholeEntry, checkpoint: Checkpoint) -> Entry:
    return decode_included(whole.entry, whole.position, whole.proof, checkpoint)


def _rows(opened: OpenedShare) -> tuple[Int32Array, Int32Array, Int32Array]:
    """Return levels that leaked, and the same rows of base and copy, shape (n,) each."""
    scale = RatingScale(low=opened.scale.low, step=opened.scale.step, n_levels=opened.scale.levels)
    items, leaked = np.array(opened.items, np.int32), np.array(opened.leaked, np.int32)
    base, copy = (Ratings.from_user_bytes([data], 2**31 - 1) for data in (opened.base, opened.copy))

    at = np.searchsorted(base.items, items)
    is_there = np.array_equal(base.items, copy.items) and np.array_equal(np.append(base.items, -1)[at], items)
    if not is_there or len(leaked) != len(items) or not (np.diff(items) > 0).all():
        raise ProofMismatch(f"the rows of entry {opened.position} are none of its copy, or count twice")
    return leaked, scale.places(base.values)[at], scale.places(copy.values)[at]
