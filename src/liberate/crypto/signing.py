"""Ed25519 keys and signatures (RFC 8032), without the inputs on which implementations disagree."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from nacl import bindings
from nacl.exceptions import CryptoError

from liberate.errors import InvalidRecord, LiberateError
from liberate.files import write_private
from liberate.identifiers import KeyId

SIGNATURE_BYTES = 64
PUBLIC_BYTES = 32
SEED_BYTES = 32

_SMALLEST_BATCH = 64

SMALL_ORDER_POINTS = frozenset(
    bytes.fromhex(prefix + last)
    for prefix, lasts in {
        "00" * 31: ("00", "80"),
        "01" + "00" * 30: ("00", "80"),
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc": ("05", "85"),
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03": ("7a", "fa"),
        "ec" + "ff" * 30: ("7f", "ff"),
        "ed" + "ff" * 30: ("7f", "ff"),
        "ee" + "ff" * 30: ("7f", "ff"),
    }.items()
    for last in lasts
)
"""All encodings of the eight points of small order, canonical or not.

Source: C2SP CCTV, ed25519, "Low-order edwards25519 point encodings".
"""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 key pair; `repr` shows the public half only.

    Attributes:
        public: The public key, 32 bytes.
    """

    public: bytes
    _secret: bytes = field(repr=False)

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """Derive the pair from 32 secret bytes (RFC 8032, 5.1.5)."""
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
        public, secret = bindings.crypto_sign_seed_keypair(seed)
        return cls(public, secret)

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the message's signature."""
        return bindings.crypto_sign(message, self._secret)[:SIGNATURE_BYTES]

    def exchange_secret(self) -> bytes:
        """Return the X25519 secret that belongs to the same point, 32 bytes (RFC 7748, 4.1)."""
        return bindings.crypto_sign_ed25519_sk_to_curve25519(self._secret)


@dataclass(frozen=True, slots=True)
class SignatureClaim:
    """A signature to be verified."""

    public: bytes
    message: bytes
    signature: bytes


def verify_signature(public: bytes, message: bytes, signature: bytes) -> None:
    """Check a signature.

    Args:
        public: A public key that `check_public_key` accepted.
        message: The signed bytes.
        signature: 64 bytes.

    Raises:
        InvalidRecord: the signature is not this key's over this message, or its R is a point of small order.
    """
    if not _is_valid(public, message, signature):
        raise InvalidRecord(f"the signature is not one of key {key_id(public)} over these bytes")


def verify_batch(claims: Sequence[SignatureClaim], *, n_threads: int = 2) -> list[bool]:
    """Return for each claim whether `verify_signature` would accept it, using one or two cores for large batches."""
    if len(claims) < _SMALLEST_BATCH or n_threads == 1:
        return _verify_all(claims)
    half = len(claims) // 2
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(_verify_all, claims[half:])
        return _verify_all(claims[:half]) + second.result()


def check_public_key(public: bytes) -> None:
    """Check that bytes are the canonical encoding of a point of the prime-order subgroup, as every honest key is.

    Raises:
        InvalidRecord: wrong length, not canonical, not on the curve, of small order or with a component of it.
    """
    if len(public) != PUBLIC_BYTES or not bindings.crypto_core_ed25519_is_valid_point(public):
        raise InvalidRecord("not an Ed25519 public key: 32 bytes, canonical, of prime order are wanted")


def key_id(public: bytes) -> KeyId:
    """Return the short name of a public key: the first 16 hexadecimal digits of its SHA-256."""
    return KeyId(sha256(public).hexdigest()[:16])


def save_key(path: Path, key: SigningKey) -> None:
    """Write a key into a new file that only its owner may read; returns when it is on the disk.

    Raises:
        LiberateError: the file exists already.
    """
    text = base64.b64encode(key._secret[:SEED_BYTES]) + b"\n"
    try:
        write_private(path, text)
    except FileExistsError as error:
        raise LiberateError(f"{path} exists already", hint="keys are never overwritten: choose another file") from error


def load_key(path: Path) -> SigningKey:
    """Read a key that `save_key` wrote.

    Raises:
        LiberateError: there is no such file, or it holds no key.
    """
    try:
        seed = base64.b64decode(path.read_bytes().removesuffix(b"\n"), validate=True)
        return SigningKey.from_seed(seed)
    except FileNotFoundError as error:
        raise LiberateError(f"there is no key file {path}") from error
    except (binascii.Error, ValueError) as error:
        raise LiberateError(f"{path} holds no signing key: one line of base64, 32 bytes, is wanted") from error


def _is_valid(public: bytes, message: bytes, signature: bytes) -> bool:
    if len(signature) != SIGNATURE_BYTES or signature[:PUBLIC_BYTES] in SMALL_ORDER_POINTS:
        return False
    try:
        bindings.crypto_sign_open(signature + message, public)
    except (CryptoError, ValueError):
        return False
    return True


def _verify_all(claims: Sequence[SignatureClaim]) -> list[bool]:
    return [_is_valid(claim.public, claim.message, claim.signature) for claim in claims]
