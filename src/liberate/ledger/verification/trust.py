"""How far a ledger is trusted: whose key signed it, and how much of it the witnesses of its genesis have cosigned."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from liberate.crypto.note import Checkpoint, WitnessPolicy, parse_verifier_key, verify_cosigned_checkpoint
from liberate.crypto.signing import key_id
from liberate.errors import LedgerError
from liberate.ledger.format.records import Genesis

PUBLISHED_FILE = "checkpoint"
"""The newest published checkpoint, in the folder of a federation, and in that of a backup."""

Distrust = Literal["wrong_key", "simulated", "findings", "no_key", "not_cosigned"]
"""Why not all of a ledger is trusted: the key given is another one, or anybody can make the keys again from a seed, or
something is wrong, or no key was given, or the witnesses have not cosigned all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """How far a ledger is trusted.

    Attributes:
        distrust: Why not all of it is; None: all of it is.
        size: How many of its first entries are.
        cosigned_size: How many of them enough witnesses have cosigned; None where the genesis wants no cosignature.
    """

    distrust: Distrust | None
    size: int
    cosigned_size: int | None


def judge(genesis: Genesis | None, key: str | None, *, is_sound: bool, size: int, cosigned_size: int | None) -> Trust:
    """Return how far a ledger is trusted that was checked.

    Args:
        genesis: Its genesis, or None.
        key: The log's verifier key as it is known from elsewhere.
        is_sound: Whether nothing was found.
        size: Number of entries.
        cosigned_size: As in `Trust`.
    """
    distrust: Distrust | None = None
    if key is not None and (genesis is None or key != genesis.log_vkey):
        distrust = "wrong_key"
    elif genesis is not None and genesis.simulated:
        distrust = "simulated"
    elif genesis is None or not is_sound:
        distrust = "findings"
    elif key is None:
        distrust = "no_key"
    elif cosigned_size is not None and cosigned_size < size:
        return Trust(distrust="not_cosigned", size=cosigned_size, cosigned_size=cosigned_size)
    return Trust(distrust=distrust, size=0 if distrust else size, cosigned_size=cosigned_size)


def wrong_key(genesis: Genesis | None, key: str) -> str:
    """Say that a key is not the one that a genesis names, by their short names."""
    given = key_id(parse_verifier_key(key).public)
    if genesis is None:
        return f"wrong key: {given} was given, and there is no genesis that names one"
    named = parse_verifier_key(genesis.log_vkey)
    if key_id(named.public) == given:
        return f"wrong key: {key} was given, the genesis names {genesis.log_vkey}"
    return f"wrong key: {given} was given, the genesis names {key_id(named.public)}"


def cosigned_size(
    genesis: Genesis | None, notes: Iterable[str], check_holds: Callable[[Checkpoint], None]
) -> int | None:
    """Return how many first entries of a ledger enough witnesses have cosigned, by some checkpoints.

    Args:
        genesis: Its genesis, or None.
        notes: Checkpoints; those without the cosignatures that the genesis wants say nothing.
        check_holds: Raises ProofMismatch if the ledger does not hold what a checkpoint covers.
    """
    if genesis is None or genesis.witnesses.threshold == 0:
        return None
    policy = WitnessPolicy(genesis.witnesses.keys, genesis.witnesses.threshold)
    sizes = [0]
    for note in notes:
        try:
            checkpoint = verify_cosigned_checkpoint(note, genesis.log_vkey, policy)
            check_holds(checkpoint)
        except LedgerError:
            continue
        sizes.append(checkpoint.size)
    return max(sizes)


def published_note(folder: Path) -> str | None:
    """Return the newest published checkpoint of a ledger, as it lies in its folder or beside it; None before one."""
    places = [folder / PUBLISHED_FILE]
    if folder.resolve().name == "ledger":
        places.append(folder.resolve().parent / PUBLISHED_FILE)
    for path in places:
        if path.is_file():
            return path.read_bytes().decode(errors="replace") or None  # empty before the first
    return None
