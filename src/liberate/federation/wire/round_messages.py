"""What participants and the coordinator say to each other, and how an upload is written as bytes."""

from __future__ import annotations

import struct

import msgspec
import numpy as np

from liberate.arrays import FixedPointStatistics
from liberate.errors import BadCommitment, FederationError

_HEADER = struct.Struct("<BBHII")  # layout version, dense flag, tail length, width, rows
_LAYOUT = 1


class RoundRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The coordinator asks for an answer to a round.

    Attributes:
        entry: The signed round entry.
        position: Its place in the ledger, 0 <= position.
        checkpoint: A signed note whose tree holds the entry.
        inclusion: Inclusion proof of the entry in that tree.
        known_size: Tree size that `consistency` starts from; 0 asks the recipient to say what it remembers.
        consistency: Consistency proof from `known_size` to the checkpoint.
        model: Bytes of the base model.
    """

    entry: bytes
    position: int
    checkpoint: str
    inclusion: list[bytes]
    known_size: int
    consistency: list[bytes]
    model: bytes


class RoundInputs(msgspec.Struct, frozen=True, kw_only=True):
    """The coordinator tells a participant which copies it may learn from in a round: whose consents live.

    Attributes:
        round: Number of the round.
        shares: Leaf hashes of their shares.
    """

    round: int
    shares: list[bytes]


class RoundAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="answer"):
    """A participant's answer: the signed update entry, the upload and the salt that opens its commitment."""

    entry: bytes
    upload: bytes
    salt: bytes


class RoundRefusal(msgspec.Struct, frozen=True, kw_only=True, tag="refusal"):
    """A participant does not answer, and says why.

    Attributes:
        reason: A code: quorum, consistency, rollback, split_view, inclusion, record, model, policy, budget, answered;
            in masked rounds also phase, neighbours, keys, shares, survivors.
        detail: One line for a person.
        known_size: Tree size of the largest checkpoint the participant has accepted, 0 if none.
    """

    reason: str
    detail: str
    known_size: int


class Refused(Exception):
    """A participant does not answer; reason and detail as in `RoundRefusal`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What reading bytes that are no message may end in."""

_encoder = msgspec.msgpack.Encoder()
_request_decoder = msgspec.msgpack.Decoder(RoundRequest)
_reply_decoder: msgspec.msgpack.Decoder[RoundAnswer | RoundRefusal] = msgspec.msgpack.Decoder(
    RoundAnswer | RoundRefusal
)


def encode_message(message: msgspec.Struct) -> bytes:
    """Write a message as MessagePack."""
    return _encoder.encode(message)


def decode_request(body: bytes) -> RoundRequest:
    """Read a request.

    Raises:
        FederationError: The bytes are no such message.
    """
    try:
        return _request_decoder.decode(body)
    except UNREADABLE as error:
        raise FederationError(f"a round request cannot be read: {error}") from error


def decode_reply(body: bytes) -> RoundAnswer | RoundRefusal:
    """Read a reply.

    Raises:
        FederationError: The bytes are no such message.
    """
    try:
        return _reply_decoder.decode(body)
    except UNREADABLE as error:
        raise FederationError(f"a reply to a round cannot be read: {error}") from error


def encode_upload(release: FixedPointStatistics, device: int, *, is_dense: bool) -> bytes:
    """Write one device's release as bytes; a dense release leaves out the indices.

    Args:
        release: A batch of releases.
        device: Which one, 0 <= device < n_devices.
        is_dense: Whether the device has every row of the table.
    """
    begin, end = int(release.indptr[device]), int(release.indptr[device + 1])
    tail = release.tails[device]
    header = _HEADER.pack(_LAYOUT, is_dense, tail.size, release.rows.shape[1], end - begin)
    indices = b"" if is_dense else release.indices[begin:end].astype("<i4", copy=False).tobytes()
    rows = release.rows[begin:end].astype("<i4", copy=False).tobytes()
    return b"".join((header, indices, rows, tail.astype("<i8", copy=False).tobytes()))


def decode_upload(data: bytes, *, shape: tuple[int, int, int], is_dense: bool) -> FixedPointStatistics:
    """Read an upload and check it against the round's shape.

    Args:
        data: Bytes as written by `encode_upload`.
        shape: (n_rows, width, n_tail) of the round entry.
        is_dense: Whether the round's mechanism gives every row.

    Returns:
        A batch of one device; its arrays share memory with `data`.

    Raises:
        BadCommitment: The bytes do not have exactly this shape, or indices are out of range or order.
    """
    largest, width, n_tail = shape
    if len(data) < _HEADER.size:
        raise BadCommitment(f"an upload of {len(data)} bytes has no header")
    found = _HEADER.unpack_from(data)
    n_rows: int = found[4]
    if found[:4] != (_LAYOUT, is_dense, n_tail, width) or n_rows > largest or (is_dense and n_rows != largest):
        raise BadCommitment(f"upload header {found} does not fit shape {shape}, dense {is_dense}")
    index_bytes = 0 if is_dense else 4 * n_rows
    wanted = _HEADER.size + index_bytes + 4 * n_rows * width + 8 * n_tail
    if len(data) != wanted:
        raise BadCommitment(f"an upload of {len(data)} bytes, wanted {wanted}")
    if is_dense:
        indices = np.arange(largest, dtype=np.int32)
    else:
        indices = np.frombuffer(data, "<i4", n_rows, _HEADER.size)
        if n_rows and (indices[0] < 0 or indices[-1] >= largest or not (indices[1:] > indices[:-1]).all()):
            raise BadCommitment(f"indices must increase strictly within 0 <= index < {largest}")
    rows = np.frombuffer(data, "<i4", n_rows * width, _HEADER.size + index_bytes).reshape(n_rows, width)
    tail = np.frombuffer(data, "<i8", n_tail, len(data) - 8 * n_tail).reshape(1, n_tail)
    return FixedPointStatistics(indptr=np.array([0, n_rows], dtype=np.int64), indices=indices, rows=rows, tails=tail)
