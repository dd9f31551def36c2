"""What takes the masks out of a sum: secrets put together from shares, each checked against what its owner signed."""

from __future__ import annotations

from collections.abc import Mapping, Set

from liberate.arrays import UInt32Array
from liberate.errors import FederationError
from liberate.federation.store.unmasking_shares import UnmaskingShares
from liberate.federation.wire.masked_round import MaskedRound
from liberate.federation.wire.secagg_messages import AdvertisedKeys
from liberate.privacy import secure_aggregation


def published_half(keys: AdvertisedKeys, *, in_sum: bool) -> bytes:
    """Give what a person has published of the secret that its shares give back."""
    return keys.own if in_sum else keys.mask


def publish(secret: bytes, *, in_sum: bool) -> bytes:
    """Give what is published of a secret."""
    return secure_aggregation.key_commitment(secret) if in_sum else secure_aggregation.public_key(secret)


def rebuilt(number: int, unmasking: UnmaskingShares, *, in_sum: bool) -> bytes:
    """Give back a secret from its shares.

    Raises:
        FederationError: It is not the one whose owner has published something of it.
    """
    secret = secure_aggregation.shamir_combine(unmasking.shares)
    if publish(secret, in_sum=in_sum) != published_half(unmasking.keys, in_sum=in_sum):
        raise FederationError(f"the shares of a secret of participant {number} do not fit together")
    return secret


def take_masks_out(
    total: UInt32Array,
    current: MaskedRound,
    survivors: Set[int],
    keys: Mapping[int, AdvertisedKeys],
    secrets: Mapping[int, bytes],
) -> None:
    """Take all masks that are left out of a sum, in place.

    Args:
        total: Sum of the survivors' masked uploads modulo 2**32, one-dimensional; changed.
        current: The round.
        survivors: Whose uploads it holds.
        keys: Of everybody who masked, or whom survivors masked with.
        secrets: Of each survivor the key of the own mask, of each of the others that has a surviving neighbour the
            secret of the shared masks.
    """
    for number in sorted(survivors):
        secure_aggregation.add_mask(total, secrets[number], subtract=True)
    for number in sorted(keys.keys() - survivors):
        for other in sorted(survivors & frozenset(current.neighbours(number))):
            key = secure_aggregation.pair_key(secrets[number], keys[other].mask, current.hash)
            secure_aggregation.add_pair_mask(total, key, other, number, undo=True)
