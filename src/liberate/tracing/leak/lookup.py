"""Whose copy leaked: first the ledger says that it is looked up, then the senders' copies are held against the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from liberate.crypto.commitments import salted_commitment
from liberate.crypto.note import verify_checkpoint
from liberate.errors import LiberateError
from liberate.federation.disclosure import record_disclosure
from liberate.federation.enrolment import Registrar
from liberate.federation.session import FederationSession
from liberate.federation.sharing.handover import HandedOverCopy, handed_over_copies
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.sharing_rows import BaseCopy
from liberate.identifiers import Digest
from liberate.ledger.format.parts import RecordBase
from liberate.ledger.format.sharing_records import Receipt, Share
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import entries
from liberate.ledger.trace.prover import ProvedEntry, Prover
from liberate.runs.federation_access import open_run_federation
from liberate.runs.folder import Run
from liberate.timing import Stopwatch
from liberate.tracing.answer_json import Json, entry, party, to_base64
from liberate.tracing.leak.attribution import (
    BaseCopyIndex,
    LeakedRows,
    MatchedRows,
    RankedCandidate,
    match,
    rank_candidates,
    read_leak,
)
from liberate.units import from_nano

_FITS = 0.5
"""Part of somebody's rows that must be near the base copy of the person so named: else everybody's are looked at."""

Announce = Callable[[int, int], None]
"""Told the position of a disclosure and how many people it names."""


def trace_leak(run: Run, file: Path, *, announce: Announce = lambda position, n_participants: None) -> Json:
    """Say whose copies rows that leaked are likely to be; a disclosure by an auditor stands on the ledger before.

    Args:
        run: A run that nobody is training.
        file: The rows, CSV or Parquet with item, rating and, if there is one, user; ids of users may be anything.
        announce: Told of each disclosure.

    Returns:
        The keys of `liberate trace --leak --json`: `leak`, the rows and how many were found in base copies;
        `disclosures`, each with its reason and the salt that opens it; `owners`, whose base copies these are;
        `candidates`, likeliest first, each with `log10_likelihood`, the `bound` on a false accusation, whether it is
        `accused`, the `senders` of the own copies, who holds the same rows too (`also_held_by`) and, of the accused,
        `evidence`: share entries with their proofs, and what opens their commitments.

    Raises:
        DataError: The file cannot be used, or has nothing of this run.
        LiberateError: Nobody has handed out copies, or a training is going on.
        FederationError: The genesis admits no auditors.
        NoQuorum: The witnesses have not seen the disclosure: nothing was opened.
    """
    leak = read_leak(file, run.catalogue()["item_id"].to_pylist())
    with open_run_federation(run) as session:
        lookup = _LookUp(run, session, leak, announce)
        matched = lookup.matched()
        leaked = {base.commitment for base in matched.bases}
        return lookup.answer(
            matched, rank_candidates(matched, [each for each in lookup.copies if each.share.base in leaked])
        )


class _LookUp:
    """What the auditor does with a leak, in this order: say so, have the senders' copies opened, answer."""

    def __init__(self, run: Run, session: FederationSession, leak: LeakedRows, announce: Announce) -> None:
        self.copies: list[HandedOverCopy] = []
        self._unopened: list[int] = []
        self._run, self._session, self._leak, self._announce = run, session, leak, announce
        self._ledger: Ledger = session.ledger
        self._devices: DeviceStore = session.devices
        self._publisher = session.publisher
        self._shares = {share.leaf_hash: share for share in entries(self._ledger, Share)}
        self._disclosures: list[Json] = []
        if not self._shares:
            raise LiberateError("nobody has handed out copies on this ledger, so none can have leaked")

    def matched(self) -> MatchedRows:
        """Match the rows: first with those whom they name, then, where somebody's rows do not fit, with everybody.

        Raises:
            LiberateError: No sender's copy opens.
        """
        forgotten = {device.number for device in self._devices.devices() if device.is_erased}
        senders = {share.record.author for share in self._shares.values()} - forgotten
        named = [self._devices.find(user_id=name) for name in self._leak.user_ids]
        own = [device.number if device and device.number in senders else None for device in named]
        first = {number for number in own if number is not None}
        if first:
            self._open(first)
        if senders - first and not all(index is not None for index in self._chosen(own)):
            self._open(senders - first)
        if not self.copies:
            raise LiberateError("no sender keeps what opens the copies, so rows cannot be held against them")
        known = self._chosen(own)
        bases = self._bases()
        for user in (user for user, index in enumerate(known) if index is None):
            near = bases.near(self._leak, user)
            known[user] = int(near.argmax()) if near.max() else None
        return match(self._leak, bases, known)

    def _chosen(self, numbers: Sequence[int | None]) -> list[int | None]:
        """Give for each of the leak's users the base copy of the person so named, if it has the rows."""
        if not self.copies:
            return [None] * len(numbers)
        bases, senders = self._bases(), [sender for sender, _ in self._by_base().values()]
        found: list[int | None] = []
        for user, number in enumerate(numbers):
            wanted = _FITS * int((self._leak.users == user).sum())
            near = bases.near(self._leak, user) if number is not None else np.zeros(0)
            best = max((i for i, sender in enumerate(senders) if sender == number), key=near.__getitem__, default=None)
            found.append(best if best is not None and near[best] and near[best] >= wanted else None)
        return found

    def answer(self, matched: MatchedRows, candidates: Sequence[RankedCandidate]) -> Json:
        """Give the answer, each entry in it proved."""
        prover = Prover(self._ledger)
        used = sorted(self._shares[each.hash].position for candidate in candidates for each in candidate.copies)
        prover.prove_all([*used, *(each["position"] for each in self._disclosures)])
        found = [self._candidate(each, candidates, matched, prover) for each in candidates]
        checkpoint = verify_checkpoint(prover.note, self._run.verifier_key)
        of = self._by_base()
        return {
            "leak": {
                "sha256": self._leak.digest,
                "rows": self._leak.n_rows,
                "users": len(self._leak.user_ids),
                "matched": len(matched.items),
            },
            "disclosures": self._disclosures,
            "owners": [
                self._party(of[base.commitment][0])
                | {"base": to_base64(base.commitment), "rows": rows, "epsilon": from_nano(base.epsilon_nano)}
                for base, rows in zip(
                    matched.bases, np.bincount(matched.owners, minlength=len(matched.bases)).tolist(), strict=True
                )
            ],
            "candidates": found,
            "unopened": self._unopened,
            "proofs": prover.proof_count,
            "entry_count": checkpoint.size,
            "root": to_base64(checkpoint.root),
            "checkpoint": prover.note,
        }

    def _open(self, participants: Iterable[int]) -> None:
        """Say on the ledger whose copies are opened, let the witnesses see it, and have the senders open them."""
        wanted = sorted(participants)
        salt = self._session.randomness().secret("disclosure salt")
        reason = f"leak of {self._leak.n_rows} rows, SHA-256 {self._leak.digest}"
        access = self._session.access
        admitting = Registrar(self._ledger, access.load_or_create_key("founder"), 1, Stopwatch())
        auditor = access.load_or_create_key("auditor")
        position = record_disclosure(admitting, auditor, wanted, reason.encode(), salt)
        self._publisher.publish()
        self._announce(position, len(wanted))
        self._disclosures.append(
            {"position": position, "participants": wanted, "reason": reason, "salt": to_base64(salt)}
        )
        devices = [device for number in wanted if (device := self._devices.find(number=number))]
        for each in (one for device in devices for one in handed_over_copies(self._devices, device.slot)):
            if each.hash not in self._shares:
                continue
            if _opens(each):
                self.copies.append(each)
            else:
                self._unopened.append(self._shares[each.hash].position)

    def _by_base(self) -> dict[Digest, tuple[int, BaseCopy]]:
        """Give sender and base of each base copy that was opened, by commitment."""
        return {each.share.base: (each.sender, each.base) for each in self.copies}

    def _bases(self) -> BaseCopyIndex:
        return BaseCopyIndex([base for _, base in self._by_base().values()], self._leak.n_items)

    def _candidate(
        self, each: RankedCandidate, everybody: Sequence[RankedCandidate], matched: MatchedRows, prover: Prover
    ) -> Json:
        same = [other.number for other in everybody if other.fingerprint == each.fingerprint]
        return self._party(each.number) | {
            "log10_likelihood": each.log10_likelihood,
            "bound": each.bound,
            "accused": each.is_accused,
            "senders": sorted({copy.sender for copy in each.copies}),
            "also_held_by": [number for number in same if number != each.number],
            "evidence": self._evidence(each, matched, prover) if each.is_accused else [],
        }

    def _evidence(self, accused: RankedCandidate, matched: MatchedRows, prover: Prover) -> list[Json]:
        """Open the commitments of an accused's copies, beside the rows of them that leaked and the receipts."""
        receipts = {
            receipt.record.share: receipt.position for receipt in entries(self._ledger, Receipt, author=accused.number)
        }
        found = []
        for each in accused.copies:
            receipt = receipts.get(each.hash)
            own = matched.owners == [base.commitment for base in matched.bases].index(each.share.base)
            found.append(
                _whole(prover.prove(self._shares[each.hash].position, Share))
                | {
                    "sender": each.sender,
                    "copy": to_base64(each.copy),
                    "salt": to_base64(each.salt),
                    "base": to_base64(each.base.ratings),
                    "base_salt": to_base64(each.base.salt),
                    "scale": dict(zip(("low", "step", "levels"), each.base.scale, strict=True)),
                    "items": matched.items[own].tolist(),
                    "leaked": matched.leaked[own].tolist(),
                    "receipt": None if receipt is None else _whole(prover.prove(receipt, Receipt)),
                }
            )
        return found

    def _party(self, number: int) -> Json:
        return party(number, self._ledger.state.principals, self._devices)


def _whole(proved: ProvedEntry[RecordBase]) -> Json:
    """Write an entry with all its bytes."""
    return entry(proved) | {"entry": to_base64(proved.entry.data)}


def _opens(copy: HandedOverCopy) -> bool:
    """Whether what a sender keeps opens the commitments of the share."""
    return copy.base.commitment == copy.share.base and salted_commitment(copy.salt, copy.copy) == copy.share.copy
