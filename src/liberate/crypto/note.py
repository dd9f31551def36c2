"""Checkpoints as signed notes, so that tools we did not write can read them.

Source: C2SP signed-note, tlog-checkpoint, and tlog-cosignature (the Ed25519 form, `cosignature/v1`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256

from liberate.crypto.canonical_base64 import decode_base64, encode_base64
from liberate.crypto.merkle import DIGEST_BYTES
from liberate.crypto.signing import SigningKey, check_public_key, verify_signature
from liberate.errors import InvalidRecord, NoQuorum
from liberate.identifiers import Digest

REPLAY_SUFFIX = "/replay"
"""How the name of a witness ends that replays a log's entries by the rules before it cosigns."""

_KEY_HASH_BYTES = 4
_TIME_BYTES = 8
_LATEST_TIME = 2**63 - 1
_SIGNATURE_LINE = re.compile(r"— (?P<name>[^\s+]+) (?P<blob>[A-Za-z0-9+/]+={0,2})")
_SIZE = re.compile(r"0|[1-9][0-9]{0,17}")


class SignatureType(Enum):
    """What a key signs, as the byte that its hash and its vkey hold (C2SP signed-note, "Signature types")."""

    ED25519 = b"\x01"
    COSIGNATURE_V1 = b"\x04"


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """The public half of a note signer.

    Attributes:
        name: Who signs: a log's origin, or a witness's name.
        public: The Ed25519 public key.
        type: Whether it signs notes, as a log does, or cosigns them, as a witness does.
    """

    name: str
    public: bytes
    type: SignatureType = SignatureType.ED25519

    @property
    def key_hash(self) -> bytes:
        """The 4 bytes by which a signature line names its key."""
        return sha256(self.name.encode() + b"\n" + self.type.value + self.public).digest()[:_KEY_HASH_BYTES]

    def line(self, signature: bytes) -> str:
        """Return the line that puts a signature of this key under a note."""
        return f"— {self.name} {encode_base64(self.key_hash + signature)}\n"

    def __str__(self) -> str:
        blob = encode_base64(self.type.value + self.public)
        return f"{self.name}+{self.key_hash.hex()}+{blob}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says about itself: the root of its first `size` entries."""

    origin: str
    size: int
    root: Digest

    def __str__(self) -> str:
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"


@dataclass(frozen=True, slots=True)
class WitnessPolicy:
    """Whose cosignatures a client wants before it accepts a checkpoint.

    Attributes:
        keys: Verifier keys of the witnesses.
        threshold: How many of them must have cosigned, 0 <= threshold <= number of keys.
    """

    keys: tuple[str, ...] = ()
    threshold: int = 0

    @property
    def always_replays(self) -> bool:
        """Whether every quorum has a witness that replays the rules, as the names of the keys say."""
        others = sum(not is_replaying(parse_witness_key(key).name) for key in self.keys)
        return self.threshold > others


def is_replaying(name: str) -> bool:
    """Return whether a witness of this name says of itself that it replays the rules before it cosigns."""
    return name.endswith(REPLAY_SUFFIX)


def verifier_key(name: str, public: bytes, type: SignatureType = SignatureType.ED25519) -> str:
    """Write a public key as a C2SP vkey, `name+hash+base64`.

    Raises:
        InvalidRecord: the name is empty or holds white space or a plus sign, or the key is none.
    """
    _check_name(name)
    check_public_key(public)
    return str(VerifierKey(name, public, type))


def parse_verifier_key(vkey: str, type: SignatureType = SignatureType.ED25519) -> VerifierKey:
    """Read a C2SP vkey of an Ed25519 signer.

    Raises:
        InvalidRecord: it is not well formed, or its key hash is not that of name, type and key.
    """
    name, _, rest = vkey.partition("+")
    blob = decode_base64(rest.partition("+")[2])
    key = VerifierKey(name, blob[1:], type)
    _check_name(name)
    if str(key) != vkey:
        wanted = "witness's" if type is SignatureType.COSIGNATURE_V1 else "log's"
        raise InvalidRecord(f"not a {wanted} verifier key of the form name+hash+base64: {vkey!r}")
    check_public_key(key.public)
    return key


def parse_witness_key(vkey: str) -> VerifierKey:
    """Read the C2SP vkey of a witness; raises as `parse_verifier_key` does."""
    return parse_verifier_key(vkey, SignatureType.COSIGNATURE_V1)


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> str:
    """Return the signed note of a checkpoint; the signer's name is the origin."""
    text = str(checkpoint)
    return f"{text}\n{VerifierKey(checkpoint.origin, key.public).line(key.sign(text.encode()))}"


def verify_checkpoint(note: str, vkey: str) -> Checkpoint:
    """Read a signed checkpoint and check its log's signature.

    Signatures by other keys are passed over, as the format asks; extension lines are refused.

    Raises:
        InvalidRecord: not a well-formed checkpoint of this key's origin, or not signed by it.
    """
    signer = parse_verifier_key(vkey)
    text, lines = _split(note)
    signatures = _signatures(lines, signer)
    if not signatures:
        raise InvalidRecord(f"no signature by {signer}")
    for signature in signatures:
        verify_signature(signer.public, text.encode(), signature)
    return _parse_checkpoint(text, signer.name)


