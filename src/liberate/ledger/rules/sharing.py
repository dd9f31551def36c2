"""The rules of consent, sharing and leaving: what each of their records must satisfy, and what it changes.

Like all rules they check everything first and change the state last.
"""

from __future__ import annotations

from collections.abc import Collection

from liberate.identifiers import Digest
from liberate.ledger.format.number_sets import checked_participants, includes
from liberate.ledger.format.records import KeyRecord, Record
from liberate.ledger.format.refusals import refuse_if, refused
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
from liberate.ledger.rules.sharing_state import LiveConsent, LiveShare
from liberate.ledger.rules.state import State

AFTER_WITHDRAWAL: tuple[type[Record], ...] = (KeyRecord, Erasure)
"""What participants who have withdrawn from everything may still sign."""


def grant(state: State, record: Consent, hash: Digest) -> None:
    """Add a consent that its sender gives to others."""
    is_expired = state.height >= record.expiry
    refuse_if(is_expired, "too_late", f"expires at height {record.expiry}, the next block is {state.height + 1}")
    recipients = checked_participants(record.recipients, "wrong_recipient")
    is_for_others = recipients and record.author not in recipients
    refuse_if(not is_for_others, "wrong_recipient", "a consent names others than its sender, at least one")
    for number in recipients:
        _check_recipient(state, number)
    state.grant(record, hash)


def withdraw(state: State, record: Withdrawal) -> None:
    """End a consent, or all of them for good."""
    if record.consent is not None:
        _valid_consent(state, record.author, record.consent)
    state.withdraw(record)


def hand_over(state: State, record: Share, hash: Digest) -> None:
    """Add a share under the consent that covers it."""
    consent = _valid_consent(state, record.author, record.consent)
    terms = consent.record
    is_expired = state.height >= terms.expiry
    next_height = state.height + 1
    refuse_if(is_expired, "consent_expired", f"expired at height {terms.expiry}, the next block is {next_height}")

    is_named = includes(terms.recipients, record.recipient)
    refuse_if(not is_named, "wrong_recipient", f"the consent does not name principal {record.recipient}")
    _check_recipient(state, record.recipient)

    count = len(consent.shares)
    is_used_up = count >= terms.max_shares
    refuse_if(is_used_up, "consent_used_up", f"{count} shares were made, at most {terms.max_shares} are wanted")
    is_other = consent.bases.get(record.base, record.epsilon_nano) != record.epsilon_nano
    refuse_if(is_other, "wrong_spend", "the same base copy was perturbed at another epsilon before")
    is_covered = consent.covers(record.base, record.epsilon_nano)
    limit = f"copies may reveal {terms.epsilon_nano} in total, with this one they reveal more"
    refuse_if(not is_covered, "consent_exceeded", limit)
    state.sharing.hand_over(record, hash)


def acknowledge(state: State, record: Receipt) -> None:
    """Let the recipient of a share use it."""
    share = _usable(state, record.sender, record.share)
    recipient = share.record.recipient
    refuse_if(recipient != record.author, "wrong_recipient", f"the share is for principal {recipient}")
    refuse_if(share.record.copy != record.copy, "wrong_copy", "what arrived is not what was handed over")
    refuse_if(share.is_received, "second_receipt", "the share was received before")
    state.sharing.acknowledge(record.share)


def check_inputs(state: State, inputs: tuple[UsedCopy, ...], participants: Collection[int]) -> None:
    """Check the shares that an answer used: each is valid, and one of those for whom it answers has received it."""
    keys = [(used.sender, used.share) for used in inputs]
    is_increasing = keys == sorted(set(keys))
    refuse_if(not is_increasing, "wrong_shares", "shares must increase by sender and hash, and each be named once")
    answering = frozenset(participants if inputs else ())
    for sender, hash in keys:
        share = _usable(state, sender, hash)
        if not share.is_received or share.record.recipient not in answering:
            raise refused("not_received", f"a share of principal {sender} was not received by who uses it")


def check_pool(state: State, participants: Collection[int], coordinator: int) -> None:
    """Check that a coordinator has received shares of participants, and may use them."""
    for number in participants:
        shares = state.sharing.received(number, coordinator, state.height)
        if next(shares, None) is None or state.principals[number].is_revoked:
            raise refused("not_received", f"principal {coordinator} has no valid share of principal {number}")


def erase(state: State, record: Erasure) -> None:
    """Accept a request for erasure, or a coordinator's report of what was done."""
    if record.report is not None:
        _check_report(state, record, record.report)
        return

    is_for_author = record.number == record.author
    refuse_if(not is_for_author, "wrong_erasure", "whoever asks for erasure asks for nobody else's")
    participant = state.principals[record.author]
    has_stayed = not participant.has_withdrawn
    refuse_if(has_stayed, "not_withdrawn", f"principal {record.author} has not withdrawn from everything")
    is_second = participant.is_to_be_forgotten
    refuse_if(is_second, "second_request", f"principal {record.author} has asked before")
    participant.is_to_be_forgotten = True


def check_disclosure(state: State, record: Disclosure) -> None:
    """Check that an auditor names participants, whatever has become of them."""
    participants = checked_participants(record.participants, "wrong_participants")
    refuse_if(not participants, "wrong_participants", "a disclosure names participants")
    for number in participants:
        if number >= len(state.principals) or state.principals[number].role != "participant":
            raise refused("wrong_participants", f"principal {number} is no participant")


def _check_report(state: State, record: Erasure, report: ErasureReport) -> None:
    is_coordinator = state.principals[record.author].role == "coordinator"
    refuse_if(not is_coordinator, "wrong_erasure", "what was done is reported by a coordinator")
    count = len(state.principals)
    is_requested = record.number < count and state.principals[record.number].is_to_be_forgotten
    refuse_if(not is_requested, "not_requested", f"principal {record.number} has not asked for erasure")

    notified = checked_participants(report.notified, "wrong_participants")
    confirmed = checked_participants(report.confirmed, "wrong_participants")
    is_known = all(number < count for number in notified) and set(confirmed) <= set(notified)
    refuse_if(not is_known, "wrong_participants", "those notified are principals, and nobody else confirms")

    versions = checked_participants(report.models, "wrong_version")
    newest = state.model.version if state.model else 0
    if versions and not (versions[0] > 0 and versions[-1] <= newest):
        raise refused("wrong_version", f"versions from {versions[0]} to {versions[-1]}, there are 1 to {newest}")


def _check_recipient(state: State, number: int) -> None:
    if number < len(state.principals):
        principal = state.principals[number]
        if principal.role in ("participant", "coordinator") and principal.is_active:
            return
    raise refused("wrong_recipient", f"principal {number} may not receive copies")


def _valid_consent(state: State, sender: int, hash: Digest) -> LiveConsent:
    consent = state.sharing.consents.get(sender, {}).get(hash)
    if consent is None:
        raise refused("no_consent", f"principal {sender} has no such valid consent")
    return consent


def _usable(state: State, sender: int, hash: Digest) -> LiveShare:
    share = state.sharing.usable(hash, sender, state.height)
    if share is None or state.principals[sender].is_revoked:
        raise refused("share_without_consent", f"no consent of principal {sender} covers such a share now")
    return share
