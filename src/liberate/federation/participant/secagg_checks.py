"""What a device checks in a masked round before it reveals anything: who takes part, with which keys and neighbours.

Every set of people is one entry of the ledger, and the coordinator's state leaf proves that there is no other: a log
that breaks its own rules has to forge a state root, which whoever replays it refuses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from liberate.crypto.merkle import leaf_hash, root, verify_inclusion
from liberate.crypto.note import Checkpoint
from liberate.crypto.signing import verify_batch, verify_signature
from liberate.errors import PrivacyError
from liberate.federation.participant.refusals import Refused, refused_as, require
from liberate.federation.terms import ParticipationPolicy, mask_assumptions
from liberate.federation.wire.masked_round import MaskedRound, set_digests
from liberate.federation.wire.round_messages import decode_message
from liberate.federation.wire.secagg_messages import (
    AdvertisedKeys,
    CohortKeys,
    RoundHistory,
    ShareKeysRequest,
    keys_claim,
    keys_root,
    seeds_root,
)
from liberate.ledger.format.entries import Entry, decode_included, record_of, signed_bytes
from liberate.ledger.format.parts import Terms
from liberate.ledger.format.records import Aborted, Block, ModelRecord, Round, RoundSet, SetPhase
from liberate.ledger.rules.principal import Principal
from liberate.ledger.rules.recent_history import verify_recent_history
from liberate.ledger.rules.round_sets import RoundSets
from liberate.privacy.mask_parameters import MaskParameters, mask_parameters, strays, verify_masks
from liberate.privacy.neighbour_graph import NeighbourGraph, draw_graph, seed_commitment


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSets:
    """The sets of a masked round as the ledger has them.

    Attributes:
        sets: The sets, and their roots.
        digests: Of each set that is whole: over the leaf hashes of its entries.
    """

    sets: RoundSets
    digests: Mapping[SetPhase, bytes]

    def digest(self, phase: SetPhase) -> bytes:
        """Return the digest of a set.

        Raises:
            Refused: The ledger has no such set.
        """
        self.members(phase)
        return self.digests[phase]

    def members(self, phase: SetPhase) -> frozenset[int]:
        """Return a set.

        Raises:
            Refused: The ledger has no such set.
        """
        members = self.sets.whole(phase)
        if members is None:
            raise Refused("sets", f"the ledger has no set {phase} of this round")
        return members


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedCohort:
    """Whom a masked round consists of: keys that are their owners', and a graph that everybody has committed to.

    Attributes:
        keys: By number, of everybody in the set `advertised`.
        seeds: By number, of everybody in the set `graph`.
        graph: Who chose whom.
    """

    keys: Mapping[int, AdvertisedKeys]
    seeds: Mapping[int, bytes]
    graph: NeighbourGraph


def check_masks(record: Round, terms: Terms, n_participants: int) -> None:
    """Check that the masks of a round bear what a device agreed to, whatever the round says about itself.

    Raises:
        Refused: masks.
    """
    parameters = record.mechanism.parameters
    masks = MaskParameters(degree=parameters.get("degree", 0), threshold=parameters.get("threshold", 0))
    assumptions = mask_assumptions(terms, n_participants)
    with refused_as("masks", (PrivacyError, ValueError)):
        verify_masks(masks, assumptions)
        # The noise that is counted leaves out as many strays as the least masks have, not more.
        most = strays(mask_parameters(assumptions), assumptions)
        require(strays(masks, assumptions) <= most, "masks", f"more than {most} survivors may be cut off unread")


def check_history(
    current: MaskedRound, history: RoundHistory, checkpoint: Checkpoint, policy: ParticipationPolicy
) -> RecordedSets:
    """Return the sets of an open round, after checking that they are all that the coordinator has recorded since.

    Args:
        current: The round that the device takes part in.
        history: What it is shown.
        checkpoint: That of the history, accepted.
        policy: What the participants agreed to.

    Raises:
        Refused: sets.
    """
    entries = _included(history, checkpoint)
    require(bool(entries) and entries[0].leaf_hash == current.hash, "sets", "the history begins with another entry")
    with refused_as("sets"):
        block = record_of(decode_included(history.block, checkpoint.size - 1, history.block_proof, checkpoint), Block)
        author = current.record.author
        verify_inclusion(leaf_hash(history.leaf), author, history.n_principals, history.leaf_proof, block.state_root)
        verify_recent_history(Principal.decode(history.leaf), history.head, [entry.leaf_hash for entry in entries])
    return _recorded_sets(current, entries[1:], policy)


def check_closed(
    current: MaskedRound, history: RoundHistory, checkpoint: Checkpoint, policy: ParticipationPolicy
) -> None:
    """Check that the coordinator has closed a round, with a model or without.

    Raises:
        Refused: sets.
    """
    for entry in _included(history, checkpoint):
        record = entry.record
        if isinstance(record, ModelRecord | Aborted) and record.round == current.record.number:
            with refused_as("sets"):
                verify_signature(policy.coordinator_key, signed_bytes(entry.body), entry.signature)
            return
    raise Refused("sets", "the round is not closed")


def _included(history: RoundHistory, checkpoint: Checkpoint) -> list[Entry]:
    require(
        len(history.entries) == len(history.positions) == len(history.inclusion),
        "sets",
        "the history lacks entries or proofs",
    )
    with refused_as("sets"):
        return [
            decode_included(data, position, proof, checkpoint)
            for data, position, proof in zip(history.entries, history.positions, history.inclusion, strict=True)
        ]


def _recorded_sets(current: MaskedRound, entries: list[Entry], policy: ParticipationPolicy) -> RecordedSets:
    """Apply the rules to what the coordinator has recorded since the round's entry."""
    sets = RoundSets.of(current.record, policy.terms)
    for entry in entries:
        record = entry.record
        if isinstance(record, Round | ModelRecord | Aborted):
            raise Refused("sets", f"a {record.kind} was recorded after the round's entry")
        if not isinstance(record, RoundSet):
            continue

        with refused_as("sets"):
            verify_signature(policy.coordinator_key, signed_bytes(entry.body), entry.signature)
        is_ours = (record.origin, record.round_hash) == (policy.origin, current.hash)
        require(is_ours, "sets", "a set is of another round")
        with refused_as("sets"):
            sets.check(record)
        sets.add(record)
    return RecordedSets(sets=sets, digests=set_digests(entries, current))


