"""What a participant does beside taking part: consent, share, withdraw, be forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import pyarrow as pa

from liberate.errors import FederationError, LedgerLocked, LiberateError, NoQuorum
from liberate.federation.erasure import completed_erasure
from liberate.federation.requests import carry_out
from liberate.federation.sharing.consents import ConsentTerms
from liberate.federation.sharing.copies import as_ratings
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.requests import (
    ConsentRequest,
    DataSubjectRequest,
    ErasureRequest,
    ShareCopyRequest,
    WithdrawalRequest,
)
from liberate.federation.store.sharing_rows import ReceivedCopy
from liberate.ledger.format.number_sets import includes, numbers_in
from liberate.ledger.format.sharing_records import Consent, Receipt, Share
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import entries, entry_at
from liberate.runs.federation_access import open_run_federation
from liberate.runs.folder import Run, RunReader
from liberate.runs.participants import Participant, device_of, find_participant
from liberate.runs.pending_requests import request_processor

POOL_RECIPIENT = "pool"
"""Names the coordinator as a recipient: copies are for the pool from which it learns."""

Wait = Callable[[], bool]
"""Called while another process owns the ledger: waits a little, and says whether to look again."""


def now() -> bool:
    """Do not wait."""
    return False


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
) -> dict[str, Any]:
    """Let others have copies of a participant's ratings.

    Args:
        run: A run, in training or not.
        participant: Number, key id, or user:ID.
        recipients: The same of each recipient, or `pool`.
        max_shares: Copies at most, > 0.
        blocks: For how many blocks of the ledger the consent lives, > 0.
        epsilon: Most that all copies together may reveal of a rating, 1e-9 at least; None: they are open.
        rating_fraction: Part of the own ratings that a copy has, 0 < rating_fraction <= 1.
        items: Items whose ratings a copy may have, by their ids in the data set; None: all.
        purpose: What the copies are for; recipients are told, the ledger has a salted commitment.
        wait: What to do while a training owns the ledger.

    Returns:
        The keys of `liberate consent --json`: the person, by all three names; `act`, the kind of the entry; `entry`,
        its position, None while it is `under_way`; `published`, whether enough witnesses have cosigned the checkpoint
        that covers it.

    Raises:
        LiberateError: Nobody has that name, the terms are no terms, or the ledger refuses.
    """
    with run.open() as reader:
        named = sorted({_recipient(reader, name) for name in recipients})
    try:
        ConsentTerms(recipients=tuple(named), expiry=blocks, max_shares=max_shares,
              epsilon=epsilon, rating_fraction=rating_fraction)  # fmt: skip
    except ValueError as error:
        raise LiberateError(str(error)) from error
    request = ConsentRequest(
        recipients=tuple(named),
        blocks=blocks,
        max_shares=max_shares,
        epsilon=epsilon,
        rating_fraction=rating_fraction,
        items=None if items is None else _indices(run, items),
        purpose=purpose,
    )
    return _act(run, participant, request, wait)


def _indices(run: Run, items: Sequence[str]) -> tuple[int, ...]:
    """Give the catalogue's indices of items, increasing."""
    known = {str(item): index for index, item in enumerate(run.catalogue()["item_id"].to_pylist())}
    unknown = [item for item in items if item not in known]
    if unknown:
        raise LiberateError(f"no item {unknown[0]!r}", hint="give items by their ids in the data set")
    return tuple(sorted({known[item] for item in items}))


def share(
    run: Run, participant: str, *, recipient: str = POOL_RECIPIENT, consent: int | None = None, wait: Wait = now
) -> dict[str, Any]:
    """Hand a copy of a participant's ratings over, under a consent that lives; the recipient takes it.

    Args:
        run: A run, in training or not.
        participant: Number, key id, or user:ID.
        recipient: The same of the recipient, or `pool`.
        consent: Position of the consent's entry; None: the newest that names the recipient.
        wait: What to do while a training owns the ledger.

    Returns:
        The keys of `liberate share --json`: as of `consent`; and `received`, whether the recipient has taken the copy.

    Raises:
        LiberateError: Nobody has that name, no consent that lives names the recipient, or the ledger refuses.
    """
    with run.open() as reader:
        number = _recipient(reader, recipient)
        if consent is None:
            sender = find_participant(reader.ledger, reader.devices, participant)
            consent = _newest_consent(reader.ledger, sender, number)
    found = _act(run, participant, ShareCopyRequest(consent=consent, recipient=number), wait)
    with closing(run.open_ledger()) as ledger:
        position = found["entry"]
        hash = None if position is None else entry_at(ledger, position, Share).leaf_hash
        is_received = any(receipt.record.share == hash for receipt in entries(ledger, Receipt, author=number))
    return found | {"received": is_received}


def withdraw(run: Run, participant: str, *, consent: int | None = None, wait: Wait = now) -> dict[str, Any]:
    """Take a participant's consent back, by the position of its entry, or everything for good if None.

    Returns:
        The keys of `liberate withdraw --json`: as of `consent`.

    Raises:
        LiberateError: Nobody has that name, there is no such consent that lives, or the ledger refuses.
    """
    return _act(run, participant, WithdrawalRequest(consent=consent), wait)


