"""Checkpoints as signed notes (C2SP signed-note and tlog-checkpoint), so that tools we did not write can read them."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from hashlib import sha256

from liberate.arrays import Digest
from liberate.crypto.merkle import DIGEST_BYTES
from liberate.crypto.signing import SigningKey, check_public_key, verify
from liberate.errors import InvalidRecord

_ED25519 = b"\x01"
_KEY_HASH_BYTES = 4
_SIGNATURE_LINE = re.compile(r"— (?P<name>[^\s+]+) (?P<blob>[A-Za-z0-9+/]+={0,2})")
_SIZE = re.compile(r"0|[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public half of a note signer."""

    name: str
    public: bytes

    @property
    def key_hash(self) -> bytes:
        """The 4 bytes by which a signature line names its key."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:_KEY_HASH_BYTES]

    def __str__(self) -> str:
        blob = base64.b64encode(_ED25519 + self.public).decode()
        return f"{self.name}+{self.key_hash.hex()}+{blob}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says about itself: the root of its first `size` entries."""

    origin: str
    size: int
    root: Digest

    def __str__(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def verifier_key(name: str, public: bytes) -> str:
    """Write a public key as a C2SP vkey, `name+hash+base64`.

    Raises:
        InvalidRecord: the name is empty or holds white space or a plus sign, or the key is none.
    """
    _check_name(name)
    check_public_key(public)
    return str(VerifierKey(name, public))


def parse_verifier_key(vkey: str) -> VerifierKey:
    """Read a C2SP vkey of an Ed25519 signer.

    Raises:
        InvalidRecord: it is not well formed, or its key hash is not that of name and key.
    """
    name, _, rest = vkey.partition("+")
    blob = _decode_base64(rest.partition("+")[2])
    key = VerifierKey(name, blob[1:])
    _check_name(name)
    if str(key) != vkey:
        raise InvalidRecord(f"not a verifier key of the form name+hash+base64: {vkey!r}")
    check_public_key(key.public)
    return key


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> str:
    """Give the signed note of a checkpoint; the signer's name is the origin."""
    text = str(checkpoint)
    signer = VerifierKey(checkpoint.origin, key.public)
    blob = base64.b64encode(signer.key_hash + key.sign(text.encode())).decode()
    return f"{text}\n— {signer.name} {blob}\n"


def open_checkpoint(note: str, vkey: str) -> Checkpoint:
    """Read a signed checkpoint and check its log's signature.

    Signatures by other keys are passed over, as the format asks; extension lines are refused.

    Raises:
        InvalidRecord: not a well-formed checkpoint of this key's origin, or not signed by it.
    """
    signer = parse_verifier_key(vkey)
    text, blank, lines = note.rpartition("\n\n")
    if not blank or not lines.endswith("\n"):
        raise InvalidRecord("not a signed note: text, an empty line and signature lines are wanted")
    text += "\n"
    _check_signed(text, lines[:-1].split("\n"), signer)
    return _parse_checkpoint(text, signer.name)


def _check_signed(text: str, lines: list[str], signer: VerifierKey) -> None:
    is_signed = False
    for line in lines:
        match = _SIGNATURE_LINE.fullmatch(line)
        blob = _decode_base64(match["blob"]) if match else b""
        if match is None or len(blob) <= _KEY_HASH_BYTES:
            raise InvalidRecord(f"not a signature line: {line!r}")
        if match["name"] == signer.name and blob[:_KEY_HASH_BYTES] == signer.key_hash:
            verify(signer.public, text.encode(), blob[_KEY_HASH_BYTES:])
            is_signed = True
    if not is_signed:
        raise InvalidRecord(f"no signature by {signer}")


def _parse_checkpoint(text: str, origin: str) -> Checkpoint:
    lines = text.split("\n")
    if len(lines) != 4 or lines[0] != origin or not _SIZE.fullmatch(lines[1]):
        raise InvalidRecord(f"not a checkpoint of {origin}: origin, size and root are wanted")
    root = _decode_base64(lines[2])
    if len(root) != DIGEST_BYTES:
        raise InvalidRecord(f"a root has {DIGEST_BYTES} bytes, not {len(root)}")
    return Checkpoint(origin, int(lines[1]), Digest(root))


def _check_name(name: str) -> None:
    if not name or not name.isprintable() or any(c.isspace() or c == "+" for c in name):
        raise InvalidRecord(f"not a signer's name, without white space and plus signs: {name!r}")


def _decode_base64(text: str) -> bytes:
    """Decode standard base64, refusing every spelling but the canonical one."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRecord(f"not base64: {text!r}") from error
    if base64.b64encode(data).decode() != text:
        raise InvalidRecord(f"not canonical base64: {text!r}")
    return data