def check_cohort(
    current: MaskedRound, recorded: RecordedSets, request: ShareKeysRequest, checkpoint: Checkpoint
) -> CheckedCohort:
    """Return keys and graph of a round, after checking that the ledger's sets consist of exactly these.

    Args:
        current: The round.
        recorded: Its sets.
        request: Keys and seeds.
        checkpoint: That of the request's history, accepted.

    Raises:
        Refused: keys.
    """
    with refused_as("keys"):
        cohort = decode_message(request.cohort, CohortKeys)
    keys, seeds = dict(cohort.keys), dict(cohort.seeds)
    advertised, chosen = recorded.members("advertised"), recorded.members("graph")
    require(keys.keys() == advertised, "keys", "these are not the keys of those who advertised some")
    require(seeds.keys() == chosen, "keys", "these are not the seeds of those who revealed one")
    require(keys_root(keys) == recorded.sets.root("advertised"), "keys", "the root on the ledger is that of other keys")
    require(seeds_root(seeds) == recorded.sets.root("graph"), "keys", "the root on the ledger is that of other seeds")

    _check_owners(current, keys, _state_leaves(cohort, request, checkpoint))
    for number, seed in seeds.items():
        is_drawn = seed_commitment(seed) == keys[number].draw
        require(is_drawn, "keys", f"participant {number} has committed to another seed")
    graph = draw_graph(seeds, recorded.digest("advertised"), sorted(advertised), current.degree)
    return CheckedCohort(keys=keys, seeds=seeds, graph=graph)


def _state_leaves(cohort: CohortKeys, request: ShareKeysRequest, checkpoint: Checkpoint) -> list[bytes]:
    """Return the state tree's leaves as the round was opened, after checking that the ledger has their root."""
    opened, position = request.history.positions[0], cohort.block_position
    with refused_as("keys"):
        block = record_of(decode_included(cohort.block, position, request.block_proof, checkpoint), Block)
    is_its_own = position - block.count <= opened < position
    require(is_its_own, "keys", "the state is not that of the block in which the round was opened")
    is_root = root([leaf_hash(leaf) for leaf in cohort.state]) == block.state_root
    require(is_root, "keys", "the state's leaves do not lead to the root on the ledger")
    return cohort.state


def _check_owners(current: MaskedRound, keys: Mapping[int, AdvertisedKeys], state: Sequence[bytes]) -> None:
    """Check that everybody's keys are signed with the key that the ledger has for them."""
    claims = []
    with refused_as("keys"):
        for number, advertised in sorted(keys.items()):
            require(number < len(state), "keys", f"no principal has the number {number}")
            principal = Principal.decode(state[number])
            is_able = principal.role == "participant" and principal.can_answer
            require(is_able, "keys", f"principal {number} is not a participant who can answer")
            claims.append(keys_claim(advertised, principal.device_key, current.record.origin, current.hash, number))

    for number, is_valid in zip(sorted(keys), verify_batch(claims), strict=True):
        require(is_valid, "keys", f"the keys of participant {number} are signed by somebody else")
