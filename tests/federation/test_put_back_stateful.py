"""Acts, rounds, kills, and old copies put back, in any order: no device pays less, or answers, than it has decided."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from liberate.errors import LiberateError
from liberate.federation.keys import revoke_key
from liberate.federation.sharing.consents import ConsentTerms, give_consent, withdraw
from liberate.federation.store.device_rows import Device
from liberate.federation.store.devices import DeviceStore
from liberate.federation.wire.round_messages import RoundAnswer, decode_answer
from liberate.federation.wire.transport import Reply, Request
from liberate.ledger.format.entries import decode_record
from liberate.ledger.format.records import Update
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.publish.checkpoints import Publisher
from liberate.ledger.verification.verify import verify_ledger
from tests.federation.crashes import Crash, crash_at
from tests.federation.hostile import editing
from tests.worlds import Stage, World, low_rank_ratings, stage

WORLD = World(
    ratings=low_rank_ratings(4, 4),
    mode="local",
    epsilon=6.0,
    rounds=50,
    batch_size=2,
    is_simulated=False,
    min_participation=0.25,
)
PARTS = ("ledger", "checkpoint", "devices")
USERS = st.sampled_from([f"u{user}" for user in range(4)])

DURABLE_STEPS = (
    (SqliteLedger, "_commit"),
    (DeviceStore, "put_pending_entries"),
    (DeviceStore, "settle_pending_entries"),
    (DeviceStore, "put_key_change"),
    (DeviceStore, "complete_key_change"),
    (DeviceStore, "put_proved_histories"),
    (DeviceStore, "put_answers"),
    (Publisher, "publish"),
)

Step = Callable[[Stage], object]


class PutBack(RuleBasedStateMachine):
    """A federation whose folder is the truth, beside copies of it from before."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(mkdtemp(prefix="put-back-"))
        self.folder = self.home / "federation"
        self.copies: list[Path] = []
        self.is_old = False
        self.answers: dict[tuple[int, int], bytes] = {}
        self.spent: dict[str, int] = {}
        self.left: set[int] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.home)

    @initialize()
    def found(self) -> None:
        with self.opened() as scene:
            scene.federation.publisher.publish()
        self.keep()

    # --- what people and the coordinator do ---------------------------------------------------------------------------

    @rule()
    def hold_a_round(self) -> None:
        self.tried(self.round)

    @rule(user=USERS)
    def consent(self, user: str) -> None:
        self.tried(lambda scene: self.given(scene, user))

    @rule(user=USERS)
    def leave(self, user: str) -> None:
        self.tried(lambda scene: withdraw(scene.federation.ledger, scene.federation.devices, device(scene, user), None))

    @rule(user=USERS)
    def revoke(self, user: str) -> None:
        self.tried(
            lambda scene: revoke_key(scene.federation.ledger, scene.federation.devices, device(scene, user), "device")
        )

    @rule(user=USERS, at=st.integers(1, 6), before=st.booleans(), act=st.sampled_from(["round", "consent", "leave"]))
    def be_killed(self, user: str, at: int, act: str, *, before: bool) -> None:
        """Die before or after the n-th durable step of something."""
        steps: dict[str, Step] = {
            "round": self.round,
            "consent": lambda scene: self.given(scene, user),
            "leave": lambda scene: withdraw(
                scene.federation.ledger, scene.federation.devices, device(scene, user), None
            ),
        }
        with pytest.MonkeyPatch.context() as patched:
            crash_at(patched, DURABLE_STEPS, at, before=before)
            try:
                self.tried(steps[act])
            except Crash:
                if not self.is_old:
                    self.keep()

    # --- what is put back ---------------------------------------------------------------------------------------------

    @rule(part=st.sampled_from(PARTS), data=st.data())
    def put_an_old_part_back(self, part: str, data: st.DataObject) -> None:
        """One part is of another time than the others; devices are put back between rounds only."""
        self.put_the_newest_back()
        if part == "devices" and self.has_open_round():
            return
        copy = data.draw(st.sampled_from(self.copies))
        self.put(copy, part)
        self.is_old = True

    @rule()
    def delete_the_checkpoint(self) -> None:
        (self.folder / "checkpoint").unlink(missing_ok=True)
        self.is_old = True
        with pytest.raises(LiberateError), self.opened():
            pass

    @precondition(lambda self: self.is_old)
    @rule()
    def put_the_newest_back(self) -> None:
        for part in PARTS:
            self.put(self.copies[-1], part)
        self.is_old = False

    # --- what holds ---------------------------------------------------------------------------------------------------

    @invariant()
    def nobody_has_paid_less(self) -> None:
        if self.is_old or not DeviceStore.exists(self.folder / "devices"):
            return
        with DeviceStore(self.folder / "devices") as devices:
            for each in devices.devices():
                assert each.epsilon_nano >= self.spent.get(each.user_id, 0)
                self.spent[each.user_id] = each.epsilon_nano
                if each.has_withdrawn or each.is_revoked:
                    self.left.add(each.enrolled_number)

    # --- steps --------------------------------------------------------------------------------------------------------

    def tried(self, step: Step) -> None:
        """Open the federation and do something; what is refused changes nothing that matters."""
        try:
            with self.opened() as scene:
                step(scene)
                scene.federation.publisher.publish()
        except LiberateError:
            if self.is_old:
                return
        assert verify_ledger(self.folder / "ledger").ok
        self.keep()
        self.is_old = False

    def round(self, scene: Stage) -> None:
        version = scene.federation.ledger.state.model
        base = scene.first if version is None else scene.store.load(version.version)
        with scene.edited(editing(replies=self.overheard)):
            scene.round(base)

    def overheard(self, _: list[Request], replies: list[Reply]) -> list[Reply]:
        """Hold each answer against those that left a device before."""
        for reply in replies:
            answer = decode_answer(reply.body, RoundAnswer) if b"upload" in reply.body else None
            if isinstance(answer, RoundAnswer):
                number = decode_record(answer.entry, Update).round
                assert reply.sender not in self.left, "an answer after its person has left"
                assert self.answers.setdefault((number, reply.sender), reply.body) == reply.body, "two answers"
        return replies

    def given(self, scene: Stage, user: str) -> None:
        recipient = next(number for number in scene.host.numbers if number != device(scene, user).number)
        terms = ConsentTerms(recipients=(recipient,), expiry=10_000, max_shares=1)
        federation = scene.federation
        give_consent(federation.ledger, federation.devices, device(scene, user), terms, federation.randomness())

    @contextmanager
    def opened(self) -> Iterator[Stage]:
        with stage(self.folder, WORLD) as scene:
            yield scene

    def has_open_round(self) -> bool:
        ledger = SqliteLedger.open(self.folder / "ledger")
        try:
            return ledger.state.open_round is not None
        finally:
            ledger.close()

    def keep(self) -> None:
        copy = self.home / f"copy-{len(self.copies)}"
        shutil.copytree(self.folder, copy)
        self.copies.append(copy)

    def put(self, copy: Path, part: str) -> None:
        present, old = self.folder / part, copy / part
        if present.is_dir():
            shutil.rmtree(present)
            shutil.copytree(old, present)
        else:
            shutil.copy(old, present)


def device(scene: Stage, user: str) -> Device:
    found = scene.federation.devices.find(user_id=user)
    assert found is not None
    return found


def budget(max_examples: int) -> settings:
    """How many sequences are tried; each takes a while."""
    return settings(
        max_examples=max_examples, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck)
    )


class ManyPutBack(PutBack):
    """The same, for longer."""


TestPutBack = PutBack.TestCase
TestPutBack.settings = budget(4)
TestManyPutBack = pytest.mark.soak(ManyPutBack.TestCase)
TestManyPutBack.settings = budget(200)
