"""Where data went and where models came from, told from the ledger alone and proved step by step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from liberate.crypto.note import verify_checkpoint
from liberate.federation.store.devices import DeviceStore
from liberate.identifiers import Digest
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.records import Update
from liberate.ledger.format.sharing_records import Erasure, Share
from liberate.ledger.interface import Ledger
from liberate.ledger.lookup import entries, entry_at
from liberate.ledger.queries.usable_copies import pooled_copies
from liberate.ledger.rules.principal import Principal
from liberate.ledger.trace.completeness import verify_completeness
from liberate.ledger.trace.copies import TracedCopy
from liberate.ledger.trace.model_ancestry import ModelAncestor, model_ancestry
from liberate.ledger.trace.participant import CopyUse, ParticipantTrace, RunSpend, trace_participant, trace_received
from liberate.ledger.trace.prover import ProvedEntry
from liberate.runs.folder import Run
from liberate.runs.participants import find_participant
from liberate.timing import Progress, silent
from liberate.tracing.answer_json import (
    Json,
    completeness,
    contribution,
    copy,
    entry,
    grant,
    model,
    models_shaped_by,
    party,
    position_or_none,
    to_base64,
    use,
)
from liberate.units import from_nano


def trace_person(run: Run, participant: str) -> Json:
    """Trace a participant's data: own entries, copies, who used them, the models they shaped, what was built on these.

    Every inclusion, signature and membership is checked before anything is returned, under a checkpoint signed with
    the key that `run.toml` keeps.

    Args:
        run: A run.
        participant: Number, key id, or user:ID.

    Returns:
        The keys of `liberate trace --participant --json`: the person; `checkpoint`; `entries`, all that name the
        person, which is `complete` because the proof in `completeness` was checked; `updates`, the own ones, each with
        the round, its block and what became of it; `consents`; `shares`, copies handed over; `recipients`, who got
        them; `uses` of them by others; `received`, copies of others; `models` that used an answer or a copy, and
        `descendants`, built on one of these without; `epsilon` and `rho` spent, and `spent` by run; `bases`, the base
        copies with their ε per rating; `withdrawal`, `used_after_withdrawal`, `erasures` and `disclosures`; `proofs`,
        how many were checked.

    Raises:
        LiberateError: Nobody has that name.
        LedgerError: The ledger cannot prove what it says.
    """
    with _opened(run) as (ledger, devices):
        person = find_participant(ledger, devices, participant)
        found = trace_participant(ledger, person.number)
        recipients = _recipients(found.copies, found.uses, ledger.state.principals, devices)
    models, descendants = models_shaped_by(found.contributions, found.uses)
    return {
        "number": person.number,
        "key_id": person.key_id,
        "user_id": person.user_id,
        "entries": [entry(each) for each in found.history],
        "updates": [contribution(each) for each in found.contributions],
        "consents": [grant(each) for each in found.consents],
        "shares": [copy(each) for each in found.copies],
        "recipients": recipients,
        "uses": [use(each) for each in found.uses],
        "received": [copy(each) for each in found.received],
        "models": models,
        "descendants": descendants,
        "epsilon": from_nano(found.principal.epsilon_nano),
        "rho": from_nano(found.principal.rho_nano),
        "spent": _by_run(found.spent),
        "bases": [{"base": to_base64(base), "epsilon": from_nano(nano)} for base, nano in found.bases.items()],
        "withdrawal": position_or_none(found.withdrawal),
        "used_after_withdrawal": [contribution(each) for each in found.used_after_withdrawal()],
        "erasures": [_erasure(each) for each in found.erasures],
        "disclosures": [each.position for each in found.disclosures],
    } | _proved(run, found)


def trace_share(run: Run, position: int) -> Json:
    """Trace one copy: who gave it to whom under which consent, who used it, and the models that it shaped.

    It is told from the sender's history, whose completeness is proved: there is no other use.

    Args:
        run: A run.
        position: Position of the share's entry.

    Returns:
        The keys of `liberate trace --share --json`: the `sender`; as of a person `shares` with this one, `recipients`,
        `consents` with the one that covers it, `uses`, `models`, `descendants` and all that is about proofs;
        `receipt`; `updates`, those of the uses that are updates; `same_base`, the sender's other copies of it.

    Raises:
        LiberateError: There is no such share.
        LedgerError: The ledger cannot prove what it says.
    """
    with _opened(run) as (ledger, devices):
        sender = entry_at(ledger, position, Share).record.author
        found = trace_participant(ledger, sender)
        wanted = next(each for each in found.copies if each.share.position == position)
        uses = [each for each in found.uses if wanted in each.copies]
        principals = ledger.state.principals
        recipients = _recipients([wanted], uses, principals, devices)
        owner = party(sender, principals, devices)
    models, descendants = models_shaped_by((), uses)
    own = copy(wanted)
    others = (copy(each) for each in found.copies if each is not wanted)
    return {
        "sender": owner,
        "shares": [own],
        "recipients": recipients,
        "consents": [grant(wanted.consent)],
        "receipt": entry(wanted.receipt) if wanted.receipt else None,
        "uses": [use(each) for each in uses],
        "updates": [use(each) for each in uses if isinstance(each.contribution.update.record, Update)],
        "models": models,
        "descendants": descendants,
        "same_base": [each for each in others if each["base"] == own["base"]],
    } | _proved(run, found)


def trace_recipient(run: Run, name: str) -> Json:
    """Say what somebody received, from whom, under which consents; for the pool, this is a coordinator.

    Args:
        run: A run.
        name: Number of a participant or coordinator, a participant's key id, or user:ID.

    Returns:
        The keys of `liberate trace --recipient --json`: the recipient; `shares`; `senders`, each with the positions of
        the own shares; `consents`; and all that is about proofs, as of a person.

    Raises:
        LiberateError: Nobody has that name, or nothing can be received under it.
        LedgerError: The ledger cannot prove what it says.
    """
    with _opened(run) as (ledger, devices):
        principals = ledger.state.principals
        is_number = name.isdecimal() and int(name) < len(principals)
        is_coordinator = is_number and principals[int(name)].role == "coordinator"
        found = trace_received(ledger, int(name) if is_coordinator else find_participant(ledger, devices, name).number)
        recipient = party(found.number, principals, devices)
        senders = [
            party(sender, principals, devices) | {"shares": [each.share.position for each in own]}
            for sender, own in _grouped(found.copies)
        ]
    checkpoint = verify_checkpoint(found.checkpoint, run.verifier_key)
    verify_completeness(found.completeness, run.verifier_key)
    grants = {each.consent.entry.position: each.consent for each in found.copies}
    proved = {
        entry.position
        for each in found.copies
        for entry in (each.share, each.receipt, each.consent.entry, each.consent.withdrawal)
        if entry is not None
    }
    return recipient | {
        "shares": [copy(each) for each in found.copies],
        "senders": senders,
        "consents": [grant(each) for _, each in sorted(grants.items())],
        "complete": True,
        "completeness": completeness(found.completeness),
        "proofs": len(proved) + 1,
        "entry_count": checkpoint.size,
        "root": to_base64(checkpoint.root),
        "checkpoint": found.checkpoint,
    }


def trace_model(run: Run, version: int, progress: Progress = silent) -> Json:
    """Say who shaped a model: whose answers and copies it used, and those of the models it was made of, to the first.

    Args:
        run: A run.
        version: The model's version.
        progress: Told each model that was checked.

    Returns:
        The keys of `liberate trace --model --json`: `version`; `models`, this one first, each with its round, the
        positions of the updates it used, whose they are, the senders whose copies they used, and whose shares were
        pooled; over all of them `participants`, each with the versions that used `answers`, `copies` and `pooled`
        shares;
        `updates`, positions; `shares`, those that they used or that pools mean, likewise; `recipients` of these;
        `proofs`.

    Raises:
        LedgerError: There is no such model, or the ledger cannot prove what it says.
    """
    with _opened(run) as (ledger, devices):
        steps = []
        for step in model_ancestry(ledger, version):
            steps.append(step)
            progress(f"checked the {len(step.updates):,} answers behind the model of entry {step.model.position}")
        used = {each.share for step in steps for update in step.updates for each in update.record.shares}
        for step in steps:
            if step.pools:
                used |= {share for _, share in pooled_copies(ledger, step.round.position, step.model.position)}
        shares = _positions_of(ledger, used)
        recipients = {entry_at(ledger, at, Share).record.recipient for at in shares}
        named = [party(number, ledger.state.principals, devices) for number in sorted(recipients)]
    checkpoint = verify_checkpoint(steps[0].checkpoint, run.verifier_key)
    return {
        "version": version,
        "models": [_step(step) for step in steps],
        "participants": _participants(steps),
        "updates": sorted(update.position for step in steps for update in step.updates),
        "shares": shares,
        "recipients": named,
        "proofs": sum(3 + len(step.pools) for step in steps),
        "entry_count": checkpoint.size,
        "root": to_base64(checkpoint.root),
        "checkpoint": steps[0].checkpoint,
    }


@contextmanager
def _opened(run: Run) -> Iterator[tuple[Ledger, DeviceStore]]:
    with run.open() as reader:
        yield reader.ledger, reader.devices


def _proved(run: Run, found: ParticipantTrace) -> Json:
    """Check a history once more with the run's own key, and give what proves it."""
    checkpoint = verify_checkpoint(found.checkpoint, run.verifier_key)
    verify_completeness(found.completeness, run.verifier_key)
    return {
        "complete": True,
        "completeness": completeness(found.completeness),
        "proofs": found.proof_count,
        "entry_count": checkpoint.size,
        "root": to_base64(checkpoint.root),
        "checkpoint": found.checkpoint,
    }


