"""Registrars enrol and recover: the founder records, and as many others approve as the genesis wants.

    ask -> approve -> record

Approvals of registrars whose keys are elsewhere travel in a file. It lists what is to be recorded, each registrar adds
its signatures, and the command that asked for them goes on where enough are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from liberate.crypto.canonical_json import Bytes32
from liberate.crypto.signing import SignatureClaim, SigningKey, key_id, verify_batch
from liberate.errors import FederationError, InvalidRecord
from liberate.federation.entry_writer import accepted_position
from liberate.files import write_atomic
from liberate.ledger.format.entries import approve, enrolment_statement, key_statement, sign
from liberate.ledger.format.parts import Approval, EnrolmentPolicy, Origin
from liberate.ledger.format.records import Enrol, KeyRecord
from liberate.ledger.interface import Ledger
from liberate.ledger.rules.state import State
from liberate.timing import measure

FOUNDER = 0
"""Number of the registrar who records."""

RegistrarRecord = Enrol | KeyRecord


class ApprovalsMissing(FederationError):
    """Other registrars must approve before something can be recorded."""


class PendingRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be recorded, with the approvals so far.

    Attributes:
        record: Its author and sequence are not approved, and may be others when it is recorded.
        before: The key that a `key` record replaces or revokes; None with an `enrol` record.
    """

    record: RegistrarRecord
    before: Bytes32 | None

    def statement(self) -> bytes:
        """Return what registrars sign."""
        if isinstance(self.record, Enrol):
            return enrolment_statement(self.record)
        return key_statement(self.record, self.before or bytes(32))


class ApprovalsFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What registrars exchange.

    Attributes:
        format: Name and version of the format.
        origin: The ledger's.
        registrars: Public keys by number.
        records: What is to be recorded.
    """

    format: Literal["liberate-approvals/1"] = "liberate-approvals/1"
    origin: Origin
    registrars: tuple[Bytes32, ...]
    records: tuple[PendingRecord, ...]


@dataclass(frozen=True, slots=True)
class Registrar:
    """The founder, who records what other registrars have approved.

    Attributes:
        ledger: The ledger, owned by this process.
        founder: Key of the founder.
        batch_size: Entries per block.
        folder: Where files wait for approvals.
        others: Keys of other registrars that are here, as all are in a simulation.
    """

    ledger: Ledger
    founder: SigningKey
    batch_size: int
    folder: Path
    others: tuple[SigningKey, ...] = ()

    def append(self, entries: Sequence[bytes]) -> None:
        """Append entries in blocks.

        Raises:
            FederationError: The ledger refuses one.
        """
        for begin in range(0, len(entries), self.batch_size):
            for outcome in self.ledger.append(entries[begin : begin + self.batch_size]):
                accepted_position(outcome, "an entry of the set-up")

    def sign(self, records: Sequence[RegistrarRecord], purpose: str) -> list[bytes]:
        """Return the entries of records, once enough registrars have approved them.

        Args:
            records: Of the founder.
            purpose: Names the file in which approvals are asked for.

        Raises:
            ApprovalsMissing: Others must approve first; the file says what.
        """
        approved = self.approved(records, purpose)
        with measure("sign"):
            return [sign(record, self.founder) for record in approved]

    def approved(self, records: Sequence[RegistrarRecord], purpose: str) -> list[RegistrarRecord]:
        """Return records with the approvals that the policies of their roles want; raises as `sign` does."""
        path, state = self.folder / f"{purpose}.json", self.ledger.state
        thresholds = [_threshold(state, record) for record in records]
        if all(threshold == 1 for threshold in thresholds):
            return list(records)

        given = self._given(path)
        signed = [
            record if threshold == 1 else self._with_approvals(record, given)
            for record, threshold in zip(records, thresholds, strict=True)
        ]
        missing = [threshold - 1 - len(record.approvals) for record, threshold in zip(signed, thresholds, strict=True)]
        if max(missing) > 0:
            self._ask(path, signed)
            raise ApprovalsMissing(
                f"{sum(count > 0 for count in missing):,} entries need the approval of {max(missing)} more registrars",
                hint=f"liberate keys approve {path} --key KEY with the key of each, then the same command again",
            )
        return signed

    def forget(self, purpose: str) -> None:
        """Delete the file of approvals, after what it asked for is recorded."""
        (self.folder / f"{purpose}.json").unlink(missing_ok=True)

    def _given(self, path: Path) -> dict[bytes, tuple[Approval, ...]]:
        """Return the approvals in a file, by statement."""
        if not path.exists():
            return {}
        return {pending.statement(): pending.record.approvals for pending in read_approvals(path).records}

    def _with_approvals(self, record: RegistrarRecord, given: dict[bytes, tuple[Approval, ...]]) -> RegistrarRecord:
        """Return a record with the approvals that count: of its role's other registrars, increasing."""
        state, policy = self.ledger.state, _policy_of(self.ledger.state, record)
        registrars = () if policy is None else policy.registrars
        statement = PendingRecord(record=record, before=_key_before(state, record)).statement()

        found = {approval.registrar: approval for approval in given.get(statement, ())}
        for key in self.others[: _threshold(state, record) - 1]:
            number = state.number_of(key.public)
            if number is not None:
                found.setdefault(number, approve(statement, number, key))

        able = [n for n in registrars if n in found and n != FOUNDER and not state.principals[n].is_revoked]
        claims = [SignatureClaim(state.principals[n].key, statement, found[n].signature) for n in able]
        valid = verify_batch(claims)
        approvals = tuple(found[n] for n, is_valid in zip(able, valid, strict=True) if is_valid)
        return msgspec.structs.replace(record, approvals=approvals)

    def _ask(self, path: Path, records: Sequence[RegistrarRecord]) -> None:
        state = self.ledger.state
        file = ApprovalsFile(
            origin=self.ledger.origin,
            registrars=tuple(principal.key for principal in state.principals[: len(state.founding.registrars)]),
            records=tuple(PendingRecord(record=record, before=_key_before(state, record)) for record in records),
        )
        path.parent.mkdir(exist_ok=True)
        _write(path, file)


