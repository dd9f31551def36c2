"""A log and a coordinator that lie to a device about itself: it takes part in no private round of theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest

from liberate.crypto.signing import SigningKey, load_key
from liberate.federation.sharing.consents import ConsentTerms, give_consent, withdraw
from liberate.federation.store.device_rows import Device
from liberate.federation.wire.own_history import HistoryAnswer, HistoryRequest
from liberate.federation.wire.round_messages import (
    RoundAnswer,
    RoundRefusal,
    RoundRequest,
    decode_answer,
    decode_message,
    encode_message,
)
from liberate.federation.wire.transport import Reply, Request
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_entry, new_key, sign
from liberate.ledger.format.parts import KeyName
from liberate.ledger.format.records import KeyRecord, Update
from liberate.ledger.format.sharing_records import Withdrawal
from liberate.ledger.rules.history import PrincipalHistory
from liberate.ledger.rules.principal import Principal
from liberate.randomness import SimulatedRandomness
from tests.federation.hostile import editing
from tests.federation.lying_log import LyingLog
from tests.worlds import Stage, World, low_rank_ratings, stage

LOCAL = World(ratings=low_rank_ratings(6, 5), mode="local", epsilon=6.0, rounds=3)
PERSON = "u2"


@dataclass(slots=True)
class Told:
    """A federation after one private round, and what its log may tell one participant.

    Attributes:
        scene: The federation.
        log: Its log, which goes on as it likes.
        device: The participant's device.
        about: The entries about the participant, as the log tells them.
    """

    scene: Stage
    log: LyingLog
    device: Device
    about: list[bytes]

    @property
    def number(self) -> int:
        return self.device.enrolled_number

    def principal(self) -> Principal:
        """Return what follows from the entries, signed or not."""
        history = PrincipalHistory.before(decode_entry(self.about[0]), self.log.origin, self.number)
        for data in self.about:
            history.add(decode_entry(data))
        return history.principal

    def request(self, principal: Principal, *, skipped: int = 0) -> HistoryRequest:
        """Return the request that shows the entries, under a root in which the participant is as given."""
        block = self.log.end_block({self.number: principal})
        known = self.scene.host._checker.known_size
        return HistoryRequest(
            checkpoint=self.log.checkpoint(),
            known_size=known,
            consistency=self.log.consistency_proof(known) if known else [],
            block=self.log.entries[block],
            block_proof=self.log.inclusion_proof(block),
            n_principals=self.log.n_principals,
            proof=self.log.state_proof(self.number),
            skipped=skipped,
            entries=self.about[skipped:],
        )

    def answer(self, request: HistoryRequest) -> str:
        """Return the code of the device's refusal, or `proved`."""
        (reply,) = self.scene.host.answer([Request(self.number, "history", encode_message(request))])
        answer = decode_answer(reply.body, HistoryAnswer)
        return answer.reason if isinstance(answer, RoundRefusal) else "proved"


@contextmanager
def told(folder: Path, act: Callable[[Stage, Device], object] | None = None) -> Iterator[Told]:
    """Open a federation in which one private round is over, and one participant may have acted."""
    with stage(folder, LOCAL) as scene:
        scene.learn(1)
        if act is not None:
            act(scene, found(scene))
        scene.host.reload()
        ledger, device = scene.federation.ledger, found(scene)
        about = [ledger.entry(position) for position in ledger.positions(about=device.enrolled_number)]
        yield Told(scene, LyingLog.of(ledger, load_key(folder / "keys" / "log.key")), device, about)


def found(scene: Stage) -> Device:
    device = scene.federation.devices.find(user_id=PERSON)
    assert device is not None
    return device


def consent(scene: Stage, device: Device) -> int:
    terms = ConsentTerms(recipients=(scene.host.numbers[0],), expiry=1000, max_shares=1)
    return give_consent(
        scene.federation.ledger, scene.federation.devices, device, terms, SimulatedRandomness(1, b"consent")
    )


def key_of(told: Told, which: KeyName = "person") -> SigningKey:
    return told.scene.federation.devices.signing_key(told.device.slot, which)


