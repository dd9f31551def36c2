"""Which witnesses a run's settings name, and how many of them must cosign."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from liberate.crypto.note import SignatureType, WitnessPolicy, verifier_key
from liberate.crypto.signing import SigningKey, save_key
from liberate.errors import FederationError, SettingsError
from liberate.privacy.config import PrivacyConfig
from liberate.privacy.mechanism_base import Mode
from liberate.runs.federation_access import check_replayed, federation_access, genesis_parameters
from liberate.runs.privacy_forecast import forecast
from liberate.runs.train import train
from liberate.settings import LedgerConfig, RunConfig, Settings, from_tree, resolve, to_toml
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


@pytest.mark.parametrize(
    ("names", "threshold"),
    [([], None), (["w"], None), (["w/replay"], 0), (["w", "v/replay"], 1), (["u", "v", "w/replay"], None)],
)
def test_a_real_distributed_run_without_a_replaying_witness_is_refused(
    tmp_path: Path, names: list[str], threshold: int | None
) -> None:
    settings = real("distributed", names, threshold)

    with pytest.raises(SettingsError, match="wants a witness that replays") as refused:
        train(settings, tmp_path / "run")

    assert "liberate keys new" in refused.value.hint
    assert not (tmp_path / "run").exists()
    with pytest.raises(SettingsError, match="wants a witness that replays"):
        forecast(settings)
    check_replayed(replace(settings, run=RunConfig()))
    check_replayed(real("local", names, threshold))


@pytest.mark.parametrize(
    ("names", "threshold"),
    [(["w/replay"], None), (["w", "v/replay"], None), (["u/replay", "v/replay"], 1), (["t", "u", "v", "w/replay"], 4)],
)
def test_a_quorum_that_always_replays_will_do(names: list[str], threshold: int | None) -> None:
    check_replayed(real("distributed", names, threshold))


def real(mode: Mode, names: list[str], threshold: int | None) -> Settings:
    """Settings of a run of real people under witnesses of some names."""
    vkeys = [verifier_key(name, key, SignatureType.COSIGNATURE_V1) for name, key in zip(names, KEYS, strict=False)]
    witnesses = tuple(f"https://witness.example {vkey}" for vkey in vkeys)
    return Settings(
        privacy=PrivacyConfig(mode=mode, epsilon=8.0),
        ledger=LedgerConfig(witnesses=witnesses, witness_threshold=threshold),
        run=RunConfig(simulated=False),
    )


def test_the_key_of_a_witness_does_not_lie_with_the_ledger(tmp_path: Path) -> None:
    key = SigningKey.from_seed(bytes([9] * 32))
    vkey = verifier_key("w.example", key.public, SignatureType.COSIGNATURE_V1)
    (tmp_path / "run" / "elsewhere").mkdir(parents=True)
    save_key(tmp_path / "run" / "elsewhere" / "w.key", key)
    access = federation_access(tmp_path / "run", Settings())

    access.check_witness_keys([])
    access.check_witness_keys(VKEYS)
    with pytest.raises(FederationError, match=r"w\.key is the key of the witness w\.example"):
        access.check_witness_keys([*VKEYS, vkey])


def test_witnesses_in_a_file_are_read_back(tmp_path: Path) -> None:
    settings = from_tree({"ledger": {"witnesses": list(WITNESSES), "witness_threshold": 3}})
    (tmp_path / "run.toml").write_text(to_toml(settings), "utf-8")

    assert resolve(tmp_path / "run.toml", environment={}) == settings