def read_unverified(note: str) -> Checkpoint:
    """Read a checkpoint without checking who has signed it.

    Raises:
        InvalidRecord: not a well-formed checkpoint in a well-formed note.
    """
    text, lines = _split(note)
    for line in lines:
        _parse_signature(line)
    return _parse_checkpoint(text, text.partition("\n")[0])


def cosign(checkpoint: Checkpoint, name: str, key: SigningKey, time_s: int) -> str:
    """Return the signature line by which a witness says that it has seen no larger or other tree of this log.

    Args:
        checkpoint: The checkpoint.
        name: The witness's name.
        key: Its key.
        time_s: Seconds since 1970-01-01 UTC, 0 <= time_s < 2**63.
    """
    signature = key.sign(_cosigned_bytes(str(checkpoint), time_s))
    time = time_s.to_bytes(_TIME_BYTES, "big")
    return VerifierKey(name, key.public, SignatureType.COSIGNATURE_V1).line(time + signature)


def cosignature_times(note: str, witnesses: Sequence[str]) -> dict[str, int]:
    """Return which witnesses have cosigned a note, and when; signatures by other keys are passed over.

    Args:
        note: A signed note; the log's signature is checked elsewhere.
        witnesses: Their verifier keys.

    Returns:
        Seconds since 1970-01-01 UTC by verifier key; of several cosignatures by one witness, the latest.

    Raises:
        InvalidRecord: not a well-formed note, or a cosignature of one of the witnesses that does not verify.
    """
    text, lines = _split(note)
    times: dict[str, int] = {}
    for vkey in witnesses:
        signer = parse_witness_key(vkey)
        for signature in _signatures(lines, signer):
            time_s = int.from_bytes(signature[:_TIME_BYTES], "big")
            if time_s > _LATEST_TIME:
                raise InvalidRecord(f"a cosignature of {signer.name} has no possible time: {time_s}")
            verify_signature(signer.public, _cosigned_bytes(text, time_s), signature[_TIME_BYTES:])
            times[vkey] = max(time_s, times.get(vkey, 0))
    return times


def add_cosignature(note: str, lines: str, witness: str) -> str:
    """Put a witness's cosignature under a note.

    Args:
        note: A signed note.
        lines: What the witness answered: signature lines, of which those by other keys are left out.
        witness: Its verifier key.

    Raises:
        InvalidRecord: the lines hold no cosignature of this note by this witness.
    """
    signer = parse_witness_key(witness)
    text, _ = _split(note)
    answer = f"{text}\n{lines}"
    if not cosignature_times(answer, (witness,)):
        raise InvalidRecord(f"no cosignature by {signer}")
    return note + "".join(signer.line(signature) for signature in _signatures(_split(answer)[1], signer))


def verify_cosigned_checkpoint(note: str, vkey: str, policy: WitnessPolicy) -> Checkpoint:
    """Read a checkpoint that its log has signed and enough witnesses have cosigned.

    Raises:
        InvalidRecord: as `verify_checkpoint` and `cosignature_times` do.
        NoQuorum: fewer witnesses have cosigned than the policy wants.
    """
    checkpoint = verify_checkpoint(note, vkey)
    count = len(cosignature_times(note, policy.keys))
    if count < policy.threshold:
        raise NoQuorum(f"cosigned by {count} of {len(policy.keys)} witnesses, {policy.threshold} are wanted")
    return checkpoint


def _split(note: str) -> tuple[str, list[str]]:
    """Return text and signature lines of a note."""
    text, blank, lines = note.rpartition("\n\n")
    if not blank or not lines.endswith("\n"):
        raise InvalidRecord("not a signed note: text, an empty line and signature lines are wanted")
    return text + "\n", lines[:-1].split("\n")


def _parse_signature(line: str) -> tuple[str, bytes]:
    """Return the signer's name, and key hash and signature, of a line."""
    match = _SIGNATURE_LINE.fullmatch(line)
    blob = decode_base64(match["blob"]) if match else b""
    if match is None or len(blob) <= _KEY_HASH_BYTES:
        raise InvalidRecord(f"not a signature line: {line!r}")
    return match["name"], blob


def _signatures(lines: Sequence[str], signer: VerifierKey) -> list[bytes]:
    """Return the signatures of one key among the lines, unverified; every line must be well formed."""
    parsed = [_parse_signature(line) for line in lines]
    prefix = signer.key_hash
    return [blob[_KEY_HASH_BYTES:] for name, blob in parsed if name == signer.name and blob.startswith(prefix)]


def _cosigned_bytes(text: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


def _parse_checkpoint(text: str, origin: str) -> Checkpoint:
    lines = text.split("\n")
    if len(lines) != 4 or lines[0] != origin or not _SIZE.fullmatch(lines[1]):
        raise InvalidRecord(f"not a checkpoint of {origin}: origin, size and root are wanted")
    root = decode_base64(lines[2])
    if len(root) != DIGEST_BYTES:
        raise InvalidRecord(f"a root has {DIGEST_BYTES} bytes, not {len(root)}")
    return Checkpoint(origin, int(lines[1]), Digest(root))


def _check_name(name: str) -> None:
    if not name or not name.isprintable() or any(c.isspace() or c == "+" for c in name):
        raise InvalidRecord(f"not a signer's name, without white space and plus signs: {name!r}")
