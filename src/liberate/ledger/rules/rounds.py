"""The rules of rounds: how one is opened and answered, whose data its sum has, and how it is closed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from liberate.crypto.merkle import root
from liberate.crypto.note import WitnessPolicy
from liberate.identifiers import Digest
from liberate.ledger.format.number_sets import checked_participants
from liberate.ledger.format.records import Aborted, Genesis, ModelRecord, Round, RoundSet, TermsRecord, Update
from liberate.ledger.format.refusals import refuse_if, refused
from liberate.ledger.format.sharing_records import PoolRecord
from liberate.ledger.rules import sharing
from liberate.ledger.rules.participants import check_participants
from liberate.ledger.rules.round_sets import RoundSets
from liberate.ledger.rules.round_state import ModelReference, OpenRound, RunState
from liberate.ledger.rules.state import State


def change_terms(state: State, record: TermsRecord, hash: Digest) -> None:
    """Put new terms in force, between rounds."""
    refuse_if(state.open_round is not None, "round_open", f"round {state.round_number} has not been closed")
    fault = record.terms.fault()
    refuse_if(bool(fault), "bad_terms", fault)
    count, most = state.participant_count, record.terms.max_participants
    refuse_if(most < count, "bad_terms", f"{most} participants at most, {count} were enrolled")
    state.change_terms(record.terms, hash)


def open_round(state: State, record: Round, hash: Digest) -> None:
    """Open the next round of the present run, or the first one of the next."""
    next_number = state.round_number + 1
    refuse_if(state.open_round is not None, "round_open", f"round {state.round_number} has not been closed")
    refuse_if(record.number != next_number, "wrong_number", f"round {record.number}, the next one is {next_number}")
    run = _next_run(state, record)
    base = _base(state, record)
    is_other = record.terms != state.terms_hash
    refuse_if(is_other, "wrong_terms", "the round is not under the terms in force")

    is_priced = record.account != "none"
    is_free = record.spend_nano == 0
    refuse_if(is_priced == is_free, "wrong_spend", f"{record.spend_nano} from account {record.account!r}")
    if not state.founding.simulated:
        is_central = record.noise_placement == "on_sum"
        refuse_if(is_central, "not_simulated", "noise is drawn once on a sum in simulations only")
        is_unmasked = record.mechanism.parameters.get("masked") == 0
        refuse_if(is_unmasked, "not_simulated", "masks are left out in simulations only")
        _check_replayed(state.founding, record)

    is_late = record.deadline <= state.height
    refuse_if(is_late, "too_late", f"deadline {record.deadline}, the next block is {state.height + 1}")
    cohort = checked_participants(record.cohort, "wrong_cohort")
    check_participants(state, cohort, "wrong_cohort")
    refuse_if(record.is_masked and not cohort, "wrong_cohort", "a masked round lists its cohort")

    state.round_number = record.number
    state.run = run
    state.model = base
    sets = RoundSets.of(record, state.terms)
    state.open_round = OpenRound(record, hash, state.size, len(state.principals), sets)


def _check_replayed(genesis: Genesis, record: Round) -> None:
    """Refuse a masked round where a quorum of the genesis may lack a witness that replays the rules.

    What the masks hide rests on the state root, which says whose keys are whose, and on sets having no twin:
    a log that breaks its own rules is found by whoever replays them, and by nobody else.
    """
    policy = WitnessPolicy(genesis.witnesses.keys, genesis.witnesses.threshold)
    is_unwatched = record.is_masked and not policy.always_replays
    refuse_if(is_unwatched, "not_replayed", "a masked round wants a replaying witness in every quorum of the genesis")


def _next_run(state: State, record: Round) -> RunState:
    last = state.run
    if last is None or record.run == last.number + 1:
        is_skipped = last is None and record.run > 1
        refuse_if(is_skipped, "wrong_run", f"run {record.run}, the first one is 0 or 1")
        return RunState(record.run, record.rounds, opened=1)

    if record.run != last.number or record.rounds != last.rounds:
        wanted = f"run {last.number} of {last.rounds}, or the next run"
        raise refused("wrong_run", f"run {record.run} of {record.rounds} rounds, wanted {wanted}")
    is_complete = last.rounds == last.opened
    refuse_if(is_complete, "run_complete", f"run {last.number} announced {last.rounds} rounds and had them")
    return RunState(last.number, last.rounds, last.opened + 1)


def _base(state: State, record: Round) -> ModelReference:
    base = ModelReference(record.base_version, record.base_digest)
    reached = state.model or ModelReference(0, record.base_digest)
    is_new_run = state.run is None or record.run != state.run.number
    if base.version != reached.version or not (is_new_run or base.digest == reached.digest):
        raise refused("wrong_base_model", f"the round starts from {base}, wanted {reached}")
    return base


def accept_update(state: State, record: Update, hash: Digest) -> None:
    """Accept an answer to the open round, and charge those for whom it answers."""
    current = _named_round(state, record)
    _check_round_hash(current, record)
    is_settled = current.sets.has_begun("survivors")
    refuse_if(is_settled, "survivors_named", f"whose updates round {record.round} uses is settled")
    deadline = current.record.deadline
    is_late = state.height >= deadline
    refuse_if(is_late, "too_late", f"block {state.height + 1} is after the deadline, {deadline}")
    if (record.account, record.spend_nano) != (current.record.account, current.record.spend_nano):
        wanted = f"{current.record.spend_nano} from {current.record.account!r}"
        raise refused("wrong_spend", f"{record.spend_nano} from {record.account!r}, wanted {wanted}")

    is_priced = record.account != "none"
    # What an answer reveals without a price has no bound: a limit would say nothing any more.
    is_unpriced = state.founding.has_limit and not is_priced
    refuse_if(is_unpriced, "unpriced", "the genesis limits what a person may spend, and the round has no price")
    # Each copy in it would move the sum by as much as its sender's own answer does, and nobody would be charged.
    is_shared = is_priced and bool(record.shares)
    refuse_if(is_shared, "private_shares", "an answer that spends is computed from the person's own ratings alone")

    is_host = state.principals[record.author].role == "host"
    is_wrong = is_host != bool(record.participants)
    refuse_if(is_wrong, "wrong_participants", "a host names its participants, a participant answers for nobody else")
    participants = checked_participants(record.participants, "wrong_participants") if is_host else (record.author,)
    check_participants(state, participants, "not_in_cohort")
    _check_shared(current, participants)
    _check_answers(state, current, participants)
    sharing.check_inputs(state, record.shares, participants)

    for number in participants:
        state.principals[number].spend(record.account, record.spend_nano)
    current.accept(participants, hash, state.size)


def _check_shared(current: OpenRound, participants: Iterable[int]) -> None:
    """Check that those who answer a masked round have shared the secrets behind their masks."""
    if not current.record.is_masked:
        return
    shared = current.sets.whole("shared")
    if shared is None:
        raise refused("not_shared", f"who shares secrets in round {current.record.number} is not recorded")
    for number in participants:
        if number not in shared:
            raise refused("not_in_set", f"principal {number} shared no secrets in round {current.record.number}")


def _check_answers(state: State, current: OpenRound, participants: Iterable[int]) -> None:
    account, spend = current.record.account, current.record.spend_nano
    limit = state.limit(account)
    for number in participants:
        if not current.admits(number):
            raise refused("not_in_cohort", f"principal {number} does not belong to round {current.record.number}")
        if number in current.answered:
            raise refused("second_update", f"principal {number} has answered round {current.record.number}")
        spent = state.principals[number].spent(account)
        if spent + spend > limit:
            raise refused("over_budget", f"principal {number} spent {spent} of {limit}, {spend} more are too many")
        # What both accounts come to together is in neither of them: under a limit a person has one.
        if state.founding.has_limit and state.principals[number].spends_otherwise(account):
            raise refused("over_budget", f"principal {number} has spent from another account than {account!r}")


def use_pool(state: State, record: PoolRecord) -> None:
    """Note whose shares the coordinator of the open round uses."""
    current = _closable_round(state, record)
    _check_round_hash(current, record)
    participants = checked_participants(record.participants, "wrong_participants")
    refuse_if(not participants, "wrong_participants", "a pool names participants")
    for number in participants:
        if number in current.pool:
            raise refused("second_pool", f"the shares of principal {number} are named already")
    sharing.check_pool(state, participants, record.author)
    current.pool.update(participants)


def record_set(state: State, record: RoundSet) -> None:
    """Note one part of a set of people with whom a masked round goes on."""
    current = _closable_round(state, record)
    _check_round_hash(current, record)
    refuse_if(not current.record.is_masked, "not_masked", f"round {record.round} has no masks")
    participants = current.sets.check(record)

    if record.phase == "survivors":
        for number in participants:
            if number not in current.answered:
                raise refused("no_answer", f"principal {number} has no update in round {record.round}")
        if record.part == record.parts:
            _check_whole_updates(current, current.survivors.union(participants))
    current.sets.add(record)


def _check_whole_updates(current: OpenRound, survivors: frozenset[int]) -> None:
    """Check that a survivor set has all or none of those for whom a host's update answers."""
    by_update = Counter(current.answered[number] for number in survivors)
    for position, count in by_update.items():
        if count != current.updates[position].participants:
            raise refused("wrong_updates", f"the update at {position} answers for others too")


