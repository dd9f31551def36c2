"""Rounds under witnesses: nothing is answered without a quorum, and no published ledger is taken back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event

import msgspec
import pytest

from liberate.crypto.note import (
    SignatureType,
    WitnessPolicy,
    cosignature_times,
    verifier_key,
    verify_cosigned_checkpoint,
)
from liberate.crypto.signing import SigningKey
from liberate.errors import (
    FederationError,
    InsufficientCohort,
    LedgerError,
    NoQuorum,
    RejectedCheckpoint,
    RolledBack,
)
from liberate.federation.wire.round_messages import RoundAnswer, RoundRefusal, decode_answer
from liberate.federation.wire.secagg_messages import AdvertisedKeys
from liberate.federation.wire.transport import Reply, Request
from liberate.ledger.evidence.split_view import verify_evidence
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.publish.checkpoints import Publisher, WitnessAddress, check_published
from liberate.ledger.publish.witness_http import WitnessClient
from liberate.ledger.witness.protocol import AddCheckpointResponse
from liberate.ledger.witness.witness import Witness
from liberate.model.codec import encode_model
from liberate.randomness import SimulatedClock
from tests.federation.hostile import Wrap, editing, silent
from tests.federation.participant.test_hostile import answers, captured, reasons
from tests.ledger.world import LOG_KEY, LOG_VKEY, create
from tests.ledger.world import World as LedgerWorld
from tests.service.replaying import DIRECT
from tests.worlds import Stage, World, low_rank_ratings, stage

KEYS = [SigningKey.from_seed(bytes([number + 1] * 32)) for number in range(3)]
NAMES = [f"witness.example/{number}" for number in range(3)]
ADDRESSES = tuple(
    WitnessAddress(f"http://{name}", verifier_key(name, key.public, SignatureType.COSIGNATURE_V1))
    for name, key in zip(NAMES, KEYS, strict=True)
)
PLAIN = World(ratings=low_rank_ratings())
WATCHED = replace(PLAIN, witnesses=ADDRESSES, witness_threshold=2)


class Network:
    """Witnesses in this process, by URL; some may be out of reach."""

    def __init__(self, folder: Path, log_key: str) -> None:
        self.absent: set[str] = set()
        self.witnesses = {
            f"http://{name}": Witness(name, key, [log_key], folder / str(number), lambda: 1_700_000_000)
            for number, (name, key) in enumerate(zip(NAMES, KEYS, strict=True))
        }

    def send(self, url: str, body: bytes) -> AddCheckpointResponse:
        if url in self.absent:
            raise LedgerError("no answer")
        return self.witnesses[url].add_checkpoint(body)

    def newest(self, url: str, origin: str) -> str:
        if url in self.absent:
            raise LedgerError("no answer")
        return self.witnesses[url].newest(origin).body

    @property
    def client(self) -> WitnessClient:
        return WitnessClient(self.send, self.newest)

    def close(self) -> None:
        for witness in self.witnesses.values():
            witness.close()


@contextmanager
def watched(folder: Path, world: World = WATCHED) -> Iterator[tuple[Stage, Network]]:
    """A federation whose witnesses lie in `folder/witnesses`."""
    with stage(folder, world) as scene:
        network = Network(folder / "witnesses", scene.federation.policy.log_key)
        scene.federation.publisher._client = network.client
        try:
            yield scene, network
        finally:
            network.close()


def test_rounds_run_under_cosigned_checkpoints_and_learn_the_same(tmp_path: Path) -> None:
    with watched(tmp_path / "a") as (scene, _):
        model = scene.learn(2)
        policy = scene.federation.policy
        genesis = scene.federation.ledger.state.genesis
        assert genesis is not None
        assert (genesis.witnesses.keys, genesis.witnesses.threshold) == (policy.witnesses.keys, 2)

        note = scene.federation.publisher.publish()

        assert verify_cosigned_checkpoint(note, policy.log_key, policy.witnesses).size == scene.federation.ledger.size
        assert (tmp_path / "a" / "checkpoint").read_text("utf-8") == note

    with stage(tmp_path / "b", PLAIN) as unwatched:
        assert encode_model(unwatched.learn(2)) == encode_model(model)


def test_one_absent_witness_of_three_is_not_missed(tmp_path: Path) -> None:
    with watched(tmp_path) as (scene, network):
        network.absent = {ADDRESSES[1].url}
        scene.learn(1)

        times = cosignature_times(scene.federation.publisher.publish(), [address.key for address in ADDRESSES])

        assert set(times) == {ADDRESSES[0].key, ADDRESSES[2].key}


def test_without_a_quorum_nothing_is_published_and_nobody_is_asked(tmp_path: Path) -> None:
    with watched(tmp_path) as (scene, network):
        network.absent = {ADDRESSES[0].url, ADDRESSES[1].url}
        with pytest.raises(NoQuorum, match="1 of 3 witnesses have cosigned, 2 are wanted"):
            scene.learn(1)
        assert (tmp_path / "checkpoint").read_text("utf-8") == ""
        assert scene.federation.ledger.positions(kind="update") == []

        network.absent = set()
        assert scene.learn(1).version == 1, "the open round goes on"


def test_checkpoint_without_a_quorum_is_refused_by_participants(tmp_path: Path) -> None:
    with watched(tmp_path) as (scene, _):
        request = captured(scene)
        text, _, lines = request.checkpoint.partition("\n\n")
        log, *cosignatures = lines.splitlines(keepends=True)

        def with_lines(*chosen: str) -> set[str]:
            return reasons(scene, msgspec.structs.replace(request, checkpoint=f"{text}\n\n{log}{''.join(chosen)}"))

        assert len(cosignatures) >= 2
        assert with_lines() == {"quorum"}
        assert with_lines(cosignatures[0]) == {"quorum"}
        assert with_lines(cosignatures[0], cosignatures[0]) == {"quorum"}
        assert with_lines(cosignatures[0].replace("AAAA", "AAAB", 1)) == {"record"}
        assert all(isinstance(answer, RoundAnswer) for answer in answers(scene, request))


def test_other_witnesses_than_the_genesis_names_are_refused(tmp_path: Path) -> None:
    with watched(tmp_path):
        pass

    for other in (PLAIN, replace(WATCHED, witness_threshold=1), replace(WATCHED, witnesses=ADDRESSES[::-1])):
        with pytest.raises(FederationError, match="names 3 witnesses"), stage(tmp_path, other):
            pass


def overheard(said: list[Reply]) -> Wrap:
    """Note all replies by which devices advertise their keys, or do not."""

    def note(requests: list[Request], replies: list[Reply]) -> list[Reply]:
        if requests and requests[0].phase == "advertise":
            said.extend(replies)
        return replies

    return editing(replies=note)


@pytest.mark.parametrize(("keys", "threshold"), [((), 0), ((DIRECT.key,), 0), ((ADDRESSES[0].key, DIRECT.key), 1)])
def test_a_device_refuses_a_quorum_without_a_replaying_witness(
    tmp_path: Path, keys: tuple[str, ...], threshold: int
) -> None:
    """The checkpoint has the quorum that the device wants, and yet nobody need have replayed what is under it."""
    real = World(ratings=low_rank_ratings(), mode="distributed", is_simulated=False)
    said: list[Reply] = []
    with stage(tmp_path / "a", real) as scene:
        checker = scene.host._checker
        agreed = checker._policy
        checker._policy = replace(agreed, witnesses=WitnessPolicy(keys, threshold))

        with scene.edited(overheard(said)), pytest.raises(InsufficientCohort):
            scene.learn(1)

        refusals = [decode_answer(reply.body, AdvertisedKeys) for reply in said]
        assert {refusal.reason for refusal in refusals if isinstance(refusal, RoundRefusal)} == {"quorum"}
        assert all(isinstance(refusal, RoundRefusal) for refusal in refusals)
        checker._policy = agreed
        assert scene.learn(1).version == 1


def put_back(copy: Path, folder: Path, *names: str) -> None:
    """Put an old copy of some parts of a federation's folder back."""
    for name in names:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
            shutil.copytree(copy / name, folder / name)
        else:
            shutil.copy(copy / name, folder / name)


