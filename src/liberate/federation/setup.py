"""Setting a federation up, or a further run in it: keys, genesis, people. Each step can be killed and done again.

A federation is a folder: `keys/` (founder, log, coordinator, auditor), `ledger/`, and `devices/`, which in a deployment
lies on the participants' side.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from liberate.crypto.note import WitnessPolicy, verifier_key, verify_checkpoint
from liberate.crypto.signing import SigningKey, load_key, save_key
from liberate.data.ratings import Ratings
from liberate.errors import FederationError, RefusedEntry
from liberate.federation.enrolment import (
    EnrolledRole,
    Registrar,
    commit_ratings,
    enrol,
    enrol_participants,
    open_or_create_device_store,
)
from liberate.federation.keys import FOUNDER, KeyChange, resume_key_changes
from liberate.federation.participant.policy import ParticipationPolicy
from liberate.federation.sharing.outbox import resume_pending_entries
from liberate.federation.store.devices import DeviceStore
from liberate.federation.terms import Charter
from liberate.identifiers import Digest
from liberate.ledger.format.entries import sign
from liberate.ledger.format.parts import EnrolmentPolicy, Witnesses
from liberate.ledger.format.records import Aborted, Genesis
from liberate.ledger.interface import Ledger
from liberate.ledger.log import tables
from liberate.ledger.log.sqlite import SqliteLedger
from liberate.ledger.publish.checkpoints import Publisher, check_published
from liberate.randomness import Randomness
from liberate.timing import Progress, Stopwatch, silent
from liberate.units import from_nano


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSession:
    """An open federation, everybody enrolled.

    Attributes:
        ledger: Its ledger, owned by this process.
        devices: The store of its one host.
        policy: What the people of that host agreed to.
        coordinator_key: The coordinator's signing key.
        coordinator: The coordinator's number on the ledger.
        publisher: Publishes the ledger's checkpoints; the newest is kept in the folder, as `checkpoint`.
        cohort: Numbers of the people who take part in the run, increasing.
    """

    ledger: SqliteLedger
    devices: DeviceStore
    policy: ParticipationPolicy
    coordinator_key: SigningKey
    coordinator: int
    publisher: Publisher
    cohort: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationSession:
    """A federation as it stands, open between rounds.

    Attributes:
        ledger: Its ledger, owned by this process.
        devices: The store of its one host.
        publisher: Publishes the ledger's checkpoints.
        finished: Changes of keys that were under way, and are done now.
    """

    ledger: SqliteLedger
    devices: DeviceStore
    publisher: Publisher
    finished: list[KeyChange]


@contextmanager
def open_federation(folder: Path, terms: Charter) -> Iterator[FederationSession]:
    """Open a federation that was founded before, for what is done between rounds.

    Args:
        folder: Where it lies.
        terms: As at the start; what the genesis says is not compared.

    Yields:
        The federation; its files are released at the end.

    Raises:
        LedgerLocked: A training is going on.
        RolledBack: The ledger lacks what it has published, or what its devices have accepted.
    """
    log_key = load_key(folder / "keys" / "log.key")
    with (
        closing(SqliteLedger.open(folder / "ledger", log_key, terms.clock)) as ledger,
        DeviceStore(folder / "devices") as devices,
    ):
        kept, vkey = folder / "checkpoint", verifier_key(ledger.origin, log_key.public)
        for note in (kept.read_text("utf-8") if kept.exists() else None, devices.checkpoint()):
            if note is not None:
                check_published(ledger, note, vkey)
        finished = resume_key_changes(ledger, devices)
        resume_pending_entries(ledger, devices)
        yield FederationSession(
            ledger=ledger,
            devices=devices,
            publisher=Publisher(ledger, terms.witnesses, terms.witness_threshold, kept),
            finished=finished,
        )


@contextmanager
def open_for_run(
    folder: Path,
    terms: Charter,
    participants: Sequence[str],
    ratings: Ratings,
    *,
    run: int,
    cohort: Sequence[int] | None = None,
    batch_size: int,
    stopwatch: Stopwatch,
    claim: Callable[[Ledger], None] = lambda ledger: None,
    progress: Progress = silent,
) -> Iterator[RunSession]:
    """Open a federation for a run, founded if it is not yet, so that people are enrolled and hold their ratings.

    Args:
        folder: Where it lies; made if absent.
        terms: What the genesis says or is to say, and people agree to.
        people: Original id of each user, in the order of `ratings`; others who were enrolled before stay.
        ratings: What each of them holds from now on.
        run: Number of the run: the ledger's last one, or the next.
        cohort: Which of the people take part in it, as indices; None: all.
        chunk: Entries per block.
        stopwatch: Where sign, verify and store are added up.
        claim: Called with the ledger when nobody else can append to it, before anything changes; may refuse.
        progress: Told each step.

    Yields:
        The federation; its files are released at the end.

    Raises:
        FederationError: The genesis says something else than the terms, or the ledger refuses an entry.
        RolledBack: The ledger lacks what it has published, or what its devices have accepted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    founder, log_key, coordinator_key = (
        load_or_create_key(folder / "keys", name, terms.randomness()) for name in ("founder", "log", "coordinator")
    )
    ledger = _open_ledger(folder / "ledger", terms, founder, log_key, stopwatch)
    with closing(ledger):
        vkey = verifier_key(ledger.origin, log_key.public)
        kept = folder / "checkpoint"
        if kept.exists():
            check_published(ledger, kept.read_text("utf-8"), vkey)
        _check_genesis(ledger, terms)
        claim(ledger)
        policy = ParticipationPolicy(
            origin=ledger.origin,
            log_key=vkey,
            coordinator_key=coordinator_key.public,
            mechanism=terms.mechanism,
            honest_fraction=terms.honest_fraction,
            witnesses=_witness_policy(ledger, terms),
        )
        admitting = Registrar(ledger, founder, batch_size, stopwatch)
        _settle(folder / "devices", ledger, coordinator_key, run, vkey)
        salts = terms.randomness(verify_checkpoint(ledger.checkpoint(), vkey).root)
        with open_or_create_device_store(
            folder / "devices", participants, ratings, terms.randomness(), salts
        ) as devices:
            progress(f"enrolling {len(participants):,} participants")
            (coordinator,) = enrol(admitting, [coordinator_key.public], "coordinator")
            enrol_participants(admitting, devices)
            commit_ratings(admitting, devices)
            yield RunSession(
                ledger=ledger,
                devices=devices,
                policy=policy,
                coordinator_key=coordinator_key,
                coordinator=coordinator,
                publisher=Publisher(ledger, terms.witnesses, terms.witness_threshold, kept),
                cohort=_agree(
                    ledger, devices, terms, run, participants if cohort is None else [participants[i] for i in cohort]
                ),
            )


