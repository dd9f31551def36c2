"""Copies that senders opened for an auditor, and the disclosures that announced it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from liberate.federation.sharing.handover import HandedOverCopy
from liberate.identifiers import Digest
from liberate.tracing.leak.attribution import BaseCopyIndex, LeakedRows


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakDisclosure:
    """What an auditor announced in the log before copies were opened.

    Attributes:
        position: Position of the entry.
        participants: Whose commitments were opened.
        reason: What was found, and why it was looked up.
        salt: Opens the entry's commitment to the reason.
    """

    position: int
    participants: tuple[int, ...]
    reason: str
    salt: bytes


@dataclass(frozen=True, kw_only=True)
class OpenedCopies:
    """Copies whose commitments were opened.

    Attributes:
        n_items: Size of the catalogue.
        copies: Those that open what their shares commit to.
        unopened: Positions of the shares of the others.
        disclosures: The entries that announced it, one for each time that copies were opened.
    """

    n_items: int
    copies: tuple[HandedOverCopy, ...] = ()
    unopened: tuple[int, ...] = ()
    disclosures: tuple[LeakDisclosure, ...] = ()

    def __add__(self, others: OpenedCopies) -> OpenedCopies:
        return OpenedCopies(
            n_items=self.n_items,
            copies=self.copies + others.copies,
            unopened=self.unopened + others.unopened,
            disclosures=self.disclosures + others.disclosures,
        )

    @cached_property
    def senders(self) -> dict[Digest, int]:
        """Whose each base copy is, by its commitment."""
        return {copy.share.base: copy.sender for copy in self.copies}

    @cached_property
    def bases(self) -> BaseCopyIndex:
        """The base copies, in the order of `senders`. There must be one."""
        bases = {copy.share.base: copy.base for copy in self.copies}
        return BaseCopyIndex(list(bases.values()), self.n_items)

    def of_bases(self, wanted: Iterable[Digest]) -> list[HandedOverCopy]:
        """Return the copies that were made of some base copies."""
        wanted = set(wanted)
        return [copy for copy in self.copies if copy.share.base in wanted]

    def base_of(self, sender: int, leaked: LeakedRows, user: int, *, fit: float) -> int | None:
        """Return a sender's base copy that has most rows of a user of the leak; None if none has that part of them.

        Args:
            sender: The sender's number.
            leaked: The rows.
            user: Which user of the leak.
            fit: Part of the user's rows that it must have, 0 <= fit <= 1; it must have one row at least.
        """
        indices = [index for index, owner in enumerate(self.senders.values()) if owner == sender]
        if not indices:
            return None

        near = self.bases.near(leaked, user)
        best = max(indices, key=near.__getitem__)
        wanted = max(1.0, fit * int((leaked.users == user).sum()))
        return best if near[best] >= wanted else None
