"""The rules of consent, sharing and leaving: what each of their records must satisfy, and what it changes.

Like all rules they check everything first and change the state last.
"""

from __future__ import annotations

from collections.abc import Collection

from liberate.identifiers import Digest
from liberate.ledger.format.number_sets import includes
from liberate.ledger.format.records import KeyRecord, Record
from liberate.ledger.format.refusals import refused
from liberate.ledger.format.sharing_records import (
    Consent,
    Disclosure,
    Erasure,
    ErasureReport,
    Receipt,
    Share,
    UsedCopy,
    Withdrawal,
)
from liberate.ledger.rules.participants import checked_participants
from liberate.ledger.rules.sharing_state import LiveShare
from liberate.ledger.rules.state import State

AFTER_WITHDRAWAL: tuple[type[Record], ...] = (KeyRecord, Erasure)
"""What somebody who has withdrawn everything may still sign."""


def grant(state: State, record: Consent, hash: Digest) -> None:
    """Let a consent live."""
    if state.height >= record.expiry:
        raise refused("too_late", f"expires at height {record.expiry}, the next block is {state.height + 1}")
    recipients = checked_participants(record.recipients, "wrong_recipient")
    if not recipients or record.author in recipients:
        raise refused("wrong_recipient", "a consent names others than its sender, one at least")
    for number in recipients:
        _check_recipient(state, number)
    state.grant(record, hash)


def withdraw(state: State, record: Withdrawal) -> None:
    """Let a consent end, or everything."""
    if record.consent is not None and record.consent not in state.sharing.consents.get(record.author, {}):
        raise refused("no_consent", f"principal {record.author} has no such consent that lives")
    state.withdraw(record)


def hand_over(state: State, record: Share, hash: Digest) -> None:
    """Let a share live, under the consent that covers it."""
    consent = state.sharing.consents.get(record.author, {}).get(record.consent)
    if consent is None:
        raise refused("no_consent", f"principal {record.author} has no such consent that lives")
    terms = consent.record
    if state.height >= terms.expiry:
        raise refused("consent_expired", f"expired at height {terms.expiry}, the next block is {state.height + 1}")
    if not includes(terms.recipients, record.recipient):
        raise refused("wrong_recipient", f"the consent does not name principal {record.recipient}")
    _check_recipient(state, record.recipient)
    if len(consent.shares) >= terms.max_shares:
        raise refused(
            "consent_used_up", f"{len(consent.shares)} shares were made, at most {terms.max_shares} are wanted"
        )
    if consent.bases.get(record.base, record.epsilon_nano) != record.epsilon_nano:
        raise refused("wrong_spend", "the same base copy was perturbed at another epsilon before")
    if not consent.covers(record.base, record.epsilon_nano):
        raise refused(
            "consent_exceeded", f"copies may reveal {terms.epsilon_nano} in all, with this one they reveal more"
        )
    state.sharing.hand_over(record, hash)


def acknowledge(state: State, record: Receipt) -> None:
    """Let a share be used by who has received it."""
    share = _usable(state, record.sender, record.share)
    if share.record.recipient != record.author:
        raise refused("wrong_recipient", f"the share is for principal {share.record.recipient}")
    if share.record.copy != record.copy:
        raise refused("wrong_copy", "what arrived is not what was handed over")
    if share.is_received:
        raise refused("second_receipt", "the share was received before")
    state.sharing.acknowledge(record.share)


def check_inputs(state: State, inputs: tuple[UsedCopy, ...], participants: Collection[int]) -> None:
    """Check the shares that an answer used: each lives, and one of those who answer has received it."""
    keys = [(each.sender, each.share) for each in inputs]
    if keys != sorted(set(keys)):
        raise refused("wrong_shares", "shares must increase by sender and hash, and each stand once")
    answering = frozenset(participants if inputs else ())
    for sender, hash in keys:
        share = _usable(state, sender, hash)
        if not share.is_received or share.record.recipient not in answering:
            raise refused("not_received", f"a share of principal {sender} was not received by who uses it")


def check_pool(state: State, participants: Collection[int], coordinator: int) -> None:
    """Check that a coordinator has received shares of people, and may use them."""
    for number in participants:
        shares = state.sharing.received(number, coordinator, state.height)
        if next(shares, None) is None or state.principals[number].is_revoked:
            raise refused("not_received", f"principal {coordinator} has no share of principal {number} that lives")


def erase(state: State, record: Erasure) -> None:
    """Take a request to be forgotten, or a coordinator's word on what was done."""
    if record.report is not None:
        _check_removal(state, record, record.report)
        return
    if record.number != record.author:
        raise refused("wrong_erasure", "whoever asks to be forgotten asks for no one else")
    person = state.principals[record.author]
    if not person.has_withdrawn:
        raise refused("not_withdrawn", f"principal {record.author} has not withdrawn everything")
    if person.is_to_be_forgotten:
        raise refused("second_request", f"principal {record.author} has asked before")
    person.is_to_be_forgotten = True


def check_disclosure(state: State, record: Disclosure) -> None:
    """Check that an auditor names participants, whatever has become of them."""
    participants = checked_participants(record.participants, "wrong_participants")
    if not participants:
        raise refused("wrong_participants", "a disclosure names people")
    for number in participants:
        if number >= len(state.principals) or state.principals[number].role != "participant":
            raise refused("wrong_participants", f"principal {number} is no participant")


def _check_removal(state: State, record: Erasure, removal: ErasureReport) -> None:
    if state.principals[record.author].role != "coordinator":
        raise refused("wrong_erasure", "what was done is said by a coordinator")
    n_principals = len(state.principals)
    if record.number >= n_principals or not state.principals[record.number].is_to_be_forgotten:
        raise refused("not_requested", f"principal {record.number} has not asked to be forgotten")
    told, answered = (
        checked_participants(removal.notified, "wrong_participants"),
        checked_participants(removal.confirmed, "wrong_participants"),
    )
    if any(number >= n_principals for number in told) or not set(answered) <= set(told):
        raise refused("wrong_participants", "whoever was told is a principal, and nobody else answers")
    versions = checked_participants(removal.models, "wrong_version")
    newest = state.model.version if state.model else 0
    if versions and not (versions[0] > 0 and versions[-1] <= newest):
        raise refused("wrong_version", f"versions from {versions[0]} to {versions[-1]}, there are 1 to {newest}")


def _check_recipient(state: State, number: int) -> None:
    if number < len(state.principals):
        principal = state.principals[number]
        if principal.role in ("participant", "coordinator") and principal.is_active:
            return
    raise refused("wrong_recipient", f"principal {number} may not receive copies")


def _usable(state: State, sender: int, hash: Digest) -> LiveShare:
    share = state.sharing.usable(hash, sender, state.height)
    if share is None or state.principals[sender].is_revoked:
        raise refused("share_without_consent", f"no consent of principal {sender} covers such a share now")
    return share
