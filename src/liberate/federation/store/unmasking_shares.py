"""What was revealed to undo the masks of a round."""

from __future__ import annotations

import msgspec

from liberate.federation.wire.secagg_messages import AdvertisedKeys


class UnmaskingShares(msgspec.Struct, frozen=True, kw_only=True):
    """What a masked round's graph follows from, and what removed one participant's masks.

    Attributes:
        keys: The keys that the participant advertised, a leaf of the root of the set `advertised`.
        seed: What drew its neighbours, a leaf of the root of the set `graph`; None: the participant is not in it.
        shares: Neighbours' shares by index, as many as are needed: of the key of the self-mask if the participant is in
            the sum, else of the secret of the masks shared with neighbours; none if no such neighbour is in it.
    """

    keys: AdvertisedKeys
    seed: bytes | None
    shares: dict[int, bytes]
