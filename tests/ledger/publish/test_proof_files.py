"""Proof files need no ledger, and any change to them is found."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from liberate.crypto.note import Checkpoint, verifier_key, verify_checkpoint
from liberate.crypto.signing import SigningKey
from liberate.errors import InvalidRecord, LedgerError, NoQuorum, ProofMismatch
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.publish.proof_files import (
    verify_completeness_proof,
    verify_consistency_proof,
    verify_inclusion_proof,
    write_completeness_proof,
    write_consistency_proof,
    write_inclusion_proof,
)
from tests.ledger.publish.growing import cosigned, policy, signed
from tests.ledger.world import LOG_VKEY, ORIGIN, PARTICIPANTS, create, digest, write_history


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Filled with each checkpoint of `ledger`, in order."""
    return []


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory, notes: list[str]) -> Iterator[SqliteLedger]:
    """A ledger with one of everything."""
    ledger = create(tmp_path_factory.mktemp("ledger"))
    append = ledger.append
    notes.append(ledger.checkpoint())

    def remembering(entries: list[bytes]) -> list[object]:
        results = append(entries)
        notes.append(ledger.checkpoint())
        return list(results)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "append", remembering)
        write_history(ledger)
    yield ledger
    ledger.close()


def test_every_entry_is_proved_without_the_ledger(ledger: SqliteLedger) -> None:
    for position, data in ledger.entries():
        found = verify_inclusion_proof(write_inclusion_proof(ledger, position), LOG_VKEY)

        assert (found.position, found.entry.data) == (position, data)
        assert found.checkpoint == verify_checkpoint(ledger.checkpoint(), LOG_VKEY)


def test_an_inclusion_proof_is_laid_out_as_c2sp_says(ledger: SqliteLedger) -> None:
    head, _, note = write_inclusion_proof(ledger, 5).partition("\n\n")
    lines = head.split("\n")

    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[1].startswith("extra ")
    assert lines[2] == "index 5"
    assert [len(line) for line in lines[3:]] == [44] * 6
    assert note == ledger.checkpoint()


def test_every_byte_of_an_inclusion_proof_counts(ledger: SqliteLedger) -> None:
    proof = write_inclusion_proof(ledger, 4).encode()

    for at in range(len(proof)):
        changed = bytearray(proof)
        changed[at] ^= 1 << at % 8
        with pytest.raises((LedgerError, UnicodeDecodeError)):
            verify_inclusion_proof(changed.decode(), LOG_VKEY)


def test_a_proof_holds_for_its_own_entry_only(ledger: SqliteLedger) -> None:
    one, other = write_inclusion_proof(ledger, 3).split("\n"), write_inclusion_proof(ledger, 4).split("\n")

    for line in (1, 2, 3):
        swapped = [*one]
        swapped[line] = other[line]
        with pytest.raises(ProofMismatch):
            verify_inclusion_proof("\n".join(swapped), LOG_VKEY)


@pytest.mark.parametrize("cut", [1, 2, 3, 9, 10, 11, 12, 13])
def test_an_inclusion_proof_that_lacks_a_line_is_refused(ledger: SqliteLedger, cut: int) -> None:
    lines = write_inclusion_proof(ledger, 5).split("\n")
    del lines[cut - 1]

    with pytest.raises(LedgerError):
        verify_inclusion_proof("\n".join(lines), LOG_VKEY)


def test_proofs_under_another_key_are_refused(ledger: SqliteLedger, notes: list[str]) -> None:
    key = verifier_key(ORIGIN, SigningKey.from_seed(bytes(32)).public)

    with pytest.raises(InvalidRecord):
        verify_inclusion_proof(write_inclusion_proof(ledger, 5), key)
    with pytest.raises(InvalidRecord):
        verify_consistency_proof(write_consistency_proof(ledger, notes[0]), key, notes[0])


@pytest.mark.parametrize("position", [-1, 10**6])
def test_an_entry_that_is_not_there_has_no_proof(ledger: SqliteLedger, position: int) -> None:
    with pytest.raises(LedgerError, match="no entry"):
        write_inclusion_proof(ledger, position)


