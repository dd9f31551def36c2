"""What a device does in each phase of a masked round, and what it refuses a coordinator that lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from liberate.arrays import UInt32Array
from liberate.crypto.note import verify_checkpoint
from liberate.crypto.signing import SigningKey
from liberate.errors import FederationError
from liberate.federation.participant.refusals import Refused
from liberate.federation.participant.secagg_checks import CheckedCohort, RecordedSets, check_history
from liberate.federation.wire.masked_round import masked_round
from liberate.federation.wire.round_messages import RoundRefusal, decode_answer, decode_message, encode_message
from liberate.federation.wire.secagg_messages import (
    AdvertisedKeys,
    CohortKeys,
    EncryptedShares,
    MaskRequest,
    RoundHistory,
    keys_root,
    seeds_root,
    sign_keys,
)
from liberate.identifiers import Digest
from liberate.ledger.format.entries import sign
from liberate.ledger.format.records import Aborted, Record, SetPhase
from liberate.ledger.rules.principal import Principal
from liberate.ledger.rules.state import State
from liberate.privacy import secure_aggregation, shamir
from liberate.privacy.mask_parameters import MaskParameters
from liberate.privacy.neighbour_graph import seed_commitment
from tests.federation.masked import COORDINATOR, FIRST, ORIGIN, Party, ones, round_record, signing_key

ALICE, BOB, CAROL = FIRST, FIRST + 1, FIRST + 2


@pytest.fixture
def party(tmp_path: Path) -> Iterator[Party]:
    """Six participants, of whom two may vanish and one collude: of five neighbours two are needed."""
    party = Party(tmp_path / "devices", 6)
    yield party
    party.devices.close()


def reason_of(ask: Callable[[], object]) -> str:
    with pytest.raises(Refused) as refused:
        ask()
    return refused.value.reason


def rebuilt(party: Party, owner: int, opened: Mapping[int, Mapping[int, bytes]]) -> bytes:
    """Return the secret that the shares of its owner lead to, as many as are needed."""
    holders = party.graph().out_neighbours(owner)
    shares = {holders.index(number) + 1: shares[owner] for number, shares in opened.items() if owner in shares}
    return shamir.combine(dict(list(shares.items())[: party.round.threshold]))


def key_with(party: Party, secret: bytes, other: int) -> bytes:
    """Return the key of a mask that the owner of a secret shares with somebody."""
    return secure_aggregation.pair_key(secure_aggregation.agree(secret, party.keys[other].mask), party.context())


# --- an honest round --------------------------------------------------------------------------------------------------


def test_what_survivors_reveal_undoes_the_masks_of_a_sum(party: Party) -> None:
    uploads = party.until_upload(ones())
    survivors = [number for number in party.participants if number != CAROL]
    context = party.context()
    party.record("survivors", survivors)
    opened = {number: dict(party.unmask(number).shares) for number in survivors}

    total = np.array([uploads[number] for number in survivors]).sum(axis=0, dtype=np.uint32)
    for number in party.participants:
        secret = rebuilt(party, number, opened)
        if number in survivors:
            secure_aggregation.add_mask(total, secret, subtract=True)
        else:
            for other in survivors:
                agreed = secure_aggregation.agree(secret, party.keys[other].mask)
                key = secure_aggregation.pair_key(agreed, context)
                secure_aggregation.add_pair_mask(total, key, other, number, undo=True)

    assert total.tolist() == [5] * 8


def test_a_masked_upload_tells_nothing_of_its_values(party: Party) -> None:
    uploads = party.until_upload(ones(4000))

    for values in uploads.values():
        assert len(np.unique(values)) > 3990
        assert abs(float(values.mean()) / 2**31 - 1) < 0.1
    assert len({values.tobytes() for values in uploads.values()}) == 6


def test_each_phase_asked_again_gets_the_same_bytes_also_after_a_crash(party: Party) -> None:
    party.until_upload(ones())
    party.record("survivors", party.participants)

    def everything() -> list[object]:
        keys = party.advertise()
        seeds = [party.choose(number) for number in party.participants]
        request = party.share_request()
        shares = [party.share(number, request) for number in party.participants]
        uploads = [party.upload(number, ones()).tobytes() for number in party.participants]
        return [dict(keys), seeds, shares, uploads, [party.unmask(number) for number in party.participants]]

    first = everything()
    party.restart()

    assert everything() == first


def test_the_next_round_deletes_the_state_of_the_last(party: Party) -> None:
    party.advertise()
    party.open_round(2)
    party.advertise([ALICE])

    assert [party.devices.secagg_state(0, number) is None for number in (1, 2)] == [True, False]


def test_secrets_of_a_closed_round_are_destroyed(party: Party) -> None:
    party.until_upload(ones())
    with pytest.raises(Refused, match="not closed"):
        party.phases.close(party.history())
    assert party.devices.secagg_state(0, 1) is not None

    party.log.append(Aborted(origin=ORIGIN, author=2, seq=99, round=1, reason="too_few_shares"), by=COORDINATOR)
    party.phases.close(party.history())

    assert party.devices.secagg_state(0, 1) is None
    assert party.devices.key_phases(0, 1) == 1


# --- how often, and how strongly --------------------------------------------------------------------------------------


def test_a_device_answers_at_most_max_attempts_key_phases(tmp_path: Path) -> None:
    """A coordinator that aborts round after round draws new neighbours for its victims only so often."""
    party = Party(tmp_path / "devices", 4, attempts=3)
    for number in range(1, 4):
        party.open_round(number)
        party.advertise()
        party.restart()
        party.advertise()

    party.open_round(4)
    assert reason_of(party.advertise) == "attempts"
    party.devices.close()


@pytest.mark.parametrize(("degree", "threshold"), [(5, 1), (5, 0), (4, 2), (0, 0), (6, 6)])
def test_masks_below_what_was_agreed_to_are_refused(party: Party, degree: int, threshold: int) -> None:
    record = round_record(party.participants, party.least, 2, MaskParameters(degree=degree, threshold=threshold))
    (party.position,) = party.log.append(record, by=COORDINATOR)

    assert reason_of(party.advertise) == "masks"


def test_masks_are_held_against_the_terms_of_the_device(tmp_path: Path) -> None:
    """A round of 80 may have sparse masks where four people collude, and not where twenty do."""
    few = Party(tmp_path / "few", 80, colluders=4, late=25, degree=36, threshold=18)
    many = Party(tmp_path / "many", 80, colluders=20, late=25, degree=36, threshold=18)

    assert few.advertise()
    assert reason_of(many.advertise) == "masks"
    few.devices.close()
    many.devices.close()


# --- who chooses neighbours -------------------------------------------------------------------------------------------


def test_a_hash_that_the_coordinator_tries_out_moves_no_neighbour(party: Party) -> None:
    """Neighbours follow from a seed that is committed to before anything is shown, and revealed once all is settled."""
    party.advertise()
    assert reason_of(lambda: party.choose(ALICE)) == "sets", "no seed before it is recorded who takes part"

    first = party.position
    party.open_round(1)
    assert reason_of(party.advertise) == "answered", "another entry, whose hash suits the coordinator better"
    party.position = first
    party.restart()


def test_a_seed_is_revealed_for_one_set_only(party: Party) -> None:
    party.until_keys()
    seed = party.choose(ALICE)
    assert seed_commitment(seed.seed) == party.keys[ALICE].draw

    entries = party.log.data[:-2]
    party.log.data, party.log.state = entries, state_of(party, entries)
    party.record("advertised", party.participants[:5])

    with pytest.raises(Refused):
        party.choose(ALICE)


def state_of(party: Party, entries: list[bytes]) -> State:
    """The state after some entries, for a log that starts again from there."""
    fresh = type(party.log)(ORIGIN, party.principals())
    for data in entries:
        fresh._append(data)
    return fresh.state


def test_an_edge_that_only_the_chooser_knows_is_refused(party: Party) -> None:
    """The coordinator tells another seed than the one that somebody has committed to, and records its root."""
    party.until_keys()
    for number in party.participants:
        party.choose(number)
    party.seeds[BOB] = b"x" * 32
    party.record("graph", party.participants)

    with pytest.raises(Refused, match="committed to another seed"):
        party.share(ALICE)


def test_seeds_and_keys_are_exactly_those_of_the_sets(party: Party) -> None:
    party.until_graph()
    honest = party.cohort()

    for false in (
        change(honest, seeds=honest.seeds[1:]),
        change(honest, keys=honest.keys[:-1]),
        change(honest, seeds=[*honest.seeds[:-1], (honest.seeds[-1][0], bytes(32))]),
        change(honest, keys=[*honest.keys[:-1], (honest.keys[-1][0], honest.keys[0][1])]),
    ):
        assert reason_of(partial(party.share, ALICE, party.share_request(false))) == "keys"
    party.share(ALICE)


def change(cohort: CohortKeys, **values: object) -> CohortKeys:
    return msgspec.structs.replace(cohort, **values)


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("participants", [[], [3], [3, 4]])
def test_a_cohort_of_two_is_no_crowd(participants: list[int]) -> None:
    with pytest.raises(FederationError, match="list 3 participants or more"):
        masked_round(sign(round_record(participants, 1), COORDINATOR))


def test_a_round_without_masks_is_no_masked_one(party: Party) -> None:
    plain = msgspec.structs.replace(
        party.round.record, mechanism=msgspec.structs.replace(party.round.record.mechanism, parameters={})
    )
    for entry in (sign(plain, COORDINATOR), sign(party.round_set("survivors", [ALICE]), COORDINATOR), b"no entry"):
        with pytest.raises(FederationError, match="round"):
            masked_round(entry)


def keys_by(key: SigningKey, number: int, round_hash: bytes, origin: str = ORIGIN, **public: bytes) -> AdvertisedKeys:
    """Keys whose secrets the coordinator knows."""
    known = secure_aggregation.MaskSecrets.derive(b"s" * 32)
    usual = {"mask": secure_aggregation.public_key(known.mask), "seal": secure_aggregation.public_key(known.seal)}
    return sign_keys(key, origin, round_hash, number, own=bytes(32), draw=seed_commitment(known.seed), **usual | public)


def shown_keys(party: Party, keys: AdvertisedKeys) -> str:
    """Record and show keys for Bob; return why they are refused."""
    known = secure_aggregation.MaskSecrets.derive(b"s" * 32)
    party.advertise()
    party.keys[BOB] = keys
    party.record("advertised", party.participants, root=keys_root(party.keys))
    for number in party.participants:
        if number != BOB:
            party.choose(number)
    party.seeds[BOB] = known.seed
    party.record("graph", party.participants, root=seeds_root(party.seeds))
    return reason_of(lambda: party.share(ALICE))


FALSE_KEYS: dict[str, Callable[[bytes], AdvertisedKeys]] = {
    "signed by the coordinator": lambda hash: keys_by(COORDINATOR, BOB, hash),
    "by another participant": lambda hash: keys_by(signing_key(CAROL), BOB, hash),
    "for another participant": lambda hash: keys_by(signing_key(BOB), CAROL, hash),
    "replayed from another round": lambda _: keys_by(signing_key(BOB), BOB, bytes(32)),
    "replayed from another ledger": lambda hash: keys_by(signing_key(BOB), BOB, hash, "elsewhere"),
    "half replaced": lambda hash: msgspec.structs.replace(keys_by(signing_key(BOB), BOB, hash), mask=b"m" * 32),
    "cut short": lambda hash: msgspec.structs.replace(keys_by(signing_key(BOB), BOB, hash), mask=b""),
    "a mask key that fixes the masks": lambda hash: keys_by(signing_key(BOB), BOB, hash, mask=bytes(32)),
    "a seal key that fixes the shares": lambda hash: keys_by(signing_key(BOB), BOB, hash, seal=b"\x01" + bytes(31)),
}


@pytest.mark.parametrize("name", FALSE_KEYS, ids=[name.replace(" ", "-") for name in FALSE_KEYS])
def test_a_coordinator_cannot_put_its_own_keys_in(party: Party, name: str) -> None:
    assert shown_keys(party, FALSE_KEYS[name](party.round.hash)) == "keys"


def test_a_coordinator_cannot_say_whose_key_is_whose(party: Party) -> None:
    party.until_graph()
    honest = party.cohort()
    false = Principal(key=COORDINATOR.public, device_key=COORDINATOR.public, role="participant").encode()
    later = party.log.size - 1

    for lie in (
        change(honest, state=[*honest.state[:BOB], false, *honest.state[BOB + 1 :]]),
        change(honest, state=[*honest.state[:BOB], honest.state[CAROL], honest.state[BOB], *honest.state[CAROL + 1 :]]),
        change(honest, state=honest.state[:-1]),
        change(honest, block=party.log.entry(later), block_position=later),
        change(honest, block=party.log.entry(party.position)),
        change(honest, block_position=0),
    ):
        request = party.share_request(lie)
        if lie.block_position:
            request = msgspec.structs.replace(request, block_proof=party.log.inclusion_proof(lie.block_position))
        assert reason_of(partial(party.share, ALICE, request)) == "keys"


def test_the_state_is_that_of_the_rounds_own_block(party: Party) -> None:
    """Keys are those that people had when the round was opened, whatever was recorded since."""
    party.until_graph()
    later = party.log.size - 1
    now = [principal.encode() for principal in party.log.state.principals]
    lie = change(party.cohort(), state=now, block=party.log.entry(later), block_position=later)
    request = msgspec.structs.replace(party.share_request(lie), block_proof=party.log.inclusion_proof(later))

    with pytest.raises(Refused, match="in which the round was opened"):
        party.share(ALICE, request)


@pytest.mark.parametrize("changed", [{"role": "auditor"}, {"is_revoked": True}, {"is_device_revoked": True}])
def test_only_active_participants_are_neighbours(
    tmp_path: Path, changed: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Party.principals

    def principals(self: Party) -> list[Principal]:
        found = honest(self)
        for name, value in changed.items():
            setattr(found[BOB], name, value)
        return found

    monkeypatch.setattr(Party, "principals", principals)
    party = Party(tmp_path / "devices", 6)
    party.until_graph()

    assert reason_of(lambda: party.share(ALICE)) == "keys"
    party.devices.close()


def test_a_device_wants_its_own_keys_among_those_shown(party: Party) -> None:
    """The coordinator signs for Alice, whose ledger key it has put into a state of its own."""
    party.until_graph()
    state = party.devices.secagg_state(0, 1)
    assert state is not None
    party.devices.put_secagg_states(1, [(0, msgspec.structs.replace(state, secret=b"z" * 32))])

    with pytest.raises(Refused, match="not its own"):
        party.share(ALICE)


# --- sets -------------------------------------------------------------------------------------------------------------


def test_both_halves_of_a_cohort_told_that_the_other_vanished_mask_with_the_recorded_neighbours(tmp_path: Path) -> None:
    """Of 14 people 6 are accomplices; each half gets the shares of its own half and of accomplices alone.

    Masked with those alone, the four uploads of a half and one survivor set of all would give away their sum.
    """
    party = Party(tmp_path / "devices", 14, colluders=6, late=70)
    accomplices, half, others = party.participants[:6], party.participants[6:10], party.participants[10:]
    party.until_shared()
    values = ones()
    uploads = {}
    for group in (half, others):
        for number in group:
            told = [(dealer, share) for dealer, share in party.received(number) if dealer in {*group, *accomplices}]
            request = msgspec.structs.replace(party.mask_request(number), received=told)
            uploads[number] = party.upload(number, values, request)
    for number in accomplices:
        uploads[number] = party.upload(number, values)
    context = party.context()
    party.record("survivors", party.participants)
    opened = {number: dict(party.unmask(number).shares) for number in party.participants}

    total = known_masks_removed(party, half, accomplices, uploads, opened, context)

    for number in party.participants:
        state = party.devices.secagg_state(number - FIRST, 1)
        assert state is not None
        assert set(state.continuing) == set(party.participants) - {number}
    assert total.tolist() != [4] * 8
    party.devices.close()


def known_masks_removed(
    party: Party,
    half: list[int],
    accomplices: list[int],
    uploads: Mapping[int, UInt32Array],
    opened: Mapping[int, Mapping[int, bytes]],
    context: bytes,
) -> UInt32Array:
    """Sum the uploads of a half without their own masks, and those that they share with accomplices."""
    total = np.zeros(8, np.uint32)
    for number in half:
        total += uploads[number]
        secure_aggregation.add_mask(total, rebuilt(party, number, opened), subtract=True)
        for accomplice in accomplices:
            state = party.devices.secagg_state(accomplice - FIRST, 1)
            assert state is not None
            secret = secure_aggregation.MaskSecrets.derive(state.secret).mask
            agreed = secure_aggregation.agree(secret, party.keys[number].mask)
            key = secure_aggregation.pair_key(agreed, context)
            secure_aggregation.add_pair_mask(total, key, number, accomplice, undo=True)
    return total


def shown(history: RoundHistory, party: Party, positions: list[int], **changes: object) -> RoundHistory:
    """Return a history that shows the entries at some positions only."""
    return msgspec.structs.replace(
        history,
        entries=[party.log.entry(position) for position in positions],
        positions=positions,
        inclusion=[party.log.inclusion_proof(position) for position in positions],
        **changes,
    )


def test_several_survivor_sets_in_one_tree_are_refused(party: Party) -> None:
    """A log that breaks its own rule holds two sets, and each device is shown another; nothing is forked."""
    party.until_upload(ones())
    party.record("survivors", [number for number in party.participants if number != BOB])
    party.record("survivors", [number for number in party.participants if number != CAROL])
    history = party.history()
    *before, first, second = history.positions

    assert reason_of(lambda: party.unmask(ALICE, history)) == "sets", "both"
    for one in (first, second):
        with pytest.raises(Refused, match="do not lead to the chain"):
            party.unmask(ALICE, shown(history, party, [*before, one]))
    state = party.devices.secagg_state(0, 1)
    assert state is not None
    assert state.survivors is None


def test_a_set_that_is_kept_back_is_missed(party: Party) -> None:
    """Some are shown the round without the set of those who shared, and a later one in its place."""
    party.until_shared()
    party.record("shared", party.participants[:4])
    history = party.history()
    *before, first, second = history.positions

    for positions in ([*before, first], [*before, second], [*before, second, first]):
        request = party.mask_request(ALICE, shown(history, party, positions))
        assert reason_of(partial(party.receive, ALICE, request)) == "sets"


def test_a_history_is_chained_to_the_coordinators_own_leaf(party: Party) -> None:
    party.until_upload(ones())
    party.record("survivors", party.participants)
    honest = party.history()
    stranger = party.log.state.principals[ALICE]
    lies: list[dict[str, object]] = [
        {"head": Digest(bytes(32))},
        {"head": b""},
        {"leaf": stranger.encode(), "leaf_proof": party.log.state.inclusion_proof(ALICE)},
        {"leaf": honest.leaf[:-1] + b"x"},
        {"leaf_proof": []},
        {"block": honest.entries[0]},
        {"block_proof": []},
        {"positions": honest.positions[:-1]},
        {"inclusion": [[] for _ in honest.inclusion]},
        {"entries": []},
        {"entries": honest.entries[1:], "positions": honest.positions[1:], "inclusion": honest.inclusion[1:]},
    ]

    for lie in lies:
        false = msgspec.structs.replace(honest, **lie)
        assert reason_of(partial(party.unmask, ALICE, false)) in ("sets", "record", "phase")
    party.unmask(ALICE, honest)


def test_a_closed_round_is_not_unmasked(party: Party) -> None:
    party.until_upload(ones())
    party.record("survivors", party.participants)
    party.log.append(Aborted(origin=ORIGIN, author=2, seq=99, round=1, reason="too_few_shares"), by=COORDINATOR)

    assert reason_of(lambda: party.unmask(ALICE)) == "sets"


Lie = Callable[[Party], tuple[list[Record], SigningKey]]


def survivor_parts(party: Party, *parts: list[int]) -> list[Record]:
    return [
        party.round_set("survivors", numbers, part=part, parts=len(parts))
        for part, numbers in enumerate(parts, start=1)
    ]


LIES: dict[str, Lie] = {
    "not the coordinator's": lambda p: ([p.round_set("survivors", p.participants)], signing_key(BOB)),
    "without the asked": lambda p: ([p.round_set("survivors", p.participants[1:])], COORDINATOR),
    "more gone than agreed": lambda p: ([p.round_set("survivors", p.participants[:3])], COORDINATOR),
    "a stranger": lambda p: ([p.round_set("survivors", [*p.participants, 99])], COORDINATOR),
    "a part missing": lambda p: ([p.round_set("survivors", p.participants, parts=2)], COORDINATOR),
    "the second part only": lambda p: ([p.round_set("survivors", p.participants, part=2, parts=2)], COORDINATOR),
    "parts in disorder": lambda p: (survivor_parts(p, p.participants[3:], p.participants[:3]), COORDINATOR),
    "somebody twice": lambda p: (survivor_parts(p, p.participants[:4], p.participants[3:]), COORDINATOR),
    "another round": lambda p: ([other(p, round_hash=Digest(bytes(32)))], COORDINATOR),
    "another ledger": lambda p: ([other(p, origin="elsewhere")], COORDINATOR),
    "a root": lambda p: ([other(p, root=Digest(b"r" * 32))], COORDINATOR),
    "no survivors": lambda p: ([], COORDINATOR),
    "another round opened": lambda p: ([round_record(p.participants, 1, 2)], COORDINATOR),
}


def other(party: Party, **values: object) -> Record:
    return msgspec.structs.replace(party.round_set("survivors", party.participants), **values)


@pytest.mark.parametrize("lie", LIES, ids=[name.replace(" ", "-") for name in LIES])
def test_a_survivor_set_that_is_none_is_refused(party: Party, lie: str) -> None:
    party.until_upload(ones())
    records, key = LIES[lie](party)
    if records:
        party.log.append(*records, by=key)

    assert reason_of(lambda: party.unmask(ALICE)) == "sets"
    state = party.devices.secagg_state(0, 1)
    assert state is not None
    assert state.survivors is None


def test_a_survivor_set_may_span_records(party: Party) -> None:
    party.until_upload(ones())
    party.log.append(*survivor_parts(party, party.participants[:2], party.participants[2:]), by=COORDINATOR)

    assert party.unmask(ALICE).shares


def test_each_phase_needs_the_one_before(party: Party) -> None:
    assert reason_of(lambda: party.choose(ALICE)) == "sets"
    party.keys = {number: keys_by(signing_key(number), number, party.round.hash) for number in party.participants}
    party.record("advertised", party.participants)
    assert reason_of(lambda: party.choose(ALICE)) == "phase"
    party.restart()

    party.seeds = dict.fromkeys(party.participants, secure_aggregation.MaskSecrets.derive(b"s" * 32).seed)
    party.record("graph", party.participants)
    assert reason_of(lambda: party.share(ALICE)) == "phase"
    with pytest.raises(Refused, match="no keys were advertised"):
        party.phases.masking.require_ready(party.device(ALICE), party.round)


def test_who_is_not_in_a_set_does_not_answer_for_it(party: Party) -> None:
    party.advertise()
    party.keys.pop(ALICE)
    party.record("advertised", party.participants[1:])

    assert reason_of(lambda: party.choose(ALICE)) == "sets"


def test_a_split_view_of_a_set_is_a_split_view_of_the_ledger(party: Party) -> None:
    """A fork that names other people has to replace a tree that the device has accepted."""
    party.until_shared()
    party.receive(ALICE)
    data = list(party.log.data)
    party.log.data, party.log.state = data[:-2], state_of(party, data[:-2])
    party.record("shared", party.participants[:4])

    assert reason_of(lambda: party.receive(ALICE)) == "split_view"


def test_a_device_answers_one_set_in_each_phase(party: Party) -> None:
    """Even if the ledger could show it another one, also after a crash."""
    party.until_upload(ones())
    party.record("survivors", party.participants)
    party.unmask(ALICE)
    history, note = party.history(), party.log.note()
    recorded = check_history(party.round, history, verify_checkpoint(note, party.log.log_key), party.policy)
    cohort = CheckedCohort(keys=party.keys, seeds=party.seeds, graph=party.graph())
    party.restart()
    masking, device, current = party.phases.masking, party.device(ALICE), party.round

    def with_other(phase: SetPhase) -> RecordedSets:
        return replace(recorded, digests={**recorded.digests, phase: bytes(32)})

    for (answer,) in (
        masking.choose([device], current, with_other("advertised"), note),
        masking.share([device], current, with_other("graph"), cohort, note),
        masking.receive([device], current, with_other("shared"), {0: tuple(party.received(ALICE))}, note),
        masking.unmask([device], current, with_other("survivors"), note),
    ):
        assert isinstance(answer, Refused)
        assert "another set" in answer.detail


# --- shares -----------------------------------------------------------------------------------------------------------


def test_shares_of_others_than_those_who_chose_are_refused(party: Party) -> None:
    party.until_shared()
    honest = party.mask_request(ALICE)

    for received in ([*honest.received, (99, b"")], honest.received[::-1], [*honest.received[:1]] * 2):
        request = msgspec.structs.replace(honest, received=received)
        assert reason_of(partial(party.receive, ALICE, request)) == "neighbours"
    with pytest.raises(Refused, match="shared their secrets first"):
        party.phases.masking.require_ready(party.device(ALICE), party.round)


def test_shares_are_received_once(party: Party) -> None:
    party.until_upload(ones())
    fewer = msgspec.structs.replace(party.mask_request(ALICE), received=party.received(ALICE)[:-1])

    with pytest.raises(Refused, match="other shares"):
        party.receive(ALICE, fewer)


def test_who_seals_nonsense_is_masked_with_all_the_same(party: Party) -> None:
    """Left out, its absence would be known to the coordinator and its neighbour alone."""
    party.until_shared()
    for index in range(5):
        party.sealed[BOB][index] = b"nonsense"
    party.receive(ALICE)
    party.record("survivors", party.participants)

    state = party.devices.secagg_state(0, 1)
    assert state is not None
    assert BOB in state.continuing
    assert dict(party.unmask(ALICE).shares).keys() == {*party.participants} - {ALICE, BOB}


def test_both_secrets_of_nobody_are_revealed(party: Party) -> None:
    """Whichever of two sets each device is shown, on forks of the log: one of them has answered already."""
    party.until_upload(ones())
    data = list(party.log.data)
    party.record("survivors", party.participants)
    first = party.unmask(ALICE)
    party.log.data, party.log.state = data, state_of(party, data)
    party.record("survivors", [number for number in party.participants if number != BOB])

    for _ in range(2):
        with pytest.raises(Refused):
            party.unmask(ALICE)
        party.restart()
    assert dict(first.shares)[BOB]


def test_who_is_falsely_said_to_have_vanished_keeps_its_own_mask(party: Party) -> None:
    """The coordinator drops Bob, whose upload it has: all masks he shared can be had, his own cannot."""
    uploads = party.until_upload(ones())
    survivors = [number for number in party.participants if number != BOB]
    context = party.context()
    party.record("survivors", survivors)
    opened = {number: dict(party.unmask(number).shares) for number in survivors}
    secret = rebuilt(party, BOB, opened)
    assert secure_aggregation.public_key(secret) == party.keys[BOB].mask

    values = uploads[BOB].copy()
    for number in survivors:
        key = secure_aggregation.pair_key(secure_aggregation.agree(secret, party.keys[number].mask), context)
        secure_aggregation.add_pair_mask(values, key, BOB, number, undo=True)

    assert secure_aggregation.key_commitment(secret) != party.keys[BOB].own
    assert values.tolist() != ones().tolist()
    state = party.devices.secagg_state(BOB - FIRST, 1)
    assert state is not None
    secure_aggregation.add_mask(values, secure_aggregation.MaskSecrets.derive(state.secret).own, subtract=True)
    assert values.tolist() == ones().tolist(), "only Bob's own mask was left"


def test_too_few_surviving_neighbours_get_nothing(tmp_path: Path) -> None:
    """The set is as large as was agreed, but of those who hold shares of the asked too few are in it."""
    party = Party(tmp_path / "devices", 10, colluders=2, late=600, threshold=4)
    party.until_upload(ones())
    party.record("survivors", party.participants[:4])

    with pytest.raises(Refused, match="3 chosen neighbours continue, 4 are needed"):
        party.unmask(ALICE)
    party.devices.close()


# --- messages ---------------------------------------------------------------------------------------------------------


def test_masks_of_unequal_views_never_cancel(party: Party) -> None:
    party.until_shared()
    seen = party.context()
    party.log.data = party.log.data[:-2]
    party.record("shared", party.participants[:5])

    assert party.context() != seen


def test_messages_are_read_as_what_they_are() -> None:
    shares, refused = EncryptedShares(sealed=[b"a"]), RoundRefusal(reason="keys", detail="", known_size=0)

    assert decode_answer(encode_message(shares), EncryptedShares) == shares
    assert decode_answer(encode_message(refused), EncryptedShares) == refused
    for body in (encode_message(shares), b"", b"\xc1"):
        with pytest.raises(FederationError):
            decode_answer(body, AdvertisedKeys)
        with pytest.raises(FederationError):
            decode_message(body, MaskRequest)
