"""Setting a federation up: keys, genesis, devices, enrolment. Each step can be killed and done again.

A federation is a folder: `keys/` (founder, log, coordinator), `ledger/`, and `devices/`, which in a deployment lies
on the participants' side.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from liberate.arrays import Digest
from liberate.crypto.note import WitnessPolicy, verifier_key
from liberate.crypto.signing import SigningKey, load_key, save_key
from liberate.errors import FederationError, RefusedEntry
from liberate.federation.devices import Devices, Holding
from liberate.federation.participant import Host, Policy
from liberate.federation.rekeying import FOUNDER, KeyChange, finish_changes
from liberate.ledger import store
from liberate.ledger.log import SqliteLedger
from liberate.ledger.publish.checkpoints import Publisher, WitnessAddress, check_published
from liberate.ledger.records import Admission, Enrol, Genesis, Witnesses, sign
from liberate.model.ratings import Ratings
from liberate.randomness import Clock, Randomness, SimulatedClock, SimulatedRandomness, SystemClock, SystemRandomness
from liberate.timing import Stopwatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Charter:
    """What the founder writes into the genesis of a new ledger, and people agree to.

    Attributes:
        origin: The ledger's name, or empty to derive it from the seed or draw it at random.
        seed: Everything random in a simulation is derived from it.
        is_simulated: Whether keys, salts, noise and time are derived from the seed.
        mechanism: Name of the mechanism that people agree to; nothing weaker is answered.
        agreed_epsilon_nano: Most that people agree to spend with pure mechanisms, in 1e-9, or None for no limit.
        agreed_rho_nano: Most that they agree to spend with Gaussian mechanisms, likewise.
        epsilon_nano_limit: Most that the ledger lets a participant spend with pure mechanisms, likewise.
        rho_nano_limit: Most that it lets a participant spend with Gaussian mechanisms, likewise.
        witnesses: Who is asked to cosign checkpoints.
        witness_threshold: How many must.
    """

    origin: str
    seed: int
    is_simulated: bool
    mechanism: str
    agreed_epsilon_nano: int | None
    epsilon_nano_limit: int | None
    agreed_rho_nano: int | None = None
    rho_nano_limit: int | None = None
    witnesses: tuple[WitnessAddress, ...] = ()
    witness_threshold: int = 0

    def randomness(self, context: bytes = b"") -> Randomness:
        """Give the source of secrets; `context` keeps two runs of one seed apart."""
        return SimulatedRandomness(self.seed, context) if self.is_simulated else SystemRandomness()

    @property
    def clock(self) -> Clock:
        return SimulatedClock() if self.is_simulated else SystemClock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """An open federation, everybody enrolled.

    Attributes:
        ledger: Its ledger, owned by this process.
        devices: The store of its one host.
        policy: What the people of that host agreed to.
        coordinator_key: The coordinator's signing key.
        coordinator: The coordinator's number on the ledger.
        publisher: Publishes the ledger's checkpoints; the newest is kept in the folder, as `checkpoint`.
    """

    ledger: SqliteLedger
    devices: Devices
    policy: Policy
    coordinator_key: SigningKey
    coordinator: int
    publisher: Publisher


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A federation as it stands, open between rounds.

    Attributes:
        ledger: Its ledger, owned by this process.
        devices: The store of its one host.
        publisher: Publishes the ledger's checkpoints.
        finished: Changes of keys that were under way, and are done now.
    """

    ledger: SqliteLedger
    devices: Devices
    publisher: Publisher
    finished: list[KeyChange]


