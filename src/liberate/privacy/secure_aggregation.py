"""Secure aggregation, as pure functions: keys, mask streams, and the sealing of shares of what undoes a mask.

A person i sends v_i + r_i + sum over neighbours j > i of m_ij - sum over neighbours j < i of m_ij, modulo 2**32. The
m cancel in the sum. The r, and the m of neighbours who vanished, are taken out with secrets of which each neighbour
holds a Shamir share: r of who is in the sum, m of who is not, and never both for one person.

Source: Bell, Bonawitz, Gascón, Lepoint, Raykova 2020, "Secure Single-Server Aggregation with (Poly)Logarithmic
Overhead", over Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning".
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeAlias

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from liberate.arrays import Int64Array, UInt32Array
from liberate.errors import PrivacyError

SECRET_BYTES = 32

AgreementKey: TypeAlias = X25519PrivateKey
"""The private half of a key to agree on secrets with."""

_PIECE = 2**16  # words of a stream at a time: zeros, keystream and values stay in cache
_ZEROS = bytes(4 * _PIECE)


@dataclass(frozen=True, slots=True)
class MaskSecrets:
    """One person's secrets for one round, all derived from one.

    Attributes:
        mask: X25519 secret behind the masks shared with neighbours, 32 bytes.
        seal: X25519 secret that seals shares to neighbours, 32 bytes.
        own: Key of the person's own mask, 32 bytes.
        seed: Draws the person's neighbours; shown to everybody once all keys are recorded, 32 bytes.
    """

    mask: bytes
    seal: bytes
    own: bytes
    seed: bytes

    @classmethod
    def derive(cls, secret: bytes) -> MaskSecrets:
        """Derive them from 32 secret bytes, used for nothing else, ever."""
        return cls(*(_derive(secret, name) for name in (b"mask", b"seal", b"own", b"neighbours")))


def public_key(secret: bytes | AgreementKey) -> bytes:
    """Return the X25519 public key of 32 secret bytes, or of a key made of them."""
    own = private_key(secret) if isinstance(secret, bytes) else secret
    return own.public_key().public_bytes_raw()


def key_commitment(own: bytes) -> bytes:
    """Return what commits to the key of a person's own mask, so that a key rebuilt from shares is known to be right."""
    return sha256(b"liberate/own mask/1\0" + own).digest()


def private_key(secret: bytes) -> AgreementKey:
    """Return the X25519 key of 32 secret bytes, which takes as long as agreeing with it."""
    return X25519PrivateKey.from_private_bytes(secret)


def agree(secret: bytes | AgreementKey, peer: bytes) -> bytes:
    """Agree on 32 secret bytes with somebody: the same on both sides, to derive keys from.

    Args:
        secret: One's X25519 secret, or its key where it is used again and again.
        peer: The other's X25519 public key.

    Raises:
        PrivacyError: The other's key has small order.

    Source: RFC 7748, section 6.1.
    """
    own = private_key(secret) if isinstance(secret, bytes) else secret
    try:
        return own.exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError as error:
        raise PrivacyError("a mask key is not a usable X25519 key") from error


def pair_key(agreed: bytes, context: bytes) -> bytes:
    """Return a key of two people: the same on both sides, another for each context.

    Args:
        agreed: What they agreed on.
        context: What the key is for: for masks all that defines the round's graph, for a sealed share round, sender
            and recipient.
    """
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


def encrypt_share(key: bytes, message: bytes) -> bytes:
    """Encrypt and authenticate a message.

    Args:
        key: 32 bytes that two people have agreed on, for this one message in one direction.
        message: What to hide.

    Returns:
        Ciphertext and tag (16 bytes).
    """
    return ChaCha20Poly1305(key).encrypt(bytes(12), message, None)


def decrypt_share(key: bytes, sealed: bytes) -> bytes:
    """Open what was sealed with a key.

    Raises:
        PrivacyError: Another key, or changed bytes.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(12), sealed, None)
    except (InvalidTag, ValueError) as error:
        raise PrivacyError("a sealed share does not open") from error


def _derive(secret: bytes, purpose: bytes, context: bytes = b"") -> bytes:
    return hmac.digest(secret, b"liberate/masking/2\0" + purpose + b"\0" + context, "sha256")
