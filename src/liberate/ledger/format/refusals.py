"""Why an entry is refused: a closed set of reason codes."""

from __future__ import annotations

from typing import Literal

from liberate.errors import RefusedEntry

Reason = Literal[
    "already_revoked",  # there is no key left to revoke
    "bad_approval",  # not a registrar's signature over what is recorded
    "bad_genesis",  # a policy that could never be followed
    "bad_key",  # not a usable public key
    "bad_terms",  # terms that contradict themselves, or allow fewer participants than there are
    "bad_signature",  # not the author's signature over the record
    "closed_round",  # the round named is not the open one
    "enrolment_full",  # as many participants as the terms allow are enrolled
    "key_used",  # the key is or was a principal's
    "consent_expired",  # after the last block that may hold a share under the consent
    "consent_used_up",  # more shares than the consent allows
    "sequence_too_far",  # far beyond the author's last sequence
    "log_only",  # a kind that the log itself writes
    "malformed",  # not the canonical bytes of a record
    "no_answer",  # a survivor without an accepted update of the round
    "no_consent",  # not a consent of the author that lives
    "no_genesis",  # the first entry of a ledger must be a genesis
    "no_survivors",  # a masked round needs its survivor set before its model
    "not_registrar",  # the genesis does not let who signs or approves admit this role, or recover or revoke its keys
    "not_in_cohort",  # a person who does not belong to the round, or whose key was revoked
    "not_in_set",  # a person who is not in the set of a masked round that comes before
    "not_masked",  # a set of a masked round for one without masks
    "not_possessed",  # not the new key's signature over whose it will be
    "not_replayed",  # a masked round outside simulations, without a replaying witness in every quorum
    "not_received",  # a share that whoever uses it has not received
    "not_requested",  # the erasure of somebody who has not asked for it
    "not_shared",  # an update of a masked round before the set of those who shared their secrets
    "not_simulated",  # allowed on a simulation's ledger only
    "not_withdrawn",  # a request to be forgotten by somebody who has not withdrawn everything
    "other_coordinator",  # the round was opened by somebody else
    "over_budget",  # a spend above what an account may still spend, or from a second account where there is a limit
    "consent_exceeded",  # copies that reveal more than the consent allows
    "private_shares",  # shares named by an answer that spends: it is computed from the person's own ratings alone
    "revoked_author",  # the author's key was revoked
    "revoked_device",  # the key of the author's device was revoked
    "revoked_registrar",  # the key of a registrar who approves was revoked
    "round_open",  # another round has not been closed
    "run_complete",  # more rounds than the run announced
    "second_genesis",  # a ledger has one genesis
    "second_pool",  # whose shares the round uses already
    "second_receipt",  # the share was received before
    "second_request",  # to be forgotten, asked before
    "second_set",  # the masked round has this set
    "second_update",  # the person has answered the round
    "share_without_consent",  # no share of the sender, or none that a consent covers still
    "stale_sequence",  # not greater than the author's last sequence
    "survivors_named",  # an update after the round's survivor set was begun
    "too_few_approvals",  # fewer registrars than the role's policy wants
    "too_few_participants",  # fewer people in a set of a masked round than the round and the terms demand
    "too_few_updates",  # fewer people in a model than the round demands
    "too_large",  # above the largest entry
    "too_late",  # after the round's deadline, or a consent that expires before it begins
    "too_many_participants",  # more people than one record may name
    "unknown_author",  # no principal has this number
    "unknown_kind",  # a record kind without a rule
    "unknown_principal",  # the key of somebody who has no number
    "unknown_version",  # a format version without a rule
    "withdrawn",  # somebody who has withdrawn from everything
    "unpriced",  # an answer that spends nothing, on a ledger that limits what a person may spend
    "wrong_approvals",  # registrars not strictly increasing, the author among them, or approvals of an owner's own act
    "wrong_base_model",  # not the model that the run has reached
    "wrong_cohort",  # people who are no active participants, ranges that do not increase, or nobody in a masked round
    "wrong_copy",  # not what was handed over
    "wrong_count",  # a block that does not count its entries
    "wrong_custody",  # only a participant's keys may be in a host's custody
    "wrong_device_key",  # a participant has two different keys, every other role has one
    "wrong_erasure",  # a request for somebody else, or a participant's word on what was done, or a request by another
    "wrong_height",  # not the height after the last block's
    "wrong_number",  # not the next number
    "wrong_origin",  # made for another ledger
    "wrong_parent",  # does not follow from what it names as its parent
    "wrong_part",  # not the next part of a masked round's set, or another number of parts
    "wrong_participants",  # a host must name people, a participant may not; or ranges that are not strictly increasing
    "wrong_phase",  # not the next set of the masked round
    "wrong_recipient",  # not whom the consent or the share names, or nobody who may receive copies
    "wrong_role",  # the author's role may not write this kind
    "wrong_root",  # a set that should have a root and has none, the other way round, or another in each part
    "wrong_round",  # another hash than the open round's entry has
    "wrong_run",  # not this run or the next one, or other terms than the run's first round
    "wrong_shares",  # shares that do not increase
    "wrong_spend",  # not the spend of the round, or an account without a spend
    "wrong_state",  # a state root that does not follow from the entries
    "wrong_terms",  # a round under other terms than those in force
    "wrong_time",  # before the last block's time
    "wrong_updates",  # not a subset of the round's updates or not their root; in a masked round, not the survivors'
    "wrong_version",  # not the version after the base model's
]
"""Every reason code that the rules know."""


def refused(reason: Reason, detail: str) -> RefusedEntry:
    """Return the error that refuses an entry for a reason."""
    return RefusedEntry(reason, detail)


def refuse_if(is_wrong: bool, reason: Reason, detail: str) -> None:
    """Refuse an entry for a reason if something is wrong with it.

    The detail is written either way: where that is costly, or repeated for each of many, use `refused`.

    Raises:
        RefusedEntry: Something is wrong.
    """
    if is_wrong:
        raise refused(reason, detail)
