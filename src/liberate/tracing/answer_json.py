"""How answers about a ledger write what was proved: entries, copies, uses and models as JSON has them.

Digests are base64; amounts of ε and ρ are plain numbers; what stands on the ledger is named by its position.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Any

from liberate.crypto.signing import key_id
from liberate.federation.store.devices import DeviceStore
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.parts import RecordBase
from liberate.ledger.format.records import ModelRecord
from liberate.ledger.rules.principal import Principal
from liberate.ledger.trace.completeness import Completeness
from liberate.ledger.trace.contributions import Contribution
from liberate.ledger.trace.copies import TracedConsent, TracedCopy
from liberate.ledger.trace.participant import CopyUse
from liberate.ledger.trace.prover import ProvedEntry
from liberate.units import from_nano

Json = dict[str, Any]
"""An object, as JSON has it."""


def to_base64(digest: bytes) -> str:
    """Write bytes as base64."""
    return b64encode(digest).decode()


def position_or_none(proved: ProvedEntry[RecordBase] | None) -> int | None:
    """Give an entry's position, None without an entry."""
    return None if proved is None else proved.position


def party(number: int, principals: Sequence[Principal], devices: DeviceStore) -> Json:
    """Name somebody in all ways: `number`, `role`, `key_id`, and `user_id` if known; not of the forgotten."""
    device = devices.find(number=number)
    principal = principals[number]
    return {
        "number": number,
        "role": principal.role,
        "key_id": key_id(principal.key),
        "user_id": None if device is None or device.is_erased else device.user_id,
    }


def entry(proved: ProvedEntry[RecordBase]) -> Json:
    """Write an entry: where it stands, by whom, in which block, and its inclusion proof."""
    return {
        "position": proved.position,
        "kind": proved.record.kind,
        "author": proved.record.author,
        "block": proved.height,
        "time_us": proved.time_us,
        "leaf_hash": to_base64(proved.leaf_hash),
        "proof": [to_base64(step) for step in proved.proof],
    }


def completeness(proof: Completeness) -> Json:
    """Write the proof that some entries are all that name somebody."""
    return {
        "entries": [to_base64(data) for data in proof.entries],
        "block": to_base64(proof.block),
        "block_proof": [to_base64(step) for step in proof.block_proof],
        "principal_count": proof.principal_count,
        "state_proof": [to_base64(step) for step in proof.state_proof],
    }


def contribution(found: Contribution) -> Json:
    """Write an update or a pool and what became of it."""
    membership = found.membership
    return entry(found.update) | {
        "round": found.round.record.number,
        "outcome": found.outcome,
        "version": found.model.record.version if found.model else None,
        "descendants": len(found.descendants),
        "membership": None
        if membership is None
        else {
            "index": membership.index,
            "size": membership.size,
            "proof": [to_base64(step) for step in membership.proof],
        },
    }


def grant(found: TracedConsent) -> Json:
    """Write a consent, its limits, and what became of it."""
    terms = found.entry.record
    return entry(found.entry) | {
        "recipients": list(numbers_in(terms.recipients)),
        "expiry": terms.expiry,
        "max_shares": terms.max_shares,
        "epsilon": from_nano(terms.epsilon_nano),
        "is_active": found.is_active,
        "withdrawn": position_or_none(found.withdrawal),
    }


def copy(found: TracedCopy) -> Json:
    """Write a share: who gave whom a copy, of which base, under which consent, and whether it was accepted."""
    share = found.share.record
    return entry(found.share) | {
        "sender": found.sender,
        "recipient": found.recipient,
        "base": to_base64(share.base),
        "copy": to_base64(share.copy),
        "epsilon": from_nano(share.epsilon_nano),
        "consent": found.consent.entry.position,
        "receipt": position_or_none(found.receipt),
        "is_active": found.consent.is_active,
        "withdrawn": position_or_none(found.consent.withdrawal),
    }


def use(found: CopyUse) -> Json:
    """Write a use of copies by who received them."""
    return contribution(found.contribution) | {
        "by": found.recipient,
        "shares": [each.share.position for each in found.copies],
    }


def model(proved: ProvedEntry[ModelRecord]) -> Json:
    """Write a model."""
    return entry(proved) | {"version": proved.record.version, "digest": to_base64(proved.record.digest)}


def models_shaped_by(own: Iterable[Contribution], uses: Sequence[CopyUse]) -> tuple[list[Json], list[Json]]:
    """Give the models that used somebody's answers or copies, and those built on them that used neither.

    Of the first, `directly` says whether an own answer was used, and `through` which recipients' use of copies.
    """
    own = list(own)
    everything = [*own, *(each.contribution for each in uses)]
    used = {found.model.position: found.model for found in everything if found.model}
    later = {one.position: one for found in everything for one in found.descendants if one.position not in used}
    directly = {found.model.position for found in own if found.model}
    through: dict[int, set[int]] = {at: set() for at in used}
    for each in uses:
        if each.contribution.model:
            through[each.contribution.model.position].add(each.recipient)
    models = [
        model(proved) | {"directly": at in directly, "through": sorted(through[at])}
        for at, proved in sorted(used.items())
    ]
    return models, [model(proved) for _, proved in sorted(later.items())]
