"""The messages of a round between the coordinator and participants, and the encoding of an upload."""

from __future__ import annotations

import struct
from functools import cache
from typing import TypeVar

import msgspec
import numpy as np

from liberate.arrays import FixedPointStatistics, Int32Array
from liberate.errors import BadCommitment, FederationError
from liberate.identifiers import Digest

MessageT = TypeVar("MessageT", bound=msgspec.Struct)

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding bytes that are not a message may raise."""

_HEADER = struct.Struct("<BBHII")  # layout version, dense flag, tail length, width, rows
_LAYOUT = 1


class RoundRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The coordinator asks a participant for an answer to a round.

    Attributes:
        entry: The signed round entry.
        position: Its position in the ledger, 0 <= position.
        checkpoint: A signed note whose tree includes the entry.
        inclusion: Inclusion proof of the entry in that tree.
        known_size: Tree size that `consistency` starts from; 0 asks the recipient for the size it knows.
        consistency: Consistency proof from `known_size` to the checkpoint.
        model: Bytes of the base model.
    """

    entry: bytes
    position: int
    checkpoint: str
    inclusion: list[Digest]
    known_size: int
    consistency: list[Digest]
    model: bytes


class RoundInputs(msgspec.Struct, frozen=True, kw_only=True):
    """The coordinator tells a participant which copies it may use in a round: those whose consents are active.

    Attributes:
        round: Number of the round.
        shares: Leaf hashes of their shares.
    """

    round: int
    shares: list[Digest]


class RoundAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="answer"):
    """A participant's answer: the signed update entry, the upload and the salt that opens its commitment."""

    entry: bytes
    upload: bytes
    salt: bytes


class RoundRefusal(msgspec.Struct, frozen=True, kw_only=True, tag="refusal"):
    """A participant declines to answer, and says why.

    Attributes:
        reason: A code: quorum, consistency, rollback, split_view, inclusion, record, model, policy, withdrawn,
            revoked, not_agreed, budget, own_history,
            history_gap, answered; in masked rounds also phase, neighbours, keys, shares, survivors.
        detail: One line for people to read.
        known_size: Tree size of the largest checkpoint the participant has accepted, 0 if none.
    """

    reason: str
    detail: str
    known_size: int


def encode_message(message: msgspec.Struct) -> bytes:
    """Write a message as MessagePack."""
    return msgspec.msgpack.encode(message)


def decode_message(body: bytes, kind: type[MessageT]) -> MessageT:
    """Read a message of one kind.

    Raises:
        FederationError: The bytes are no such message.
    """
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except UNREADABLE as error:
        raise FederationError(f"the message is not a readable {kind.__name__}: {error}") from error


def decode_answer(body: bytes, kind: type[MessageT]) -> MessageT | RoundRefusal:
    """Read an answer of one kind, or the refusal that may come instead of any.

    Raises:
        FederationError: The bytes are neither.
    """
    try:
        return _answer_decoder(kind).decode(body)
    except UNREADABLE as error:
        raise FederationError(f"the reply is not a readable {kind.__name__}: {error}") from error


@cache
def _answer_decoder(kind: type[MessageT]) -> msgspec.msgpack.Decoder[MessageT | RoundRefusal]:
    return msgspec.msgpack.Decoder(kind | RoundRefusal)


def encode_upload(release: FixedPointStatistics, device: int, *, is_dense: bool) -> bytes:
    """Return one device's release as bytes; a dense release leaves out the indices.

    Args:
        release: A batch of releases.
        device: Its index in the batch, 0 <= device < n_devices.
        is_dense: Whether the device sends every row of the table.
    """
    begin, end = int(release.indptr[device]), int(release.indptr[device + 1])
    tail = release.tails[device]
    header = _HEADER.pack(_LAYOUT, is_dense, tail.size, release.rows.shape[1], end - begin)
    indices = b"" if is_dense else release.indices[begin:end].astype("<i4", copy=False).tobytes()
    rows = release.rows[begin:end].astype("<i4", copy=False).tobytes()
    return b"".join((header, indices, rows, tail.astype("<i8", copy=False).tobytes()))


def decode_upload(data: bytes, *, shape: tuple[int, int, int], is_dense: bool) -> FixedPointStatistics:
    """Read an upload, after checking that it has exactly the round's shape.

    Args:
        data: Bytes as written by `encode_upload`.
        shape: (n_rows, width, n_tail) of the round entry.
        is_dense: Whether the round's mechanism releases every row.

    Returns:
        A batch of one device; its arrays share memory with `data`.

    Raises:
        BadCommitment: The bytes have another shape, or their indices are out of range or not increasing.
    """
    largest, width, n_tail = shape
    if len(data) < _HEADER.size:
        raise BadCommitment(f"an upload of {len(data)} bytes has no header")
    *header, n_rows = _HEADER.unpack_from(data)
    is_right_count = n_rows == largest if is_dense else n_rows <= largest
    if header != [_LAYOUT, is_dense, n_tail, width] or not is_right_count:
        raise BadCommitment(f"upload header {(*header, n_rows)} does not fit shape {shape}, dense {is_dense}")

    rows_begin = _HEADER.size + (0 if is_dense else 4 * n_rows)
    tail_begin = rows_begin + 4 * n_rows * width
    if len(data) != tail_begin + 8 * n_tail:
        raise BadCommitment(f"an upload has {len(data)} bytes, its header asks for {tail_begin + 8 * n_tail}")

    return FixedPointStatistics(
        indptr=np.array([0, n_rows], dtype=np.int64),
        indices=np.arange(largest, dtype=np.int32) if is_dense else _sparse_indices(data, n_rows, largest),
        rows=np.frombuffer(data, "<i4", n_rows * width, rows_begin).reshape(n_rows, width),
        tails=np.frombuffer(data, "<i8", n_tail, tail_begin).reshape(1, n_tail),
    )


def _sparse_indices(data: bytes, n_rows: int, largest: int) -> Int32Array:
    indices = np.frombuffer(data, "<i4", n_rows, _HEADER.size)
    is_increasing = bool((indices[1:] > indices[:-1]).all())
    if n_rows and not (is_increasing and indices[0] >= 0 and indices[-1] < largest):
        raise BadCommitment(f"indices must increase strictly within 0 <= index < {largest}")
    return indices
