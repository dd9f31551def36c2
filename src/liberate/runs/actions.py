"""What a participant does beside taking part: consent, share, withdraw, be erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import pyarrow as pa
from msgspec.structs import replace

from liberate.errors import LiberateError
from liberate.federation.sharing.consents import ConsentTerms
from liberate.federation.sharing.copies import as_ratings
from liberate.federation.store.requests import (
    ConsentRequest,
    ErasureRequest,
    ShareCopyRequest,
    WithdrawalRequest,
)
from liberate.federation.store.sharing_rows import ReceivedCopy
from liberate.ledger.format.number_sets import includes
from liberate.ledger.format.sharing_records import Consent
from liberate.ledger.lookup import entries
from liberate.runs.folder import Run, RunReader
from liberate.runs.participants import Participant, device_of, find_participant
from liberate.runs.request_submission import RequestOutcome, ShareOutcome, Wait, now, submit

POOL_RECIPIENT = "pool"
"""Names the coordinator as a recipient: copies are for the pool from which it learns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyQuota(Participant):
    """How many copies of others' ratings a participant accepts; the keys of `liberate accept --json`.

    Attributes:
        limit: Copies at most, stored ones included; None: no limit.
    """

    limit: int | None


def consent(
    run: Run,
    participant: str,
    *,
    recipients: Sequence[str] = (POOL_RECIPIENT,),
    max_shares: int = 10,
    blocks: int = 10_000,
    epsilon: float | None = None,
    rating_fraction: float = 1.0,
    items: Sequence[str] | None = None,
    purpose: str = "",
    wait: Wait = now,
) -> RequestOutcome:
    """Let others have copies of a participant's ratings.

    Args:
        run: A run, in training or not.
        participant: Number, key id, or user:ID.
        recipients: The same of each recipient, or `pool`.
        max_shares: Copies at most, > 0.
        blocks: For how many blocks of the ledger the consent is valid, > 0.
        epsilon: Most that all copies together may reveal of a rating, 1e-9 at least; None: they are open.
        rating_fraction: Part of the participant's ratings that a copy has, 0 < rating_fraction <= 1.
        items: Items whose ratings a copy may have, by their ids in the data set; None: all.
        purpose: What the copies are for; recipients are told, the ledger has a salted commitment.
        wait: What to do while a training owns the ledger.

    Raises:
        LiberateError: Nobody has that name, the terms are impossible, or the ledger refuses.
    """
    wanted = ConsentRequest(
        recipients=(),
        blocks=blocks,
        max_shares=max_shares,
        epsilon=epsilon,
        rating_fraction=rating_fraction,
        items=None if items is None else _item_indices(run, items),
        purpose=purpose,
    )
    return submit(run, participant, partial(_addressed, wanted, recipients), wait)


def _addressed(wanted: ConsentRequest, recipients: Sequence[str], reader: RunReader) -> ConsentRequest:
    """Return a request with the numbers of its recipients, once its terms have been checked."""
    request = replace(wanted, recipients=tuple(sorted({_recipient(reader, name) for name in recipients})))
    try:
        ConsentTerms(
            recipients=request.recipients,
            expiry=request.blocks,
            max_shares=request.max_shares,
            epsilon=request.epsilon,
            rating_fraction=request.rating_fraction,
        )
    except ValueError as error:
        raise LiberateError(str(error)) from error
    return request


def share(
    run: Run, participant: str, *, recipient: str = POOL_RECIPIENT, consent: int | None = None, wait: Wait = now
) -> ShareOutcome:
    """Hand a copy of a participant's ratings over, under a valid consent; the recipient takes it.

    Args:
        run: A run, in training or not.
        participant: Number, key id, or user:ID.
        recipient: The same of the recipient, or `pool`.
        consent: Position of the consent's entry; None: the newest that names the recipient.
        wait: What to do while a training owns the ledger.

    Raises:
        LiberateError: Nobody has that name, no valid consent names the recipient, or the ledger refuses.
    """

    def request(reader: RunReader) -> ShareCopyRequest:
        number = _recipient(reader, recipient)
        if consent is not None:
            return ShareCopyRequest(consent=consent, recipient=number)
        sender = find_participant(reader.ledger, reader.devices, participant)
        return ShareCopyRequest(consent=_newest_consent(reader, sender.number, number), recipient=number)

    outcome = submit(run, participant, request, wait)
    assert isinstance(outcome, ShareOutcome), "the request was to share a copy"
    return outcome


