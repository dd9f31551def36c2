"""Secure aggregation, as pure functions: who masks with whom, keys, mask streams, and shares of what undoes a mask.

A person i sends v_i + r_i + sum over neighbours j > i of m_ij - sum over neighbours j < i of m_ij, modulo 2**32. The
m cancel in the sum. The r, and the m of neighbours who vanished, are taken out with secrets of which each neighbour
holds a Shamir share: r of who is in the sum, m of who is not, and never both for one person.

Source: Bell, Bonawitz, Gascón, Lepoint, Raykova 2020, "Secure Single-Server Aggregation with (Poly)Logarithmic
Overhead", over Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning".
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from liberate.arrays import Int64Array, UInt32Array
from liberate.errors import PrivacyError

NEIGHBOURS = 20
"""With how many others each person masks, in a cohort that has so many."""

SECRET_BYTES = 32
SHARE_BYTES = 32

_BLOCK = 16  # what the sharing works on
_PIECE = 2**16  # words of a stream at a time: zeros, keystream and values stay in cache
_ZEROS = bytes(4 * _PIECE)


@dataclass(frozen=True, slots=True)
class NeighbourGraph:
    """Who masks with whom: people on a ring in random order, each joined to those at a few random distances.

    Attributes:
        ring: Everybody's number, in the order of the ring.
        distances: Increasing, the first is 1 (so that the graph is connected), the last is at most half the ring.
    """

    ring: Int64Array
    distances: tuple[int, ...]

    def neighbours(self, number: int) -> tuple[int, ...]:
        """Return a person's neighbours, increasing.

        Raises:
            ValueError: The person is not on the ring.
        """
        places = np.flatnonzero(self.ring == number)
        if len(places) != 1:
            raise ValueError(f"{number} is not on the ring")
        place, size = int(places[0]), len(self.ring)
        around = {(place + step) % size for distance in self.distances for step in (distance, -distance)}
        return tuple(sorted(int(self.ring[other]) for other in around - {place}))


def graph(participants: Sequence[int], seed: bytes) -> NeighbourGraph:
    """Draw who masks with whom from public randomness: `NEIGHBOURS` for each, or everybody in a small cohort.

    With distances of its own each person has the same number of neighbours, and who wants to cut a few people off
    has to cut far more others off too: unlike on a ring joined to its nearest, no small group is dense.

    Args:
        participants: Numbers, strictly increasing.
        seed: 32 public bytes that nobody chose, such as the hash of the round's entry.
    """
    size = len(participants)
    words = np.frombuffer(_keystream(_derive(seed, b"graph"), 8 * (size + size // 2)), "<u8")
    ring = np.asarray(participants, np.int64)[np.argsort(words[:size], kind="stable")]
    if size <= NEIGHBOURS + 1:
        return NeighbourGraph(ring, tuple(range(1, size // 2 + 1)))
    candidates = np.arange(2, (size - 1) // 2 + 1)
    chosen = candidates[np.argsort(words[size:][: len(candidates)], kind="stable")[: NEIGHBOURS // 2 - 1]]
    return NeighbourGraph(ring, (1, *sorted(int(distance) for distance in chosen)))


def threshold(n_neighbours: int) -> int:
    """Return how many neighbours together can undo a person's mask: more than two thirds.

    So two groups of neighbours who were told different things must have more than a third in common.
    """
    return 2 * n_neighbours // 3 + 1


@dataclass(frozen=True, slots=True)
class MaskSecrets:
    """One person's secrets for one round, all derived from one.

    Attributes:
        mask: X25519 secret behind the masks shared with neighbours, 32 bytes.
        seal: X25519 secret that seals shares to neighbours, 32 bytes.
        own: Key of the person's own mask, 32 bytes.
    """

    mask: bytes
    seal: bytes
    own: bytes

    @classmethod
    def derive(cls, secret: bytes) -> MaskSecrets:
        """Derive them from 32 secret bytes, used for nothing else, ever."""
        return cls(*(_derive(secret, name) for name in (b"mask", b"seal", b"own")))


def public_key(secret: bytes) -> bytes:
    """Return the X25519 public key of 32 secret bytes."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def key_commitment(own: bytes) -> bytes:
    """Return what commits to the key of a person's own mask, so that a key rebuilt from shares is known to be right."""
    return sha256(b"liberate/own mask/1\0" + own).digest()


