"""The messages of a masked round between the coordinator and participants, beside those of any round.

    phase       request            answer
    advertise   RoundRequest       AdvertisedKeys    the round entry, without the model; a device's keys for the round
    choose      RoundHistory       RevealedSeed      who advertised; the seed of the device's neighbours
    share       ShareKeysRequest   EncryptedShares   everybody's keys and seeds; shares of its secrets, encrypted
    mask        MaskRequest        RoundAnswer       who shared, the shares for it, and the model; the masked upload
    unmask      RoundHistory       RevealedShares    who survived; one share of each neighbour that chose it

Each phase may be refused with a `RoundRefusal`. Requests to choose, to share and to unmask are the same bytes for
everybody who knows the same tree.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from liberate.crypto.canonical_json import Bytes32, Hash, Natural, encode
from liberate.crypto.dsse import dsse_pae
from liberate.crypto.merkle import leaf_hash, root
from liberate.crypto.signing import SignatureClaim, SigningKey, verify_signature
from liberate.identifiers import Digest
from liberate.ledger.format.parts import Origin

KEYS_TYPE = "application/vnd.liberate.mask-keys+json"


class AdvertisedKeys(msgspec.Struct, frozen=True, kw_only=True, tag="keys"):
    """A participant's public keys for one round, signed with its ledger key.

    Attributes:
        mask: X25519 key of the masks shared with neighbours.
        seal: X25519 key for which neighbours encrypt shares.
        own: Commitment to the key of the participant's own mask.
        draw: Commitment to the seed that draws the participant's neighbours.
        signature: Of these keys, the ledger, the round and the participant.
    """

    mask: bytes
    seal: bytes
    own: bytes
    draw: bytes
    signature: bytes


class RoundHistory(msgspec.Struct, frozen=True, kw_only=True):
    """What the coordinator has recorded since it opened the round, and the proof that it is all of it.

    The coordinator's leaf in the state tree chains the entries that name it. So whoever knows these and the chain
    before them can compute the leaf, and there is one such history only under one state root.

    Attributes:
        entries: All that name the coordinator, in ledger order; the first is the round's entry.
        positions: Their positions in the ledger.
        inclusion: Their inclusion proofs in the checkpoint.
        head: The chain of what names the coordinator before the round's entry.
        leaf: The coordinator's leaf in the state tree.
        n_principals: Leaves of the state tree: the shape of `leaf_proof`.
        leaf_proof: Inclusion of the leaf in the state root of `block`.
        block: The last block entry under the checkpoint.
        block_proof: Its inclusion in the checkpoint.
        checkpoint: A signed note.
        known_size: Tree size that `consistency` starts from.
        consistency: Consistency proof from `known_size` to the checkpoint.
    """

    entries: list[bytes]
    positions: list[int]
    inclusion: list[list[Digest]]
    head: Digest
    leaf: bytes
    n_principals: int
    leaf_proof: list[Digest]
    block: bytes
    block_proof: list[Digest]
    checkpoint: str
    known_size: int
    consistency: list[Digest]


class RevealedSeed(msgspec.Struct, frozen=True, kw_only=True, tag="seed"):
    """The seed of a participant's neighbours, 32 bytes, to which its advertised keys commit."""

    seed: bytes


class CohortKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a masked round consists of: the same bytes for everybody, and all that its graph follows from.

    Attributes:
        keys: (number, keys) of everybody in the set `advertised`, increasing.
        seeds: (number, seed) of everybody in the set `graph`, increasing.
        block: The block entry that ends the batch of the round's entry: it names the state root of that time.
        block_position: Its position in the ledger.
        state: All leaves of the state tree of that time: they say whose key is whose.
    """

    keys: list[tuple[int, AdvertisedKeys]]
    seeds: list[tuple[int, bytes]]
    block: bytes
    block_position: int
    state: list[bytes]


class ShareKeysRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The coordinator hands out everybody's keys and seeds.

    Attributes:
        history: The sets `advertised` and `graph`, with the roots of keys and seeds.
        cohort: A `CohortKeys`, as bytes.
        block_proof: Inclusion of its block in the checkpoint of the history.
    """

    history: RoundHistory
    cohort: bytes
    block_proof: list[Digest]


class EncryptedShares(msgspec.Struct, frozen=True, kw_only=True, tag="shares"):
    """Shares of a participant's secrets, encrypted for each neighbour that it chose, in the order of numbers."""

    sealed: list[bytes]


class MaskRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The coordinator hands out the encrypted shares, and asks for the masked upload.

    Attributes:
        round: A `RoundRequest`, as bytes: the same for every participant.
        history: A `RoundHistory`, as bytes: likewise; with the set `shared`.
        received: (neighbour, shares encrypted for the recipient) of those who chose it, by increasing number.
    """

    round: bytes
    history: bytes
    received: list[tuple[int, bytes]]


class RevealedShares(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """For each neighbour whose shares were received and can be opened: (neighbour, share).

    It is a share of the key of the neighbour's own mask if the neighbour survived, and of its secret for shared masks
    otherwise.
    """

    shares: list[tuple[int, bytes]]


def keys_root(keys: Mapping[int, AdvertisedKeys]) -> Digest:
    """Return the root of a set `advertised`, over each person's number, keys, commitments and signature."""
    return root(
        [
            leaf_hash(number.to_bytes(8, "big") + key.mask + key.seal + key.own + key.draw + key.signature)
            for number, key in sorted(keys.items())
        ]
    )


def seeds_root(seeds: Mapping[int, bytes]) -> Digest:
    """Return the root of a set `graph`, over each person's number and seed."""
    return root([leaf_hash(number.to_bytes(8, "big") + seed) for number, seed in sorted(seeds.items())])


class _Advertised(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a participant signs."""

    draw: Bytes32
    mask: Bytes32
    number: Natural
    origin: Origin
    own: Bytes32
    round_hash: Hash
    seal: Bytes32


def sign_keys(
    key: SigningKey, origin: str, round_hash: bytes, number: int, *, mask: bytes, seal: bytes, own: bytes, draw: bytes
) -> AdvertisedKeys:
    """Return public keys signed for a round of a ledger; the arguments are as in `AdvertisedKeys`."""
    unsigned = AdvertisedKeys(mask=mask, seal=seal, own=own, draw=draw, signature=b"")
    return msgspec.structs.replace(unsigned, signature=key.sign(_signed(unsigned, origin, round_hash, number)))


def verify_keys(keys: AdvertisedKeys, public: bytes, origin: str, round_hash: bytes, number: int) -> None:
    """Check that a participant signed its keys for a round of a ledger.

    Raises:
        InvalidRecord: The signature is another's, or for other keys, another round, participant or ledger.
    """
    verify_signature(public, _signed(keys, origin, round_hash, number), keys.signature)


def keys_claim(keys: AdvertisedKeys, public: bytes, origin: str, round_hash: bytes, number: int) -> SignatureClaim:
    """Return what `verify_keys` checks, to check many at once."""
    return SignatureClaim(public, _signed(keys, origin, round_hash, number), keys.signature)


def _signed(keys: AdvertisedKeys, origin: str, round_hash: bytes, number: int) -> bytes:
    advertised = _Advertised(
        draw=keys.draw,
        mask=keys.mask,
        number=number,
        origin=origin,
        own=keys.own,
        round_hash=Digest(round_hash),
        seal=keys.seal,
    )
    return dsse_pae(KEYS_TYPE, encode(advertised))
