"""Evidence convinces whoever has the log's key, and only of what the log has really signed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import msgspec
import pytest

from liberate.cli import main
from liberate.crypto.canonical_json import decode, encode
from liberate.crypto.merkle import inclusion_proof, leaf_hash, root
from liberate.crypto.note import sign_checkpoint, verify_checkpoint
from liberate.crypto.signing import SigningKey
from liberate.errors import InvalidRecord, ProofMismatch
from liberate.identifiers import Digest
from liberate.ledger.evidence.split_view import (
    Divergence,
    DivergentLeaf,
    ForkEvidence,
    SplitViewEvidence,
    evidence_between,
    evidence_of_fork,
    evidence_same_size,
    keep_evidence,
    verify_evidence,
)
from tests.ledger.publish.views import KEY, ORIGIN, VKEY, View
from tests.ledger.world import LOG_VKEY, World, create, reopen

HONEST = View()
OTHER = View("other", fork=3)
GOLDEN = Path(__file__).parents[2] / "vectors" / "evidence.json"


def branch(view: View, position: int, size: int) -> DivergentLeaf:
    proof = inclusion_proof(
        position, size, lambda level, index: root(view.leaves[index << level : (index + 1) << level])
    )
    return DivergentLeaf(leaf=view.leaves[position], proof=tuple(proof))


def of_two_sizes(position: int = 5, first: int = 7, second: int = 20) -> SplitViewEvidence:
    divergence = Divergence(
        position=position, first=branch(HONEST, position, first), second=branch(OTHER, position, second)
    )
    return SplitViewEvidence(first=HONEST.note(first), second=OTHER.note(second), divergence=divergence)


def test_two_roots_of_one_size_are_proof() -> None:
    conflict = verify_evidence(evidence_same_size(HONEST.note(9), OTHER.note(9)), VKEY)

    assert conflict.first == HONEST.checkpoint(9)
    assert conflict.second == OTHER.checkpoint(9)


@pytest.mark.parametrize(("position", "first", "second"), [(3, 4, 4), (3, 4, 9), (6, 7, 64), (3, 64, 5), (5, 7, 20)])
def test_trees_that_differ_at_a_position_are_proof(position: int, first: int, second: int) -> None:
    assert verify_evidence(encode(of_two_sizes(position, first, second)), VKEY).second.size == second


def test_files_of_today_are_proof_for_ever() -> None:
    """Golden files: whoever has kept evidence can use it with every later version."""
    for case in json.loads(GOLDEN.read_text("utf-8"))["cases"]:
        data = case["file"].encode()
        if case["valid"]:
            assert verify_evidence(data, VKEY).first.origin == ORIGIN
        else:
            with pytest.raises((InvalidRecord, ProofMismatch)):
                verify_evidence(data, VKEY)


def stranger(view: View, size: int) -> str:
    return sign_checkpoint(view.checkpoint(size), SigningKey.from_seed(bytes(32)))


NO_PROOF = {
    "the same checkpoint": evidence_same_size(HONEST.note(9), HONEST.note(9)),
    "two honest sizes": evidence_same_size(HONEST.note(9), HONEST.note(12)),
    "two views, nothing shown": evidence_same_size(HONEST.note(9), OTHER.note(12)),
    "one forged by somebody else": evidence_same_size(HONEST.note(9), stranger(OTHER, 9)),
    "before the fork": encode(of_two_sizes(position=2)),
    "a proof of another position": encode(
        msgspec.structs.replace(
            of_two_sizes(),
            divergence=Divergence(position=5, first=branch(HONEST, 5, 7), second=branch(OTHER, 6, 20)),
        )
    ),
    "a made-up leaf": encode(
        msgspec.structs.replace(
            of_two_sizes(),
            divergence=Divergence(
                position=5, first=branch(HONEST, 5, 7), second=DivergentLeaf(leaf=Digest(leaf_hash(b"x")), proof=())
            ),
        )
    ),
    "not canonical": evidence_same_size(HONEST.note(9), OTHER.note(9)) + b"\n",
    "nothing": b"",
}


@pytest.mark.parametrize("name", NO_PROOF)
def test_what_proves_nothing_is_refused(name: str) -> None:
    with pytest.raises((InvalidRecord, ProofMismatch)):
        verify_evidence(NO_PROOF[name], VKEY)


def test_every_flipped_byte_of_evidence_is_refused() -> None:
    for data in (evidence_same_size(HONEST.note(9), OTHER.note(9)), encode(of_two_sizes())):
        assert isinstance(decode(data, SplitViewEvidence), SplitViewEvidence)
        for place in range(len(data)):
            flipped = bytearray(data)
            flipped[place] ^= 1
            with pytest.raises((InvalidRecord, ProofMismatch)):
                verify_evidence(bytes(flipped), VKEY)


def of_a_fork(tmp_path: Path) -> bytes:
    """Evidence of one copy against the checkpoint of another, which went on in another way and is shorter."""
    create(tmp_path / "one").close()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = reopen(tmp_path / "one"), reopen(tmp_path / "two")
    before = one.checkpoint()
    World(one).populate()
    world = World(two)
    world.add(world.enrol(2, "participant"))
    data = evidence_of_fork(one, two.checkpoint())

    assert evidence_of_fork(one, before) is None, "one continues it"
    assert evidence_of_fork(two, one.checkpoint()) is None, "there is nothing to compare it with"
    one.close()
    two.close()
    assert data is not None
    return data


def test_another_root_that_the_later_tree_proves_is_proof(tmp_path: Path) -> None:
    data = of_a_fork(tmp_path)

    proved = verify_evidence(data, LOG_VKEY)

    assert proved.first.size < proved.second.size
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1
        with pytest.raises((InvalidRecord, ProofMismatch)):
            verify_evidence(bytes(flipped), LOG_VKEY)


def test_a_later_checkpoint_that_continues_the_earlier_one_is_no_fork(tmp_path: Path) -> None:
    ledger = create(tmp_path)
    earlier, size = ledger.checkpoint(), ledger.size
    prefix = verify_checkpoint(earlier, LOG_VKEY).root
    World(ledger).populate()
    proof = tuple(ledger.consistency_proof(size, ledger.size))
    honest = ForkEvidence(earlier=earlier, later=ledger.checkpoint(), prefix=prefix, proof=proof)
    ledger.close()

    for data in (
        honest,
        msgspec.structs.replace(honest, prefix=Digest(bytes(32))),
        msgspec.structs.replace(honest, later=earlier),
    ):
        with pytest.raises(ProofMismatch):
            verify_evidence(encode(data), LOG_VKEY)


def test_two_copies_of_a_ledger_are_compared(tmp_path: Path) -> None:
    create(tmp_path / "one").close()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = reopen(tmp_path / "one"), reopen(tmp_path / "two")
    assert evidence_between(one, two) is None
    World(one).populate()
    assert evidence_between(one, two) is None, "one continues the other"
    world = World(two)
    world.add(world.enrol(2, "participant"))

    data = evidence_between(one, two)

    assert data is not None
    conflict = verify_evidence(data, LOG_VKEY)
    assert (conflict.first.size, conflict.second.size) == (one.size, two.size)
    one.close()
    two.close()


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["liberate", "ledger", *map(str, arguments), "--json"])
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    return code, capsys.readouterr().out


def test_commands_say_whether_it_is_proof(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = keep_evidence(tmp_path, evidence_same_size(HONEST.note(9), OTHER.note(9)))
    weak = keep_evidence(tmp_path, evidence_same_size(HONEST.note(9), OTHER.note(12)))

    code, out = call(capsys, monkeypatch, "verify-evidence", file, "--key", VKEY)
    assert (code, json.loads(out)["ok"], json.loads(out)["first_size"]) == (0, True, 9)
    code, out = call(capsys, monkeypatch, "verify-evidence", weak, "--key", VKEY)
    assert (code, json.loads(out)["ok"]) == (1, False)
    code, out = call(capsys, monkeypatch, "verify-evidence", file, "--key", LOG_VKEY)
    assert (code, json.loads(out)["ok"]) == (1, False)
    assert call(capsys, monkeypatch, "verify-evidence", tmp_path / "absent", "--key", VKEY) == (1, "")


def test_compare_writes_the_evidence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    create(tmp_path / "one").close()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    arguments = ("compare", tmp_path / "one", tmp_path / "two", "--key", LOG_VKEY, "--out", tmp_path)
    assert json.loads(call(capsys, monkeypatch, *arguments)[1])["ok"]
    for name, number in (("one", 2), ("two", 3)):
        ledger = reopen(tmp_path / name)
        world = World(ledger)
        world.add(msgspec.structs.replace(world.enrol(2, "participant"), key=world.enrol(number, "host").key))
        ledger.close()

    code, out = call(capsys, monkeypatch, *arguments)

    assert (code, json.loads(out)["ok"]) == (1, False)
    assert verify_evidence(Path(json.loads(out)["evidence"]).read_bytes(), LOG_VKEY).first.size == 4


def test_seed_of_the_golden_files_is_the_tests_own() -> None:
    assert json.loads(GOLDEN.read_text("utf-8"))["log"] == VKEY
    assert sign_checkpoint(HONEST.checkpoint(9), KEY) == HONEST.note(9)
