"""What the rules must remember of sharing: the consents that were not withdrawn, and the shares made under them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from liberate.crypto.merkle import root
from liberate.identifiers import Digest
from liberate.ledger.format.records import ZERO
from liberate.ledger.format.sharing_records import Consent, Share


@dataclass(slots=True)
class LiveConsent:
    """A consent that was not withdrawn.

    Attributes:
        record: The consent.
        shares: Leaf hashes of the shares made under it.
        bases: The base copies they are made of, each with its ε in 1e-9; None: open.
    """

    record: Consent
    shares: list[Digest] = field(default_factory=list)
    bases: dict[Digest, int | None] = field(default_factory=dict)

    def covers(self, base: Digest, epsilon_nano: int | None) -> bool:
        """Whether its limit allows one more share: of a base copy perturbed at this ε, or open."""
        limit = self.record.epsilon_nano
        spent = {**self.bases, base: epsilon_nano}.values()
        return limit is None or (None not in spent and sum(nano for nano in spent if nano is not None) <= limit)


@dataclass(slots=True)
class LiveShare:
    """A share whose consent was not withdrawn.

    Attributes:
        sender: Whose data it has.
        record: The share.
        is_received: Whether its recipient has acknowledged it.
    """

    sender: int
    record: Share
    is_received: bool = False


@dataclass(slots=True)
class SharingState:
    """All consents and shares that were not withdrawn.

    Attributes:
        consents: By sender and leaf hash, in ledger order.
        shares: By leaf hash.
    """

    consents: dict[int, dict[Digest, LiveConsent]] = field(default_factory=dict)
    shares: dict[Digest, LiveShare] = field(default_factory=dict)

    def digest(self, sender: int) -> Digest:
        """Return what the sender's state leaf says of their consents."""
        return consents_digest(list(self.consents.get(sender, ())))

    def grant(self, record: Consent, hash: Digest) -> None:
        """Add a consent, by the leaf hash of its entry."""
        self.consents.setdefault(record.author, {})[hash] = LiveConsent(record)

    def hand_over(self, record: Share, hash: Digest) -> None:
        """Add a share, by the leaf hash of its entry, under a valid consent."""
        consent = self.consents[record.author][record.consent]
        consent.shares.append(hash)
        consent.bases[record.base] = record.epsilon_nano
        self.shares[hash] = LiveShare(record.author, record)

    def acknowledge(self, share: Digest) -> None:
        """Record that a share was received."""
        self.shares[share].is_received = True

    def withdraw(self, sender: int, consent: Digest | None) -> None:
        """Remove one consent of a sender, or all, with the shares under them."""
        granted = self.consents.get(sender, {})
        for hash in list(granted) if consent is None else [consent]:
            for share in granted.pop(hash).shares:
                del self.shares[share]
        if not granted:
            self.consents.pop(sender, None)

    def received(self, sender: int, recipient: int, height: int) -> Iterator[LiveShare]:
        """Yield the sender's shares that a recipient has received, and may use in the block after a height."""
        for consent in self.consents.get(sender, {}).values():
            if height < consent.record.expiry:
                shares = (self.shares[hash] for hash in consent.shares)
                yield from (share for share in shares if share.is_received and share.record.recipient == recipient)

    def usable(self, share: Digest, sender: int, height: int) -> LiveShare | None:
        """Return a share of the sender's if it may be used in the block after a height."""
        live = self.shares.get(share)
        if live is None or live.sender != sender:
            return None
        return live if height < self.consents[sender][live.record.consent].record.expiry else None


def consents_digest(hashes: list[Digest]) -> Digest:
    """Return the RFC 6962 root over the leaf hashes of consents in ledger order; zero bytes when there are none."""
    return root(hashes) if hashes else ZERO
