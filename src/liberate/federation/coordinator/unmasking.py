"""How masks are removed from a sum: with secrets rebuilt from shares, each checked against what its owner signed."""

from __future__ import annotations

from collections.abc import Mapping, Set

from liberate.arrays import UInt32Array
from liberate.errors import FederationError
from liberate.federation.store.unmasking_shares import UnmaskingShares
from liberate.federation.wire.secagg_messages import AdvertisedKeys
from liberate.privacy import secure_aggregation, shamir


def is_published(secret: bytes, keys: AdvertisedKeys, *, in_sum: bool) -> bool:
    """Whether a secret is the one of which its owner has advertised the public half.

    For a participant whose upload is in the sum that is the key of the self-mask, else the secret of the shared masks.
    """
    if in_sum:
        return secure_aggregation.key_commitment(secret) == keys.own
    return secure_aggregation.public_key(secret) == keys.mask


def rebuilt(number: int, unmasking: UnmaskingShares, *, in_sum: bool) -> bytes:
    """Return a participant's secret, rebuilt from its shares.

    Raises:
        FederationError: It is not the secret of which its owner has advertised the public half.
    """
    secret = shamir.combine(unmasking.shares)
    if not is_published(secret, unmasking.keys, in_sum=in_sum):
        raise FederationError(f"the shares of a secret of participant {number} do not fit together")
    return secret


def take_masks_out(
    total: UInt32Array,
    context: bytes,
    survivors: Set[int],
    neighbours: Mapping[int, Set[int]],
    keys: Mapping[int, AdvertisedKeys],
    secrets: Mapping[int, bytes],
) -> None:
    """Remove all masks that are left in a sum, in place.

    Args:
        total: Sum of the survivors' masked uploads modulo 2**32, one-dimensional; changed.
        context: What keys of shared masks are for, as `mask_context` returns it.
        survivors: The participants whose uploads it holds.
        neighbours: Of everybody who shared secrets, its neighbours among these.
        keys: What they advertised.
        secrets: Of each survivor the key of its self-mask, of each other participant that has a surviving neighbour the
            secret of the shared masks.
    """
    for number in sorted(survivors):
        secure_aggregation.add_mask(total, secrets[number], subtract=True)

    for number in sorted(neighbours.keys() & secrets.keys() - survivors):
        own = secure_aggregation.private_key(secrets[number])
        for other in sorted(survivors & neighbours[number]):
            key = secure_aggregation.pair_key(secure_aggregation.agree(own, keys[other].mask), context)
            secure_aggregation.add_pair_mask(total, key, other, number, undo=True)
