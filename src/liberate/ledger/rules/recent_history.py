"""Proof that some entries are all that names a principal from one of them on, without a copy of the ledger.

A principal's state leaf chains the leaf hashes of all entries that name it. Whoever is told the chain before an entry,
and the entries from there on, recomputes the leaf's chain: none of them can be left out, added or replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from liberate.errors import ProofMismatch
from liberate.identifiers import Digest
from liberate.ledger.rules.principal import Principal


def verify_recent_history(principal: Principal, head: bytes, leaf_hashes: Sequence[Digest]) -> None:
    """Check that some entries are the last that name a principal, in their order.

    Args:
        principal: The principal, as a leaf under an accepted state root says it is.
        head: The chain before the first of the entries; nobody finds another one that leads to the same leaf.
        leaf_hashes: Leaf hashes of the entries.

    Raises:
        ProofMismatch: They do not lead to the leaf's chain.
    """
    chain = head
    for leaf in leaf_hashes:
        chain = sha256(chain + leaf).digest()
    if len(head) != sha256().digest_size or chain != principal.about_head:
        raise ProofMismatch(f"{len(leaf_hashes)} entries do not lead to the chain of the principal's state leaf")
