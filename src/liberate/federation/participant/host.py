"""The participants' side of a round: each phase is checked, answered once, and answered the same when asked again.

A `Host` runs the devices of many participants in one process: an organisation that holds their ratings, or a
simulation. Nothing else leaves a device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from liberate.crypto.signing import SigningKey
from liberate.data.ratings import Ratings
from liberate.federation.participant.answers import RoundAnswers
from liberate.federation.participant.checks import RoundChecker, RoundTask, check_terms
from liberate.federation.participant.masked_phases import MaskedPhases
from liberate.federation.participant.masking import MaskingClient
from liberate.federation.participant.own_history import OwnHistories
from liberate.federation.participant.received_copies import ReceivedCopies
from liberate.federation.participant.refusals import Refused, read_message
from liberate.federation.store.device_rows import EMPTY_RATINGS, Device, OutboxMessage
from liberate.federation.store.devices import DeviceStore
from liberate.federation.store.sharing_rows import ReceivedCopy
from liberate.federation.terms import ParticipationPolicy
from liberate.federation.wire.own_history import HistoryRequest
from liberate.federation.wire.round_messages import RoundInputs, RoundRefusal, RoundRequest, encode_message
from liberate.federation.wire.secagg_messages import MaskRequest, RoundHistory, ShareKeysRequest
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
        self._phases = MaskedPhases(
            checker=self._checker, masking=self._masking, histories=self._histories, policy=self._policy
        )
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

        uploads: dict[bytes, set[int]] = {}
        masked: list[tuple[bytes, int]] = []
        for (phase, body), numbers in by_message.items():
            try:
                if phase == "update":
                    uploads.setdefault(body, set()).update(numbers)
                elif phase == "mask":
                    masked += ((body, number) for number in numbers)
                else:
                    replies += self._answer_phase(phase, body, numbers)
            except Refused as refusal:
                replies += [self._refuse(number, refusal) for number in numbers]

        # Requests for masked uploads differ by recipient; the uploads are nevertheless computed together.
        if masked:
            replies += self._receive_shares(masked, uploads)
        for round_request, uploading in uploads.items():
            replies += self._upload(round_request, sorted(uploading))
        return replies

    def _answer_phase(self, phase: str, body: bytes, numbers: Sequence[int]) -> list[Reply]:
        devices = [self._devices[number] for number in numbers]
        match phase:
            case "inputs":
                inputs = read_message(RoundInputs, body)
                for device in devices:
                    self._copies.allow(inputs.round, device.slot, inputs.shares)
                return []
            case "close":
                self._phases.close(read_message(RoundHistory, body))
                return []

            case "advertise":
                with measure("agree"):
                    return self._replies(numbers, self._phases.advertise(read_message(RoundRequest, body), devices))
            case "choose":
                with measure("agree"):
                    return self._replies(numbers, self._phases.choose(read_message(RoundHistory, body), devices))
            case "share":
                with measure("agree"):
                    return self._replies(numbers, self._phases.share(read_message(ShareKeysRequest, body), devices))
            case "unmask":
                return self._replies(numbers, self._phases.unmask(read_message(RoundHistory, body), devices))
            case _:
                raise Refused("phase", f"a round has no phase {phase}")

    def _prove_histories(self, bodies: Sequence[tuple[int, bytes]]) -> list[Reply]:
        """Let devices replay their own histories, all of them together: each is shown another one."""
        with measure("history"):
            shown, replies = [], []
            for number, body in bodies:
                try:
                    shown.append((self._devices[number], read_message(HistoryRequest, body)))
                except Refused as refusal:
                    replies.append(self._refuse(number, refusal))

            answers = self._histories.prove(shown)
            return replies + self._replies([device.enrolled_number for device, _ in shown], answers)

    def _replies(self, numbers: Sequence[int], answers: Sequence[msgspec.Struct | Refused]) -> list[Reply]:
        return [
            self._refuse(number, answer) if isinstance(answer, Refused) else Reply(number, encode_message(answer))
            for number, answer in zip(numbers, answers, strict=True)
        ]

    def _receive_shares(self, bodies: Sequence[tuple[bytes, int]], uploads: dict[bytes, set[int]]) -> list[Reply]:
        """Take the shares that come with requests for masked uploads, and note who is to answer which round request."""
        replies: list[Reply] = []
        requests: list[tuple[MaskRequest, Device]] = []
        for body, number in bodies:
            try:
                requests.append((read_message(MaskRequest, body), self._devices[number]))
            except Refused as refusal:
                replies.append(self._refuse(number, refusal))

        with measure("agree"):
            refusals = self._phases.receive(requests)
        for request, device in requests:
            refused = refusals.get(device.slot)
            if refused is not None:
                replies.append(self._refuse(device.enrolled_number, refused))
            else:
                uploads.setdefault(request.round, set()).add(device.enrolled_number)
        return replies

    # --- the upload ---------------------------------------------------------------------------------------------------

    def _upload(self, body: bytes, numbers: Sequence[int]) -> list[Reply]:
        try:
            request = read_message(RoundRequest, body)
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