def _settle(folder: Path, ledger: SqliteLedger, coordinator: SigningKey, run: int, vkey: str) -> None:
    """Bring to an end what was left under way: changes of keys, acts of people, a round of a run that is given up."""
    if DeviceStore.exists(folder):
        with DeviceStore(folder) as devices:
            accepted = devices.checkpoint()
            if accepted is not None:
                check_published(ledger, accepted, vkey)
            resume_key_changes(ledger, devices)
            resume_pending_entries(ledger, devices)
    current = ledger.state.open_round
    if current is not None and current.record.run != run:
        author = current.record.author
        seq = ledger.state.principals[author].sequence + 1
        record = Aborted(origin=ledger.origin, author=author, seq=seq, round=current.record.number, reason="given_up")
        (outcome,) = ledger.append([sign(record, coordinator)])
        if isinstance(outcome, RefusedEntry):
            raise FederationError(f"the ledger does not let go of round {current.record.number}: {outcome}")


def _agree(
    ledger: SqliteLedger, devices: DeviceStore, terms: Charter, run: int, participants: Sequence[str]
) -> tuple[int, ...]:
    """Let people agree to a run on these terms; return the numbers of those who can take part.

    Where nothing leaves devices there is nothing to agree to, and the next run has the same number.
    """
    by_id = {device.user_id: device for device in devices.devices()}
    own = [by_id[person] for person in participants]
    if terms.mechanism:
        devices.record_agreement(
            run,
            [device.slot for device in own],
            cost=(terms.agreed_epsilon_nano, terms.agreed_rho_nano),
            limits=(ledger.state.limit("epsilon"), ledger.state.limit("rho")),
        )
    numbers = sorted(device.number for device in own if device.number is not None)
    return tuple(number for number in numbers if ledger.state.principals[number].is_active)


