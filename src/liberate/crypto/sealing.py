"""Authenticated encryption of what lies on a device (XChaCha20-Poly1305)."""

from __future__ import annotations

import os

from nacl import bindings
from nacl.exceptions import CryptoError

from liberate.errors import SealBroken

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
    """Give back what was sealed.

    Raises:
        SealBroken: another key or context, or changed bytes.
    """
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise SealBroken("the sealed bytes are cut short")
    nonce, ciphertext = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        return bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, context, nonce, key)
    except CryptoError as error:
        raise SealBroken("the sealed bytes do not open: another key or context, or changed bytes") from error
