"""What a device checks in a masked round before it reveals anything: whose keys it is told, and who survived."""

from __future__ import annotations

from itertools import pairwise

from liberate.crypto.merkle import leaf_hash, verify_inclusion
from liberate.crypto.note import Checkpoint
from liberate.crypto.signing import verify_signature
from liberate.federation.participant.refusals import refused_as, require
from liberate.federation.terms import ParticipationPolicy
from liberate.federation.wire.masked_round import MaskedRound
from liberate.federation.wire.secagg_messages import Neighbour, ShareKeysRequest, UnmaskRequest, verify_keys
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_included, record_of, signed_bytes
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.records import Block, Survivors
from liberate.ledger.rules.principal import Principal


def check_neighbours(current: MaskedRound, number: int, request: ShareKeysRequest, checkpoint: Checkpoint) -> None:
    """Check that a participant may share its secrets: with enough of the round's neighbours, under their true keys.

    Args:
        current: The round.
        number: The participant's number.
        request: The neighbours, with proofs.
        checkpoint: The accepted one, whose last entry is the block with the state root.

    Raises:
        Refused: neighbours or keys.
    """
    numbers = [neighbour.number for neighbour in request.neighbours]
    needed = current.needed(number)
    require(
        numbers == sorted(set(current.neighbours(number)).intersection(numbers)),
        "neighbours",
        "these are not the neighbours that the round's entry gives",
    )
    require(len(numbers) >= needed, "neighbours", f"{len(numbers)} neighbours take part, {needed} are needed")

    with refused_as("keys"):
        last = decode_included(request.block, checkpoint.size - 1, request.block_proof, checkpoint)
        block = record_of(last, Block)
        for neighbour in request.neighbours:
            _check_keys(current, neighbour, request.n_principals, block.state_root)


def _check_keys(current: MaskedRound, neighbour: Neighbour, n_principals: int, state_root: Digest) -> None:
    """Check that a neighbour's keys are signed with the key that the ledger has for it."""
    verify_inclusion(leaf_hash(neighbour.leaf), neighbour.number, n_principals, neighbour.proof, state_root)
    principal = Principal.decode(neighbour.leaf)
    require(
        principal.role == "participant" and principal.can_answer,
        "keys",
        f"principal {neighbour.number} is not a participant who can answer",
    )
    verify_keys(neighbour.keys, principal.device_key, current.record.origin, current.hash, neighbour.number)


def check_survivors(
    current: MaskedRound, request: UnmaskRequest, checkpoint: Checkpoint, policy: ParticipationPolicy
) -> frozenset[int]:
    """Return a survivor set: signed, in the log, complete, of the cohort, and not below the round's minimum.

    Raises:
        Refused: survivors.
    """
    n_parts = len(request.entries)
    require(
        0 < n_parts == len(request.positions) == len(request.inclusion),
        "survivors",
        "the survivor set lacks entries or proofs",
    )
    participants: list[int] = []
    proofs = zip(request.entries, request.positions, request.inclusion, strict=True)
    for part, (data, position, proof) in enumerate(proofs, start=1):
        with refused_as("survivors"):
            entry = decode_included(data, position, proof, checkpoint)
            verify_signature(policy.coordinator_key, signed_bytes(entry.body), entry.signature)
            record = record_of(entry, Survivors)
        require(
            (record.origin, record.round_hash, record.part, record.parts)
            == (policy.origin, current.hash, part, n_parts),
            "survivors",
            f"the entry is not part {part} of {n_parts} of the round's survivor set",
        )
        participants += numbers_in(record.participants)

    require(
        all(a < b for a, b in pairwise(participants)) and current.participants.issuperset(participants),
        "survivors",
        "survivors must be of the cohort, their numbers increasing",
    )
    require(
        len(participants) >= current.record.minimum,
        "survivors",
        f"{len(participants)} participants survive, the round promised {current.record.minimum}",
    )
    return frozenset(participants)