def close_with_model(state: State, record: ModelRecord) -> None:
    """Close the open round with a model made of its updates."""
    current = _closable_round(state, record)
    base = ModelReference(current.record.base_version, current.record.base_digest)
    if record.parent != base.digest:
        raise refused("wrong_parent", f"parent {record.parent.hex()}, the round's base is {base.digest.hex()}")
    next_version = base.version + 1
    refuse_if(record.version != next_version, "wrong_version", f"version {record.version}, wanted {next_version}")

    unused = _checked_unused(current, record)
    used = [update for position, update in current.updates.items() if position not in unused]
    _check_minimum(current, sum(update.participants for update in used) + current.pooled())
    is_root = record.updates_root == root([update.leaf_hash for update in used])
    refuse_if(not is_root, "wrong_updates", "the root is not that of the round's updates without the unused ones")

    state.model = ModelReference(record.version, record.digest)
    state.open_round = None


def _checked_unused(current: OpenRound, record: ModelRecord) -> set[int]:
    """Return the updates that a model leaves out: of its round only, and in a masked round those of no survivor."""
    unused, updates = set(record.unused), current.updates.keys()
    is_subset = list(record.unused) == sorted(unused) and unused <= updates
    refuse_if(not is_subset, "wrong_updates", "unused positions must be increasing, and updates of the round")
    if current.record.is_masked:
        is_settled = current.has_survivors
        refuse_if(not is_settled, "no_survivors", f"round {record.round} is masked, and its survivors are not named")
        is_rest = unused == updates - current.surviving_updates()
        refuse_if(not is_rest, "wrong_updates", "the unused updates of a masked round are those of no survivor")
    return unused


def abort(state: State, record: Aborted) -> None:
    """Close the open round without a model; what was spent stays spent."""
    _closable_round(state, record)
    state.open_round = None


def _named_round(state: State, record: Update | PoolRecord | RoundSet | ModelRecord | Aborted) -> OpenRound:
    current = state.open_round
    if current is None or record.round != current.record.number:
        raise refused("closed_round", f"round {record.round} is not open")
    return current


def _closable_round(state: State, record: PoolRecord | RoundSet | ModelRecord | Aborted) -> OpenRound:
    current = _named_round(state, record)
    opener = current.record.author
    refuse_if(record.author != opener, "other_coordinator", f"round {record.round} was opened by principal {opener}")
    return current


def _check_round_hash(current: OpenRound, record: Update | PoolRecord | RoundSet) -> None:
    is_other = record.round_hash != current.hash
    refuse_if(is_other, "wrong_round", f"round {record.round} has another entry")


def _check_minimum(current: OpenRound, count: int) -> None:
    minimum = current.record.minimum
    refuse_if(count < minimum, "too_few_updates", f"{count} participants, at least {minimum} are wanted")