def test_rolled_back_ledger_is_refused_at_start(tmp_path: Path) -> None:
    with stage(tmp_path / "a", PLAIN) as scene:
        model = scene.learn(1)
        before = scene.federation.ledger.size
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    with stage(tmp_path / "a", PLAIN) as scene:
        scene.round(model)
        scene.federation.publisher.publish()
        published = scene.federation.ledger.size

    put_back(tmp_path / "copy", tmp_path / "a", "ledger")

    with pytest.raises(RolledBack, match=f"has {before} entries, but {before + 2} were published") as refused:
        stage(tmp_path / "a", PLAIN).__enter__()
    assert (refused.value.size, refused.value.published) == (before, before + 2), "the devices have accepted more"

    put_back(tmp_path / "copy", tmp_path / "a", "devices")
    with pytest.raises(RolledBack, match=f"has {before} entries, but {published} were published"):
        stage(tmp_path / "a", PLAIN).__enter__()


def test_log_that_is_rolled_back_with_everything_beside_it_is_caught_by_its_witnesses(tmp_path: Path) -> None:
    with watched(tmp_path / "a") as (scene, _):
        model = scene.learn(1)
        scene.federation.publisher.publish()
        before = scene.federation.ledger.size
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    with watched(tmp_path / "a") as (scene, _):
        scene.round(model)
        scene.federation.publisher.publish()
        published = scene.federation.ledger.size

    put_back(tmp_path / "copy", tmp_path / "a", "ledger", "checkpoint", "devices")

    with watched(tmp_path / "a") as (scene, _):
        said = (
            f"has cosigned another history of this log: the ledger has {before} entries, but {published} were published"
        )
        with pytest.raises(RolledBack, match=said):
            scene.federation.publisher.publish()