def _grouped(copies: Sequence[TracedCopy]) -> list[tuple[int, list[TracedCopy]]]:
    senders = sorted({each.sender for each in copies})
    return [(sender, [each for each in copies if each.sender == sender]) for sender in senders]


def _recipients(
    copies: Sequence[TracedCopy], uses: Sequence[CopyUse], principals: Sequence[Principal], devices: DeviceStore
) -> list[Json]:
    """Name who got copies: which, how many they accepted, and the models that their use of them shaped."""
    found = []
    for number in sorted({each.recipient for each in copies}):
        own = [each for each in copies if each.recipient == number]
        models = models_shaped_by((), [each for each in uses if each.recipient == number])[0]
        found.append(
            party(number, principals, devices)
            | {
                "shares": [each.share.position for each in own],
                "accepted": sum(each.receipt is not None for each in own),
                "models": [each["version"] for each in models],
            }
        )
    return found


def _by_run(spent: Iterable[RunSpend]) -> list[Json]:
    runs: dict[int, Json] = {}
    for each in spent:
        runs.setdefault(each.run, {"run": each.run, "epsilon": 0.0, "rho": 0.0})[each.account] = from_nano(each.nano)
    return list(runs.values())


def _erasure(proved: ProvedEntry[Erasure]) -> Json:
    """Write a request to be forgotten, or what was done: destroyed, whom was told, who answered, which models."""
    removal = proved.record.report
    return entry(proved) | {
        "destroyed": list(removal.destroyed) if removal else None,
        "notified": list(numbers_in(removal.notified)) if removal else None,
        "confirmed": list(numbers_in(removal.confirmed)) if removal else None,
        "models": list(numbers_in(removal.models)) if removal else None,
    }