def erase(run: Run, participant: str, *, wait: Wait = now) -> dict[str, Any]:
    """Let a participant be forgotten; the same again tells what was done.

    Returns:
        The keys of `liberate erase --json`: as of `consent`; and `record`, the position of the coordinator's record of
        what was `destroyed`, who was `told` to destroy copies, who has `answered` that this was done and who is
        `silent`, the versions of the `models` that contain the person, and whether this is `simulated`: then keys and
        salts can be made again from the seed, and nobody is forgotten but in play.

    Raises:
        LiberateError: Nobody has that name, or the ledger refuses, of a revoked key for example.
    """
    return _act(run, participant, ErasureRequest(), wait)


def set_copy_quota(run: Run, participant: str, *, limit: int | None = None) -> dict[str, Any]:
    """Set how many copies of others' ratings a participant takes; those that are held stay.

    Args:
        run: A run, in training or not.
        participant: Number, key id, or user:ID.
        limit: Copies at most, those that are held included, >= 0; None: as many as there are.

    Returns:
        The keys of `liberate accept --json`: the person, and `limit`.

    Raises:
        LiberateError: Nobody has that name.
    """
    with run.open() as reader:
        person = find_participant(reader.ledger, reader.devices, participant)
        device = device_of(reader.devices, person.number)
        reader.devices.set_copy_quota(device.slot, limit)
    return {"number": person.number, "key_id": person.key_id, "user_id": person.user_id, "limit": limit}


def received(run: Run, participant: str) -> pa.Table:
    """Give the ratings that a participant has received from others, as the device holds them.

    Returns:
        Columns `user`, the sender's number, `item` and `rating`.

    Raises:
        LiberateError: Nobody has that name, or the person was forgotten.
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


def _act(run: Run, participant: str, request: DataSubjectRequest, wait: Wait) -> dict[str, Any]:
    """Put a request, and carry it out or wait until it is.

    Raises:
        LiberateError: Nobody has that name, or the ledger refuses.
    """
    with run.open() as reader:
        person = find_participant(reader.ledger, reader.devices, participant)
    if isinstance(request, ErasureRequest) and (known := _departure(run, person.number)):
        return _outcome(run, person, request, int(known["entry"]), is_published=True)
    with DeviceStore(run.devices_folder) as devices:
        id = devices.put_request(device_of(devices, person.number).slot, request)
    is_published = True
    while True:
        outcome = _result(run, person, request, id)
        if outcome is not None:
            return _outcome(run, person, request, outcome, is_published=is_published)
        try:
            is_published = _carry_out(run)
        except LedgerLocked:
            if not wait():
                return _outcome(run, person, request, None, is_published=False)
            continue
        return _outcome(run, person, request, _result(run, person, request, id), is_published=is_published)


def _carry_out(run: Run) -> bool:
    """Carry all requests out as owner of the ledger; whether enough witnesses have cosigned the outcome."""
    with open_run_federation(run) as session:
        carry_out(request_processor(session, run.dataset))
        try:
            session.publisher.publish()
        except NoQuorum:
            return False
        return True


def _result(run: Run, person: Participant, request: DataSubjectRequest, id: int) -> int | None:
    """Give where the entry of a request stands, None while it waits.

    Raises:
        FederationError: It was refused.
    """
    with DeviceStore(run.devices_folder) as devices:
        outcome = devices.request_outcome(id)
    if isinstance(outcome, str):
        raise FederationError(outcome)
    if outcome is None and isinstance(request, ErasureRequest) and (known := _departure(run, person.number)):
        return int(known["entry"])
    return outcome


def _outcome(
    run: Run, person: Participant, request: DataSubjectRequest, position: int | None, *, is_published: bool
) -> dict[str, Any]:
    """Describe an act, as `consent` says."""
    found = {
        "number": person.number,
        "key_id": person.key_id,
        "user_id": person.user_id,
        "act": request.__struct_config__.tag,
        "entry": position,
        "under_way": position is None,
        "published": is_published and position is not None,
    }
    if isinstance(request, ErasureRequest) and position is not None:
        found |= {"user_id": None} | _departure(run, person.number)
    return found


def _departure(run: Run, number: int) -> dict[str, Any]:
    """Describe what became of somebody who was forgotten; nothing of others."""
    with closing(run.open_ledger()) as ledger:
        found, is_simulated = completed_erasure(ledger, number), ledger.state.founding.simulated
    if found is None:
        return {}
    told, answered = list(numbers_in(found.report.notified)), list(numbers_in(found.report.confirmed))
    return {
        "entry": found.request,
        "record": found.record,
        "destroyed": list(found.report.destroyed),
        "notified": told,
        "confirmed": answered,
        "silent": sorted(set(told) - set(answered)),
        "models": list(numbers_in(found.report.models)),
        "simulated": is_simulated,
    }


def _recipient(reader: RunReader, name: str) -> int:
    """Return the number of a participant by any name, or of the coordinator."""
    if name != POOL_RECIPIENT:
        return find_participant(reader.ledger, reader.devices, name).number
    participants = enumerate(reader.ledger.state.principals)
    return next(number for number, each in participants if each.role == "coordinator" and each.is_active)


def _newest_consent(ledger: Ledger, sender: Participant, recipient: int) -> int:
    """Give the position of the newest consent that lives and names a recipient."""
    live = ledger.state.sharing.consents.get(sender.number, {})
    for consent in reversed(list(entries(ledger, Consent, author=sender.number))):
        if consent.leaf_hash in live and includes(consent.record.recipients, recipient):
            return consent.position
    raise LiberateError(
        f"participant {sender.number} has given no consent that lives and names {recipient}",
        hint="the command consent gives one",
    )
