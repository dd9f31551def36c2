"""A participant's request is queued on the device, and processed at once or by the training that owns the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from liberate.errors import FederationError, LedgerLocked
from liberate.federation.erasure import completed_erasure
from liberate.federation.session import FederationSession
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.requests import (
    DataSubjectRequest,
    ErasureRequest,
    ShareCopyRequest,
)
from liberate.ledger.format.number_sets import numbers_in
from liberate.ledger.format.sharing_records import Receipt, Share
from liberate.ledger.lookup import entries, entry_at
from liberate.runs.federation_access import open_run_federation
from liberate.runs.folder import Run, RunReader
from liberate.runs.participants import Participant, device_of, find_participant
from liberate.runs.pending_requests import request_processor

Wait = Callable[[], bool]
"""Called while another process owns the ledger: waits a little, and returns whether to look again."""


def now() -> bool:
    """Do not wait."""
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOutcome(Participant):
    """What became of a participant's request; the keys of `liberate consent --json`.

    Attributes:
        act: Kind of the entry that was asked for.
        entry: Position of the entry; None while the request is under way.
        under_way: Whether the request waits on the device for whoever owns the ledger.
        published: Whether enough witnesses have cosigned the checkpoint that covers the entry.
    """

    act: str
    entry: int | None
    under_way: bool
    published: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareOutcome(RequestOutcome):
    """What became of a copy; the keys of `liberate share --json`.

    Attributes:
        received: Whether the recipient has taken the copy.
    """

    received: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureOutcome(RequestOutcome):
    """What was done to erase a participant; the keys of `liberate erase --json`.

    Attributes:
        record: Position of the coordinator's record.
        destroyed: What was destroyed.
        notified: Recipients of copies, who were asked to destroy them.
        confirmed: Those of them who have confirmed that they did.
        silent: Those who have not.
        models: Versions of the models that the participant's data shaped.
        simulated: Whether keys and salts can be made again from a seed, so that nobody is erased but in play.
    """

    record: int
    destroyed: tuple[str, ...]
    notified: tuple[int, ...]
    confirmed: tuple[int, ...]
    silent: tuple[int, ...]
    models: tuple[int, ...]
    simulated: bool


@dataclass(frozen=True, slots=True)
class _Queued:
    """A request on a participant's device; without an id where the participant was erased before."""

    participant: Participant
    request: DataSubjectRequest
    id: int | None


def submit(run: Run, name: str, request: Callable[[RunReader], DataSubjectRequest], wait: Wait) -> RequestOutcome:
    """Queue a request, and process it as the owner of the ledger or wait until its owner has.

    Raises:
        LiberateError: Nobody has that name, or the ledger refuses.
    """
    try:
        with open_run_federation(run) as session:
            queued = _queue(RunReader(session.ledger, session.devices), name, request)
            with _dropping(run, queued):
                return _process(run, session, queued)
    except LedgerLocked:
        return _submit_beside_owner(run, name, request, wait)


def _submit_beside_owner(
    run: Run, name: str, request: Callable[[RunReader], DataSubjectRequest], wait: Wait
) -> RequestOutcome:
    with run.open() as reader:
        queued = _queue(reader, name, request)

    with _dropping(run, queued):
        return _wait_for_owner(run, queued, wait)


def _wait_for_owner(run: Run, queued: _Queued, wait: Wait) -> RequestOutcome:
    while True:
        # Opened anew: a reader sees the ledger as it was when it was opened.
        with run.open() as reader:
            outcome = _outcome(reader, queued, is_published=True)
        if not outcome.under_way:
            return outcome

        try:
            with open_run_federation(run) as session:
                return _process(run, session, queued)
        except LedgerLocked:
            if not wait():
                return outcome


@contextmanager
def _dropping(run: Run, queued: _Queued) -> Iterator[None]:
    """Take a request back if processing it fails before anything is signed: what failed is not carried out later."""
    try:
        yield
    except Exception:
        if queued.id is not None:
            with DeviceStore(run.devices_folder) as devices:
                devices.drop_request(queued.id)
        raise


def _queue(reader: RunReader, name: str, request_of: Callable[[RunReader], DataSubjectRequest]) -> _Queued:
    request = request_of(reader)
    participant = find_participant(reader.ledger, reader.devices, name)
    if isinstance(request, ErasureRequest) and completed_erasure(reader.ledger, participant.number):
        return _Queued(participant, request, None)
    device = device_of(reader.devices, participant.number)
    return _Queued(participant, request, reader.devices.put_request(device.slot, request))


def _process(run: Run, session: FederationSession, queued: _Queued) -> RequestOutcome:
    """Process all requests as the owner of the ledger, and return what became of one."""
    is_published = True
    if queued.id is not None:
        request_processor(session, run.dataset).process_pending()
        is_published = session.try_to_publish()
    return _outcome(RunReader(session.ledger, session.devices), queued, is_published=is_published)


def _outcome(reader: RunReader, queued: _Queued, *, is_published: bool) -> RequestOutcome:
    """Return what has become of a request.

    Raises:
        FederationError: It was refused.
    """
    request, number = queued.request, queued.participant.number
    position = None if queued.id is None else reader.devices.request_outcome(queued.id)
    if isinstance(position, str):
        raise FederationError(position)

    # Erasing a participant destroys the request as well, so only the ledger can tell.
    erasure = completed_erasure(reader.ledger, number) if isinstance(request, ErasureRequest) else None
    if erasure is not None:
        position = erasure.request

    outcome = RequestOutcome(
        number=number,
        key_id=queued.participant.key_id,
        user_id=queued.participant.user_id if erasure is None else None,
        act=str(request.__struct_config__.tag),
        entry=position,
        under_way=position is None,
        published=is_published and position is not None,
    )
    if erasure is not None:
        notified, confirmed = (tuple(numbers_in(ids)) for ids in (erasure.report.notified, erasure.report.confirmed))
        return ErasureOutcome(
            **asdict(outcome),
            record=erasure.record,
            destroyed=erasure.report.destroyed,
            notified=notified,
            confirmed=confirmed,
            silent=tuple(sorted(set(notified) - set(confirmed))),
            models=tuple(numbers_in(erasure.report.models)),
            simulated=reader.ledger.state.founding.simulated,
        )
    if isinstance(request, ShareCopyRequest):
        return ShareOutcome(**asdict(outcome), received=_is_received(reader, position, request.recipient))
    return outcome


def _is_received(reader: RunReader, position: int | None, recipient: int) -> bool:
    """Whether the recipient of a share has acknowledged the copy."""
    if position is None:
        return False
    share = entry_at(reader.ledger, position, Share).leaf_hash
    return any(receipt.record.share == share for receipt in entries(reader.ledger, Receipt, author=recipient))