def pair_key(secret: bytes, peer: bytes, context: bytes) -> bytes:
    """Agree on a key with somebody: the same on both sides, another for each context.

    Args:
        secret: One's X25519 secret.
        peer: The other's X25519 public key.
        context: What the key is for, such as the hash of the round's entry.

    Raises:
        PrivacyError: The other's key has small order.

    Source: RFC 7748, section 6.1.
    """
    try:
        agreed = X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError as error:
        raise PrivacyError("a mask key is not a usable X25519 key") from error
    return _derive(agreed, b"pair", context)


def add_mask(values: UInt32Array, key: bytes, *, subtract: bool = False) -> None:
    """Add the mask of a key in place, modulo 2**32.

    Args:
        values: One-dimensional, contiguous; changed.
        key: 32 secret bytes, used for no other mask.
        subtract: Take the mask away instead.

    Source: the mask is ChaCha20's keystream (RFC 8439) as little-endian words.
    """
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()
    keystream = bytearray(4 * _PIECE + 64)
    words = np.frombuffer(keystream, "<u4")
    for begin in range(0, values.size, _PIECE):
        part = values[begin : begin + _PIECE]
        stream.update_into(_ZEROS[: 4 * part.size], keystream)
        if subtract:
            part -= words[: part.size]
        else:
            part += words[: part.size]


def add_pair_mask(values: UInt32Array, key: bytes, number: int, neighbour: int, *, undo: bool = False) -> None:
    """Add what a person adds for a neighbour, in place: the one with the smaller number adds, the other subtracts.

    Args:
        values, key: As in `add_mask`; the key is that of the pair.
        number, neighbour: Whose values, and with whom.
        undo: Take it away instead.
    """
    add_mask(values, key, subtract=(number > neighbour) != undo)


def signed_sum(values: UInt32Array) -> Int64Array:
    """Read a sum modulo 2**32 as numbers in [-2**31, 2**31)."""
    return values.astype(np.uint32, copy=False).view(np.int32).astype(np.int64)


def shamir_split(secret: bytes, needed: int, n_shares: int) -> list[bytes]:
    """Split a secret of 32 bytes into shares of 32 bytes, of which `needed` restore it and fewer tell nothing.

    Drawn at random, so that every call returns other shares. Share i has the index i + 1.

    Args:
        secret: 32 bytes.
        needed: 2 <= needed <= n_shares.
        n_shares: At most 255.

    Source: Shamir 1979, "How to Share a Secret", over GF(2**128), on each half.
    """
    halves = [Shamir.split(needed, n_shares, secret[at : at + _BLOCK], ssss=False) for at in (0, _BLOCK)]
    return [bytes(first) + bytes(second) for (_, first), (_, second) in zip(*halves, strict=True)]


def shamir_combine(shares: Mapping[int, bytes]) -> bytes:
    """Return the secret that shares by index restore, as many as are needed.

    Any shares combine to some secret: whoever combines has to know what to compare it with.
    """
    return b"".join(
        Shamir.combine([(index, share[at : at + _BLOCK]) for index, share in shares.items()], ssss=False)
        for at in (0, _BLOCK)
    )


def encrypt_share(secret: bytes, peer: bytes, message: bytes, context: bytes) -> bytes:
    """Encrypt and authenticate a message between two keys.

    Args:
        secret: The sender's X25519 secret of this round.
        peer: The recipient's public key of this round.
        message: What to hide; one pair of keys seals one message in a context.
        context: Round, sender and recipient: the same must be given to open it.

    Returns:
        Ciphertext and tag (16 bytes).
    """
    return ChaCha20Poly1305(pair_key(secret, peer, context)).encrypt(bytes(12), message, None)


def decrypt_share(secret: bytes, peer: bytes, sealed: bytes, context: bytes) -> bytes:
    """Open what was sealed to a key by another.

    Raises:
        PrivacyError: Other keys, another context, or changed bytes.
    """
    try:
        return ChaCha20Poly1305(pair_key(secret, peer, context)).decrypt(bytes(12), sealed, None)
    except (InvalidTag, ValueError) as error:
        raise PrivacyError("a sealed share does not open") from error


def _derive(secret: bytes, purpose: bytes, context: bytes = b"") -> bytes:
    return hmac.digest(secret, b"liberate/masking/1\0" + purpose + b"\0" + context, "sha256")


def _keystream(key: bytes, n_bytes: int) -> bytes:
    return Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor().update(bytes(n_bytes))
