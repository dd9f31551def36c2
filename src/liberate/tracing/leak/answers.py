"""Whose copy leaked, as an answer that proves itself: disclosures, base copies, candidates, evidence of the accused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from liberate.crypto.note import verify_checkpoint
from liberate.identifiers import Digest
from liberate.ledger.format.parts import RecordBase
from liberate.ledger.format.sharing_records import Receipt, Share
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import RecordedEntry, entries
from liberate.ledger.trace.prover import ProvedEntry, Prover
from liberate.tracing.entry_answers import EntryAnswer, entry_answer
from liberate.tracing.leak.attribution import LeakedRows, MatchedRows, RankedCandidate
from liberate.tracing.leak.opened_copies import LeakDisclosure, OpenedCopies
from liberate.tracing.parties import Party, PartyNames
from liberate.units import from_nano


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakSummary:
    """The rows that leaked.

    Attributes:
        sha256: Of the file, hexadecimal.
        rows: Rows of the file.
        users: How many users it names.
        matched: Rows that were found in base copies.
    """

    sha256: str
    rows: int
    users: int
    matched: int


@dataclass(frozen=True, kw_only=True)
class BaseOwner(Party):
    """Whose base copy leaked: the commitment to it, how many rows are of it, and its ε per rating; None: open."""

    base: Digest
    rows: int
    epsilon: float | None


@dataclass(frozen=True, kw_only=True)
class WholeEntry(EntryAnswer):
    """An entry with all its bytes."""

    entry: bytes


@dataclass(frozen=True, slots=True)
class ScaleLevels:
    """The levels of a rating scale: the lowest, the step between two, and how many."""

    low: float
    step: float
    levels: int


@dataclass(frozen=True, kw_only=True)
class OpenedShare(WholeEntry):
    """The share of a copy, and what opens its commitments, beside the rows of the copy that leaked.

    Attributes:
        sender: Whose ratings these are.
        copy, salt: The copy, as `Ratings.user_bytes` writes it, and the salt of its commitment.
        base, base_salt: The same of the base copy.
        scale: On which levels are counted.
        items: Items of the rows that leaked, increasing.
        leaked: Level of each.
        receipt: By which the recipient acknowledged the copy, or None.
    """

    sender: int
    copy: bytes
    salt: bytes
    base: bytes
    base_salt: bytes
    scale: ScaleLevels
    items: tuple[int, ...]
    leaked: tuple[int, ...]
    receipt: WholeEntry | None


@dataclass(frozen=True, kw_only=True)
class CandidateAnswer(Party):
    """Somebody who got copies of the base copies that leaked.

    Attributes:
        log10_likelihood, bound: As of `Attribution`.
        accused: Whether the bound on a false accusation is small enough.
        senders: Whose copies they got.
        also_held_by: Who got the same levels of the rows that leaked.
        evidence: What proves an accusation; empty of who is not accused.
    """

    log10_likelihood: float
    bound: float
    accused: bool
    senders: tuple[int, ...]
    also_held_by: tuple[int, ...]
    evidence: tuple[OpenedShare, ...]


LeakFormat = Literal["liberate-leak/1"]
"""Name and version of the format in which an answer is kept as evidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakAnswer:
    """Whose copy leaked; the fields are the keys of `liberate trace --leak --json`.

    Attributes:
        format: Name and version of this format.
        leak: The rows.
        disclosures: What the auditor announced before copies were opened.
        owners: Whose base copies these are.
        candidates: Everybody who got a copy of these, the likeliest first.
        unopened: Positions of shares whose commitments do not open with what the sender keeps.
        proofs: How many proofs were checked.
        entry_count, root, checkpoint: Of the log when it was asked; the checkpoint is a signed note.
    """

    format: LeakFormat
    leak: LeakSummary
    disclosures: tuple[LeakDisclosure, ...]
    owners: tuple[BaseOwner, ...]
    candidates: tuple[CandidateAnswer, ...]
    unopened: tuple[int, ...]
    proofs: int
    entry_count: int
    root: Digest
    checkpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakFindings:
    """What a lookup has found, before it is proved.

    Attributes:
        leaked: The rows.
        shares: All shares on the ledger, by leaf hash.
        opened: The copies that were opened.
        matched: The rows that are in base copies.
        candidates: Who got a copy of these, the likeliest first.
    """

    leaked: LeakedRows
    shares: Mapping[Digest, RecordedEntry[Share]]
    opened: OpenedCopies
    matched: MatchedRows
    candidates: Sequence[RankedCandidate]