@contextmanager
def open_standing(folder: Path, charter: Charter) -> Iterator[Standing]:
    """Open a federation that was founded before, for what is done between rounds.

    Args:
        folder: Where it lies.
        charter: As at the start; what the genesis says is not compared.

    Yields:
        The federation; its files are released at the end.

    Raises:
        LedgerLocked: A training is going on.
        RolledBack: The ledger lacks what it has published, or what its devices have accepted.
    """
    log_key = load_key(folder / "keys" / "log.key")
    with (
        closing(SqliteLedger.open(folder / "ledger", log_key, charter.clock)) as ledger,
        Devices(folder / "devices") as devices,
    ):
        kept, vkey = folder / "checkpoint", verifier_key(ledger.origin, log_key.public)
        for note in (kept.read_text("utf-8") if kept.exists() else None, devices.checkpoint()):
            if note is not None:
                check_published(ledger, note, vkey)
        yield Standing(
            ledger=ledger,
            devices=devices,
            publisher=Publisher(ledger, charter.witnesses, charter.witness_threshold, kept),
            finished=finish_changes(ledger, devices),
        )


@contextmanager
def open_federation(
    folder: Path,
    charter: Charter,
    people: Sequence[str],
    ratings: Ratings,
    *,
    chunk: int,
    stopwatch: Stopwatch,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[Federation]:
    """Found a federation, or open the one in a folder, and enrol who is missing.

    Args:
        folder: Where it lies; made if absent.
        charter: Used for a new ledger.
        people: Original id of each user, in the order of `ratings`.
        ratings: Each user's own ratings.
        chunk: Entries per block.
        stopwatch: Where sign, verify and store are added up.
        progress: Told each step.

    Yields:
        The federation; its files are released at the end.

    Raises:
        FederationError: The folder belongs to other people, the genesis names other witnesses, or the ledger refuses
            an enrolment.
        RolledBack: The ledger lacks what it has published, or what its devices have accepted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    founder, log_key, coordinator_key = (
        _key(folder / "keys", name, charter.randomness()) for name in ("founder", "log", "coordinator")
    )
    ledger = _open_ledger(folder / "ledger", charter, founder, log_key, stopwatch)
    try:
        vkey = verifier_key(ledger.origin, log_key.public)
        kept = folder / "checkpoint"
        if kept.exists():
            check_published(ledger, kept.read_text("utf-8"), vkey)
        policy = Policy(
            origin=ledger.origin,
            log_key=vkey,
            coordinator_key=coordinator_key.public,
            mechanism=charter.mechanism,
            epsilon_nano=charter.agreed_epsilon_nano,
            rho_nano=charter.agreed_rho_nano,
            witnesses=_witness_policy(ledger, charter),
        )
        with _open_devices(folder / "devices", charter.randomness(), people, ratings) as devices:
            accepted = devices.checkpoint()
            if accepted is not None:
                check_published(ledger, accepted, vkey)
            finish_changes(ledger, devices)
            host = Host(devices, policy, ratings.n_items, charter.randomness(), stopwatch)
            progress(f"enrolling {len(people):,} participants")
            numbers = _enrol(ledger, founder, [(coordinator_key.public, "coordinator")], chunk, stopwatch)
            numbers += _enrol(ledger, founder, [(key, "participant") for key in host.public_keys], chunk, stopwatch)
            with stopwatch.measure("sign"):
                entries = host.dataset_entries(numbers[1:])
            fresh = [e for e, number in zip(entries, numbers[1:], strict=True) if _is_fresh(ledger, number)]
            append_all(ledger, fresh, chunk)
            yield Federation(
                ledger=ledger,
                devices=devices,
                policy=policy,
                coordinator_key=coordinator_key,
                coordinator=numbers[0],
                publisher=Publisher(ledger, charter.witnesses, charter.witness_threshold, kept),
            )
    finally:
        ledger.close()


def append_all(ledger: SqliteLedger, entries: Sequence[bytes], chunk: int) -> None:
    """Append entries in blocks.

    Raises:
        FederationError: The ledger refuses one.
    """
    for begin in range(0, len(entries), chunk):
        for outcome in ledger.append(entries[begin : begin + chunk]):
            if isinstance(outcome, RefusedEntry):
                raise FederationError(f"the ledger refuses an entry of the set-up: {outcome}")


def _key(folder: Path, name: str, randomness: Randomness) -> SigningKey:
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{name}.key"
    if not path.exists():
        save_key(path, SigningKey.from_seed(randomness.secret(f"{name} key")))
    return load_key(path)


def _open_ledger(
    folder: Path, charter: Charter, founder: SigningKey, log_key: SigningKey, stopwatch: Stopwatch
) -> SqliteLedger:
    if _holds_ledger(folder):
        return SqliteLedger.open(folder, log_key, charter.clock, stopwatch)
    tag = charter.randomness().secret("origin").hex() if charter.is_simulated else secrets.token_hex(32)
    origin = charter.origin or f"liberate.invalid/{tag[:16]}"
    admission = Admission(admitters=(FOUNDER,), threshold=1)
    roles: tuple[Literal["participant", "coordinator"], ...] = ("participant", "coordinator")
    genesis = Genesis(
        origin=origin,
        author=FOUNDER,
        seq=1,
        admitters=(Digest(founder.public),),
        admission=dict.fromkeys(roles, admission),
        log_vkey=verifier_key(origin, log_key.public),
        simulated=charter.is_simulated,
        unit="user",
        relation="zero-out",
        epsilon_nano_limit=charter.epsilon_nano_limit,
        rho_nano_limit=charter.rho_nano_limit,
        witnesses=Witnesses(keys=tuple(w.key for w in charter.witnesses), threshold=charter.witness_threshold),
    )
    return SqliteLedger.create(folder, sign(genesis, founder), log_key, charter.clock, stopwatch)


def _witness_policy(ledger: SqliteLedger, charter: Charter) -> WitnessPolicy:
    """Give the witness policy of the genesis, which must be the charter's: it cannot be changed later."""
    fixed = ledger.state.founding.witnesses
    found, wanted = (fixed.keys, fixed.threshold), (tuple(w.key for w in charter.witnesses), charter.witness_threshold)
    if found != wanted:
        raise FederationError(
            f"the genesis names {len(fixed.keys)} witnesses, {fixed.threshold} must cosign; other ones were given",
            hint="give ledger.witnesses and ledger.witness_threshold as at the start",
        )
    return WitnessPolicy(fixed.keys, fixed.threshold)


def _holds_ledger(folder: Path) -> bool:
    """Whether a ledger was begun; a file without tables is what a crash before the first block leaves."""
    if not (folder / store.FILE_NAME).is_file():
        return False
    with closing(store.connect(folder, mode="rw")) as connection:
        return not store.is_empty(connection)


def _open_devices(folder: Path, randomness: Randomness, people: Sequence[str], ratings: Ratings) -> Devices:
    if not Devices.exists(folder):
        holdings = (
            (
                person,
                Holding(
                    signing_seed=randomness.secret("participant key", slot),
                    dataset_salt=randomness.secret("dataset salt", slot),
                    ratings=ratings.user_bytes(slot),
                ),
            )
            for slot, person in enumerate(people)
        )
        return Devices.create(folder, holdings)
    devices = Devices(folder)
    if [device.user_id for device in devices.devices()] != list(people):
        devices.close()
        raise FederationError(f"the devices in {folder} belong to other people than the data set names")
    return devices


def _enrol(
    ledger: SqliteLedger,
    founder: SigningKey,
    keys: Sequence[tuple[bytes, Literal["participant", "coordinator"]]],
    chunk: int,
    stopwatch: Stopwatch,
) -> list[int]:
    """Enrol the keys that are not yet on the ledger, and give everybody's number."""
    state = ledger.state
    missing = [(key, role) for key, role in keys if state.number_of(key) is None]
    number, seq = len(state.principals), state.principals[FOUNDER].sequence + 1
    with stopwatch.measure("sign"):
        entries = [
            sign(
                Enrol(origin=ledger.origin, author=FOUNDER, seq=seq + i, number=number + i, key=Digest(key), role=role),
                founder,
            )
            for i, (key, role) in enumerate(missing)
        ]
    append_all(ledger, entries, chunk)
    numbers = [ledger.state.number_of(key) for key, _ in keys]
    return [n for n in numbers if n is not None]


def _is_fresh(ledger: SqliteLedger, number: int) -> bool:
    """Whether a participant has signed nothing yet."""
    return ledger.state.principals[number].sequence == 0