def test_a_true_history_is_proved_and_not_replayed_again(tmp_path: Path) -> None:
    with told(tmp_path, consent) as each:
        known = len(each.about)
        assert each.answer(each.request(each.principal())) == "proved"
        assert each.answer(each.request(each.principal(), skipped=known)) == "proved"
        each.scene.host.reload()
        assert each.answer(each.request(each.principal(), skipped=known - 1)) == "proved"
        assert each.answer(each.request(each.principal(), skipped=known + 1)) == "history_gap"


CONTRADICTIONS: dict[str, Callable[[Principal], Principal]] = {
    "another key": lambda who: replace(who, key=SigningKey.from_seed(bytes(32)).public),
    "another device key": lambda who: replace(who, device_key=SigningKey.from_seed(bytes(32)).public),
    "more spent": lambda who: replace(who, epsilon_nano=who.epsilon_nano + 1),
    "less spent": lambda who: replace(who, epsilon_nano=0),
    "another account": lambda who: replace(who, rho_nano=1),
    "withdrawn": lambda who: replace(who, has_withdrawn=True),
    "revoked": lambda who: replace(who, is_revoked=True),
    "another role": lambda who: replace(who, role="auditor"),
    "another sequence": lambda who: replace(who, sequence=who.sequence + 1),
    "another consent": lambda who: replace(who, consents=who.about_head),
    "another history": lambda who: replace(who, about_count=who.about_count + 1),
}


@pytest.mark.parametrize("lie", CONTRADICTIONS, ids=[name.replace(" ", "-") for name in CONTRADICTIONS])
def test_a_state_root_that_contradicts_a_devices_own_history_is_refused(tmp_path: Path, lie: str) -> None:
    with told(tmp_path) as each:
        assert each.answer(each.request(CONTRADICTIONS[lie](each.principal()))) == "own_history"
        assert each.answer(each.request(each.principal())) == "proved", "the lie, not the log, is refused"


def test_an_entry_in_my_name_that_i_never_signed_stops_me(tmp_path: Path) -> None:
    """Somebody spends in a participant's name: with another key, or with a copy of the true one."""
    with told(tmp_path) as each:
        before = each.principal()
        update = decode_entry(each.about[-1]).record
        assert isinstance(update, Update)
        more = msgspec.structs.replace(update, seq=update.seq + 1)
        grown = replace(before, sequence=more.seq, epsilon_nano=before.epsilon_nano + more.spend_nano)

        for key in (SigningKey.from_seed(bytes(32)), key_of(each), key_of(each, "device")):
            forged = sign(more, key)
            principal = replace(grown)
            principal.count(decode_entry(forged).leaf_hash)
            each.about.append(forged)
            assert each.answer(each.request(principal)) == "own_history"
            each.about.pop()

        stolen = Withdrawal(origin=each.log.origin, author=each.number, seq=more.seq, consent=Digest(bytes(32)))
        each.about.append(sign(stolen, key_of(each)))
        assert each.answer(each.request(each.principal())) == "own_history", (
            "with a copy of the key, and free of charge"
        )
        each.about.pop()

        genuine = each.about[-1]
        each.about.pop()
        swapped = each.principal()
        swapped.spend(update.account, update.spend_nano)
        swapped.sequence = update.seq
        other = sign(msgspec.structs.replace(update, commitment=Digest(bytes(32))), SigningKey.from_seed(bytes(32)))
        swapped.count(decode_entry(other).leaf_hash)
        each.about.append(other)
        assert each.answer(each.request(swapped)) == "own_history", "in place of its own, at the same price"
        each.about[-1] = genuine

        each.about.append(each.about[-1])
        again = replace(before, epsilon_nano=before.epsilon_nano + more.spend_nano)
        again.count(decode_entry(each.about[-1]).leaf_hash)
        assert each.answer(each.request(again)) == "own_history", "the same entry, twice"


def test_a_missing_own_entry_is_refused(tmp_path: Path) -> None:
    """The log leaves the participant's consent out of a history that is otherwise whole."""
    with told(tmp_path, consent) as each:
        kept = list(each.about)
        each.about.pop()
        assert each.answer(each.request(each.principal())) == "own_history"

        each.about[:] = kept
        assert each.answer(each.request(each.principal())) == "proved"


