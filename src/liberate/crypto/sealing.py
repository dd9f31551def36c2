"""Encryption of what a device stores (XChaCha20-Poly1305), and of what is sent to the holder of a key (X25519)."""

from __future__ import annotations

import os

from nacl import bindings
from nacl.exceptions import CryptoError

from liberate.crypto.signing import SigningKey
from liberate.errors import InvalidRecord, SealBroken

KEY_BYTES = bindings.crypto_aead_xchacha20poly1305_ietf_KEYBYTES
TAG_BYTES = bindings.crypto_aead_xchacha20poly1305_ietf_ABYTES
NONCE_BYTES = bindings.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES


def seal(key: bytes, plaintext: bytes, context: bytes) -> bytes:
    """Encrypt and authenticate, under a fresh random nonce.

    Args:
        key: 32 secret bytes.
        plaintext: What to hide.
        context: What the seal is for; it must be given again to open it, and is not hidden in it.

    Returns:
        Nonce (24 bytes), ciphertext and tag (16 bytes).
    """
    nonce = os.urandom(NONCE_BYTES)
    return nonce + bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, context, nonce, key)


def open_sealed(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """Return what was sealed.

    Raises:
        SealBroken: Another key or context was used, or the bytes were changed.
    """
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise SealBroken("the sealed bytes are cut short")
    nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        return bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, context, nonce, key)
    except CryptoError as error:
        raise SealBroken("the sealed bytes do not open: another key or context, or changed bytes") from error


def seal_to(public: bytes, plaintext: bytes) -> bytes:
    """Encrypt for the holder of an Ed25519 key, from nobody in particular.

    The recipient's signing key serves as its X25519 key (RFC 7748, 4.1); who it comes from must be told by what is
    inside.

    Args:
        public: The recipient's Ed25519 public key, 32 bytes.
        plaintext: What to hide.

    Raises:
        InvalidRecord: That is no public key.

    Source: libsodium, sealed boxes.
    """
    try:
        point = bindings.crypto_sign_ed25519_pk_to_curve25519(public)
    except (CryptoError, ValueError) as error:
        raise InvalidRecord("not an Ed25519 public key") from error
    return bindings.crypto_box_seal(plaintext, point)


def open_with(key: SigningKey, sealed: bytes) -> bytes:
    """Return what `seal_to` sealed to a key.

    Raises:
        SealBroken: It was sealed to another key, or was changed.
    """
    secret = key.exchange_secret()
    try:
        return bindings.crypto_box_seal_open(sealed, bindings.crypto_scalarmult_base(secret), secret)
    except (CryptoError, ValueError) as error:
        raise SealBroken("the sealed bytes do not open: another key, or changed bytes") from error
