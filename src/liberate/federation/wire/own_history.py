"""The messages by which a participant is shown its own history on the ledger, before a private round.

phase     request          answer
history   HistoryRequest   HistoryAnswer   the entries about the participant, and its leaf of the state tree
"""

from __future__ import annotations

import msgspec

from liberate.identifiers import Digest


class HistoryRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The entries that name a participant, and the proof that there are no others.

    Attributes:
        checkpoint: A signed note, of the tree in which the round is.
        known_size: Tree size that `consistency` starts from; 0 asks the recipient for the size it knows.
        consistency: Consistency proof from `known_size` to the checkpoint.
        block: The last block entry under the checkpoint.
        block_proof: Its inclusion in the checkpoint.
        n_principals: Leaves of the state tree: the shape of `proof`.
        proof: Inclusion of the participant's leaf in the block's state root.
        skipped: How many of the entries are left out because the participant has proved them before.
        entries: The others, in ledger order.
    """

    checkpoint: str
    known_size: int
    consistency: list[Digest]
    block: bytes
    block_proof: list[Digest]
    n_principals: int
    proof: list[Digest]
    skipped: int
    entries: list[bytes]


class HistoryAnswer(msgspec.Struct, frozen=True, kw_only=True, tag="history"):
    """The history is the participant's own.

    Attributes:
        count: How many entries it has.
    """

    count: int