@pytest.mark.parametrize("which", ["person", "device"])
def test_a_key_that_a_registrar_put_in_the_devices_place_is_refused(tmp_path: Path, which: KeyName) -> None:
    with told(tmp_path) as each:
        theirs = new_key(SigningKey.from_seed(bytes(31) + b"1"), each.log.origin, each.number, which)
        record = KeyRecord(
            origin=each.log.origin, author=0, seq=10**6, number=each.number, which=which, key=theirs, approvals=()
        )
        each.about.append(sign(record, load_key(tmp_path / "keys" / "founder.key")))
        assert each.answer(each.request(each.principal())) == "own_history"


def test_whoever_has_withdrawn_on_the_ledger_is_asked_in_vain(tmp_path: Path) -> None:
    """The device was put back from an older copy, and does not know that its participant has withdrawn."""
    with told(tmp_path) as each:
        leaving = Withdrawal(origin=each.log.origin, author=each.number, seq=each.device.last_seq, consent=None)
        assert isinstance(decode_entry(each.about[-1]).record, Update)
        each.about[-1] = sign(leaving, key_of(each))
        assert each.principal().has_withdrawn
        assert each.answer(each.request(each.principal())) == "own_history"


def test_a_private_round_is_answered_only_after_its_devices_own_history(tmp_path: Path) -> None:
    """The coordinator leaves the phase out, or shows a history from before the round."""
    bodies: list[bytes] = []

    def without(requests: list[Request]) -> list[Request]:
        if requests[0].phase == "history":
            return []
        bodies.append(requests[0].body)
        return requests

    def refused_by(scene: Stage) -> set[str]:
        numbers = scene.host.numbers
        replies = scene.host.answer([Request(number, "update", bodies[-1]) for number in numbers])
        return {answer.reason for answer in map(read, replies) if isinstance(answer, RoundRefusal)}

    def read(reply: Reply) -> RoundAnswer | RoundRefusal:
        return decode_answer(reply.body, RoundAnswer)

    with stage(tmp_path, LOCAL) as scene:
        model = scene.learn(1)
        with scene.edited(editing(requests=without)), pytest.raises(Exception, match="own_history: 6"):
            scene.round(model)
        assert decode_message(bodies[-1], RoundRequest).position > 0
        assert refused_by(scene) == {"own_history"}
        spent = {device.last_round for device in scene.federation.devices.devices()}
        assert spent == {1}


def test_a_device_whose_history_is_a_lie_is_left_out_and_the_others_go_on(tmp_path: Path) -> None:
    def lie(requests: list[Request]) -> list[Request]:
        if requests[0].phase != "history":
            return requests
        first = decode_message(requests[0].body, HistoryRequest)
        body = encode_message(msgspec.structs.replace(first, entries=first.entries[:-1]))
        return [replace(requests[0], body=body), *requests[1:]]

    with stage(tmp_path, LOCAL) as scene:
        model = scene.learn(1)
        with scene.edited(editing(requests=lie)):
            scene.round(model)
        ledger = scene.federation.ledger
        authors = [decode_entry(ledger.entry(p)).record.author for p in ledger.positions(kind="update")]
        assert len(authors) == 11
        assert authors.count(scene.host.numbers[0]) == 1


def test_plain_rounds_trust_their_coordinator(tmp_path: Path) -> None:
    phases: set[str] = set()

    def note(requests: list[Request]) -> list[Request]:
        phases.update(request.phase for request in requests)
        return requests

    with stage(tmp_path, replace(LOCAL, mode="plain", epsilon=None), wrap=editing(requests=note)) as scene:
        scene.learn(1)
    assert phases == {"update"}


def test_who_has_acted_between_rounds_is_asked_on(tmp_path: Path) -> None:
    """Consents given and taken back between private rounds are in the history, and the round goes on with everybody."""
    with stage(tmp_path, LOCAL) as scene:
        model = scene.learn(1)
        given = consent(scene, found(scene))
        scene.host.reload()
        model = scene.round(model)
        entry = decode_entry(scene.federation.ledger.entry(given))
        withdraw(scene.federation.ledger, scene.federation.devices, found(scene), entry.leaf_hash)
        scene.host.reload()
        scene.round(model)
        assert len(scene.federation.ledger.positions(kind="update")) == 18
