"""Which witnesses a run's settings name, and how many of them must cosign."""

from __future__ import annotations

from pathlib import Path

import pytest

from liberate.crypto.note import SignatureType, WitnessPolicy, verifier_key
from liberate.crypto.signing import SigningKey
from liberate.errors import SettingsError
from liberate.runs.federation_access import federation_access, genesis_parameters
from liberate.settings import LedgerConfig, Settings, from_tree, resolve, to_toml
from tests.ledger.world import TERMS

KEYS = [SigningKey.from_seed(bytes([number]) * 32).public for number in range(4)]
VKEYS = [verifier_key(f"witness.example/{i}", key, SignatureType.COSIGNATURE_V1) for i, key in enumerate(KEYS)]
WITNESSES = tuple(f"https://witness.example/{number}/ {vkey}" for number, vkey in enumerate(VKEYS))


@pytest.mark.parametrize(
    ("n", "given", "threshold"), [(0, None, 0), (1, None, 1), (2, None, 2), (3, None, 2), (4, 1, 1)]
)
def test_more_than_half_must_cosign_unless_told_otherwise(n: int, given: int | None, threshold: int) -> None:
    settings = Settings(ledger=LedgerConfig(witnesses=WITNESSES[:n], witness_threshold=given))

    addresses = federation_access(Path(), settings).witnesses
    policy = genesis_parameters(settings, TERMS).witnesses

    assert [address.key for address in addresses] == VKEYS[:n]
    assert [address.url for address in addresses] == [f"https://witness.example/{number}" for number in range(n)]
    assert policy == WitnessPolicy(tuple(VKEYS[:n]), threshold)


@pytest.mark.parametrize(
    "witness",
    [
        "",
        VKEYS[0],
        f"ftp://witness.example {VKEYS[0]}",
        "https://witness.example",
        f"https://witness.example  {VKEYS[0]}",
        f"https://witness.example {verifier_key('witness.example', KEYS[0])}",
    ],
)
def test_what_is_no_witness_is_refused(witness: str) -> None:
    with pytest.raises(SettingsError, match=r"ledger\.witnesses"):
        federation_access(Path(), Settings(ledger=LedgerConfig(witnesses=(witness,))))


def test_more_than_all_witnesses_cannot_be_wanted() -> None:
    with pytest.raises(SettingsError, match="witness_threshold is 3, but there are 2"):
        genesis_parameters(Settings(ledger=LedgerConfig(witnesses=WITNESSES[:2], witness_threshold=3)), TERMS)


def test_witnesses_in_a_file_are_read_back(tmp_path: Path) -> None:
    settings = from_tree({"ledger": {"witnesses": list(WITNESSES), "witness_threshold": 3}})
    (tmp_path / "run.toml").write_text(to_toml(settings), "utf-8")

    assert resolve(tmp_path / "run.toml", environment={}) == settings
