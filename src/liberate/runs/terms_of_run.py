"""The terms of a run's federation: what is in force, who has accepted it, and how owners decide.

Field names are the keys of `liberate terms show --json` and `liberate terms accept --json`, in the same order.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from liberate.errors import FederationError
from liberate.federation.entry_writer import EntryWriter
from liberate.federation.setup import change_terms
from liberate.federation.store.terms_tables import AcceptedTerms
from liberate.federation.terms import is_no_weaker
from liberate.ledger.format.parts import Terms
from liberate.runs.federation_access import open_run_federation
from liberate.runs.folder import Run
from liberate.runs.participants import Participant, device_of, find_participant
from liberate.runs.terms import proposed_terms
from liberate.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class TermsInForce:
    """What a federation's promises rest on, and who takes part under it.

    Attributes:
        terms: The numbers in force.
        entry: Position of the entry that put them in force.
        enrolled: Participants ever enrolled.
        accepted: How many people of this host take part under them: they have accepted them, or will by themselves.
        waiting: Numbers of those whose owners have to decide, increasing.
    """

    terms: Terms
    entry: int
    enrolled: int
    accepted: int
    waiting: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance(Participant):
    """Terms that a participant has accepted.

    Attributes:
        terms: Their numbers.
    """

    terms: Terms


def terms_in_force(run: Run) -> TermsInForce:
    """Return the terms in force, and whose owners have to decide on them."""
    with run.open() as reader:
        state, accepted = reader.ledger.state, reader.devices.accepted_terms()
        known = [device for device in reader.devices.devices() if device.number is not None and not device.is_erased]
        waiting = [
            device.enrolled_number
            for device in known
            if (before := accepted.get(device.slot)) is not None and not is_no_weaker(state.terms, before.terms)
        ]
        return TermsInForce(
            terms=state.terms,
            entry=max(reader.ledger.positions(kind="terms"), default=0),
            enrolled=state.participant_count,
            accepted=len(known) - len(waiting),
            waiting=tuple(sorted(waiting)),
        )


def accept_terms(run: Run, participant: str) -> Acceptance:
    """Let a participant accept the terms in force; they hold for the rounds of the next run.

    Raises:
        LiberateError: Nobody has that name.
    """
    with run.open() as reader:
        person = find_participant(reader.ledger, reader.devices, participant)
        state = reader.ledger.state
        slot = device_of(reader.devices, person.number).slot
        reader.devices.record_terms([slot], AcceptedTerms(state.terms_hash, state.terms))
        return Acceptance(**asdict(person), terms=state.terms)


def propose_terms(run: Run, settings: Settings) -> TermsInForce:
    """Put other terms in force, in the coordinator's name; devices accept them or take part no more.

    Args:
        run: A finished run of the federation.
        settings: Whose numbers take the place of those in force, where they are set.

    Raises:
        SettingsError: The numbers contradict each other.
        FederationError: A round is open, or the ledger refuses the terms.
    """
    with open_run_federation(run) as federation:
        state = federation.ledger.state
        if state.open_round is not None:
            raise FederationError("a round is open", hint="finish its run first: terms change between rounds")
        number = next(n for n, who in enumerate(state.principals) if who.role == "coordinator" and who.is_active)
        writer = EntryWriter(federation.ledger, federation.access.load_key("coordinator"), number)
        change_terms(writer, proposed_terms(settings, state.terms))
        federation.try_to_publish()
    return terms_in_force(run)
