"""Sharing as settings arrange it in a simulation: who consents, to whom, and that every copy gets there.

Done again, nothing is done twice: people whose copy is there already are left as they are, and a copy of ratings that
have changed since is taken back before another one is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

import msgspec
import numpy as np

from liberate.crypto.signing import SigningKey
from liberate.data.rating_scale import RatingScale
from liberate.errors import CopyDeclined, FederationError, LiberateError
from liberate.federation.sharing.actions import (
    ConsentTerms,
    EntryOutcome,
    give_consents,
    hand_over_all,
    receive_all,
    sealed_copy_of,
    withdraw,
)
from liberate.federation.sharing.config import SharingConfig
from liberate.federation.sharing.pool_intake import accept_into_pool
from liberate.federation.store.device_rows import Device
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.pool import PoolStore
from liberate.federation.store.sharing_rows import BaseCopy, GivenConsent, GivenCopy
from liberate.federation.wire.copies import ConsentScope, SealedCopy
from liberate.identifiers import Digest
from liberate.ledger.format.number_sets import includes
from liberate.ledger.interface import Ledger
from liberate.randomness import Randomness, stream_words
from liberate.timing import Progress
from liberate.units import to_nano

_AT_A_TIME = 1000
_LASTS = 1_000_000
"""Blocks after which an arranged consent expires."""

_PURPOSE = "recommendations for all who take part"


@dataclass(frozen=True, slots=True, kw_only=True)
class SharingSimulation:
    """Where sharing is arranged.

    Attributes:
        ledger: The ledger, owned by this process, between rounds.
        devices: The store of the one host.
        people: Numbers of the people who take part.
        coordinator: The coordinator's number.
        coordinator_key: Its signing key.
        pool: Where it keeps copies.
        n_items: Size of the catalogue.
        scale: Of the ratings.
        chosen: Source of what is chosen for people: the same in each run.
        randomness: Source of keys and salts, another one in each run.
    """

    ledger: Ledger
    devices: DeviceStore
    participants: Sequence[int]
    coordinator: int
    coordinator_key: SigningKey
    pool: PoolStore
    n_items: int
    scale: RatingScale
    chosen: Randomness
    randomness: Randomness


def arrange(where: SharingSimulation, config: SharingConfig, progress: Progress) -> None:
    """Let people share as settings say.

    Raises:
        FederationError: The ledger refuses an act, or a copy does not arrive.
    """
    by_number = {device.number: device for device in where.devices.devices()}
    senders = _senders(where, config)
    for begin in range(0, len(senders), _AT_A_TIME):
        some = [
            (by_number[number], _recipients(where, config, number)) for number in senders[begin : begin + _AT_A_TIME]
        ]
        lacking = [(device, left) for device, wanted in some if (left := _lacking(where, config, device, wanted))]
        if lacking:
            progress(f"sharing copies with {config.recipients}: {begin + len(some):,} of {len(senders):,} people")
            _share(where, config, lacking)
    _deliver(where)


def _senders(where: SharingSimulation, config: SharingConfig) -> list[int]:
    """Choose who shares: in each run the same people, as far as they take part."""
    n = round(config.user_fraction * len(where.participants))
    return sorted(sorted(where.participants, key=lambda number: where.chosen.secret("sharer", number))[:n])


def _recipients(where: SharingSimulation, config: SharingConfig, sender: int) -> tuple[int, ...]:
    """Choose to whom somebody gives copies: in each run the same people, as far as they take part."""
    if config.recipients == "pool":
        return (where.coordinator,)
    others = np.array([number for number in where.participants if number != sender], np.int32)
    order = np.argsort(stream_words(where.chosen.secret("recipients", sender), others), kind="stable")
    return tuple(sorted(others[order[: config.n_recipients]].tolist()))


def _lacking(where: SharingSimulation, config: SharingConfig, device: Device, wanted: Sequence[int]) -> tuple[int, ...]:
    """Give those of the recipients who have no copy of the present ratings on these terms, under a consent that lives.

    What they have of other ratings, or on other terms, is taken back; what the person has shared by the own decision
    stays as it is, and counts.
    """
    sharing, current, stale = where.ledger.state.sharing, set[int](), list[Digest]()
    ratings, nano = sha256(where.devices.data_of(device.slot).ratings).digest(), to_nano(config.epsilon)
    for hash, consent in sharing.consents.get(device.number or 0, {}).items():
        for share in (sharing.shares[each].record for each in consent.shares):
            base = where.devices.sharing_row(BaseCopy, device.slot, share.base)
            if base is None or share.recipient not in wanted:
                continue
            is_current = (base.source, base.fraction, share.epsilon_nano) == (ratings, config.rating_fraction, nano)
            if is_current or not _is_arranged(where.devices.sharing_row(GivenConsent, device.slot, hash)):
                current.add(share.recipient)
            else:
                stale.append(hash)
    for hash in dict.fromkeys(stale):
        withdraw(where.ledger, where.devices, device, hash)
    return tuple(number for number in wanted if number not in current)


def _share(where: SharingSimulation, config: SharingConfig, lacking: Sequence[tuple[Device, tuple[int, ...]]]) -> None:
    """Let people consent, where no consent on these terms is left, and hand their copies over."""
    fresh = {device.user_id: device for device in where.devices.devices()}
    wanted = [(fresh[device.user_id], recipients) for device, recipients in lacking]
    asked = [(device, to) for device, to in wanted if _granted(where, config, device, to) is None]
    _raise_first(
        give_consents(
            where.ledger, where.devices, [(d, _terms(where, config, to)) for d, to in asked], where.randomness
        )
    )
    fresh = {device.user_id: device for device in where.devices.devices()}
    shares = [
        (fresh[device.user_id], consent, recipient)
        for device, recipients in wanted
        if (consent := _granted(where, config, device, recipients)) is not None
        for recipient in recipients
    ]
    _raise_first(hand_over_all(where.ledger, where.devices, shares, where.scale, where.randomness))


def _terms(where: SharingSimulation, config: SharingConfig, recipients: tuple[int, ...]) -> ConsentTerms:
    return ConsentTerms(
        recipients=recipients,
        expiry=where.ledger.height + _LASTS,
        max_shares=_n_recipients(where, config),
        epsilon=config.epsilon,
        rating_fraction=config.rating_fraction,
        purpose=_PURPOSE,
    )


def _n_recipients(where: SharingSimulation, config: SharingConfig) -> int:
    """Give to how many each sender gives copies: each of them weighs one of so many parts of a person."""
    return 1 if config.recipients == "pool" else max(1, min(config.n_recipients, len(where.participants) - 1))


def _granted(
    where: SharingSimulation, config: SharingConfig, device: Device, recipients: tuple[int, ...]
) -> Digest | None:
    """Give a consent that lives, on these terms, and that enough shares are left of."""
    for hash, consent in where.ledger.state.sharing.consents.get(device.number or 0, {}).items():
        granted = where.devices.sharing_row(GivenConsent, device.slot, hash)
        scope = None if granted is None else msgspec.msgpack.decode(granted.scope, type=ConsentScope)
        terms = consent.record
        if (
            scope == ConsentScope(purpose=_PURPOSE, rating_fraction=config.rating_fraction)
            and terms.epsilon_nano == to_nano(config.epsilon)
            and all(includes(terms.recipients, number) for number in recipients)
            and len(consent.shares) + len(recipients) <= terms.max_shares
            and where.ledger.height < terms.expiry
        ):
            return hash
    return None


def _deliver(where: SharingSimulation) -> None:
    """Bring every copy that was handed over, and may still be received, to its recipient, who takes it."""
    state = where.ledger.state
    waiting = [
        (hash, share)
        for hash, share in state.sharing.shares.items()
        if not share.is_received and state.may_use(hash, share) and state.principals[share.record.recipient].is_active
    ]
    slots = {device.number: device.slot for device in where.devices.devices()}
    held = [
        (share.record.recipient, slot, hash)
        for hash, share in waiting  # in the order of the ledger: that of hashes would follow from ratings
        if (slot := slots.get(share.sender)) is not None
        and where.devices.sharing_row(GivenCopy, slot, hash) is not None
    ]
    own = [each for each in held if each[0] == where.coordinator]
    for begin in range(0, len(own), _AT_A_TIME):
        some = [sealed_copy for _, sealed_copy in _parcels(where, own[begin : begin + _AT_A_TIME])]
        key, number = where.coordinator_key, where.coordinator
        _raise_first(accept_into_pool(where.ledger, where.pool, key, number, some, where.n_items))
    others = [each for each in held if each[0] in slots]
    for begin in range(0, len(others), _AT_A_TIME):
        fresh = {device.number: device for device in where.devices.devices()}
        sealed_copies = _parcels(where, others[begin : begin + _AT_A_TIME])
        taking = [(fresh[recipient], sealed_copy) for recipient, sealed_copy in sealed_copies]
        _raise_first(receive_all(where.ledger, where.devices, taking, where.n_items))


def _parcels(where: SharingSimulation, shares: Sequence[tuple[int, int, Digest]]) -> Iterator[tuple[int, SealedCopy]]:
    """Make the sealed_copies of shares, given by recipient, slot of the sender, and leaf hash."""
    for recipient, slot, hash in shares:
        yield recipient, sealed_copy_of(where.ledger, where.devices, slot, hash)


def _is_arranged(granted: GivenConsent | None) -> bool:
    """Whether a consent was given here, not by a person's own decision."""
    return granted is not None and msgspec.msgpack.decode(granted.scope, type=ConsentScope).purpose == _PURPOSE


def _raise_first(outcomes: Sequence[EntryOutcome]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, LiberateError) and not isinstance(outcome, CopyDeclined):
            raise FederationError(f"sharing could not be arranged: {outcome}") from outcome
