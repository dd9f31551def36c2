"""What was revealed to undo the masks of a round."""

from __future__ import annotations

import msgspec

from liberate.federation.wire.secagg_messages import AdvertisedKeys


class UnmaskingShares(msgspec.Struct, frozen=True, kw_only=True):
    """What undoes one person's masks.

    Attributes:
        keys: The keys that the person advertised.
        shares: Neighbours' shares by index, as many as are needed: of the key of the own mask if the person is in the
            sum, and else of the secret of the masks shared with neighbours; none where none of these is in it.
    """

    keys: AdvertisedKeys
    shares: dict[int, bytes]