def test_a_witnesses_contradiction_ends_the_run_with_evidence(tmp_path: Path) -> None:
    """The owner keeps two copies, continues each with other participants' answers, and publishes both."""
    with watched(tmp_path / "a") as (scene, _):
        model = scene.learn(1)
        left_out = scene.host.numbers[0]
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with watched(tmp_path / "a") as (scene, _):
        scene.round(model)
        scene.federation.publisher.publish()

    with stage(tmp_path / "b", WATCHED, wrap=silent({left_out})) as scene:
        honest, forgetful = (
            Network(folder, scene.federation.policy.log_key)
            for folder in (tmp_path / "a" / "witnesses", tmp_path / "f")
        )
        scene.federation.publisher._client = forgetful.client
        scene.round(scene.round(model))
        scene.federation.publisher._client = honest.client
        with pytest.raises(RolledBack, match="has cosigned another history of this log") as told:
            scene.federation.try_to_publish()
        honest.close()
        forgetful.close()

        (file,) = (tmp_path / "b" / "evidence").iterdir()
        assert str(file) in told.value.message
        proved = verify_evidence(file.read_bytes(), scene.federation.policy.log_key)
        assert proved.first.size < proved.second.size == scene.federation.ledger.size


def test_what_a_witness_cannot_show_reaches_the_owner_as_a_rejection(tmp_path: Path) -> None:
    """A witness that replays finds a broken rule, or lies: there is no second note, and nothing was published."""
    with stage(tmp_path, WATCHED) as scene:
        answer = AddCheckpointResponse(422, "the entries do not lead to this checkpoint: wrong_state")

        def silent_about_it(url: str, origin: str) -> str:
            raise LedgerError("no checkpoint")

        scene.federation.publisher._client = WitnessClient(lambda url, body: answer, silent_about_it)
        with pytest.raises(RejectedCheckpoint, match=r"0 of 3 witnesses have cosigned.* 422 the entries do not lead"):
            scene.federation.try_to_publish()
        assert (tmp_path / "checkpoint").read_bytes() == b"", "nothing was published"