def withdraw(run: Run, participant: str, *, consent: int | None = None, wait: Wait = now) -> RequestOutcome:
    """Withdraw a participant's consent, by the position of its entry; None: withdraw from everything, permanently.

    Raises:
        LiberateError: Nobody has that name, there is no such valid consent, or the ledger refuses.
    """
    return submit(run, participant, lambda reader: WithdrawalRequest(consent=consent), wait)


def erase(run: Run, participant: str, *, wait: Wait = now) -> RequestOutcome:
    """Erase a participant permanently; the same again tells what was done.

    Returns:
        An `ErasureOutcome`, unless the request is under way.

    Raises:
        LiberateError: Nobody has that name, or the ledger refuses, of a revoked key for example.
    """
    return submit(run, participant, lambda reader: ErasureRequest(), wait)


def set_copy_quota(run: Run, participant: str, *, limit: int | None = None) -> CopyQuota:
    """Set how many copies of others' ratings a participant accepts; stored ones stay.

    Args:
        run: A run, in training or not.
        participant: Number, key id, or user:ID.
        limit: Copies at most, stored ones included, >= 0; None: no limit.

    Raises:
        LiberateError: Nobody has that name.
    """
    with run.open() as reader:
        person = find_participant(reader.ledger, reader.devices, participant)
        reader.devices.set_copy_quota(device_of(reader.devices, person.number).slot, limit)
    return CopyQuota(**asdict(person), limit=limit)


def received(run: Run, participant: str) -> pa.Table:
    """Return the ratings that a participant has received from others, as the device stores them.

    Returns:
        Columns `user`, the sender's number, `item` and `rating`.

    Raises:
        LiberateError: Nobody has that name, or the participant was erased.
    """
    items = run.catalogue()["item_id"]
    with run.open() as reader:
        device = device_of(reader.devices, find_participant(reader.ledger, reader.devices, participant).number)
        copies = [copy for _, _, copy in reader.devices.sharing_rows(ReceivedCopy, device.slot)]

    rows = as_ratings([copy.copy for copy in copies], len(items))
    senders = pa.array([copy.sender for copy in copies], pa.int64())
    return pa.table(
        {"user": senders.take(pa.array(rows.users())), "item": items.take(rows.items), "rating": rows.values}
    )


def _item_indices(run: Run, items: Sequence[str]) -> tuple[int, ...]:
    """Return the catalogue's indices of items, increasing."""
    known = {str(item): index for index, item in enumerate(run.catalogue()["item_id"].to_pylist())}
    unknown = [item for item in items if item not in known]
    if unknown:
        raise LiberateError(f"no item {unknown[0]!r}", hint="give items by their ids in the data set")
    return tuple(sorted({known[item] for item in items}))


def _recipient(reader: RunReader, name: str) -> int:
    """Return the number of a participant by any name, or of the coordinator."""
    if name != POOL_RECIPIENT:
        return find_participant(reader.ledger, reader.devices, name).number
    principals = enumerate(reader.ledger.state.principals)
    return next(number for number, who in principals if who.role == "coordinator" and who.is_active)


def _newest_consent(reader: RunReader, sender: int, recipient: int) -> int:
    """Return the position of the newest valid consent that names a recipient."""
    valid = reader.ledger.state.sharing.consents.get(sender, {})
    for consent in reversed(list(entries(reader.ledger, Consent, author=sender))):
        if consent.leaf_hash in valid and includes(consent.record.recipients, recipient):
            return consent.position
    raise LiberateError(
        f"participant {sender} has given no valid consent that names {recipient}",
        hint="the command consent gives one",
    )
