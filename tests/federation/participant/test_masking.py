"""What a device does in each phase of a masked round, and what it refuses a coordinator that lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from liberate.crypto.signing import SigningKey
from liberate.errors import FederationError
from liberate.federation.participant.refusals import Refused
from liberate.federation.wire.masked_round import masked_round
from liberate.federation.wire.round_messages import RoundRefusal, decode_answer, decode_message, encode_message
from liberate.federation.wire.secagg_messages import (
    AdvertisedKeys,
    EncryptedShares,
    MaskRequest,
    Neighbour,
    ShareKeysRequest,
    sign_keys,
)
from liberate.identifiers import Digest
from liberate.ledger.format.entries import sign
from liberate.ledger.format.records import Record, Survivors
from liberate.ledger.rules.principal import Principal
from liberate.privacy import secure_aggregation
from tests.federation.masked import (
    COORDINATOR,
    FIRST,
    ORIGIN,
    Party,
    ones,
    only_entry,
    round_record,
    signed,
    signing_key,
    unmask_request,
)

ALICE, BOB, CAROL = FIRST, FIRST + 1, FIRST + 2


@pytest.fixture
def party(tmp_path: Path) -> Iterator[Party]:
    """Six participants: each has five neighbours, of whom four are needed."""
    party = Party(tmp_path / "devices", 6, minimum=5)
    yield party
    party.devices.close()


def refusal(party: Party, number: int, request: ShareKeysRequest) -> str:
    _, checkpoint = party.share_request(number)
    with pytest.raises(Refused) as refused:
        party.masks.share(party.device(number), party.round, request, checkpoint)
    assert party.devices.secagg_state(number - FIRST, 1).sent == ()  # type: ignore[union-attr]  # keys were advertised
    return refused.value.reason


# --- an honest round --------------------------------------------------------------------------------------------------


def test_what_survivors_reveal_undoes_the_masks_of_a_sum(party: Party) -> None:
    uploads = party.until_upload(ones())
    survivors = [number for number in party.participants if number != CAROL]
    opened = {number: dict(party.unmask(number, party.survivors(survivors)).shares) for number in survivors}

    total = np.array([uploads[number] for number in survivors]).sum(axis=0, dtype=np.uint32)
    for number in party.participants:
        shares = {party.peers(number).index(n) + 1: opened[n][number] for n in survivors if n != number}
        secret = secure_aggregation.shamir_combine(dict(list(shares.items())[: party.round.needed(number)]))
        if number in survivors:
            secure_aggregation.add_mask(total, secret, subtract=True)
        else:
            for other in survivors:
                key = secure_aggregation.pair_key(secret, party.keys[other].mask, party.round.hash)
                secure_aggregation.add_pair_mask(total, key, other, number, undo=True)

    assert total.tolist() == [5] * 8


def test_a_masked_upload_tells_nothing_of_its_values(party: Party) -> None:
    uploads = party.until_upload(ones(4000))

    for values in uploads.values():
        assert len(np.unique(values)) > 3990
        assert abs(float(values.mean()) / 2**31 - 1) < 0.1
    assert len({values.tobytes() for values in uploads.values()}) == 6


def test_each_phase_asked_again_gets_the_same_bytes_also_after_a_crash(party: Party) -> None:
    def everything() -> list[object]:
        keys = party.advertise()
        shares = [party.share(number) for number in party.participants]
        uploads = [party.upload(number, ones()).tobytes() for number in party.participants]
        opened = [party.unmask(number, party.survivors(party.participants)) for number in party.participants]
        return [dict(keys), shares, uploads, opened]

    first = everything()
    party.restart()

    assert everything() == first


def test_the_next_round_deletes_the_state_of_the_last(party: Party) -> None:
    party.advertise()
    later = masked_round(sign(round_record(party.participants, 1, number=2), COORDINATOR))
    party.masks.advertise(later, [party.device(ALICE)], "note")

    assert [party.devices.secagg_state(0, number) is None for number in (1, 2)] == [True, False]


# --- keys -------------------------------------------------------------------------------------------------------------


def test_keys_for_another_entry_of_a_round_are_refused(party: Party) -> None:
    party.advertise()
    other = masked_round(sign(round_record(party.participants, 2), COORDINATOR))

    with pytest.raises(Refused, match="another entry"):
        party.masks.advertise(other, [party.device(ALICE)], "note")


@pytest.mark.parametrize("participants", [[], [3], [3, 4]])
def test_a_cohort_of_two_is_no_crowd(participants: list[int]) -> None:
    with pytest.raises(FederationError, match="list 3 participants or more"):
        masked_round(sign(round_record(participants, 1), COORDINATOR))


def test_a_round_without_masks_is_no_masked_one(party: Party) -> None:
    plain = msgspec.structs.replace(
        round_record(party.participants, 1),
        mechanism=msgspec.structs.replace(party.round.record.mechanism, parameters={}),
    )
    for entry in (sign(plain, COORDINATOR), signed(party.survivors([ALICE])), b"no entry"):
        with pytest.raises(FederationError, match="round"):
            masked_round(entry)


def keys_by(key: SigningKey, number: int, round_hash: bytes, origin: str = ORIGIN) -> AdvertisedKeys:
    """Keys whose secrets the coordinator knows."""
    own = secure_aggregation.MaskSecrets.derive(b"s" * 32)
    mask, seal = secure_aggregation.public_key(own.mask), secure_aggregation.public_key(own.seal)
    return sign_keys(key, origin, round_hash, number, mask=mask, seal=seal, own=bytes(32))


def edited(request: ShareKeysRequest, number: int, **changes: object) -> ShareKeysRequest:
    """The request with another entry for a neighbour."""
    neighbours = [
        msgspec.structs.replace(neighbour, **changes) if neighbour.number == number else neighbour
        for neighbour in request.neighbours
    ]
    return msgspec.structs.replace(request, neighbours=neighbours)


def test_a_coordinator_cannot_put_its_own_keys_in(party: Party) -> None:
    party.advertise()
    request, _ = party.share_request(ALICE)
    hash = party.round.hash

    for keys in (
        keys_by(COORDINATOR, BOB, hash),  # signed by the coordinator
        keys_by(signing_key(CAROL), BOB, hash),  # by another participant
        keys_by(signing_key(BOB), CAROL, hash),  # for another participant
        keys_by(signing_key(BOB), BOB, bytes(32)),  # replayed from another round
        keys_by(signing_key(BOB), BOB, hash, "elsewhere"),  # replayed from another ledger
        msgspec.structs.replace(party.keys[BOB], mask=keys_by(COORDINATOR, BOB, hash).mask),  # half replaced
        msgspec.structs.replace(party.keys[BOB], mask=b""),
    ):
        assert refusal(party, ALICE, edited(request, BOB, keys=keys)) == "keys"


def test_a_coordinator_cannot_say_whose_key_is_whose(party: Party) -> None:
    party.advertise()
    request, _ = party.share_request(ALICE)
    false = Principal(key=COORDINATOR.public, device_key=COORDINATOR.public, role="participant").encode()
    carol = next(neighbour for neighbour in request.neighbours if neighbour.number == CAROL)

    lies: tuple[dict[str, object], ...] = (
        {"leaf": false, "keys": keys_by(COORDINATOR, BOB, party.round.hash)},
        {"leaf": carol.leaf, "proof": carol.proof},
        {"proof": []},
    )
    for changes in lies:
        assert refusal(party, ALICE, edited(request, BOB, **changes)) == "keys"


@pytest.mark.parametrize("change", [{"role": "auditor"}, {"is_revoked": True}])
def test_only_active_participants_are_neighbours(
    party: Party, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    party.advertise()
    honest = party.principals()
    for name, value in change.items():
        setattr(honest[BOB], name, value)
    monkeypatch.setattr(Party, "principals", lambda self: honest)
    request, _ = party.share_request(ALICE)

    assert refusal(party, ALICE, request) == "keys"


def test_the_state_root_must_be_that_of_the_accepted_checkpoint(party: Party) -> None:
    party.advertise()
    request, checkpoint = party.share_request(ALICE)
    other = signed(party.survivors([ALICE]))

    with pytest.raises(Refused, match="leads to"):
        party.masks.share(party.device(ALICE), party.round, request, only_entry(other))
    request = msgspec.structs.replace(request, block=other)
    with pytest.raises(Refused, match="block"):
        party.masks.share(party.device(ALICE), party.round, request, only_entry(other))
    assert checkpoint != only_entry(other)


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31)])
def test_a_neighbour_with_a_key_that_fixes_the_masks_is_refused(party: Party, key: bytes) -> None:
    party.advertise()
    for name in ("mask", "seal"):
        public = {"mask": party.keys[BOB].mask, "seal": party.keys[BOB].seal} | {name: key}
        keys = sign_keys(signing_key(BOB), ORIGIN, party.round.hash, BOB, own=bytes(32), **public)
        request, _ = party.share_request(ALICE)

        assert refusal(party, ALICE, edited(request, BOB, keys=keys)) == "keys"


# --- shares -----------------------------------------------------------------------------------------------------------


def test_secrets_are_shared_with_the_neighbours_of_the_entry_only(party: Party) -> None:
    party.advertise()
    request, _ = party.share_request(ALICE)
    stranger = Neighbour(number=99, keys=party.keys[BOB], leaf=b"", proof=[])
    few = request.neighbours[: party.round.needed(ALICE) - 1]

    for neighbours in ([*request.neighbours, stranger], [*request.neighbours[:-1]] * 2, request.neighbours[::-1], few):
        assert refusal(party, ALICE, msgspec.structs.replace(request, neighbours=neighbours)) == "neighbours"


def test_secrets_are_shared_once(party: Party) -> None:
    party.advertise()
    party.share(ALICE)
    request, checkpoint = party.share_request(ALICE)
    fewer = msgspec.structs.replace(request, neighbours=request.neighbours[:-1])

    with pytest.raises(Refused, match="other neighbours"):
        party.masks.share(party.device(ALICE), party.round, fewer, checkpoint)
    assert party.masks.share(party.device(ALICE), party.round, request, checkpoint).sealed == party.sealed[ALICE]


def test_each_phase_needs_the_one_before(party: Party) -> None:
    request = MaskRequest(round=b"", received=[])
    with pytest.raises(Refused, match="no keys were advertised"):
        party.masks.receive(party.device(ALICE), party.round, request)
    party.advertise()

    with pytest.raises(Refused, match="shares first"):
        party.masks.require_ready(party.device(ALICE), party.round)
    with pytest.raises(Refused, match="0 neighbours continue"):
        party.masks.receive(party.device(ALICE), party.round, request)
    with pytest.raises(Refused, match="0 neighbours survive"):
        party.unmask(ALICE, party.survivors(party.participants))


def test_shares_that_are_replayed_or_changed_are_refused(party: Party) -> None:
    party.advertise()
    for number in party.participants:
        party.share(number)
    honest = party.mask_request(ALICE).received
    for_bob = dict(party.mask_request(BOB).received)
    sender, sealed = honest[1]

    for received, reason in (
        ([honest[0], (sender, sealed[:-1] + bytes([sealed[-1] ^ 1])), *honest[2:]], "shares"),
        ([honest[0], (sender, honest[0][1]), *honest[2:]], "shares"),  # another's
        ([honest[0], (sender, for_bob[sender]), *honest[2:]], "shares"),  # meant for somebody else
        ([honest[0], (sender, b""), *honest[2:]], "shares"),
        (honest[:3], "neighbours"),
        ([*honest, (99, sealed)], "neighbours"),
        (honest[::-1], "neighbours"),
    ):
        with pytest.raises(Refused) as refused:
            party.masks.receive(party.device(ALICE), party.round, MaskRequest(round=b"", received=received))
        assert refused.value.reason == reason
    with pytest.raises(Refused, match="shares first"):
        party.masks.require_ready(party.device(ALICE), party.round)


def test_a_neighbour_that_seals_no_shares_is_refused(party: Party) -> None:
    party.advertise()
    for number in party.participants:
        party.share(number)
    state = party.devices.secagg_state(BOB - FIRST, 1)
    assert state is not None
    context = b"share" + party.round.hash + BOB.to_bytes(8, "big") + ALICE.to_bytes(8, "big")
    secret = secure_aggregation.MaskSecrets.derive(state.secret).seal
    party.sealed[BOB][party.peers(BOB).index(ALICE)] = secure_aggregation.encrypt_share(
        secret, party.keys[ALICE].seal, b"?", context
    )

    with pytest.raises(Refused, match="did not encrypt two shares"):
        party.upload(ALICE, ones())


def test_shares_are_received_once(party: Party) -> None:
    party.until_upload(ones())
    fewer = MaskRequest(round=b"", received=party.mask_request(ALICE).received[:-1])

    with pytest.raises(Refused, match="other shares"):
        party.masks.receive(party.device(ALICE), party.round, fewer)


# --- survivors --------------------------------------------------------------------------------------------------------


def test_a_device_answers_one_survivor_set(party: Party) -> None:
    party.until_upload(ones())
    everybody, without_bob = party.participants, [number for number in party.participants if number != BOB]
    first = party.unmask(ALICE, party.survivors(everybody))

    for _ in range(2):
        with pytest.raises(Refused, match="another survivor set"):
            party.unmask(ALICE, party.survivors(without_bob))
        party.restart()
    assert party.unmask(ALICE, party.survivors(everybody)) == first


def test_both_secrets_of_nobody_are_revealed(party: Party) -> None:
    """Whichever of two sets each device is shown: honest devices never reveal enough for both secrets of anybody."""
    party.until_upload(ones())
    sets = [party.participants, [number for number in party.participants if number != BOB]]
    answered: dict[int, list[int]] = {0: [], 1: []}
    for index, number in enumerate(n for n in party.participants if n != BOB):
        party.unmask(number, party.survivors(sets[index % 2]))
        answered[index % 2].append(number)

    needed = party.round.needed(BOB)
    assert not all(len(numbers) >= needed for numbers in answered.values())
    assert sum(map(len, answered.values())) == 5 < 2 * needed


def test_who_is_falsely_said_to_have_vanished_keeps_its_own_mask(party: Party) -> None:
    """The coordinator drops Bob, whose upload it has: all masks he shared can be had, his own cannot."""
    uploads = party.until_upload(ones())
    survivors = [number for number in party.participants if number != BOB]
    shares = {number: dict(party.unmask(number, party.survivors(survivors)).shares)[BOB] for number in survivors}
    secret = secure_aggregation.shamir_combine(
        {party.peers(BOB).index(n) + 1: shares[n] for n in survivors[: party.round.needed(BOB)]}
    )
    assert secure_aggregation.public_key(secret) == party.keys[BOB].mask

    values = uploads[BOB].copy()
    for other in survivors:
        key = secure_aggregation.pair_key(secret, party.keys[other].mask, party.round.hash)
        secure_aggregation.add_pair_mask(values, key, BOB, other, undo=True)

    assert secure_aggregation.key_commitment(secret) != party.keys[BOB].own
    assert values.tolist() != ones().tolist()
    state = party.devices.secagg_state(BOB - FIRST, 1)
    assert state is not None
    secure_aggregation.add_mask(values, secure_aggregation.MaskSecrets.derive(state.secret).own, subtract=True)
    assert values.tolist() == ones().tolist(), "only Bob's own mask was left"


Lie = Callable[[Party], tuple[tuple[Record, ...], SigningKey]]

LIES: dict[str, Lie] = {
    "not the coordinator's": lambda p: ((p.survivors(p.participants),), signing_key(BOB)),
    "without the asked": lambda p: ((p.survivors(p.participants[1:]),), COORDINATOR),
    "below the minimum": lambda p: ((p.survivors(p.participants[:4]),), COORDINATOR),
    "a stranger": lambda p: ((p.survivors([*p.participants, 99]),), COORDINATOR),
    "a part missing": lambda p: ((p.survivors(p.participants, parts=2),), COORDINATOR),
    "the second part only": lambda p: ((p.survivors(p.participants, part=2, parts=2),), COORDINATOR),
    "parts in disorder": lambda p: (
        (p.survivors(p.participants[3:], parts=2), p.survivors(p.participants[:3], part=2, parts=2)),
        COORDINATOR,
    ),
    "somebody twice": lambda p: (
        (p.survivors(p.participants[:4], parts=2), p.survivors(p.participants[3:], part=2, parts=2)),
        COORDINATOR,
    ),
    "another round": lambda p: ((change(p.survivors(p.participants), round_hash=Digest(bytes(32))),), COORDINATOR),
    "another ledger": lambda p: ((change(p.survivors(p.participants), origin="elsewhere"),), COORDINATOR),
    "no survivors": lambda p: ((), COORDINATOR),
    "another kind": lambda p: ((p.round.record,), COORDINATOR),
}


def change(record: Survivors, **values: object) -> Survivors:
    return msgspec.structs.replace(record, **values)


@pytest.mark.parametrize("lie", LIES, ids=[name.replace(" ", "-") for name in LIES])
def test_a_survivor_set_that_is_none_is_refused(party: Party, lie: str) -> None:
    party.until_upload(ones())
    records, key = LIES[lie](party)

    with pytest.raises(Refused) as refused:
        party.unmask(ALICE, *records, by=key)

    assert refused.value.reason == "survivors"
    assert party.devices.secagg_state(0, 1).survivors is None  # type: ignore[union-attr]  # it is kept
    party.unmask(ALICE, party.survivors(party.participants))


def test_a_survivor_set_that_is_not_on_the_ledger_is_refused(party: Party) -> None:
    party.until_upload(ones())
    request, checkpoint = unmask_request(party.entry, [signed(party.survivors(party.participants))])
    elsewhere = unmask_request(party.entry, [signed(party.survivors(party.participants[:5]))])[1]

    for other in (
        msgspec.structs.replace(request, positions=[]),
        msgspec.structs.replace(request, positions=[1]),
        msgspec.structs.replace(request, inclusion=[[bytes(32)]]),
        msgspec.structs.replace(request, entries=[b""]),
    ):
        with pytest.raises(Refused) as refused:
            party.masks.unmask([party.device(ALICE)], party.round, other, checkpoint)
        assert refused.value.reason == "survivors"
    with pytest.raises(Refused, match="leads to"):
        party.masks.unmask([party.device(ALICE)], party.round, request, elsewhere)


def test_too_few_surviving_neighbours_get_nothing(tmp_path: Path) -> None:
    """The round's minimum is kept, but who is asked would be almost alone among the survivors."""
    party = Party(tmp_path, 30, minimum=5)
    party.until_upload(ones())
    neighbours = party.round.neighbours(ALICE)
    few = neighbours[: party.round.needed(ALICE) - 1]
    others = [number for number in party.participants if number not in neighbours]

    with pytest.raises(Refused, match="13 neighbours survive, 14 are needed"):
        party.unmask(ALICE, party.survivors(sorted({*others, *few})))
    party.devices.close()


def test_a_survivor_set_may_span_records(party: Party) -> None:
    party.until_upload(ones())
    whole = party.unmask(ALICE, party.survivors(party.participants))
    parts = party.survivors(party.participants[:2], parts=2), party.survivors(party.participants[2:], part=2, parts=2)

    assert party.unmask(ALICE, *parts) == whole, "the same participants are the same set"


# --- messages ---------------------------------------------------------------------------------------------------------


def test_messages_are_read_as_what_they_are() -> None:
    shares, refused = EncryptedShares(sealed=[b"a"]), RoundRefusal(reason="keys", detail="", known_size=0)

    assert decode_answer(encode_message(shares), EncryptedShares) == shares
    assert decode_answer(encode_message(refused), EncryptedShares) == refused
    for body in (encode_message(shares), b"", b"\xc1"):
        with pytest.raises(FederationError):
            decode_answer(body, AdvertisedKeys)
        with pytest.raises(FederationError):
            decode_message(body, MaskRequest)