def prove_leak(ledger: Ledger, verifier_key: str, names: PartyNames, found: LeakFindings) -> LeakAnswer:
    """Return the answer of a lookup, each entry in it proved.

    Raises:
        LedgerError: The ledger cannot prove what it says.
    """
    prover = Prover(ledger)
    used = sorted(found.shares[copy.hash].position for candidate in found.candidates for copy in candidate.copies)
    prover.prove_all([*used, *(disclosure.position for disclosure in found.opened.disclosures)])

    evidence = [_evidence(ledger, prover, found, candidate) for candidate in found.candidates]
    checkpoint = verify_checkpoint(prover.note, verifier_key)
    return LeakAnswer(
        format="liberate-leak/1",
        leak=LeakSummary(
            sha256=found.leaked.digest,
            rows=found.leaked.n_rows,
            users=len(found.leaked.user_ids),
            matched=len(found.matched.items),
        ),
        disclosures=found.opened.disclosures,
        owners=_owners(names, found),
        candidates=tuple(
            _candidate(names.of(candidate.number), candidate, found.candidates, opened)
            for candidate, opened in zip(found.candidates, evidence, strict=True)
        ),
        unopened=found.opened.unopened,
        proofs=prover.proof_count,
        entry_count=checkpoint.size,
        root=checkpoint.root,
        checkpoint=prover.note,
    )


def _owners(names: PartyNames, found: LeakFindings) -> tuple[BaseOwner, ...]:
    bases = found.matched.bases
    counts = np.bincount(found.matched.owners, minlength=len(bases)).tolist()
    return tuple(
        BaseOwner(
            **vars(names.of(found.opened.senders[base.commitment])),
            base=base.commitment,
            rows=rows,
            epsilon=from_nano(base.epsilon_nano),
        )
        for base, rows in zip(bases, counts, strict=True)
    )


def _candidate(
    party: Party,
    candidate: RankedCandidate,
    everybody: Sequence[RankedCandidate],
    evidence: tuple[OpenedShare, ...],
) -> CandidateAnswer:
    same = [other.number for other in everybody if other.fingerprint == candidate.fingerprint]
    return CandidateAnswer(
        **vars(party),
        log10_likelihood=candidate.log10_likelihood,
        bound=candidate.bound,
        accused=candidate.is_accused,
        senders=tuple(sorted({copy.sender for copy in candidate.copies})),
        also_held_by=tuple(number for number in same if number != candidate.number),
        evidence=evidence,
    )


def _evidence(
    ledger: Ledger, prover: Prover, found: LeakFindings, candidate: RankedCandidate
) -> tuple[OpenedShare, ...]:
    """Open the commitments of an accused's copies, beside the rows of them that leaked and the receipts."""
    if not candidate.is_accused:
        return ()
    receipts = {receipt.record.share: receipt.position for receipt in entries(ledger, Receipt, author=candidate.number)}
    bases = [base.commitment for base in found.matched.bases]

    opened = []
    for copy in candidate.copies:
        receipt = receipts.get(copy.hash)
        rows = found.matched.owners == bases.index(copy.share.base)
        opened.append(
            OpenedShare(
                **vars(_whole(prover.prove(found.shares[copy.hash].position, Share))),
                sender=copy.sender,
                copy=copy.copy,
                salt=copy.salt,
                base=copy.base.ratings,
                base_salt=copy.base.salt,
                scale=ScaleLevels(*copy.base.scale),
                items=tuple(found.matched.items[rows].tolist()),
                leaked=tuple(found.matched.leaked[rows].tolist()),
                receipt=None if receipt is None else _whole(prover.prove(receipt, Receipt)),
            )
        )
    return tuple(opened)


def _whole(proved: ProvedEntry[RecordBase]) -> WholeEntry:
    return WholeEntry(**vars(entry_answer(proved)), entry=proved.entry.data)