def test_every_kept_checkpoint_is_continued(ledger: SqliteLedger, notes: list[str]) -> None:
    assert len(notes) > 10
    for kept in notes:
        proof = write_consistency_proof(ledger, kept)

        found = verify_consistency_proof(proof, LOG_VKEY, kept)

        assert (found.checkpoint, found.note) == (verify_checkpoint(ledger.checkpoint(), LOG_VKEY), ledger.checkpoint())
        assert proof.startswith(f"old {verify_checkpoint(kept, LOG_VKEY).size}\n")
        for other in notes:
            if other != kept:
                with pytest.raises(InvalidRecord, match="the proof begins at"):
                    verify_consistency_proof(proof, LOG_VKEY, other)


def test_every_byte_of_a_consistency_proof_counts(ledger: SqliteLedger, notes: list[str]) -> None:
    proof = write_consistency_proof(ledger, notes[3]).encode()

    for at in range(len(proof)):
        changed = bytearray(proof)
        changed[at] ^= 1 << at % 8
        with pytest.raises((LedgerError, UnicodeDecodeError)):
            verify_consistency_proof(changed.decode(), LOG_VKEY, notes[3])


@pytest.mark.parametrize("size", [2, 39, 40, 0])
def test_another_history_is_not_continued(ledger: SqliteLedger, size: int) -> None:
    kept = signed(Checkpoint(ORIGIN, size, digest("another history")))

    with pytest.raises(ProofMismatch):
        write_consistency_proof(ledger, kept)


def test_proofs_carry_cosignatures_and_readers_may_demand_them(ledger: SqliteLedger, notes: list[str]) -> None:
    note = cosigned(ledger.checkpoint(), 2)
    included, continued = write_inclusion_proof(ledger, 5, note), write_consistency_proof(ledger, notes[3], note)

    assert verify_inclusion_proof(included, LOG_VKEY, policy(2)).note == note
    assert verify_consistency_proof(continued, LOG_VKEY, notes[3], policy(2)).note == note
    with pytest.raises(NoQuorum):
        verify_inclusion_proof(included, LOG_VKEY, policy(3))
    with pytest.raises(NoQuorum):
        verify_consistency_proof(continued, LOG_VKEY, notes[3], policy(3))


def test_an_entry_can_be_proved_under_an_older_checkpoint(ledger: SqliteLedger, notes: list[str]) -> None:
    size = verify_checkpoint(notes[3], LOG_VKEY).size

    assert verify_inclusion_proof(write_inclusion_proof(ledger, size - 1, notes[3]), LOG_VKEY).checkpoint.size == size
    with pytest.raises(LedgerError, match=f"the checkpoint {size}"):
        write_inclusion_proof(ledger, size, notes[3])


def test_every_history_is_proved_complete_without_the_ledger(ledger: SqliteLedger) -> None:
    for number in range(len(ledger.state.principals)):
        found = verify_completeness_proof(write_completeness_proof(ledger, number), LOG_VKEY)

        assert found.number == number
        assert list(found.entries) == [ledger.entry(position) for position in ledger.positions(about=number)]
    with pytest.raises(LedgerError, match="no principal"):
        write_completeness_proof(ledger, len(ledger.state.principals))


def test_every_byte_of_a_completeness_proof_counts(ledger: SqliteLedger) -> None:
    proof = write_completeness_proof(ledger, PARTICIPANTS[2]).encode()

    for at in range(len(proof)):
        changed = bytearray(proof)
        changed[at] ^= 1 << at % 7  # the text is ASCII but for the dash of signatures
        with pytest.raises(LedgerError):
            verify_completeness_proof(changed.decode(errors="replace"), LOG_VKEY)


def test_a_history_without_one_of_its_entries_is_refused(ledger: SqliteLedger) -> None:
    file = json.loads(write_completeness_proof(ledger, PARTICIPANTS[0]))

    for left_out in range(len(file["entries"])):
        shorter = file | {"entries": [each for at, each in enumerate(file["entries"]) if at != left_out]}
        text = json.dumps(shorter, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        with pytest.raises(LedgerError):
            verify_completeness_proof(text, LOG_VKEY)


def test_a_complete_history_carries_cosignatures(ledger: SqliteLedger, notes: list[str]) -> None:
    text = write_completeness_proof(ledger, PARTICIPANTS[0], cosigned(ledger.checkpoint(), 2))

    assert verify_completeness_proof(text, LOG_VKEY, policy(2)).number == PARTICIPANTS[0]
    with pytest.raises(NoQuorum):
        verify_completeness_proof(text, LOG_VKEY, policy(3))
    with pytest.raises(LedgerError, match="newest checkpoint only"):
        write_completeness_proof(ledger, PARTICIPANTS[0], notes[0])
