"""Whose copy leaked: first the log says that it is looked up, then the senders' copies are compared with the rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from liberate.crypto.commitments import salted_commitment
from liberate.errors import LiberateError
from liberate.federation.disclosure import record_disclosure
from liberate.federation.session import FederationSession
from liberate.federation.sharing.handover import HandedOverCopy, handed_over_copies
from liberate.identifiers import Digest
from liberate.ledger.format.sharing_records import Share
from liberate.ledger.lookup import RecordedEntry, entries
from liberate.runs.federation_access import open_run_federation
from liberate.runs.folder import Run
from liberate.tracing.leak.answers import LeakAnswer, LeakFindings, prove_leak
from liberate.tracing.leak.attribution import LeakedRows, match, rank_candidates, read_leak
from liberate.tracing.leak.opened_copies import LeakDisclosure, OpenedCopies
from liberate.tracing.parties import PartyNames

_FITS = 0.5
"""Part of a user's rows that the base copy of the sender so named must have: else everybody's copies are opened."""

Announce = Callable[[int, int], None]
"""Told the position of a disclosure and how many participants it names."""


def trace_leak(run: Run, file: Path, *, announce: Announce = lambda position, n_participants: None) -> LeakAnswer:
    """Find whose copies leaked rows are likely to be.

    Nobody is looked up in secret: before a sender's commitments are opened, a disclosure that names the sender is in
    the log and the witnesses have seen it.

    Args:
        run: A run that nobody is training.
        file: The rows, CSV or Parquet with item, rating and, if there is one, user; ids of users may be anything.
        announce: Told of each disclosure.

    Raises:
        DataError: The file cannot be used, or has no row of this run's items.
        LiberateError: Nobody has handed out copies, none can be opened, or a training is going on.
        FederationError: The genesis admits no auditors.
        NoQuorum: Too few witnesses have seen the disclosure; nothing was opened.
    """
    leaked = read_leak(file, run.catalogue()["item_id"].to_pylist())

    with open_run_federation(run) as session:
        shares = {share.leaf_hash: share for share in entries(session.ledger, Share)}
        if not shares:
            raise LiberateError("nobody has handed out copies on this ledger, so none can have leaked")
        auditor = _Auditor(session=session, shares=shares, leaked=leaked, announce=announce)

        named = auditor.senders_named()
        opened = _open_as_few_as_possible(auditor, named)
        matched = match(leaked, opened.bases, _base_of_each_user(leaked, opened, named))
        candidates = rank_candidates(matched, opened.of_bases(base.commitment for base in matched.bases))

        found = LeakFindings(leaked=leaked, shares=shares, opened=opened, matched=matched, candidates=candidates)
        names = PartyNames(session.ledger.state.principals, session.devices)
        return prove_leak(session.ledger, run.verifier_key, names, found)


def _open_as_few_as_possible(auditor: _Auditor, named: Collection[int | None]) -> OpenedCopies:
    """Open the copies of the senders whom the rows name, and all others' only if those do not explain the rows.

    Whoever is opened is named in the log for good, so a lookup that succeeds with one name must not name everybody.

    Args:
        auditor: Opens copies.
        named: For each user of the leak the sender so named, or None.

    Raises:
        LiberateError: None can be opened.
    """
    first = {number for number in named if number is not None}
    opened = auditor.open_copies_of(first)

    if None in _bases_named(auditor.leaked, opened, named):
        opened += auditor.open_copies_of(auditor.senders - first)

    if not opened.copies:
        raise LiberateError("no copy can be opened: no sender keeps the salts any more, so no row can be compared")
    return opened


def _bases_named(leaked: LeakedRows, opened: OpenedCopies, named: Collection[int | None]) -> list[int | None]:
    """Return for each user of the leak the base copy of the sender so named, if it has the rows."""
    return [
        None if sender is None else opened.base_of(sender, leaked, user, fit=_FITS) for user, sender in enumerate(named)
    ]


def _base_of_each_user(leaked: LeakedRows, opened: OpenedCopies, named: Collection[int | None]) -> list[int | None]:
    """Return for each user of the leak the base copy that the rows are of: the one named, else the nearest of all."""
    bases = _bases_named(leaked, opened, named)
    for user, base in enumerate(bases):
        if base is None:
            near = opened.bases.near(leaked, user)
            bases[user] = int(near.argmax()) if near.max() else None
    return bases


@dataclass(frozen=True, slots=True, kw_only=True)
class _Auditor:
    """Has senders open their copies, after it has said so in the log."""

    session: FederationSession
    shares: Mapping[Digest, RecordedEntry[Share]]
    leaked: LeakedRows
    announce: Announce

    @property
    def senders(self) -> set[int]:
        """Who has handed out copies and was not erased."""
        erased = {device.number for device in self.session.devices.devices() if device.is_erased}
        return {share.record.author for share in self.shares.values()} - erased

    def senders_named(self) -> list[int | None]:
        """Return for each user of the leak the sender whom the data set calls so, or None."""
        senders = self.senders
        devices = [self.session.devices.find(user_id=name) for name in self.leaked.user_ids]
        return [device.number if device and device.number in senders else None for device in devices]

    def open_copies_of(self, numbers: Collection[int]) -> OpenedCopies:
        """Have senders open the copies they handed out; with no sender, nothing is done or announced.

        Raises:
            FederationError: The genesis admits no auditors.
            NoQuorum: Too few witnesses have seen the disclosure; nothing was opened.
        """
        if not numbers:
            return OpenedCopies(n_items=self.leaked.n_items)
        disclosure = self._disclose(sorted(numbers))

        # Opened only now: everybody can see the disclosure.
        copies: list[HandedOverCopy] = []
        unopened: list[int] = []
        for copy in self._kept_copies(disclosure.participants):
            if _opens(copy):
                copies.append(copy)
            else:
                unopened.append(self.shares[copy.hash].position)
        return OpenedCopies(
            n_items=self.leaked.n_items,
            copies=tuple(copies),
            unopened=tuple(unopened),
            disclosures=(disclosure,),
        )

    def _disclose(self, participants: list[int]) -> LeakDisclosure:
        """Say in the log whose copies will be opened and why, and let the witnesses see it."""
        ledger, publisher = self.session.ledger, self.session.publisher
        salt = self.session.randomness().secret("disclosure salt")
        reason = f"leak of {self.leaked.n_rows} rows, SHA-256 {self.leaked.digest}"

        access = self.session.access
        auditor = access.load_or_create_key("auditor")
        position = record_disclosure(access.registrar(ledger), auditor, participants, reason.encode(), salt)

        publisher.publish()
        self.announce(position, len(participants))
        return LeakDisclosure(position=position, participants=tuple(participants), reason=reason, salt=salt)

    def _kept_copies(self, participants: Collection[int]) -> list[HandedOverCopy]:
        """Return what senders keep of the copies whose shares are in the log."""
        store = self.session.devices
        devices = [device for number in participants if (device := store.find(number=number))]
        kept = (copy for device in devices for copy in handed_over_copies(store, device.slot))
        return [copy for copy in kept if copy.hash in self.shares]


def _opens(copy: HandedOverCopy) -> bool:
    """Whether what a sender keeps opens the commitments of the share."""
    return copy.base.commitment == copy.share.base and salted_commitment(copy.salt, copy.copy) == copy.share.copy
