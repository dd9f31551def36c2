"""What the genesis wants cosigned leaves the ledger with enough cosignatures or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from liberate.errors import NoQuorum
from liberate.ledger.format.entries import sign
from liberate.ledger.format.parts import Witnesses
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.publish.parquet import export_parquet
from liberate.ledger.publish.proof_files import write_completeness_proof, write_consistency_proof, write_inclusion_proof
from liberate.ledger.publish.tiles import export_tiles
from liberate.randomness import SimulatedClock
from liberate.tracing.proofs import published_checkpoint
from tests.ledger.publish.growing import cosigned, files, policy
from tests.ledger.world import FOUNDER, LOG_KEY, create, genesis, key

Publish = Callable[[SqliteLedger, Path, str | None], object]

WAYS: dict[str, Publish] = {
    "tiles": export_tiles,
    "table": export_parquet,
    "entry": lambda ledger, _, note: write_inclusion_proof(ledger, 0, note),
    "growth": lambda ledger, _, note: write_consistency_proof(ledger, ledger.checkpoint(), note),
    "history": lambda ledger, _, note: write_completeness_proof(ledger, FOUNDER, note),
}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    """A ledger that wants two of three witnesses."""
    record = msgspec.structs.replace(genesis(), witnesses=Witnesses(keys=policy(2).keys, threshold=2))
    ledger = SqliteLedger.create(tmp_path / "ledger", sign(record, key(FOUNDER)), LOG_KEY, SimulatedClock())
    yield ledger
    ledger.close()


@pytest.mark.parametrize("way", WAYS)
def test_nothing_leaves_without_the_cosignatures_that_the_genesis_wants(
    ledger: SqliteLedger, tmp_path: Path, way: str
) -> None:
    for note in (None, cosigned(ledger.checkpoint(), 1)):
        with pytest.raises(NoQuorum):
            WAYS[way](ledger, tmp_path / "out", note)
    assert not (tmp_path / "out").exists()

    WAYS[way](ledger, tmp_path / "out", cosigned(ledger.checkpoint(), 2))


def test_an_export_takes_the_cosignatures_along(ledger: SqliteLedger, tmp_path: Path) -> None:
    for n_witnesses in (2, 3):
        export_tiles(ledger, tmp_path / "out", cosigned(ledger.checkpoint(), n_witnesses))

        assert files(tmp_path / "out")["checkpoint"].decode() == cosigned(ledger.checkpoint(), n_witnesses)


def test_a_run_gives_away_what_it_has_published(ledger: SqliteLedger, tmp_path: Path) -> None:
    assert published_checkpoint(tmp_path, ledger) is None

    (tmp_path / "checkpoint").write_text(cosigned(ledger.checkpoint(), 2), "utf-8")

    assert published_checkpoint(tmp_path, ledger) == cosigned(ledger.checkpoint(), 2)
    plain = create(tmp_path / "plain")
    assert published_checkpoint(tmp_path, plain) is None
    plain.close()
