"""Five participants do what they like; state and trace say what a plain book of what happened says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from liberate.crypto.merkle import leaf_hash, root
from liberate.errors import RefusedEntry
from liberate.identifiers import Digest
from liberate.ledger.format.parts import RecordBase
from liberate.ledger.format.records import Record
from liberate.ledger.format.sharing_records import Receipt, UsedCopy
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.queries.usable_copies import pooled_copies
from liberate.ledger.trace.contributions import Contribution
from liberate.ledger.trace.copies import TracedCopy
from liberate.ledger.trace.model_ancestry import model_ancestry
from liberate.ledger.trace.participant import trace_participant, trace_received
from liberate.ledger.trace.prover import ProvedEntry
from liberate.ledger.verification.verify import verify_ledger
from tests.ledger.rules.test_transition import change
from tests.ledger.world import COORDINATOR, LOG_VKEY, ORIGIN, World, create, digest

PEOPLE = (3, 4, 5, 6, 7)
SPEND, ROUNDS = 2, 3
participants = st.sampled_from(PEOPLE)
which = st.integers(0, 7)


@dataclass
class Granted:
    hash: Digest
    sender: int
    recipients: set[int]
    expiry: int
    most: int
    limit: int | None
    end: int | None = None


@dataclass
class Given:
    hash: Digest
    consent: Granted
    recipient: int
    base: str
    epsilon: int | None
    receipt: int | None = None


@dataclass
class Answer:
    position: int
    author: int
    inputs: list[Given]


@dataclass
class Turn:
    """A round."""

    run: int
    spend: int
    parent: int | None
    answers: list[Answer] = field(default_factory=list)
    pools: list[tuple[int, dict[int, list[Given]]]] = field(default_factory=list)
    end: int | None = None
    version: int | None = None
    unused: set[int] = field(default_factory=set)


class Acts(RuleBasedStateMachine):
    """Every act is offered to the ledger; the book says beforehand whether it will be accepted."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.ledger: SqliteLedger = create(Path(self.folder.name), auditors=True)
        self.world = World(self.ledger)
        self.consents: list[Granted] = []
        self.given: list[Given] = []
        self.turns: list[Turn] = []
        self.left: dict[int, int] = {}
        self.asked: dict[int, list[int]] = {}
        self.versions: list[Turn] = []
        self.latest: int | None = None

    @initialize()
    def begin(self) -> None:
        self.world.add(self.world.enrol(COORDINATOR, "coordinator"))
        for number in PEOPLE:
            self.world.add(self.world.enrol(number, "participant"))

    def offer(self, record: Record, is_expected: bool) -> tuple[int, Digest] | None:
        """Offer a record; give position and leaf hash if it is accepted."""
        data = self.world.sign(record)
        (result,) = self.ledger.append([data])
        assert isinstance(result, int) == is_expected, (record, result)
        return None if isinstance(result, RefusedEntry) else (result, leaf_hash(data))

    # --- what the book knows -----------------------------------------------------------------------------------------

    def holds(self, consent: Granted) -> bool:
        return consent.end is None and self.ledger.height < consent.expiry

    def usable(self, given: Given, by: int) -> bool:
        return self.holds(given.consent) and given.receipt is not None and given.recipient == by

    @property
    def turn(self) -> Turn | None:
        return self.turns[-1] if self.turns and self.turns[-1].end is None else None

    def spent(self, number: int) -> int:
        return sum(turn.spend for turn in self.turns for answer in turn.answers if answer.author == number)

    # --- acts --------------------------------------------------------------------------------------------------------

    @rule(
        sender=participants,
        recipients=st.sets(st.sampled_from((COORDINATOR, *PEOPLE)), min_size=1),
        most=st.integers(1, 3),
        limit=st.sampled_from([None, 2]),
        life=st.sampled_from([3, 12, 100]),
    )
    def consent(self, sender: int, recipients: set[int], most: int, limit: int | None, life: int) -> None:
        expiry = self.ledger.height + life
        record = self.world.consent(sender, *recipients, max_shares=most, epsilon_nano=limit, expiry=expiry)
        is_fine = sender not in self.left and sender not in recipients and not recipients & self.left.keys()
        if accepted := self.offer(change(record, terms=digest(len(self.consents))), is_fine):
            self.consents.append(Granted(accepted[1], sender, recipients, expiry, most, limit))

    @rule(sender=participants, recipient=st.sampled_from((COORDINATOR, *PEOPLE)), life=st.sampled_from([9, 100]))
    def hand_over(self, sender: int, recipient: int, life: int) -> None:
        """Consent, share and receipt at once."""
        n_consents, n_given = len(self.consents), len(self.given)
        self.consent(sender, {recipient}, 2, None, life)
        if len(self.consents) > n_consents:
            self.share(0, None, recipient, "a", None)
        if len(self.given) > n_given:
            self.receive(0, None)

    @precondition(lambda self: self.consents)
    @rule(
        index=which,
        sender=st.none() | participants,
        recipient=st.sampled_from((COORDINATOR, *PEOPLE)),
        base=st.sampled_from("ab"),
        epsilon=st.sampled_from([None, 1, 2]),
    )
    def share(self, index: int, sender: int | None, recipient: int, base: str, epsilon: int | None) -> None:
        consent = self.consents[-1 - index % len(self.consents)]
        sender = consent.sender if sender is None else sender
        earlier = [given for given in self.given if given.consent is consent]
        bases = {given.base: given.epsilon for given in earlier}
        is_fine = (
            sender == consent.sender
            and sender not in self.left
            and self.holds(consent)
            and recipient in consent.recipients
            and recipient not in self.left
            and len(earlier) < consent.most
            and bases.get(base, epsilon) == epsilon
        )
        costs = {**bases, base: epsilon}.values()
        if consent.limit is not None:
            is_fine = is_fine and None not in costs and sum(cost or 0 for cost in costs) <= consent.limit
        record = self.world.share(sender, recipient, base=base, epsilon_nano=epsilon)
        copy = digest((base, sender, recipient, len(self.given)))
        if accepted := self.offer(change(record, consent=consent.hash, copy=copy), is_fine):
            self.given.append(Given(accepted[1], consent, recipient, base, epsilon))

    @precondition(lambda self: self.given)
    @rule(index=which, by=st.none() | participants)
    def receive(self, index: int, by: int | None) -> None:
        number = len(self.given) - 1 - index % len(self.given)
        given = self.given[number]
        by = given.recipient if by is None else by
        is_fine = self.holds(given.consent) and by == given.recipient and by not in self.left and not given.receipt
        sender = given.consent.sender
        copy = digest((given.base, sender, given.recipient, number))
        seq = self.world.seq(by)
        record = Receipt(origin=ORIGIN, author=by, seq=seq, sender=sender, share=given.hash, copy=copy)
        if accepted := self.offer(record, is_fine):
            given.receipt = accepted[0]

    @precondition(lambda self: self.consents)
    @rule(index=which, by=st.none() | participants)
    def withdraw(self, index: int, by: int | None) -> None:
        consent = self.consents[index % len(self.consents)]
        by = consent.sender if by is None else by
        is_fine = by == consent.sender and consent.end is None and by not in self.left
        if accepted := self.offer(self.world.withdrawal(by, consent.hash), is_fine):
            consent.end = accepted[0]

    @precondition(lambda self: len(self.given) > 1 and len(self.turns) > 1)
    @rule(by=participants)
    def leave(self, by: int) -> None:
        if accepted := self.offer(self.world.withdrawal(by), by not in self.left):
            self.left[by] = accepted[0]
            for consent in self.consents:
                if consent.sender == by and consent.end is None:
                    consent.end = accepted[0]

    @precondition(lambda self: self.left)
    @rule(by=participants)
    def ask(self, by: int) -> None:
        if accepted := self.offer(self.world.erasure(by), by in self.left and by not in self.asked):
            self.asked[by] = [accepted[0]]

    @precondition(lambda self: self.left)
    @rule(of=participants)
    def remove(self, of: int) -> None:
        if accepted := self.offer(self.world.erasure_report(of, notified=(COORDINATOR,)), of in self.asked):
            self.asked[of].append(accepted[0])

    @rule(is_fresh=st.booleans(), spend=st.sampled_from([0, 0, SPEND]))
    def open(self, is_fresh: bool, spend: int) -> None:
        last = self.turns[-1] if self.turns else None
        opened = sum(turn.run == last.run for turn in self.turns) if last else 0
        run = 1 if last is None else last.run + (opened == ROUNDS or is_fresh)
        state = self.world.state
        record = change(self.world.round(run=run, spend=spend), deadline=self.ledger.height + 10_000)
        is_new = last is None or run != last.run
        if is_fresh and is_new and state.model:
            record = change(record, base_digest=digest(("fresh", self.ledger.height)))
        if self.offer(record, self.turn is None):
            base = None if is_fresh and is_new else self.latest
            self.turns.append(Turn(run, spend, base))
            self.latest = base

    @precondition(lambda self: self.turn is not None)
    @rule(author=participants, indexes=st.none() | st.sets(which, max_size=3))
    def answer(self, author: int, indexes: set[int] | None) -> None:
        """Answer with some copies, or with all that can be used."""
        turn = self.turn
        assert turn
        if indexes is None:
            inputs = [given for given in self.given if self.usable(given, author)]
        else:
            inputs = [self.given[index] for index in indexes if index < len(self.given)]
        keys = sorted({(given.consent.sender, given.hash) for given in inputs})
        record = self.world.update(author)
        record = change(
            record, participants=(), shares=tuple(UsedCopy(sender=sender, share=share) for sender, share in keys)
        )
        is_fine = (
            author not in self.left
            and all(answer.author != author for answer in turn.answers)
            and not (turn.spend and inputs)
            and all(self.usable(given, author) for given in inputs)
        )
        if accepted := self.offer(record, is_fine):
            turn.answers.append(Answer(accepted[0], author, inputs))

    @precondition(lambda self: self.turn is not None)
    @rule(chosen=st.none() | st.sets(participants, max_size=3))
    def pool(self, chosen: set[int] | None) -> None:
        """Use the shares of some people, or of all whose can be used."""
        turn = self.turn
        assert turn
        named = {number for _, earlier in turn.pools for number in earlier}
        received = [given for given in self.given if self.usable(given, COORDINATOR)]
        chosen = {given.consent.sender for given in received} - named if chosen is None else chosen
        usable = {number: [given for given in received if given.consent.sender == number] for number in chosen}
        is_fine = bool(chosen) and all(usable.values()) and not chosen & named
        if accepted := self.offer(self.world.pool(*chosen), is_fine):
            turn.pools.append((accepted[0], usable))

    @precondition(lambda self: self.turn is not None and self.turn.answers)
    @rule(leave_out=st.booleans())
    def close(self, leave_out: bool) -> None:
        turn = self.turn
        assert turn
        unused = {turn.answers[0].position} if leave_out else set()
        is_fine = len(turn.answers) > len(unused)
        if accepted := self.offer(self.world.model(unused=tuple(unused)), is_fine):
            self.versions.append(turn)
            turn.end, turn.version, turn.unused = accepted[0], len(self.versions), unused
            self.latest = turn.version

    @precondition(lambda self: self.turn is not None and len(self.turns) % 3 == 2)
    @rule()
    def abort(self) -> None:
        turn = self.turn
        assert turn
        accepted = self.offer(self.world.aborted(), True)
        assert accepted
        turn.end = accepted[0]

    @precondition(lambda self: self.given)
    @rule(authors=st.sets(participants, min_size=1), is_closed=st.booleans())
    def learn(self, authors: set[int], is_closed: bool) -> None:
        """A round in which the coordinator and some people use all that they can."""
        if self.turn is None:
            self.open(False, 0)
        self.pool(None)
        for author in sorted(authors):
            self.answer(author, None)
        if is_closed and self.turn and self.turn.answers:
            self.close(False)

    # --- what must hold ----------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if self.ledger.height > 1:
                self.check_state()
                for number in PEOPLE:
                    self.check_trace(number)
                self.check_models()
                self.check_pools()
                assert verify_ledger(Path(self.folder.name), key=LOG_VKEY).ok
        finally:
            self.ledger.close()
            self.folder.cleanup()

    def check_pools(self) -> None:
        for opening, turn in zip(self.ledger.positions(kind="round"), self.turns, strict=True):
            wanted = [(number, given.hash) for _, of in turn.pools for number in of for given in of[number]]
            assert pooled_copies(self.ledger, opening, turn.end or self.ledger.size) == sorted(wanted)

    def check_state(self) -> None:
        sharing = self.ledger.state.sharing
        live = [consent for consent in self.consents if consent.end is None]
        assert {hash for granted in sharing.consents.values() for hash in granted} == {each.hash for each in live}
        assert {hash: share.is_received for hash, share in sharing.shares.items()} == {
            given.hash: given.receipt is not None for given in self.given if given.consent.end is None
        }
        for number in PEOPLE:
            leaf = self.ledger.state.principals[number]
            own = [consent.hash for consent in live if consent.sender == number]
            assert leaf.consents == (root(own) if own else bytes(32))
            assert (leaf.has_withdrawn, leaf.is_to_be_forgotten) == (number in self.left, number in self.asked)

    def check_trace(self, number: int) -> None:
        trace = trace_participant(self.ledger, number)
        own = [given for given in self.given if given.consent.sender == number]
        assert [told(copy) for copy in trace.copies] == [self.wanted(given) for given in own]
        assert [told(copy) for copy in trace.received] == self.received_by(number)
        assert [told(copy) for copy in trace_received(self.ledger, COORDINATOR).copies] == self.received_by(COORDINATOR)
        assert [(c.entry.leaf_hash, at(c.withdrawal), c.is_active) for c in trace.consents] == [
            (each.hash, each.end, self.holds(each)) for each in self.consents if each.sender == number
        ]
        answered = [(turn, a.position) for turn in self.turns for a in turn.answers if a.author == number]
        assert [followed(each) for each in trace.contributions] == [self.fate(*each) for each in answered]
        uses = list(self.uses_of(number))
        assert [
            (use.recipient, [copy.share.leaf_hash for copy in use.copies], followed(use.contribution))
            for use in trace.uses
        ] == [(by, [given.hash for given in copies], self.fate(turn, position)) for by, copies, turn, position in uses]
        ended = [(*each, self.left.get(number)) for each in answered]
        ended += [(turn, at, first_end(copies)) for _, copies, turn, at in uses]
        later = {position for turn, position, end in ended if end and is_used(turn, position) and (turn.end or 0) > end}
        assert {each.update.position for each in trace.used_after_withdrawal() if each.outcome == "used"} == later
        assert at(trace.withdrawal) == self.left.get(number)
        assert [each.position for each in trace.erasures] == self.asked.get(number, [])
        assert trace.principal.epsilon_nano == sum(each.nano for each in trace.spent) == self.spent(number)
        assert {each.run: each.nano for each in trace.spent} == {
            run: sum(turn.spend for turn, _ in answered if turn.run == run)
            for run in {turn.run for turn, _ in answered if turn.spend}
        }
        assert trace.bases == {digest((given.base, number)): given.epsilon for given in own}

    def check_models(self) -> None:
        for turn in self.versions:
            steps = list(model_ancestry(self.ledger, turn.version or 0))
            chain = list(self.ancestors(turn))
            assert [each.model.position for each in steps] == [each.end for each in chain]
            for step, made in zip(steps, chain, strict=True):
                used = [answer for answer in made.answers if answer.position not in made.unused]
                assert step.participants == {answer.author for answer in used}
                assert step.pooled == {number for _, pooled in made.pools for number in pooled}
                senders: dict[int, list[int]] = {}
                for answer in used:
                    for sender in {given.consent.sender for given in answer.inputs}:
                        senders.setdefault(sender, []).append(answer.position)
                assert {sender: list(positions) for sender, positions in step.senders.items()} == senders

    def wanted(self, given: Given) -> tuple[object, ...]:
        consent = given.consent
        who = given.hash, consent.sender, given.recipient
        return (*who, consent.hash, given.receipt, consent.end, self.holds(consent))

    def received_by(self, number: int) -> list[tuple[object, ...]]:
        return [self.wanted(given) for given in self.given if given.recipient == number]

    def uses_of(self, number: int) -> Iterator[tuple[int, list[Given], Turn, int]]:
        """Who used which copies of somebody in which round, by which entry; in ledger order."""
        found = []
        for turn in self.turns:
            for answer in turn.answers:
                copies = [given for given in answer.inputs if given.consent.sender == number]
                if copies:
                    in_order = sorted(copies, key=lambda given: given.hash)
                    found.append((answer.author, in_order, turn, answer.position))
            found += [(COORDINATOR, pools[number], turn, at) for at, pools in turn.pools if number in pools]
        yield from sorted(found, key=lambda use: use[3])

    def fate(self, turn: Turn, position: int) -> tuple[str, int | None, list[int]]:
        """Outcome, version, and versions built on it."""
        if turn.end is None:
            return "open", None, []
        if turn.version is None:
            return "aborted", None, []
        if position in turn.unused:
            return "unused", None, []
        later = [each.version or 0 for each in self.versions if turn in list(self.ancestors(each))[1:]]
        return "used", turn.version, later

    def ancestors(self, turn: Turn) -> Iterator[Turn]:
        yield turn
        if turn.parent is not None:
            yield from self.ancestors(self.versions[turn.parent - 1])