def test_a_fork_of_what_was_published_is_refused_at_start_with_evidence(tmp_path: Path) -> None:
    with stage(tmp_path / "a", PLAIN) as scene:
        model = scene.learn(1)
        left_out = scene.host.numbers[0]
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with stage(tmp_path / "a", PLAIN) as scene:
        scene.round(model)
        scene.federation.publisher.publish()
    with stage(tmp_path / "b", PLAIN, wrap=silent({left_out})) as scene:
        scene.round(scene.round(model))
        vkey = scene.federation.policy.log_key
    shutil.copy(tmp_path / "a" / "checkpoint", tmp_path / "b" / "checkpoint")

    with pytest.raises(RolledBack, match="are not those that were published; see"):
        stage(tmp_path / "b", PLAIN).__enter__()

    (file,) = (tmp_path / "b" / "evidence").iterdir()
    assert verify_evidence(file.read_bytes(), vkey).first.size > 0


def test_log_with_a_forked_block_is_refused_at_start(tmp_path: Path) -> None:
    """The copy goes on in another way and becomes as long as the published one."""
    create(tmp_path / "one").close()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one = SqliteLedger.open(tmp_path / "one", LOG_KEY, SimulatedClock())
    two = SqliteLedger.open(tmp_path / "two", LOG_KEY, SimulatedClock())
    LedgerWorld(one).populate()
    published = one.checkpoint()
    check_published(one, published, LOG_VKEY)
    world = LedgerWorld(two)
    world.add(world.enrol(2, "coordinator"))
    with pytest.raises(RolledBack, match="4 entries, but"):
        check_published(two, published, LOG_VKEY)
    while two.size < one.size:
        number = len(two.state.principals)
        world.add(world.enrol(number, "participant"))

    with pytest.raises(RolledBack, match="are not those that were published"):
        check_published(two, published, LOG_VKEY)
    one.close()
    two.close()


def test_publisher_does_not_wait_for_a_witness_that_hangs(tmp_path: Path) -> None:
    with watched(tmp_path) as (scene, network):
        hung = Event()

        def send(url: str, body: bytes) -> AddCheckpointResponse:
            if url == ADDRESSES[0].url:
                hung.wait()
                raise LedgerError("no answer")
            return network.send(url, body)

        publisher = Publisher(
            scene.federation.ledger, ADDRESSES, 2, tmp_path / "kept", WitnessClient(send, network.newest)
        )
        try:
            note = publisher.publish()
        finally:
            hung.set()

        assert len(cosignature_times(note, [address.key for address in ADDRESSES])) == 2


@pytest.mark.parametrize(
    "answer",
    [
        AddCheckpointResponse(200, "nonsense\n"),
        AddCheckpointResponse(200, ""),
        AddCheckpointResponse(409, "x\n", "text/x.tlog.size"),
        AddCheckpointResponse(409, "0\n", "text/x.tlog.size"),
        AddCheckpointResponse(409, "1\n", "text/x.tlog.size"),
        AddCheckpointResponse(409, "99999\n", "text/x.tlog.size"),
        AddCheckpointResponse(500, "no"),
    ],
)
def test_publisher_takes_no_nonsense_for_a_cosignature(tmp_path: Path, answer: AddCheckpointResponse) -> None:
    with stage(tmp_path, WATCHED) as scene:
        client = WitnessClient(lambda url, body: answer, lambda url, origin: answer.body)
        publisher = Publisher(scene.federation.ledger, ADDRESSES, 2, tmp_path / "kept", client)

        with pytest.raises(NoQuorum, match="0 of 3 witnesses"):
            publisher.publish()
        assert not (tmp_path / "kept").exists()
