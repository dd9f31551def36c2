"""The participants' side of a round: each phase is checked, answered once, and answered the same when asked again.

A `Host` runs the devices of many participants in one process: an organisation that holds their ratings, or a
simulation. Nothing else leaves a device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from liberate.crypto.signing import SigningKey
from liberate.data.ratings import Ratings
from liberate.errors import FederationError
from liberate.federation.participant.answers import RoundAnswers
from liberate.federation.participant.checks import RoundChecker, RoundTask, check_terms, read_masked_round
from liberate.federation.participant.masking import MaskingClient
from liberate.federation.participant.own_history import OwnHistories
from liberate.federation.participant.received_copies import ReceivedCopies
from liberate.federation.participant.refusals import Refused, refused_as, require
from liberate.federation.store.device_rows import EMPTY_RATINGS, Device, OutboxMessage
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.sharing_rows import ReceivedCopy
from liberate.federation.terms import ParticipationPolicy
from liberate.federation.wire.own_history import HistoryRequest
from liberate.federation.wire.round_messages import (
    MessageT,
    RoundInputs,
    RoundRefusal,
    RoundRequest,
    decode_message,
    encode_message,
)
from liberate.federation.wire.secagg_messages import MaskRequest, ShareKeysRequest, UnmaskRequest
from liberate.federation.wire.transport import Reply, Request
from liberate.randomness import Randomness
from liberate.timing import measure

StepT = TypeVar("StepT")


class Host:
    """Answers rounds for the devices of one host.

    Args:
        store: The devices.
        policy: What their participants agreed to.
        n_items: Size of the catalogue.
        randomness: Source of noise keys and salts.
    """

    def __init__(
        self,
        store: DeviceStore,
        policy: ParticipationPolicy,
        n_items: int,
        randomness: Randomness,
    ) -> None:
        self._store = store
        self._policy = policy
        self._randomness = randomness
        self._n_items = n_items
        self.reload()

    def reload(self) -> None:
        """Read the devices again, after their participants have acted."""
        store = self._store
        devices = store.devices()
        stored = [None if device.is_erased else store.data_of(device.slot) for device in devices]
        keys = {slot: SigningKey.from_seed(data.device_seed) for slot, data in enumerate(stored) if data}
        ratings = [data.ratings if data else EMPTY_RATINGS for data in stored]
        held_out = [data.held_out if data else EMPTY_RATINGS for data in stored]

        self._devices = {d.number: d for d in devices if d.number is not None and not d.is_erased}
        self._checker = RoundChecker(store, self._policy, self._n_items, is_simulated=self._randomness.is_simulated)
        self._masking = MaskingClient(store=store, keys=keys, policy=self._policy, randomness=self._randomness)
        self._histories = OwnHistories(store, self._checker, keys, self._policy.origin)
        self._copies = ReceivedCopies(store.sharing_rows(ReceivedCopy))
        self._answers = RoundAnswers(
            store=store,
            keys=keys,
            ratings=Ratings.from_user_bytes(ratings, self._n_items),
            held_out=Ratings.from_user_bytes(held_out, self._n_items),
            copies=self._copies,
            masking=self._masking,
            randomness=self._randomness,
        )

    @property
    def numbers(self) -> list[int]:
        """Ledger numbers of the enrolled devices that were not erased, in the order of their slots."""
        return list(self._devices)

    def answer(self, requests: Sequence[Request]) -> list[Reply]:
        """Answer requests to take part in a round.

        A device answers each phase of a round at most once; a repeated request gets the same bytes again, or one answer
        to all of them.
        """
        replies: list[Reply] = []
        by_message: dict[tuple[str, bytes], list[int]] = {}
        histories: list[tuple[int, bytes]] = []
        for request in dict.fromkeys(requests):
            if request.recipient in self._devices and request.phase == "history":
                histories.append((request.recipient, request.body))
            elif request.recipient in self._devices:
                by_message.setdefault((request.phase, request.body), []).append(request.recipient)
            else:
                refusal = Refused("unknown", "no device here has this number")
                replies.append(self._refuse(request.recipient, refusal))

        if histories:
            replies += self._prove_histories(histories)

        # Requests for masked uploads differ by recipient; the uploads are nevertheless computed together.
        uploads: dict[bytes, set[int]] = {}
        for (phase, body), numbers in by_message.items():
            try:
                if phase in ("update", "mask"):
                    round_request = body if phase == "update" else self._receive_shares(body, numbers)
                    uploads.setdefault(round_request, set()).update(numbers)
                else:
                    replies += self._answer_phase(phase, body, numbers)
            except Refused as refusal:
                replies += [self._refuse(number, refusal) for number in numbers]

        for round_request, uploading in uploads.items():
            replies += self._upload(round_request, sorted(uploading))
        return replies

    def _answer_phase(self, phase: str, body: bytes, numbers: Sequence[int]) -> list[Reply]:
        match phase:
            case "inputs":
                inputs = _read(RoundInputs, body)
                for number in numbers:
                    self._copies.allow(inputs.round, self._devices[number].slot, inputs.shares)
                return []

            case "advertise":
                with measure("agree"):
                    return self._advertise(_read(RoundRequest, body), numbers)
            case "share":
                with measure("agree"):
                    return self._share(_read(ShareKeysRequest, body), numbers)
            case "unmask":
                return self._unmask(_read(UnmaskRequest, body), numbers)
            case _:
                raise Refused("phase", f"a round has no phase {phase}")

    def _prove_histories(self, bodies: Sequence[tuple[int, bytes]]) -> list[Reply]:
        """Let devices replay their own histories, all of them together: each is shown another one."""
        with measure("history"):
            shown, replies = [], []
            for number, body in bodies:
                try:
                    shown.append((self._devices[number], _read(HistoryRequest, body)))
                except Refused as refusal:
                    replies.append(self._refuse(number, refusal))

            answers = self._histories.prove(shown)
            return replies + [
                self._refuse(device.enrolled_number, answer)
                if isinstance(answer, Refused)
                else Reply(device.enrolled_number, encode_message(answer))
                for (device, _), answer in zip(shown, answers, strict=True)
            ]

    # --- the phases of a masked round beside the upload ---------------------------------------------------------------

    def _advertise(self, request: RoundRequest, numbers: Sequence[int]) -> list[Reply]:
        accepted = self._checker.check_round(request)
        current = read_masked_round(request.entry)

        def able(device: Device) -> Device:
            check_terms(device, accepted.record)
            self._histories.require_proved(device, accepted.record, request.position)
            is_invited = device.enrolled_number in current.participants
            require(is_invited, "record", f"participant {device.enrolled_number} is not of the cohort")
            return device

        devices, replies = self._for_each(numbers, able)
        keys = self._masking.advertise(current, devices, request.checkpoint)
        self._checker.accepted = accepted.checkpoint
        return replies + [
            Reply(device.enrolled_number, encode_message(advertised))
            for device, advertised in zip(devices, keys, strict=True)
        ]

    def _share(self, request: ShareKeysRequest, numbers: Sequence[int]) -> list[Reply]:
        checkpoint = self._checker.accepted
        if checkpoint is None:
            raise Refused("phase", "no checkpoint was accepted")
        current = read_masked_round(request.entry)
        return [
            Reply(number, encode_message(self._masking.share(self._devices[number], current, request, checkpoint)))
            for number in numbers
        ]

    def _receive_shares(self, body: bytes, numbers: Sequence[int]) -> bytes:
        """Take the shares that come with a request for a masked upload, and return the round request in it."""
        with measure("agree"):
            request = _read(MaskRequest, body)
            current = read_masked_round(_read(RoundRequest, request.round).entry)
            for number in numbers:
                self._masking.receive(self._devices[number], current, request)
            return request.round

    def _unmask(self, request: UnmaskRequest, numbers: Sequence[int]) -> list[Reply]:
        checkpoint = self._checker.check_checkpoint(request)
        devices = [self._devices[number] for number in numbers]
        answers = self._masking.unmask(devices, read_masked_round(request.round), request, checkpoint)
        self._checker.accepted = checkpoint
        return [
            self._refuse(number, answer) if isinstance(answer, Refused) else Reply(number, encode_message(answer))
            for number, answer in zip(numbers, answers, strict=True)
        ]

    # --- the upload ---------------------------------------------------------------------------------------------------

    def _upload(self, body: bytes, numbers: Sequence[int]) -> list[Reply]:
        try:
            request = _read(RoundRequest, body)
            task = self._checker.check_model(self._checker.check_round(request), request)
        except Refused as refusal:
            return [self._refuse(number, refusal) for number in numbers]

        devices, replies = self._for_each(
            numbers, lambda device: (device, self._check_upload(device, task, request.position))
        )
        fresh = [device for device, stored in devices if stored is None]
        if fresh:
            answers = self._answers.answer_first_time(task, fresh)
            # Only now: the store is the truth, and what is kept in memory follows it.
            self._checker.accepted = task.accepted.checkpoint
            self._devices |= {answer.device.enrolled_number: answer.device for answer in answers}
            replies += [answer.reply for answer in answers]

        repeated = [(device, stored) for device, stored in devices if stored is not None]
        if repeated:
            replies += self._answers.answer_again(task, repeated)
        return replies

    def _check_upload(self, device: Device, task: RoundTask, position: int) -> OutboxMessage | None:
        """Check that a device may upload; return its answer if it is stored already."""
        check_terms(device, task.record)
        self._histories.require_proved(device, task.record, position)
        if task.masked is not None:
            self._masking.require_ready(device, task.masked)
        if device.last_round < task.record.number:
            return None

        stored = self._store.outbox_message(device.slot, task.record.number)
        if stored is None:
            raise Refused("answered", f"round {task.record.number} was answered before")
        return stored

    def _for_each(self, numbers: Sequence[int], step: Callable[[Device], StepT]) -> tuple[list[StepT], list[Reply]]:
        """Take a step for each device; return the results, and the refusals of the devices that do not take it."""
        results, refusals = [], []
        for number in numbers:
            try:
                results.append(step(self._devices[number]))
            except Refused as refusal:
                refusals.append(self._refuse(number, refusal))
        return results, refusals

    def _refuse(self, number: int, refusal: Refused) -> Reply:
        message = RoundRefusal(reason=refusal.reason, detail=refusal.detail, known_size=self._checker.known_size)
        return Reply(number, encode_message(message))


def _read(kind: type[MessageT], body: bytes) -> MessageT:
    with refused_as("unreadable", FederationError):
        return decode_message(body, kind)