def at(entry: ProvedEntry[RecordBase] | None) -> int | None:
    return entry.position if entry else None


def first_end(copies: list[Given]) -> int | None:
    return min((given.consent.end for given in copies if given.consent.end), default=None)


def is_used(turn: Turn, position: int) -> bool:
    return turn.version is not None and position not in turn.unused


def told(copy: TracedCopy) -> tuple[object, ...]:
    """What the trace says of a copy."""
    return (
        copy.share.leaf_hash,
        copy.sender,
        copy.recipient,
        copy.consent.entry.leaf_hash,
        at(copy.receipt),
        at(copy.consent.withdrawal),
        copy.consent.is_active,
    )


def followed(contribution: Contribution) -> tuple[str, int | None, list[int]]:
    """What the trace says of an update or a pool."""
    return (
        contribution.outcome,
        contribution.model.record.version if contribution.model else None,
        [model.record.version for model in contribution.descendants],
    )


def budget(max_examples: int) -> settings:
    """How many sequences of acts are tried; each takes a while."""
    return settings(
        max_examples=max_examples, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
    )


class ManyActs(Acts):
    """The same, for longer."""


TestActs = Acts.TestCase
TestActs.settings = budget(25)
TestManyActs = pytest.mark.soak(ManyActs.TestCase)
TestManyActs.settings = budget(1_000)
