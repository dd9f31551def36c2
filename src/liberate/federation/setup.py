"""Set up a federation, or a further run in it: keys, genesis, participants. Each step can be killed and repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

from liberate.crypto.note import WitnessPolicy
from liberate.crypto.signing import SigningKey
from liberate.data.ratings import Ratings
from liberate.errors import LedgerError, RolledBack
from liberate.federation.acts import check_devices
from liberate.federation.enrolment import (
    Candidate,
    ask_approvals,
    commit_ratings,
    enrol,
    enrol_participants,
    open_or_create_device_store,
)
from liberate.federation.entry_writer import EntryWriter
from liberate.federation.genesis import check_genesis, genesis_entry
from liberate.federation.keys import KeyChange, resume_key_changes
from liberate.federation.registrars import Registrar
from liberate.federation.session import FederationAccess, FederationSession, RunSession
from liberate.federation.sharing.outbox import resume_pending_entries
from liberate.federation.store.device_rows import Device
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.terms_tables import AcceptedTerms
from liberate.federation.terms import GenesisParameters, ParticipationPolicy, ParticipationTerms, is_no_weaker
from liberate.ledger.evidence.split_view import evidence_of_fork, keep_evidence
from liberate.ledger.format.parts import Terms
from liberate.ledger.format.records import TermsRecord
from liberate.ledger.interface import Ledger
from liberate.ledger.publish.checkpoints import check_published
from liberate.timing import Progress, silent


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParticipation:
    """Who takes part in a run of a federation, with which ratings, on which terms.

    Attributes:
        run: Number of the run: the ledger's last one, or the next.
        user_ids: Original id of each user, in the order of `ratings`; others who were enrolled before stay.
        ratings: What their devices hold from now on to learn from.
        held_out: What their devices hold out from now on; None: what they hold out already.
        cohort: Which of the users take part, as indices; None: all.
        terms: What they agree to.
    """

    run: int
    user_ids: Sequence[str]
    ratings: Ratings
    held_out: Ratings | None = None
    cohort: Sequence[int] | None = None
    terms: ParticipationTerms


@contextmanager
def open_federation(access: FederationAccess) -> Iterator[FederationSession]:
    """Open an existing federation as the owner of its ledger, to act between rounds.

    First finishes the key changes and entries of participants that a crash interrupted.

    Yields:
        The federation; its files are released at the end.

    Raises:
        LedgerLocked: A training is going on.
        RolledBack: The ledger lacks what it has published, or what its devices have accepted.
    """
    with (
        closing(access.open_ledger(access.folder / "ledger", access.load_key("log"), access.source.clock)) as ledger,
        DeviceStore(access.folder / "devices") as devices,
    ):
        access.check_witness_keys(ledger.state.founding.witnesses.keys)
        _check_published(access, ledger, devices)
        finished = _finish_interrupted(ledger, devices)
        yield FederationSession(
            access=access, ledger=ledger, devices=devices, publisher=access.publisher(ledger), finished=finished
        )


@contextmanager
def open_for_run(
    access: FederationAccess,
    parameters: GenesisParameters,
    participation: RunParticipation,
    *,
    batch_size: int,
    claim: Callable[[Ledger], None] = lambda ledger: None,
    progress: Progress = silent,
) -> Iterator[RunSession]:
    """Open a federation for a run, set up if it is not yet: users are enrolled, and their devices hold their ratings.

    Args:
        access: Of the federation; its folder is made if absent.
        parameters: What its genesis says or is to say.
        participation: Who takes part in the run.
        batch_size: Entries per block.
        claim: Called with the ledger when nobody else can append to it, before anything changes; may refuse.
        progress: Told each step.

    Raises:
        FederationError: The genesis says something else than the parameters, or the ledger refuses an entry.
        RolledBack: The ledger lacks what it has published, or what its devices have accepted.
    """
    access.folder.mkdir(parents=True, exist_ok=True)
    access.check_witness_keys(parameters.witnesses.keys)
    access.prepare_publication()
    coordinator_key = access.load_or_create_key("coordinator")

    with closing(_open_or_found(access, parameters)) as ledger:
        with _existing_devices(access) as existing:
            _check_published(access, ledger, existing)
            check_genesis(ledger.state.founding, parameters, access.source)
            claim(ledger)
            finished = () if existing is None else _finish_interrupted(ledger, existing)
        _give_up_open_round(access, ledger, participation.run)
        with _devices_of(access, ledger, participation) as devices:
            progress(f"enrolling {len(participation.user_ids):,} participants")
            coordinator = _enrol(access.registrar(ledger, batch_size), devices, coordinator_key, parameters.terms)
            policy = _policy(ledger, coordinator_key.public, parameters.witnesses, participation.terms)
            yield _session(access, devices, coordinator, policy, participation, finished)


def _open_or_found(access: FederationAccess, parameters: GenesisParameters) -> Ledger:
    """Open the ledger of a federation, founded if there is none."""
    founder, log_key = map(access.load_or_create_key, ("founder", "log"))
    others = access.simulated_registrars(parameters.registrars.threshold - 1)
    registrars = parameters.registrars.with_keys([key.public for key in others])
    genesis = partial(genesis_entry, parameters, registrars, access.source, founder, log_key)
    return access.open_ledger(access.folder / "ledger", log_key, access.source.clock, genesis=genesis)


def _session(
    access: FederationAccess,
    devices: DeviceStore,
    coordinator: EntryWriter,
    policy: ParticipationPolicy,
    participation: RunParticipation,
    finished: tuple[KeyChange, ...],
) -> RunSession:
    return RunSession(
        access=access,
        ledger=coordinator.ledger,
        devices=devices,
        publisher=access.publisher(coordinator.ledger),
        finished=finished,
        policy=policy,
        coordinator=coordinator,
        cohort=_agree(coordinator.ledger, devices, participation),
    )


def _devices_of(access: FederationAccess, ledger: Ledger, participation: RunParticipation) -> DeviceStore:
    """Open the participants' devices, after what was interrupted is settled: salts follow from the ledger's root."""
    return open_or_create_device_store(
        access.folder / "devices",
        participation.user_ids,
        participation.ratings,
        participation.held_out,
        access.source.randomness(),
        access.randomness_at(ledger),
    )


def change_terms(coordinator: EntryWriter, terms: Terms) -> None:
    """Put terms in force, unless they are.

    Raises:
        FederationError: The ledger refuses them.
    """
    if terms != coordinator.ledger.state.terms:
        coordinator.append(TermsRecord(**coordinator.header(), terms=terms))


def _enrol(registrar: Registrar, devices: DeviceStore, coordinator_key: SigningKey, terms: Terms) -> EntryWriter:
    """Enrol the coordinator and the participants, commit their ratings, and return the coordinator's writer.

    The terms are changed in between, which those who are new join under.
    """
    coordinator = Candidate(key=coordinator_key.public, role="coordinator")
    ask_approvals(registrar, coordinator, devices)
    (number,) = enrol(registrar, [coordinator])
    if registrar.ledger.state.open_round is None:
        change_terms(EntryWriter(registrar.ledger, coordinator_key, number), terms)
    enrol_participants(registrar, devices)
    commit_ratings(registrar, devices)
    return EntryWriter(registrar.ledger, coordinator_key, number)


def _existing_devices(access: FederationAccess) -> AbstractContextManager[DeviceStore | None]:
    """Open the devices, unless the set-up has not come to them yet."""
    folder = access.folder / "devices"
    return DeviceStore(folder) if DeviceStore.exists(folder) else nullcontext()


def _check_published(access: FederationAccess, ledger: Ledger, devices: DeviceStore | None) -> None:
    """Refuse a ledger that lacks what its devices have accepted, or what it has published.

    Raises:
        RolledBack: It does.
        LedgerError: It is not known any more what was published.
        FederationError: The devices are older than the ledger.
    """
    if devices is not None:
        check_devices(ledger, devices)
    published = access.published_checkpoint()
    if published:
        _check_continues(access, ledger, published)
    elif ledger.positions(kind="update"):
        raise LedgerError(
            f"{access.checkpoint_file} says that nothing was published, but devices have answered rounds",
            hint="put a checkpoint in its place that was published",
        )


def _check_continues(access: FederationAccess, ledger: Ledger, published: str) -> None:
    """Refuse a ledger that does not continue what it has published; where both are signed, that is kept as evidence."""
    try:
        check_published(ledger, published, ledger.state.founding.log_vkey)
    except RolledBack as error:
        data = evidence_of_fork(ledger, published)
        if data is None:
            raise
        path = keep_evidence(access.folder / "evidence", data)
        message = f"{error.message}; see {path}"
        raise RolledBack(message, size=error.size, published=error.published, hint=error.hint) from error


def _finish_interrupted(ledger: Ledger, devices: DeviceStore) -> tuple[KeyChange, ...]:
    """Finish the key changes and entries of participants that a crash interrupted, and return the key changes."""
    finished = resume_key_changes(ledger, devices)
    resume_pending_entries(ledger, devices)
    return tuple(finished)


def _give_up_open_round(access: FederationAccess, ledger: Ledger, run: int) -> None:
    """Abort the open round of another run, which is given up."""
    current = ledger.state.open_round
    if current is not None and current.record.run != run:
        writer = EntryWriter(ledger, access.load_key("coordinator"), current.record.author)
        writer.abort(current.record, "given_up")


def _policy(
    ledger: Ledger, coordinator_key: bytes, witnesses: WitnessPolicy, terms: ParticipationTerms
) -> ParticipationPolicy:
    return ParticipationPolicy(
        origin=ledger.origin,
        log_key=ledger.state.founding.log_vkey,
        coordinator_key=coordinator_key,
        mechanism=terms.mechanism,
        terms=ledger.state.terms,
        terms_hash=ledger.state.terms_hash,
        witnesses=witnesses,
        evaluation=terms.evaluation,
    )


def _agree(ledger: Ledger, devices: DeviceStore, participation: RunParticipation) -> tuple[int, ...]:
    """Let participants agree to a run, and return the numbers of those who can take part: they accept its terms too.

    Where nothing leaves devices there is nothing to agree to, and the next run has the same number.
    Without a limit in the genesis, what a participant first agrees to spend is their limit for life.
    """
    by_id = {device.user_id: device for device in devices.devices()}
    users = participation.user_ids
    if participation.cohort is not None:
        users = [users[index] for index in participation.cohort]
    taking_part = _accepting(ledger, devices, [by_id[user] for user in users])

    terms, founding = participation.terms, ledger.state.founding
    if terms.mechanism:
        devices.record_agreement(
            participation.run,
            [device.slot for device in taking_part],
            cost=(terms.epsilon_nano, terms.rho_nano),
            limits=(founding.epsilon_nano_limit, founding.rho_nano_limit),
        )

    numbers = sorted(device.number for device in taking_part if device.number is not None)
    return tuple(number for number in numbers if ledger.state.principals[number].can_answer)


def _accepting(ledger: Ledger, devices: DeviceStore, asked: Sequence[Device]) -> list[Device]:
    """Return the devices that accept the terms in force: their owners did, or nothing is weaker than before.

    Whoever has accepted none yet joins under these.
    """
    accepted, current = devices.accepted_terms(), AcceptedTerms(ledger.state.terms_hash, ledger.state.terms)
    accepting = [
        device
        for device in asked
        if (before := accepted.get(device.slot)) is None
        or before.hash == current.hash
        or is_no_weaker(current.terms, before.terms)
    ]
    changed = [device.slot for device in accepting if accepted.get(device.slot) != current]
    devices.record_terms(changed, current)
    return accepting
