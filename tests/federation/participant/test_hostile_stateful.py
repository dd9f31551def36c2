"""Honest and hostile steps of a coordinator and its log in any order: whatever they try, nobody is laid bare."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from liberate.arrays import UInt32Array
from liberate.federation.participant.refusals import Refused
from liberate.federation.wire.secagg_messages import RoundHistory
from liberate.ledger.format.entries import decode_entry
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.records import RoundSet, SetPhase
from tests.federation.masked import FIRST, Party, ones

SIZE, COLLUDERS, ATTEMPTS = 5, 1, 4
MEMBERS = tuple(range(FIRST, FIRST + SIZE))
ACCOMPLICES = MEMBERS[:COLLUDERS]
PHASES: tuple[SetPhase, ...] = ("advertised", "graph", "shared", "survivors")

member = st.sampled_from(MEMBERS)
crowd = st.sets(member, min_size=2).map(sorted)
phase = st.sampled_from(PHASES)


class HostileCoordinator(RuleBasedStateMachine):
    """A coordinator that owns its log, breaks its rules, forks it, and shows people what it likes.

    What it learns is noted, and compared with what a device may ever tell in one round.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.party = Party(self.folder / "devices", SIZE, colluders=COLLUDERS, late=200, attempts=ATTEMPTS)
        self.number = 1
        self.uploads: dict[tuple[int, int], set[bytes]] = defaultdict(set)
        self.seeds: dict[tuple[int, int], set[bytes]] = defaultdict(set)
        self.own: dict[tuple[int, int], dict[int, bytes]] = defaultdict(dict)
        self.mask: dict[tuple[int, int], dict[int, bytes]] = defaultdict(dict)
        self.survivors: dict[int, set[tuple[int, ...]]] = defaultdict(set)
        self.entries: dict[int, set[bytes]] = defaultdict(set)

    def teardown(self) -> None:
        self.party.devices.close()
        shutil.rmtree(self.folder)

    def told(self, ask: Callable[[], object]) -> bool:
        """Ask a device; return whether it answers."""
        try:
            ask()
        except (Refused, KeyError, IndexError, ValueError):  # or the coordinator itself has not what it would show
            return False
        return True

    # --- steps of an honest round, by whomever and whenever -----------------------------------------------------------

    @rule(numbers=crowd)
    def advertise(self, numbers: Sequence[int]) -> None:
        if self.told(lambda: self.party.advertise(numbers)):
            self.entries[self.number].add(self.party.round.hash)

    @rule(phase=phase, numbers=crowd)
    def record(self, phase: SetPhase, numbers: Sequence[int]) -> None:
        self.told(lambda: self.party.record(phase, numbers))

    @rule(number=member)
    def choose(self, number: int) -> None:
        if self.told(lambda: self.party.choose(number)):
            self.seeds[self.number, number].add(self.party.seeds[number])

    @rule(number=member)
    def share(self, number: int) -> None:
        self.told(lambda: self.party.share(number))

    @rule(number=member)
    def upload(self, number: int) -> None:
        self.note_upload(number, lambda: self.party.upload(number, ones()))

    @rule(number=member)
    def unmask(self, number: int) -> None:
        self.note_shares(number, self.party.history)

    @rule()
    def go_on_honestly(self) -> None:
        """Carry everybody through the phases up to the upload, as far as they still go along."""
        party = self.party
        steps: list[Callable[[], object]] = [
            lambda: self.advertise(MEMBERS),
            lambda: party.record("advertised", MEMBERS),
            *(lambda number=number: self.choose(number) for number in MEMBERS),
            lambda: party.record("graph", MEMBERS),
            *(lambda number=number: self.share(number) for number in MEMBERS),
            lambda: party.record("shared", MEMBERS),
        ]
        for step in steps:
            self.told(step)

    @rule()
    def crash(self) -> None:
        self.party.restart()

    @precondition(lambda self: self.number < ATTEMPTS + 2)
    @rule()
    def open_the_next_round(self) -> None:
        self.number += 1
        self.party.keys, self.party.seeds, self.party.sealed = {}, {}, {}
        self.party.open_round(self.number)

    # --- hostile steps ------------------------------------------------------------------------------------------------

    @rule(minimum=st.integers(1, SIZE))
    def open_the_round_again(self, minimum: int) -> None:
        """The same number with another entry: other neighbours, and maybe a smaller crowd."""
        self.party.open_round(self.number, minimum=minimum)

    @rule(back=st.integers(1, 6))
    def fork(self, back: int) -> None:
        """Forget the newest entries, and go on from there as if they had never been."""
        log = self.party.log
        kept = log.data[: max(self.party.position + 2, log.size - back)]
        fresh = type(log)(log.origin, self.party.principals())
        for data in kept:
            fresh._append(data)
        log.data, log.state = fresh.data, fresh.state

    @rule(number=member, dropped=st.integers(1, 8))
    def keep_an_entry_back(self, number: int, dropped: int) -> None:
        """Show survivors in a history that lacks one of the coordinator's entries."""

        def partial() -> RoundHistory:
            history = self.party.history()
            at = dropped % len(history.entries)
            lists = {
                name: [item for index, item in enumerate(getattr(history, name)) if index != at]
                for name in ("entries", "positions", "inclusion")
            }
            return msgspec.structs.replace(history, **lists)

        self.note_shares(number, partial, shown=False)

    @rule(number=member, other=member)
    def swap_a_seed(self, number: int, other: int) -> None:
        """Tell one device another's seed for its own."""

        def ask() -> None:
            seeds = copy.copy(self.party.seeds)
            seeds[other] = b"x" * 32
            cohort = msgspec.structs.replace(self.party.cohort(), seeds=sorted(seeds.items()))
            self.party.share(number, self.party.share_request(cohort))

        assert not self.told(ask), "a seed that nobody has committed to was believed"

    @rule(number=member, hidden=member)
    def hide_a_neighbour(self, number: int, hidden: int) -> None:
        """Hand on all shares but one, as if its sender had vanished."""

        def ask() -> UInt32Array:
            request = self.party.mask_request(number)
            received = [item for item in request.received if item[0] != hidden]
            return self.party.upload(number, ones(), msgspec.structs.replace(request, received=received))

        self.note_upload(number, ask)

    # --- what it has learned ------------------------------------------------------------------------------------------

    def note_upload(self, number: int, ask: Callable[[], UInt32Array]) -> None:
        values: list[UInt32Array] = []
        if self.told(lambda: values.append(ask())):
            self.uploads[self.number, number].add(values[0].tobytes())

    def note_shares(self, number: int, history: Callable[[], RoundHistory], *, shown: bool = True) -> None:
        revealed: list[tuple[int, bytes]] = []
        if not self.told(lambda: revealed.extend(self.party.unmask(number, history()).shares)):
            return
        assert shown, "shares were revealed for a history that lacks an entry"

        survivors = self.recorded_survivors()
        self.survivors[self.number].add(survivors)
        for owner, share in revealed:
            kind = self.own if owner in survivors else self.mask
            kind[self.number, owner][number] = share

    def recorded_survivors(self) -> tuple[int, ...]:
        records = [decode_entry(data).record for data in self.party.history().entries]
        named = [r for r in records if isinstance(r, RoundSet) and r.phase == "survivors"]
        assert len(named) == 1, "shares were revealed beside a second survivor set"
        return tuple(numbers_in(named[0].participants))

    @invariant()
    def nobody_sends_two_uploads_in_one_round(self) -> None:
        assert all(len(uploads) <= 1 for uploads in self.uploads.values())

    @invariant()
    def no_upload_leaves_without_a_mask(self) -> None:
        plain = ones().tobytes()
        assert all(plain not in uploads for uploads in self.uploads.values())
        for uploads in self.uploads.values():
            for upload in uploads:
                assert len(np.unique(np.frombuffer(upload, np.uint32))) > 1

    @invariant()
    def neighbours_are_drawn_once_in_a_round(self) -> None:
        assert all(len(seeds) <= 1 for seeds in self.seeds.values())
        assert all(len(hashes) <= 1 for hashes in self.entries.values())

    @invariant()
    def masks_are_undone_for_one_crowd_that_is_large_enough(self) -> None:
        for sets in self.survivors.values():
            assert len(sets) <= 1
            assert all(len(survivors) >= self.party.least for survivors in sets)

    @invariant()
    def both_secrets_of_nobody_are_known(self) -> None:
        """Accomplices hold a share of each secret of whoever chose them."""
        threshold = self.party.round.threshold
        for key in self.own.keys() | self.mask.keys():
            counts = [len(shares.keys() | set(ACCOMPLICES)) for shares in (self.own[key], self.mask[key])]
            assert min(counts) < threshold, f"{key}: {counts}"

    @invariant()
    def keys_are_advertised_in_so_many_rounds_only(self) -> None:
        assert all(self.party.devices.key_phases(slot, 1) <= ATTEMPTS for slot in range(SIZE))


@pytest.mark.parametrize("examples", [12, pytest.param(400, marks=pytest.mark.soak)])
def test_no_order_of_honest_and_hostile_steps_lays_anybody_bare(examples: int) -> None:
    run_state_machine_as_test(
        HostileCoordinator, settings=settings(max_examples=examples, stateful_step_count=25, deadline=None)
    )


def test_the_machine_reaches_the_end_of_a_round() -> None:
    """So that what it finds nothing wrong with has happened at all."""
    machine = HostileCoordinator()
    machine.go_on_honestly()
    for number in MEMBERS:
        machine.upload(number)
    machine.record("survivors", MEMBERS)
    for number in MEMBERS:
        machine.unmask(number)

    assert all(len(machine.uploads[1, number]) == 1 for number in MEMBERS)
    assert machine.survivors[1] == {MEMBERS}
    assert all(machine.own[1, number] for number in MEMBERS)
    machine.both_secrets_of_nobody_are_known()
    machine.teardown()
