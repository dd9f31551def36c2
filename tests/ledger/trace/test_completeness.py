"""Some entries are all there is about a principal, and whoever holds them can prove it without the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from liberate.crypto.merkle import MutableTree, leaf_hash, root, verify_inclusion
from liberate.crypto.note import Checkpoint, sign_checkpoint, verifier_key, verify_checkpoint
from liberate.errors import LedgerError, ProofMismatch
from liberate.identifiers import Digest
from liberate.ledger.format.entries import decode_entry, principals_of, sign
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.trace.completeness import Completeness, prove_completeness, verify_completeness
from tests.ledger.world import LOG_KEY, LOG_VKEY, ORIGIN, World, create, key, write_history

NUMBERS = range(7)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteLedger]:
    folder = tmp_path_factory.mktemp("complete")
    writer = create(folder)
    write_history(writer)
    writer.close()
    reader = SqliteLedger.open(folder)
    yield reader
    reader.close()


@pytest.mark.parametrize("number", NUMBERS)
def test_everybodys_history_is_proved_complete(ledger: SqliteLedger, number: int) -> None:
    proof = prove_completeness(ledger, number)

    verify_completeness(proof, LOG_VKEY)
    assert list(proof.entries) == [
        data for _, data in ledger.entries() if number in principals_of(decode_entry(data).record)
    ]


def test_it_holds_after_every_block(tmp_path: Path) -> None:
    writer = create(tmp_path)
    world = World(writer).populate()
    for _ in range(3):
        world.add(world.dataset(4))
        for number in NUMBERS:
            verify_completeness(prove_completeness(writer, number), LOG_VKEY)
    writer.close()


@pytest.mark.parametrize("number", NUMBERS)
def test_no_entry_can_be_left_out_moved_or_added(ledger: SqliteLedger, number: int) -> None:
    proof = prove_completeness(ledger, number)
    entries = proof.entries
    wrong = [entries[:i] + entries[i + 1 :] for i in range(len(entries))]
    wrong += [(*entries[:i], entries[i + 1], entries[i], *entries[i + 2 :]) for i in range(len(entries) - 1)]
    wrong += [(*entries, data) for _, data in ledger.entries()]

    for others in wrong:
        with pytest.raises(LedgerError):
            verify_completeness(replace(proof, entries=others), LOG_VKEY)


def test_nobody_can_be_shown_as_somebody_else(ledger: SqliteLedger) -> None:
    proofs = [prove_completeness(ledger, number) for number in NUMBERS]
    for proof in proofs:
        for number in NUMBERS:
            for count in range(1, 9):
                other = replace(proof, number=number, principal_count=count)
                if number != proof.number:
                    with pytest.raises(LedgerError):
                        verify_completeness(other, LOG_VKEY)


@given(st.sampled_from(NUMBERS), st.data())
def test_a_flipped_bit_anywhere_is_found(ledger: SqliteLedger, number: int, data: st.DataObject) -> None:
    proof = prove_completeness(ledger, number)
    name = data.draw(st.sampled_from(["entries", "block", "block_proof", "state_proof"]))

    def flipped(part: bytes) -> bytes:
        bits = bytearray(part)
        bits[data.draw(st.integers(0, len(bits) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        return bytes(bits)

    def with_one_flipped(parts: Sequence[bytes]) -> tuple[bytes, ...]:
        which = data.draw(st.integers(0, len(parts) - 1))
        return (*parts[:which], flipped(parts[which]), *parts[which + 1 :])

    match name:
        case "entries":
            other = replace(proof, entries=with_one_flipped(proof.entries))
        case "block":
            other = replace(proof, block=flipped(proof.block))
        case "block_proof":
            other = replace(proof, block_proof=tuple(map(Digest, with_one_flipped(proof.block_proof))))
        case _:
            other = replace(proof, state_proof=tuple(map(Digest, with_one_flipped(proof.state_proof))))

    with pytest.raises(LedgerError):
        verify_completeness(other, LOG_VKEY)


def an_older_checkpoint(ledger: SqliteLedger, proof: Completeness) -> Completeness:
    """Under it, the history was another one."""
    leaves = [leaf_hash(data) for _, data in ledger.entries(0, 2)]
    return replace(proof, checkpoint=sign_checkpoint(Checkpoint(ORIGIN, 2, root(leaves)), LOG_KEY))


def an_older_block(ledger: SqliteLedger, proof: Completeness) -> Completeness:
    first = ledger.positions(kind="block")[1]
    return replace(proof, block=ledger.entry(first), block_proof=tuple(ledger.inclusion_proof(first)))


def no_block(ledger: SqliteLedger, proof: Completeness) -> Completeness:
    return replace(proof, block=ledger.entry(0), block_proof=tuple(ledger.inclusion_proof(0)))


def nothing(ledger: SqliteLedger, proof: Completeness) -> Completeness:
    return replace(proof, entries=())


@pytest.mark.parametrize("change", [an_older_checkpoint, an_older_block, no_block, nothing])
def test_a_proof_of_something_else_is_refused(
    ledger: SqliteLedger, change: Callable[[SqliteLedger, Completeness], Completeness]
) -> None:
    with pytest.raises(ProofMismatch):
        verify_completeness(change(ledger, prove_completeness(ledger, 3)), LOG_VKEY)


def test_an_entry_that_its_author_did_not_sign_is_refused(ledger: SqliteLedger) -> None:
    proof = prove_completeness(ledger, 4)
    forged = sign(decode_entry(proof.entries[-1]).record, key(3))

    with pytest.raises(LedgerError, match="signature"):
        verify_completeness(replace(proof, entries=(*proof.entries[:-1], forged)), LOG_VKEY)


def test_the_key_is_known_from_elsewhere(ledger: SqliteLedger) -> None:
    proof = prove_completeness(ledger, 3)

    assert verify_checkpoint(proof.checkpoint, LOG_VKEY).size == ledger.size
    with pytest.raises(LedgerError):
        verify_completeness(proof, verifier_key(ORIGIN, key(9).public))


@pytest.mark.parametrize("size", range(1, 65))
def test_every_leaf_of_a_changing_tree_is_proved(size: int) -> None:
    leaves = [leaf_hash(bytes([i])) for i in range(size)]
    tree = MutableTree()
    tree.update(dict(enumerate(leaves)))

    for index, leaf in enumerate(leaves):
        verify_inclusion(leaf, index, size, tree.inclusion_proof(index), root(leaves))
    for index in (-1, size):
        with pytest.raises(ValueError, match="wanted"):
            tree.inclusion_proof(index)
