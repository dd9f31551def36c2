"""The messages of a masked round between the coordinator and participants, beside those of any round.

    phase       request            answer
    advertise   RoundRequest       AdvertisedKeys    the round entry, without the model; a device's keys for the round
    share       ShareKeysRequest   EncryptedShares   the neighbours' keys; shares of its secrets, encrypted for them
    mask        MaskRequest        RoundAnswer       the shares encrypted for it, and the model; the masked upload
    unmask      UnmaskRequest      RevealedShares    the survivor set; one share of each neighbour

Each phase may be refused with a `RoundRefusal`.
"""

from __future__ import annotations

import msgspec

from liberate.crypto.canonical_json import Bytes32, Hash, Natural, encode
from liberate.crypto.dsse import dsse_pae
from liberate.crypto.signing import SigningKey, verify_signature
from liberate.identifiers import Digest
from liberate.ledger.format.parts import Origin

KEYS_TYPE = "application/vnd.liberate.mask-keys+json"


class AdvertisedKeys(msgspec.Struct, frozen=True, kw_only=True, tag="keys"):
    """A participant's public keys for one round, signed with its ledger key.

    Attributes:
        mask: X25519 key of the masks shared with neighbours.
        seal: X25519 key for which neighbours encrypt shares.
        own: Commitment to the key of the participant's own mask.
        signature: Of these keys, the ledger, the round and the participant.
    """

    mask: bytes
    seal: bytes
    own: bytes
    signature: bytes


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """A neighbour's keys, and the proof that they are its own.

    Attributes:
        number: The neighbour's number on the ledger.
        keys: The keys that it advertised.
        leaf: Its leaf in the state tree.
        proof: Inclusion proof of the leaf.
    """

    number: int
    keys: AdvertisedKeys
    leaf: bytes
    proof: list[Digest]


class ShareKeysRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The coordinator hands out the keys of the neighbours that advertised some.

    Attributes:
        entry: The signed round entry, as in the round's request.
        block: The last block entry under the checkpoint of the round's request.
        block_proof: Its inclusion in that checkpoint.
        n_principals: Leaves of the state tree: the shape of the neighbours' proofs.
        neighbours: By increasing number.
    """

    entry: bytes
    block: bytes
    block_proof: list[Digest]
    n_principals: int
    neighbours: list[Neighbour]


class EncryptedShares(msgspec.Struct, frozen=True, kw_only=True, tag="shares"):
    """Shares of a participant's secrets, encrypted for each neighbour it was told of, in their order."""

    sealed: list[bytes]


class MaskRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The coordinator hands out the encrypted shares, and asks for the masked upload.

    Attributes:
        round: A `RoundRequest`, as bytes: the same for every participant.
        received: (neighbour, shares encrypted for the recipient), by increasing number.
    """

    round: bytes
    received: list[tuple[int, bytes]]


class UnmaskRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The coordinator shows who survived, and asks for what undoes the masks.

    Attributes:
        round: The signed round entry.
        entries: The signed survivors entries, in their order.
        positions: Their positions in the ledger.
        inclusion: Their inclusion proofs in the checkpoint.
        checkpoint: A signed note whose tree includes them.
        known_size: Tree size that `consistency` starts from.
        consistency: Consistency proof from `known_size` to the checkpoint.
    """

    round: bytes
    entries: list[bytes]
    positions: list[int]
    inclusion: list[list[Digest]]
    checkpoint: str
    known_size: int
    consistency: list[Digest]


class RevealedShares(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """For each neighbour whose shares were received: (neighbour, share).

    It is a share of the key of the neighbour's own mask if the neighbour survived, and of its secret for shared masks
    otherwise.
    """

    shares: list[tuple[int, bytes]]


class _Advertised(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a participant signs."""

    mask: Bytes32
    number: Natural
    origin: Origin
    own: Bytes32
    round_hash: Hash
    seal: Bytes32


def sign_keys(
    key: SigningKey, origin: str, round_hash: bytes, number: int, *, mask: bytes, seal: bytes, own: bytes
) -> AdvertisedKeys:
    """Return public keys signed for a round of a ledger; the arguments are as in `AdvertisedKeys`."""
    unsigned = AdvertisedKeys(mask=mask, seal=seal, own=own, signature=b"")
    return msgspec.structs.replace(unsigned, signature=key.sign(_signed(unsigned, origin, round_hash, number)))


def verify_keys(keys: AdvertisedKeys, public: bytes, origin: str, round_hash: bytes, number: int) -> None:
    """Check that a participant signed its keys for a round of a ledger.

    Raises:
        InvalidRecord: The signature is another's, or for other keys, another round, participant or ledger.
    """
    verify_signature(public, _signed(keys, origin, round_hash, number), keys.signature)


def _signed(keys: AdvertisedKeys, origin: str, round_hash: bytes, number: int) -> bytes:
    advertised = _Advertised(
        mask=keys.mask, number=number, origin=origin, own=keys.own, round_hash=Digest(round_hash), seal=keys.seal
    )
    return dsse_pae(KEYS_TYPE, encode(advertised))