def load_or_create_key(folder: Path, name: str, randomness: Randomness) -> SigningKey:
    """Give a key of the federation's own by its name, made and kept in a file when it is first wanted."""
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{name}.key"
    if not path.exists():
        save_key(path, SigningKey.from_seed(randomness.secret(f"{name} key")))
    return load_key(path)


def _open_ledger(
    folder: Path, terms: Charter, founder: SigningKey, log_key: SigningKey, stopwatch: Stopwatch
) -> SqliteLedger:
    if _holds_ledger(folder):
        return SqliteLedger.open(folder, log_key, terms.clock, stopwatch)
    tag = terms.randomness().secret("origin").hex() if terms.is_simulated else secrets.token_hex(32)
    origin = terms.origin or f"liberate.invalid/{tag[:16]}"
    enrolment_policy = EnrolmentPolicy(registrars=(FOUNDER,), threshold=1)
    roles: tuple[EnrolledRole, ...] = ("participant", "coordinator", "auditor")
    genesis = Genesis(
        origin=origin,
        author=FOUNDER,
        seq=1,
        registrars=(Digest(founder.public),),
        enrolment_policy=dict.fromkeys(roles, enrolment_policy),
        log_vkey=verifier_key(origin, log_key.public),
        simulated=terms.is_simulated,
        unit="user",
        relation="zero-out",
        epsilon_nano_limit=terms.epsilon_nano_limit,
        rho_nano_limit=terms.rho_nano_limit,
        witnesses=Witnesses(keys=tuple(w.key for w in terms.witnesses), threshold=terms.witness_threshold),
    )
    return SqliteLedger.create(folder, sign(genesis, founder), log_key, terms.clock, stopwatch)


def _check_genesis(ledger: SqliteLedger, terms: Charter) -> None:
    """Refuse a terms that says something else than the genesis, which cannot be changed later."""
    genesis = ledger.state.founding
    if genesis.simulated != terms.is_simulated:
        found, wanted = ("a", "real keys") if genesis.simulated else ("no", "a simulation")
        raise FederationError(
            f"the ledger is {found} simulation, the run is to use {wanted}", hint="give run.simulated as at the start"
        )
    limits = {
        "ledger.epsilon_limit": (genesis.epsilon_nano_limit, terms.epsilon_nano_limit),
        "ledger.epsilon_limit, as rho by privacy.delta": (genesis.rho_nano_limit, terms.rho_nano_limit),
    }
    said = {name: (_units(found), _units(wanted)) for name, (found, wanted) in limits.items()}
    for name, (present, given) in {"ledger.origin": (genesis.origin, terms.origin or None), **said}.items():
        if given is not None and given != present:
            raise FederationError(
                f"the genesis has another {name}: {present}, not {given}",
                hint="it cannot be changed: leave it out, or give it as at the start",
            )


def _units(nano: int | None) -> str | None:
    return None if nano is None else f"{from_nano(nano):.10g}"


def _witness_policy(ledger: SqliteLedger, terms: Charter) -> WitnessPolicy:
    """Give the witness policy of the genesis, which must be the terms's: it cannot be changed later."""
    fixed = ledger.state.founding.witnesses
    found, wanted = (fixed.keys, fixed.threshold), (tuple(w.key for w in terms.witnesses), terms.witness_threshold)
    if found != wanted:
        raise FederationError(
            f"the genesis names {len(fixed.keys)} witnesses, {fixed.threshold} must cosign; other ones were given",
            hint="give ledger.witnesses and ledger.witness_threshold as at the start",
        )
    return WitnessPolicy(fixed.keys, fixed.threshold)


def _holds_ledger(folder: Path) -> bool:
    """Whether a ledger was begun; a file without tables is what a crash before the first block leaves."""
    if not (folder / tables.LEDGER_FILE).is_file():
        return False
    with closing(tables.connect(folder, mode="rw")) as connection:
        return not tables.is_empty(connection)
