"""People consent, hand copies over, take them and withdraw: what stands is in force, whatever breaks off in between."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest

from liberate.crypto.commitments import salted_commitment
from liberate.crypto.signing import SigningKey
from liberate.data.rating_scale import RatingScale
from liberate.data.ratings import Ratings
from liberate.errors import BadCommitment, CopyDeclined, DataError, FederationError, LiberateError, SealBroken
from liberate.federation.session import FederationSession
from liberate.federation.setup import open_federation
from liberate.federation.sharing.acceptance import accept_copies, accept_copy
from liberate.federation.sharing.consents import ConsentTerms, give_consent, give_consents, withdraw
from liberate.federation.sharing.copies import fingerprinted_copy, open_copy
from liberate.federation.sharing.handover import hand_over, hand_over_copies, handed_over_copies, sealed_copy_of
from liberate.federation.sharing.outbox import resume_pending_entries
from liberate.federation.sharing.pool_intake import accept_into_pool
from liberate.federation.store.device_rows import Device
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.pool import PoolStore
from liberate.federation.store.sharing_rows import BaseCopy, GivenConsent, ReceivedCopy
from liberate.federation.wire.copies import CopyPayload, SealedCopy
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.sharing_records import Share
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.verification.verify import verify_ledger
from liberate.randomness import RandomSource, SimulatedRandomness
from tests.federation.crashes import Crash, crash_at
from tests.worlds import World, access_to, low_rank_ratings, stage

WORLD = World(ratings=low_rank_ratings(6, 200))
SOURCE = RandomSource(7)
RANDOM = SimulatedRandomness(7, b"sharing")
SCALE = RatingScale(low=1.0, step=1.0, n_levels=5)
N_ITEMS = 200


@contextmanager
def standing(folder: Path) -> Iterator[FederationSession]:
    with open_federation(access_to(folder)) as federation:
        yield federation


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with stage(tmp_path, WORLD):
        pass
    return tmp_path


def person(federation: FederationSession, user: int) -> Device:
    device = federation.devices.find(user_id=f"u{user}")
    assert device is not None
    return device


def number(federation: FederationSession, user: int) -> int:
    return person(federation, user).number or 0


def coordinator(federation: FederationSession) -> int:
    return next(n for n, who in enumerate(federation.ledger.state.principals) if who.role == "coordinator")


def consents(
    federation: FederationSession, user: int, *recipients: int, epsilon: float | None = None, part: float = 1.0
) -> Digest:
    terms = ConsentTerms(
        recipients=recipients, expiry=1000, max_shares=5, epsilon=epsilon, rating_fraction=part, purpose="a test"
    )
    position = give_consent(federation.ledger, federation.devices, person(federation, user), terms, RANDOM)
    return decode_entry(federation.ledger.entry(position)).leaf_hash


def gives(federation: FederationSession, user: int, consent: Digest, recipient: int) -> SealedCopy:
    sender = person(federation, user)
    return hand_over(federation.ledger, federation.devices, sender, consent, recipient, SCALE, RANDOM)[1]


def takes(federation: FederationSession, user: int, sealed_copy: SealedCopy) -> int:
    return accept_copy(federation.ledger, federation.devices, person(federation, user), sealed_copy, N_ITEMS)


def own_ratings(federation: FederationSession, user: int) -> Ratings:
    return Ratings.from_user_bytes([federation.devices.data_of(person(federation, user).slot).ratings], N_ITEMS)


def held(data: bytes) -> Ratings:
    return Ratings.from_user_bytes([data], N_ITEMS)


def test_copy_goes_from_one_device_to_another_and_nowhere_else(folder: Path) -> None:
    with standing(folder) as federation:
        to = number(federation, 1)
        sealed_copy = gives(federation, 0, consents(federation, 0, to), to)
        position = takes(federation, 1, sealed_copy)

        (found,) = federation.devices.sharing_rows(ReceivedCopy)
        slot, share, received = found
        assert (slot, received.sender) == (person(federation, 1).slot, number(federation, 0))
        assert federation.ledger.state.sharing.shares[share].is_received
        assert decode_entry(federation.ledger.entry(position)).record.kind == "receipt"
        own, copy = own_ratings(federation, 0), held(received.copy)
        assert np.array_equal(own.items, copy.items)
        assert 0 < np.abs(own.values - copy.values).max() <= 1, "some rows are marked, by one level"
        for data in (sealed_copy.consent, sealed_copy.share, sealed_copy.sealed):
            assert received.copy not in data
        with pytest.raises(FederationError, match="not those of a share"):
            takes(federation, 2, sealed_copy)
        stranger = SigningKey.from_seed(federation.devices.data_of(person(federation, 2).slot).person_seed)
        with pytest.raises(SealBroken):
            open_copy(sealed_copy, stranger, to, N_ITEMS)
    assert verify_ledger(folder / "ledger").ok


def test_the_share_commits_to_the_copy_and_to_one_base_of_all_copies(folder: Path) -> None:
    with standing(folder) as federation:
        participants = [number(federation, user) for user in (1, 2)]
        consent = consents(federation, 0, *participants, epsilon=1.0, part=0.5)
        for to in participants:
            gives(federation, 0, consent, to)

        first, second = handed_over_copies(federation.devices)
        assert first.base == second.base
        assert first.copy != second.copy
        for each in (first, second):
            assert (
                each.share.copy
                == salted_commitment(each.salt, each.copy)
                == salted_commitment(each.salt, fingerprinted_copy(each.base, each.share.recipient))
            )
            assert each.share.base == salted_commitment(each.base.salt, each.base.ratings)
            assert each.share.epsilon_nano == 10**9
        own, base = own_ratings(federation, 0), held(first.base.ratings)
        assert 0 < base.n_ratings < own.n_ratings
        assert set(base.items) < set(own.items)


def test_another_consent_on_the_same_terms_uses_the_same_base(folder: Path) -> None:
    with standing(folder) as federation:
        for user in (1, 2):
            to = number(federation, user)
            gives(federation, 0, consents(federation, 0, to, epsilon=2.0), to)
        gives(federation, 0, consents(federation, 0, to, epsilon=1.0), to)

        bases = {each.share.base: each.base.epsilon_nano for each in handed_over_copies(federation.devices)}
        assert sorted(nano or 0 for nano in bases.values()) == [10**9, 2 * 10**9]


def test_changed_ratings_take_another_base(folder: Path) -> None:
    with standing(folder) as federation:
        to = number(federation, 1)
        consent = consents(federation, 0, to)
        gives(federation, 0, consent, to)
        device = person(federation, 0)
        fewer = own_ratings(federation, 0)
        kept = fewer.where(fewer.items != fewer.items[0]).user_bytes(0)
        changed = msgspec.structs.replace(federation.devices.data_of(device.slot), ratings=kept)
        federation.devices.replace_data([(device.slot, changed)])
        gives(federation, 0, consent, to)

        assert len({each.share.base for each in handed_over_copies(federation.devices)}) == 2


def test_what_is_outside_a_consent_is_refused_and_leaves_nothing(folder: Path) -> None:
    with standing(folder) as federation:
        one, two = number(federation, 1), number(federation, 2)
        consent = consents(federation, 0, one)
        with pytest.raises(FederationError, match="wrong_recipient"):
            gives(federation, 0, consent, two)
        with pytest.raises(FederationError, match="keeps no consent"):
            gives(federation, 3, consent, one)
        withdraw(federation.ledger, federation.devices, person(federation, 0), consent)
        with pytest.raises(FederationError, match="no_consent"):
            gives(federation, 0, consent, one)

        assert federation.devices.pending_entries() == []
        assert list(handed_over_copies(federation.devices)) == []


def test_copy_that_was_taken_back_before_it_arrived_is_not_received(folder: Path) -> None:
    with standing(folder) as federation:
        to = number(federation, 1)
        consent = consents(federation, 0, to)
        sealed_copy = gives(federation, 0, consent, to)
        withdraw(federation.ledger, federation.devices, person(federation, 0), None)

        with pytest.raises(FederationError, match="share_without_consent"):
            takes(federation, 1, sealed_copy)
        assert list(federation.devices.sharing_rows(ReceivedCopy)) == []


def _repacked(federation: FederationSession, sealed_copy: SealedCopy, **changes: bytes) -> SealedCopy:
    """The sealed_copy with other contents, sealed anew as anybody can."""
    from liberate.crypto.sealing import open_with, seal_to

    key = SigningKey.from_seed(federation.devices.data_of(person(federation, 1).slot).person_seed)
    contents = msgspec.msgpack.decode(open_with(key, sealed_copy.sealed), type=CopyPayload)
    changed = msgspec.msgpack.encode(msgspec.structs.replace(contents, **changes))
    return msgspec.structs.replace(sealed_copy, sealed=seal_to(key.public, changed))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"copy": b"\1\0\0\0\1\0\0\0\0\0\xa0\x40"}, "does not open the share's"),
        ({"copy": b"\1\0\0\0"}, "cannot be read"),
        ({"copy": b"\1\0\0\0\0\0\0\0\0\0\xc0\x7f"}, "no numbers"),
        ({"salt": bytes(32)}, "does not open the share's"),
        ({"scope_salt": bytes(32)}, "does not open the consent's"),
        ({"scope": b"\xc1"}, "cannot be read"),
    ],
)
def test_sealed_copy_that_is_not_what_the_entries_say_is_not_received(
    folder: Path, changes: dict[str, bytes], said: str
) -> None:
    with standing(folder) as federation:
        to = number(federation, 1)
        sealed_copy = _repacked(federation, gives(federation, 0, consents(federation, 0, to), to), **changes)

        with pytest.raises(BadCommitment, match=said):
            takes(federation, 1, sealed_copy)


def test_entries_of_another_share_are_not_received(folder: Path) -> None:
    with standing(folder) as federation:
        one, two = number(federation, 1), number(federation, 2)
        sealed_copy = gives(federation, 0, consents(federation, 0, one), one)
        other = gives(federation, 3, consents(federation, 3, one, two), two)

        for changed in (
            msgspec.structs.replace(sealed_copy, consent=other.consent),
            msgspec.structs.replace(other, sealed=sealed_copy.sealed),
            msgspec.structs.replace(sealed_copy, share=sealed_copy.consent),
        ):
            with pytest.raises(FederationError, match="not those of a share"):
                takes(federation, 1, changed)


def test_bad_sealed_copy_among_good_ones_is_left(folder: Path) -> None:
    with standing(folder) as federation:
        to = number(federation, 1)
        good = [gives(federation, user, consents(federation, user, to), to) for user in (0, 2)]
        bad = _repacked(federation, good[0], salt=bytes(32))
        mine = person(federation, 1)

        federation.devices.set_copy_quota(mine.slot, 2)  # what is left takes nobody's place
        sealed_copies = [(mine, good[0]), (mine, bad), (mine, good[1])]
        outcomes = accept_copies(federation.ledger, federation.devices, sealed_copies, N_ITEMS)

        assert [isinstance(outcome, int) for outcome in outcomes] == [True, False, True]
        assert len(list(federation.devices.sharing_rows(ReceivedCopy))) == 2


def _everything(federation: FederationSession) -> None:
    """Three people consent to two recipients and hand copies over, which are received."""
    senders = [person(federation, user) for user in (0, 2, 3)]
    recipients = [person(federation, user) for user in (1, 4)]
    numbers = tuple(device.number or 0 for device in recipients)
    ledger, devices = federation.ledger, federation.devices
    terms = ConsentTerms(recipients=numbers, expiry=1000, max_shares=5)
    granted = {slot for slot, *_ in devices.sharing_rows(GivenConsent)}
    give_consents(ledger, devices, [(sender, terms) for sender in senders if sender.slot not in granted], RANDOM)
    consent = {slot: hash for slot, hash, _ in devices.sharing_rows(GivenConsent)}
    done = {(each.sender, each.share.recipient) for each in handed_over_copies(devices)}
    fresh = [person(federation, user) for user in (0, 2, 3)]
    wanted = [(g, consent[g.slot], n) for g in fresh for n in numbers if (g.number, n) not in done]
    hand_over_copies(ledger, devices, wanted, SCALE, RANDOM)
    here = {hash for _, hash, _ in devices.sharing_rows(ReceivedCopy)}
    by_number = {device.number: device for device in devices.devices()}
    sealed_copies = [
        (by_number[each.share.recipient], sealed_copy_of(ledger, devices, by_number[each.sender].slot, each.hash))
        for each in handed_over_copies(devices)
        if each.hash not in here
    ]
    accept_copies(ledger, devices, sealed_copies, N_ITEMS)


_STEPS: list[tuple[type, str]] = [
    (DeviceStore, "put_pending_entries"),
    (SqliteLedger, "_commit"),
    (DeviceStore, "settle_pending_entries"),
]


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 10))
def test_broken_off_anywhere_the_same_acts_come_to_their_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch, at: int, before: bool
) -> None:
    with monkeypatch.context() as patched:
        crash_at(patched, _STEPS, at, before=before)
        with pytest.raises(Crash), standing(folder) as federation:
            _everything(federation)

    with standing(folder) as federation:
        assert federation.devices.pending_entries() == []
        _everything(federation)

        shares = federation.ledger.state.sharing.shares
        received = {hash: row for _, hash, row in federation.devices.sharing_rows(ReceivedCopy)}
        assert len(shares) == len(received) == 6
        assert shares.keys() == received.keys() == {each.hash for each in handed_over_copies(federation.devices)}
        assert all(share.is_received for share in shares.values())
        assert all(each.copy == received[each.hash].copy for each in handed_over_copies(federation.devices))
        assert len(list(federation.devices.sharing_rows(GivenConsent))) == 3
    assert verify_ledger(folder / "ledger").ok


def test_act_that_the_ledger_refuses_after_a_crash_is_forgotten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with standing(folder) as federation:
        consent = consents(federation, 0, number(federation, 1))
        with monkeypatch.context() as patched:
            crash_at(patched, [(SqliteLedger, "append")], 1, before=True)
            with pytest.raises(Crash):
                gives(federation, 0, consent, number(federation, 1))
        withdraw(federation.ledger, federation.devices, person(federation, 0), consent)

        resume_pending_entries(federation.ledger, federation.devices)

        assert federation.devices.pending_entries() == []
        assert list(handed_over_copies(federation.devices)) == []


def test_pool_keeps_what_it_has_receipts_for_and_forgets_a_person(folder: Path, tmp_path: Path) -> None:
    with standing(folder) as federation, PoolStore(tmp_path / "pool") as pool:
        to = coordinator(federation)
        sealed_copies = [gives(federation, user, consents(federation, user, to), to) for user in (0, 1)]
        key = SigningKey.from_seed(SOURCE.randomness().secret("coordinator key"))
        bad = msgspec.structs.replace(sealed_copies[0], sealed=sealed_copies[1].sealed)

        outcomes = accept_into_pool(
            federation.ledger, pool, key, to, [sealed_copies[0], bad, sealed_copies[1]], N_ITEMS
        )
        assert [isinstance(outcome, int) for outcome in outcomes] == [True, False, True]
        assert isinstance(outcomes[1], LiberateError)
        shares = [decode_entry(sealed_copy.share).leaf_hash for sealed_copy in sealed_copies]
        copies = {each.hash: each.copy for each in handed_over_copies(federation.devices)}
        assert [found.copy for found in pool.copies(shares)] == [copies[share] for share in shares]

        assert pool.erase_sender(number(federation, 0))
        assert pool.erase_sender(number(federation, 0))
        assert not pool.erase_sender(number(federation, 4))
        with pytest.raises(KeyError):
            list(pool.copies(shares))
        assert len(list(pool.copies(shares[1:]))) == 1
    for file in (tmp_path / "pool").iterdir():
        assert copies[shares[0]] not in file.read_bytes()
        assert file.stat().st_mode & 0o077 == 0
    assert (tmp_path / "pool" / "senders.keys").read_bytes()[:32] == bytes(32)


def test_pool_keeps_nothing_that_no_consent_covers_any_more(folder: Path, tmp_path: Path) -> None:
    with standing(folder) as federation, PoolStore(tmp_path / "pool") as pool:
        to, sender = coordinator(federation), number(federation, 0)
        sealed_copy = gives(federation, 0, consents(federation, 0, to), to)
        withdraw(federation.ledger, federation.devices, person(federation, 0), None)
        pool.erase_sender(sender)
        key = SigningKey.from_seed(SOURCE.randomness().secret("coordinator key"))

        (outcome,) = accept_into_pool(federation.ledger, pool, key, to, [sealed_copy], N_ITEMS)

        assert isinstance(outcome, FederationError)
        assert pool._db.execute("SELECT * FROM copy").fetchall() == []


def test_a_sender_has_one_copy_in_the_pool(folder: Path, tmp_path: Path) -> None:
    """There each copy is learned from as a person."""
    with standing(folder) as federation, PoolStore(tmp_path / "pool") as pool:
        to = coordinator(federation)
        key = SigningKey.from_seed(SOURCE.randomness().secret("coordinator key"))
        consent = consents(federation, 0, to)
        twice = [gives(federation, 0, consent, to) for _ in range(2)]

        outcomes = accept_into_pool(federation.ledger, pool, key, to, twice, N_ITEMS)
        assert [type(outcome) for outcome in outcomes] == [int, CopyDeclined]
        (outcome,) = accept_into_pool(federation.ledger, pool, key, to, twice[1:], N_ITEMS)
        assert isinstance(outcome, CopyDeclined)

        withdraw(federation.ledger, federation.devices, person(federation, 0), consent)
        another = gives(federation, 0, consents(federation, 0, to), to)
        (outcome,) = accept_into_pool(federation.ledger, pool, key, to, [another], N_ITEMS)
        assert isinstance(outcome, int)


def test_scale_is_the_coarsest_that_has_all_ratings() -> None:
    whole = RatingScale.of(np.array([1, 4, 5], np.float32), 1.0, 5.0)
    halves = RatingScale.of(np.array([0.5, 3, 4], np.float32), 0.5, 5.0)

    assert (whole.step, whole.n_levels) == (1.0, 5)
    assert (halves.step, halves.n_levels) == (0.5, 10)
    assert np.array_equal(halves.values(halves.places(np.array([0.5, 4.5], np.float32))), [0.5, 4.5])
    with pytest.raises(DataError, match="not on a scale"):
        RatingScale.of(np.array([1.0, 1.001, 5.0], np.float32), 1.0, 5.0)
    with pytest.raises(FederationError, match="not on the scale"):
        whole.places(np.array([2.5], np.float32))


def test_terms_out_of_range_are_refused() -> None:
    too_large: list[dict[str, float]] = [{"epsilon": math.inf}, {"expiry": 2**53}, {"max_shares": 2**53}]
    too_small: list[dict[str, float]] = [{"rating_fraction": 0.0}, {"epsilon": 1e-10}, {"expiry": 0}, {"max_shares": 0}]
    for wrong in (*too_large, *too_small, {"epsilon": math.nan}):
        with pytest.raises(ValueError, match="wanted"):
            ConsentTerms(**({"recipients": (1,), "expiry": 9, "max_shares": 1} | wrong))  # type: ignore[arg-type]


def test_sealed_copy_is_for_the_recipient_that_the_share_names(folder: Path) -> None:
    with standing(folder) as federation:
        to = number(federation, 1)
        sealed_copy = gives(federation, 0, consents(federation, 0, to), to)
        key = SigningKey.from_seed(federation.devices.data_of(person(federation, 1).slot).person_seed)

        assert isinstance(open_copy(sealed_copy, key, to, N_ITEMS).share, Share)
        with pytest.raises(FederationError, match="not those of a share"):
            open_copy(sealed_copy, key, to + 1, N_ITEMS)
        (base,) = [row for *_, row in federation.devices.sharing_rows(BaseCopy)]
        assert base.epsilon_nano is None


def test_recipients_take_no_more_copies_than_they_want(folder: Path) -> None:
    with standing(folder) as federation:
        to = number(federation, 1)
        sealed_copies = [gives(federation, user, consents(federation, user, to), to) for user in (0, 2, 3)]
        slot = person(federation, 1).slot
        takes(federation, 1, sealed_copies[0])
        federation.devices.set_copy_quota(slot, 2)

        mine = person(federation, 1)
        outcomes = accept_copies(
            federation.ledger, federation.devices, [(mine, sealed_copy) for sealed_copy in sealed_copies[1:]], N_ITEMS
        )
        assert [type(outcome) for outcome in outcomes] == [int, CopyDeclined]
        federation.devices.set_copy_quota(slot, 0)
        with pytest.raises(CopyDeclined, match="accepts no more copies"):
            takes(federation, 1, sealed_copies[2])
        federation.devices.set_copy_quota(slot, None)
        takes(federation, 1, sealed_copies[2])

        assert len(list(federation.devices.sharing_rows(ReceivedCopy))) == 3


def test_copies_have_the_items_of_the_consent_only(folder: Path) -> None:
    with standing(folder) as federation:
        to = number(federation, 1)
        chosen = tuple(own_ratings(federation, 0).items[:3].tolist())
        for items in (chosen, None):
            terms = ConsentTerms(recipients=(to,), expiry=1000, max_shares=5, items=items)
            position = give_consent(federation.ledger, federation.devices, person(federation, 0), terms, RANDOM)
            gives(federation, 0, decode_entry(federation.ledger.entry(position)).leaf_hash, to)

        found = {each.base.items: held(each.copy).items.tolist() for each in handed_over_copies(federation.devices)}
        assert found[chosen] == list(chosen)
        assert found[None] == own_ratings(federation, 0).items.tolist()