def _step(step: ModelAncestor) -> Json:
    opening = step.round.record
    return model(step.model) | {
        "round": opening.number,
        "run": opening.run,
        "statistic": opening.statistic,
        "updates": [update.position for update in step.updates],
        "participants": sorted(step.participants),
        "senders": [{"number": sender, "updates": list(at)} for sender, at in sorted(step.senders.items())],
        "pools": [pool.position for pool in step.pools],
        "pooled": sorted(step.pooled),
    }


def _participants(steps: Sequence[ModelAncestor]) -> list[Json]:
    """Say of everybody by which models answers, copies and pooled shares were used."""
    found: dict[int, Json] = {}
    for step in reversed(steps):
        version = model(step.model)["version"]
        for name, participants in (("answers", step.participants), ("copies", step.senders), ("pooled", step.pooled)):
            for number in participants:
                person = found.setdefault(number, {"number": number, "answers": [], "copies": [], "pooled": []})
                person[name].append(version)
    return [person for _, person in sorted(found.items())]


def _positions_of(ledger: Ledger, wanted: Collection[Digest]) -> list[int]:
    """Give the positions of shares by the leaf hashes of their entries, increasing."""
    if not wanted:
        return []
    return [share.position for share in entries(ledger, Share) if share.leaf_hash in wanted]
