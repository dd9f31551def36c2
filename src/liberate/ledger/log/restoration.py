"""The state after the last block, restored from the tables without a replay."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import islice, takewhile

from liberate.crypto.merkle import leaf_hash
from liberate.errors import LedgerError
from liberate.ledger.format.entries import Entry, RecordT, decode_entry, decode_record, kind_name, record_of
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.parts import KeyName
from liberate.ledger.format.records import (
    ZERO,
    Aborted,
    Block,
    Enrol,
    Genesis,
    KeyRecord,
    ModelRecord,
    Round,
    RoundSet,
    TermsRecord,
    Update,
)
from liberate.ledger.format.sharing_records import Consent, PoolRecord, Receipt, Share, Withdrawal
from liberate.ledger.log import tables
from liberate.ledger.lookup import RecordedEntry
from liberate.ledger.rules.principal import Principal
from liberate.ledger.rules.round_sets import RoundSets
from liberate.ledger.rules.round_state import ModelReference, OpenRound, RunState
from liberate.ledger.rules.sharing_state import SharingState
from liberate.ledger.rules.state import State


def restore(connection: sqlite3.Connection) -> State:
    """Return the state after the last block.

    Raises:
        LedgerError: A row that is needed for it cannot be read.
    """
    (layout,) = connection.execute("PRAGMA user_version").fetchone()
    if layout != tables.LAYOUT_VERSION:
        raise LedgerError(f"the ledger's file has layout {layout}, wanted {tables.LAYOUT_VERSION}")

    (size,) = connection.execute("SELECT coalesce(max(position) + 1, 0) FROM entry").fetchone()
    founding = tables.read_entry(connection, 0)
    genesis = decode_record(founding, Genesis)
    last = tables.read_entry(connection, size - 1)
    block = decode_record(last, Block)

    state = State(
        genesis=genesis,
        size=size,
        height=block.seq,
        block_hash=leaf_hash(last),
        block_size=size,
        time_us=block.time_us,
    )
    for (leaf,) in connection.execute("SELECT leaf FROM principal ORDER BY number"):
        state.enrol(Principal.decode(leaf))
    state.change_terms(genesis.terms, leaf_hash(founding))
    for changed in islice(_newest(connection, TermsRecord), 1):
        state.change_terms(changed.record.terms, changed.leaf_hash)
    _restore_keys(connection, state)
    _restore_sharing(connection, state)
    _restore_rounds(connection, state)
    return state


def _restore_keys(connection: sqlite3.Connection, state: State) -> None:
    """Restore the keys that principals had before their present ones."""
    latest: dict[tuple[int, KeyName], bytes] = {}
    for position, data in connection.execute("SELECT position, entry FROM entry WHERE kind = 'key' ORDER BY position"):
        change = decode_record(data, KeyRecord)
        if change.key is not None:
            former = latest.get((change.number, change.which)) or _first_key(connection, change.number, change.which)
            state.note_former_key(change.number, change.which, former, position)
            latest[change.number, change.which] = change.key.public


def _first_key(connection: sqlite3.Connection, number: int, which: KeyName) -> bytes:
    statement = "SELECT min(position) FROM about WHERE principal = ?"
    (position,) = connection.execute(statement, (number,)).fetchone()
    match decode_entry(tables.read_entry(connection, position)).record:
        case Enrol(device_key=key) if which == "device" and key is not None:
            return key
        case Enrol(key=key) if which == "person":
            return key
        case Genesis(registrars=keys) if number < len(keys):
            return keys[number]
        case _:
            raise LedgerError(f"no entry enrols principal {number}")


def _restore_sharing(connection: sqlite3.Connection, state: State) -> None:
    """Restore the consents that were not withdrawn, and the shares under them."""
    if all(principal.consents == ZERO for principal in state.principals):
        return
    kinds = "SELECT entry FROM entry WHERE kind IN ('consent', 'withdrawal', 'share', 'receipt') ORDER BY position"
    for (data,) in connection.execute(kinds):
        try:
            _apply_sharing(state.sharing, decode_entry(data))
        except KeyError as error:
            raise LedgerError("a share or its end does not follow from the consents before") from error


def _apply_sharing(sharing: SharingState, entry: Entry) -> None:
    match entry.record:
        case Consent() as consent:
            sharing.grant(consent, entry.leaf_hash)
        case Withdrawal(author=sender, consent=ended):
            sharing.withdraw(sender, ended)
        case Share() as share:
            sharing.hand_over(share, entry.leaf_hash)
        case Receipt(share=received):
            sharing.acknowledge(received)
        case _:
            pass


def _restore_rounds(connection: sqlite3.Connection, state: State) -> None:
    """Restore the run, the model that it has reached, and the open round if there is one."""
    rounds = _newest(connection, Round)
    opening = next(rounds, None)
    if opening is None:
        return

    record = opening.record
    earlier = takewhile(lambda entry: entry.record.run == record.run, rounds)
    state.run = RunState(record.run, record.rounds, opened=1 + sum(1 for _ in earlier))
    state.round_number = record.number
    state.model = ModelReference(record.base_version, record.base_digest)

    model = next(_newest(connection, ModelRecord), None)
    aborted = next(_newest(connection, Aborted), None)
    if model is not None and model.position > opening.position:
        state.model = ModelReference(model.record.version, model.record.digest)
    elif aborted is None or aborted.position < opening.position:
        state.open_round = _restore_open_round(connection, opening, state)


def _restore_open_round(connection: sqlite3.Connection, opening: RecordedEntry[Round], state: State) -> OpenRound:
    earlier = "SELECT count(*) FROM entry WHERE kind = 'enrol' AND position < ?"
    (enrolled,) = connection.execute(earlier, (opening.position,)).fetchone()
    founders = len(state.founding.registrars) + 1
    sets = RoundSets.of(opening.record, state.terms)
    current = OpenRound(opening.record, opening.leaf_hash, opening.position, founders + enrolled, sets)

    for position, data in connection.execute(
        "SELECT position, entry FROM entry WHERE position > ? AND kind IN ('update', 'round_set', 'pool')"
        " ORDER BY position",
        (opening.position,),
    ):
        entry = decode_entry(data)
        match entry.record:
            case Update() as update:
                current.accept(update.answers_for(), entry.leaf_hash, position)
            case RoundSet() as part:
                current.sets.add(part)
            case PoolRecord() as pool:
                current.pool.update(numbers_in(pool.participants))
            case _:
                pass
    return current


def _newest(connection: sqlite3.Connection, kind: type[RecordT]) -> Iterator[RecordedEntry[RecordT]]:
    """Yield the entries of a kind, the newest first."""
    newest = "SELECT position, entry FROM entry WHERE kind = ? ORDER BY position DESC"
    for position, data in connection.execute(newest, (kind_name(kind),)):
        entry = decode_entry(data)
        yield RecordedEntry(position=position, entry=entry, record=record_of(entry, kind))