def read_approvals(path: Path) -> ApprovalsFile:
    """Read a file of what registrars are to approve.

    Raises:
        FederationError: It cannot be read, or is another kind of file.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=ApprovalsFile)
    except (OSError, msgspec.MsgspecError) as error:
        raise FederationError(f"{path} is no file of approvals: {error}") from error


def approve_file(path: Path, key: SigningKey) -> tuple[int, ApprovalsFile]:
    """Add a registrar's approval of everything in a file; repeated, it changes nothing.

    Returns:
        The registrar's number, and what the file holds from now on.

    Raises:
        FederationError: It is no such file, or the key is not that of a registrar.
    """
    file = read_approvals(path)
    if key.public not in file.registrars:
        raise FederationError(f"{path}: key {key_id(key.public)} is no registrar's of {file.origin}")
    number = file.registrars.index(key.public)
    file = msgspec.structs.replace(
        file, records=tuple(_with_approval(pending, file.origin, number, key) for pending in file.records)
    )
    _write(path, file)
    return number, file


def _with_approval(pending: PendingRecord, origin: str, number: int, key: SigningKey) -> PendingRecord:
    record = pending.record
    if record.origin != origin:
        raise FederationError(f"the file is for {origin}, a record in it for {record.origin}")
    if number == record.author:
        return pending  # whose signature is under the entry
    try:
        new = approve(pending.statement(), number, key)
    except InvalidRecord as error:
        raise FederationError(f"a record in the file cannot be signed: {error.message}") from error
    others = [approval for approval in record.approvals if approval.registrar != number]
    approvals = tuple(sorted([*others, new], key=lambda approval: approval.registrar))
    return msgspec.structs.replace(pending, record=msgspec.structs.replace(record, approvals=approvals))


def _write(path: Path, file: ApprovalsFile) -> None:
    write_atomic(path, msgspec.json.format(msgspec.json.encode(file)) + b"\n")


def _policy_of(state: State, record: RegistrarRecord) -> EnrolmentPolicy | None:
    return state.enrolment_policy(record.role if isinstance(record, Enrol) else state.principals[record.number].role)


def _threshold(state: State, record: RegistrarRecord) -> int:
    """Return how many registrars must sign; 1 where nobody may, as the ledger says then."""
    policy = _policy_of(state, record)
    return 1 if policy is None else policy.threshold


def _key_before(state: State, record: RegistrarRecord) -> bytes | None:
    return None if isinstance(record, Enrol) else state.principals[record.number].key_named(record.which)
